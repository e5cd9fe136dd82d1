"""The command ``tract``: finds the subcommand and loads it alone; help and mistakes load nothing heavy."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tract import __version__
from tract.common.command_line import SUBCOMMANDS
from tract.common.errors import ConfigError
from tract.common.masking import MaskedFormatter
from tract.common.near_names import near_names

# Subcommand -> (the module with add_arguments(parser) and run(arguments), what it does).
COMMANDS = {
    "grade": ("tract.apps.cli.grade", "grade a file of responses"),
    "inspect": ("tract.apps.cli.inspect", "show one example as the judge sees it"),
    "compare": ("tract.apps.cli.compare", "compare graded files, or runs"),
    "calibrate": ("tract.apps.cli.calibrate", "fit a judge's scores to true ones, with honest errors"),
    "export": ("tract.apps.export.command", "make a standard Hugging Face folder of a trained judge"),
    "serve": ("tract.apps.server.command", "serve a judge over HTTP"),
    "dashboard": ("tract.apps.dashboard", "make the W&B workspace of a project"),
}
# Aliases of the entry scripts, which take Hydra's overrides and flags -> (script, what it does).
_MEANINGS = {
    "train": "train and evaluate a judge: all stages of TRACT",
    "generate": "sample CoTs with a judge, for stage 2",
    "evaluate": "evaluate a judge: metrics with intervals, and a report",
}
SCRIPTS = {name: (script, _MEANINGS[name]) for script, name in SUBCOMMANDS.items()}
_GROUPS = {
    "Train and evaluate (overrides as GROUP=OPTION and KEY=VALUE)": ("train", "generate", "evaluate", "dashboard"),
    "Use a judge": ("export", "grade", "serve", "inspect", "calibrate"),
    "Compare": ("compare",),
}
_ROOT = Path(__file__).resolve().parents[3]


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line, as all errors of the user's are."""

    def error(self, message: str) -> NoReturn:
        """Raises the error.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a subcommand and ends the process with its status; an error of the user's is one line and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if (text := _text_of(given)) is not None:
        sys.stdout.write(text)
        return
    from tract.pipeline.entry import guarded, show_masked  # loads Hydra

    sys.excepthook = show_masked
    try:
        status = guarded(_run)(given)
    except KeyboardInterrupt:  # where there is nothing to go on with
        sys.stderr.write("interrupted\n")
        status = 128 + signal.SIGINT
    if status:
        sys.exit(status)


def _text_of(arguments: list[str]) -> str | None:
    """What is shown where no command is run; None for a command."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        return _overview()
    return f"tract {__version__}\n" if name == "--version" else None


def _run(arguments: list[str]) -> int | None:
    name = arguments[0]
    if name in SCRIPTS:
        _run_script(name, arguments[1:])
        return None
    if name not in COMMANDS:
        accepted = [*SCRIPTS, *COMMANDS]
        near = near_names(name, accepted, most=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"tract: there is no command {name!r}; {hint}accepted are {', '.join(accepted)}")
    _prepare()
    module = importlib.import_module(COMMANDS[name][0])
    parser = Parser(f"tract {name}", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    status: int | None = module.run(parser.parse_args(arguments[1:]))
    return status


def _run_script(name: str, arguments: list[str]) -> None:
    """Runs an entry script of the checkout as Python would, wherever the command was given.

    Raises:
        ConfigError: if the package is installed without the checkout, which alone holds the scripts and their configuration.
    """
    from tract.pipeline import entry

    script = _ROOT / SCRIPTS[name][0]
    if not script.is_file():
        raise ConfigError(entry.NO_CHECKOUT)
    sys.argv = [str(script), *arguments]
    if not sys.flags.safe_path:
        sys.path.insert(0, str(_ROOT))  # which the script moves to the end
    runpy.run_path(str(script), run_name="__main__")


def _prepare() -> None:
    """What libraries read when they are loaded, and where warnings go."""
    from tract.pipeline.entry import ALLOCATOR

    for variable, value in ALLOCATOR.items():
        os.environ.setdefault(variable, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries fill a log file with lines
    # DeepSpeed, which libraries load, greets on stdout, where the results go.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(MaskedFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _overview() -> str:
    what = {name: text for name, (_, text) in {**SCRIPTS, **COMMANDS}.items()}
    longest = max(map(len, what))
    groups = [f"{title}:\n" + "\n".join(f"  {name:<{longest}}  {what[name]}" for name in names) for title, names in _GROUPS.items()]
    return "\n\n".join(
        ["usage: tract COMMAND ...", "TRACT trains LLM judges, and puts them to work.", *groups, "More: tract COMMAND --help\n"]
    )
