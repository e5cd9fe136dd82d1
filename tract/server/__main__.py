"""``python -m tract.server``."""

from tract.server.command import main

main()
