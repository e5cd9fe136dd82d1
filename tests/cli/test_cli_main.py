"""The command itself: its subcommands, its start, and mistakes as one line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tract import __version__
from tract.cli import main as cli

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "lightning", "rich")
# Seconds of `tract --help` beyond those of Python itself.
MOST_S = 0.5


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def best_of_three(*arguments: str) -> float:
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        assert python(*arguments).returncode == 0
        found.append(time.perf_counter() - begun)
    return min(found)


def test_help_lists_the_commands_and_is_there_at_once() -> None:
    shown = python("-m", "tract", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(f"\n  {name} " in shown.stdout for name in cli.COMMANDS)
    assert python("-m", "tract").stdout == shown.stdout
    assert best_of_three("-m", "tract", "--help") - best_of_three("-c", "pass") < MOST_S


@pytest.mark.parametrize("arguments", ["--help", "grade --help", "compare --help", "calibrate --help", "grade", "grad", "grade x --frob"])
def test_help_and_mistakes_load_nothing_heavy(arguments: str) -> None:
    code = (
        "import sys\nfrom tract.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert python("-c", code, *arguments.split()).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["grad"],
         "error: tract: there is no command 'grad'; did you mean 'grade'? accepted are grade, inspect, compare, calibrate, export, serve"),
        (["grade"], "error: the following arguments are required: FILE, -o/--out, --judge; see `tract grade --help`"),
        (["grade", "x", "-o", "y.csv", "--judge", "z", "--limit", "0"],
         "error: argument --limit: '0' is not a whole number >= 1; see `tract grade --help`"),
        (["grade", "x", "-o", "y.csv", "--judge", "z", "--over"], "error: unrecognized arguments: --over; see `tract grade --help`"),
        (["grade", "x", "-o", "y.csv", "--judge", "z", "--grid", "3"],
         "error: argument --grid: '3' is no grid; write its scores with commas between, e.g. 1,2,3,4,5; see `tract grade --help`"),
        (["calibrate", "--judge", "/nowhere", "--data", "x", "--target", "y"],
         "error: --judge: /nowhere holds no judge_config.json to write to; export the judge first: tract export RUN FOLDER"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(arguments: list[str], line: str, tract: Command) -> None:
    assert tract(*arguments) == (2, "", f"{line}\n")


def test_the_version(tract: Command) -> None:
    assert tract("--version") == (0, f"tract {__version__}\n", "")


def test_ctrl_c_where_there_is_nothing_to_go_on_with(monkeypatch: pytest.MonkeyPatch, tract: Command) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert tract("compare") == (130, "", "interrupted\n")
