"""How the commands of this project are typed: as this process was started, and from where it runs. Standard library alone."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Script -> the subcommand of ``tract`` that does the same.
SUBCOMMANDS = {"train.py": "train", "generate_cot.py": "generate", "evaluate.py": "evaluate"}
_PROGRAM = "tract"


def interpreter() -> str:
    """This interpreter as it is typed."""
    found = shutil.which("python")
    return "python" if found is not None and os.path.dirname(found) == os.path.dirname(sys.executable) else sys.executable


def script_words(script: str) -> list[str]:
    """What starts a script in the working directory: ``python train.py``, or ``tract train`` where the command was given so.

    Args:
        script: its name, one of ``SUBCOMMANDS``.
    """
    if (program := given_program()) is not None:
        return [*program, SUBCOMMANDS[script]]
    return [interpreter(), script if Path(script).resolve() == ROOT / script else str(ROOT / script)]


def tract_command(*arguments: str) -> str:
    """A command line of ``tract``, also where that is not on the path."""
    return shlex.join([*(given_program() or _installed_program()), *arguments])


def install_command(extra: str = "", *packages: str) -> str:
    """The command that installs an extra of this project, or packages in the versions that go with it, from any working directory."""
    here = Path.cwd().resolve() == ROOT
    own = [] if not extra else ["-e", f"{'.' if here else ROOT}[{extra}]"]
    return shlex.join(["pip", "install", "-c", "constraints.txt" if here else str(ROOT / "constraints.txt"), *own, *packages])


def given_command() -> list[str]:
    """The command that started this process, as it can be given again."""
    program, arguments = given_program(), list(sys.orig_argv)
    return [*program, *arguments[1 + _program_index(arguments) :]] if program is not None else arguments


def given_program() -> list[str] | None:
    """How ``tract`` was typed if this process was started so; None if it was not."""
    arguments = list(sys.orig_argv)
    place = _program_index(arguments)
    if place < 1 or place + 1 >= len(arguments):
        return None
    if arguments[place - 1] == "-m":
        return [interpreter(), *arguments[1 : place + 1]]
    return [_as_typed(arguments[place])]


def _program_index(arguments: Sequence[str]) -> int:
    """The index of the program's name, after the interpreter's own options; 0 if it is absent."""
    place = 1
    while place < len(arguments) and arguments[place].startswith("-") and arguments[place] != "-m":
        place += 2 if arguments[place] in ("-X", "-W") else 1  # the two whose value may be a separate word
    if place < len(arguments) - 1 and arguments[place] == "-m":
        return place + 1 if arguments[place + 1] == _PROGRAM else 0
    return place if place < len(arguments) and os.path.basename(arguments[place]) == _PROGRAM else 0


def _installed_program() -> list[str]:
    beside = os.path.join(os.path.dirname(sys.executable), _PROGRAM)
    return [_as_typed(beside)] if os.access(beside, os.X_OK) else [interpreter(), "-m", _PROGRAM]


def _as_typed(program: str) -> str:
    """The name of a program where the shell finds the very one by it, else its path."""
    found = shutil.which(_PROGRAM)
    return _PROGRAM if found is not None and os.path.realpath(found) == os.path.realpath(program) else os.path.abspath(program)
