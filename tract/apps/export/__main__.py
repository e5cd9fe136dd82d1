"""``python -m tract.apps.export``."""

from tract.common import import_order

import_order.script_folder_last()

from tract.apps.export.command import main  # noqa: E402

main()
