"""``python -m tract.compare``."""

from tract import import_order

import_order.script_folder_last()

from tract.compare.command import main  # noqa: E402

main()
