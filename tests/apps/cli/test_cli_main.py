"""The command itself: its subcommands, its start, and mistakes as one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tract import __version__
from tract.apps.cli import main as cli

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[3]
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
    assert all(f"\n  {name} " in shown.stdout for name in (*cli.SCRIPTS, *cli.COMMANDS))
    assert python("-m", "tract").stdout == shown.stdout
    assert best_of_three("-m", "tract", "--help") - best_of_three("-c", "pass") < MOST_S


@pytest.mark.parametrize("arguments", ["--help", "grade --help", "compare --help", "calibrate --help", "grade", "grad", "grade x --frob"])
def test_help_and_mistakes_load_nothing_heavy(arguments: str) -> None:
    code = (
        "import sys\nfrom tract.apps.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert python("-c", code, *arguments.split()).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["grad"],
         "error: tract: there is no command 'grad'; did you mean 'grade'? accepted are train, generate, evaluate, grade, inspect, compare, "
         "calibrate, export, serve, dashboard"),
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


def test_each_command_stands_in_one_group_of_the_help() -> None:
    assert sorted(name for names in cli._GROUPS.values() for name in names) == sorted([*cli.SCRIPTS, *cli.COMMANDS])


@pytest.mark.parametrize(("alias", "script"), [("train", "train"), ("generate", "generate_cot"), ("evaluate", "evaluate")])
def test_an_alias_runs_its_script_wherever_it_is_given(alias: str, script: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = ["model=tiny", "seed=7", "--cfg", "job"]
    called, ran = (
        subprocess.run([sys.executable, *how, *given], cwd=place, env=env, capture_output=True, text=True, timeout=100, check=True).stdout
        for how, place in ((["-m", "tract", alias], tmp_path), ([f"{script}.py"], ROOT))
    )
    assert called == ran
    assert "\nseed: 7\n" in f"\n{called}"


def test_an_alias_passes_errors_and_their_status_on(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tract", "train", "-m", "model=tinny,tiny"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: model: there is no option 'tinny' (did you mean tiny?)")


def test_the_help_of_an_alias_names_the_alias() -> None:
    assert "usage: tract train [GROUP=OPTION ...]" in python("-m", "tract", "train", "--help").stdout


def test_aliases_need_the_checkout(tract: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "_ROOT", tmp_path)
    status, out, error = tract("train", "model=tiny")
    assert (status, out) == (2, "")
    assert "train from a checkout, installed with pip install -e ." in error


def test_the_version(tract: Command) -> None:
    assert tract("--version") == (0, f"tract {__version__}\n", "")


def test_ctrl_c_where_there_is_nothing_to_go_on_with(monkeypatch: pytest.MonkeyPatch, tract: Command) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert tract("compare") == (130, "", "interrupted\n")
