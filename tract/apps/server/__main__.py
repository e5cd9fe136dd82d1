"""``python -m tract.apps.server``."""

from tract.common import import_order

import_order.script_folder_last()

from tract.apps.server.command import main  # noqa: E402

main()
