"""``python -m tract.export``."""

from tract import import_order

import_order.script_folder_last()

from tract.export.command import main  # noqa: E402

main()
