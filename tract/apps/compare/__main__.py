"""``python -m tract.apps.compare``."""

from tract.common import import_order

import_order.script_folder_last()

from tract.apps.compare.command import main  # noqa: E402

main()
