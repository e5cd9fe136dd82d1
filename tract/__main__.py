"""``python -m tract``: what the command ``tract`` does, also where it is not installed."""

from tract.common import import_order

import_order.script_folder_last()

from tract.apps.cli.main import main  # noqa: E402

main()
