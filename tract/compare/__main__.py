"""``python -m tract.compare``."""

from tract.compare.command import main

main()
