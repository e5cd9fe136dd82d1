"""``python -m tract.server``."""

from tract import import_order

import_order.script_folder_last()

from tract.server.command import main  # noqa: E402

main()
