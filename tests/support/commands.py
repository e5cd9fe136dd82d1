"""A subcommand of ``tract`` in this process, without what the command itself does before it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType

from tract.pipeline.entry import guarded


def main_of(module: ModuleType) -> Callable[[Sequence[str]], None]:
    """Runs a module with ``add_arguments`` and ``run`` on a command line; an error of the user's ends as one line and exit status 2."""

    def main(arguments: Sequence[str]) -> None:
        parser = argparse.ArgumentParser("tract", formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(parser)
        guarded(module.run)(parser.parse_args(arguments))

    return main
