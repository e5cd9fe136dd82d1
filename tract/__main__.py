"""``python -m tract``: what the command ``tract`` does, also where it is not installed."""

from tract.cli.main import main

main()
