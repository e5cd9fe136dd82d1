"""``python -m tract.export``."""

from tract.export.command import main

main()
