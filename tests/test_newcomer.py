"""What a newcomer does: each page's commands, copied from it in order, in a clean clone with the tiny model."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The commands that a run prints to go on with, below the line that says so.
NEXT = re.compile(r"what to try next:\n((?:  \S.*\n)+)")
# What a page expects to fail: a part of the command -> a part of its error.
REFUSED = {"experiment=own_data data=my_data model=tiny dry_run=true": "score 7 is not on the grid"}

pytestmark = [pytest.mark.newcomer, pytest.mark.timeout(3600)]


def commands_of(page: str) -> Iterator[str]:
    """The commands that a page shows in blocks to copy, in order, each with its continuation lines and the text that it is given."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            command = line
            while command.endswith("\\"):
                command += "\n" + next(lines)
            if "<<'EOF'" in line:
                for given in lines:
                    command += "\n" + given
                    if given == "EOF":
                        break
            if command.strip() and not command.startswith("#"):
                yield command


class Newcomer:
    """A clean clone with an activated environment, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tract"
        clone(self.folder)
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in ("TRACT_RUNS", "TRACT_CACHE")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),  # the environment of the tests has their own checkout installed
            "HOME": str(folder),
            "COLUMNS": "100",
        }

    def run(self, command: str) -> str:
        """What the command printed.

        Raises:
            AssertionError: if it failed, or did not where the page shows an error.
        """
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=3000
        )
        said = done.stdout + done.stderr
        shown = f"{command}\n{said[-6000:]}"
        assert "Traceback" not in said, shown
        error = next((error for part, error in REFUSED.items() if part in command), None)
        assert done.returncode == (0 if error is None else 2), shown
        assert error is None or error in said, shown
        return said


def clone(into: Path) -> None:
    """A checkout of the files that git knows, as they are now."""
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    for command in ("init -q", "add -A", "-c user.name=newcomer -c user.email=newcomer@localhost commit -qm clone"):
        subprocess.run(["git", "-C", str(into), *command.split()], check=True)


def printed_commands(said: str) -> list[str]:
    """The commands that a run prints to go on with."""
    return [line.strip() for found in NEXT.findall(said) for line in found.splitlines()]


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def test_the_page_on_own_data_runs_as_it_stands(newcomer: Newcomer) -> None:
    """Its commands in order, then those that its training printed to go on with."""
    printed: list[str] = []
    for command in commands_of("docs/own_data.md"):
        said = newcomer.run(command)
        if "run.name=my_judge" in command and not printed:
            printed = printed_commands(said)
    assert len(printed) >= 2
    for command in printed:
        newcomer.run(command)
    assert (newcomer.folder / "graded.csv").read_text().count("\n") >= 12
    assert (newcomer.folder / "my-judge" / "judge_config.json").is_file()


def test_the_page_on_changing_the_science_runs_as_it_stands(newcomer: Newcomer) -> None:
    for command in commands_of("docs/change_the_science.md"):
        newcomer.run(command)


# What a command of README.md gets beside what stands there: the tiny model, few items and a CPU, in place of hours and a GPU.
TINY = [
    "model=tiny", "trainer=cpu", "data.max_train_items=8", "data.max_val_items=4", "evaluation.max_items=4", "train.max_steps=2",
    "generation.max_cot_tokens=16",
]  # fmt: skip
# Of the others, what stands for something that the page leaves to the reader.
OURS = {
    "experiment=tract_mistral": ["data=rubric_check"],  # the Feedback Collection is on the hub
    "sweep=": ["seed=0"],  # of three
}


def made_small(command: str) -> str:
    """The command with the tiny model where it trains or evaluates."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    if words[:2] == ["tract", "grade"]:  # a random model seldom expects a score where one is read
        return shlex.join([*words, "--least-score-mass", "0"])
    if words[:2] == ["tract", "serve"]:  # it serves until it is ended
        return f"timeout -s INT 60 {shlex.join(words)} --port 0; test $? -eq 124"
    script = next((word for word in words if word in ("train.py", "generate_cot.py", "evaluate.py")), None)
    if words[:1] == ["make"]:
        return f"{command.partition('#')[0]} ARGS='{' '.join(TINY)}'" if "quickstart" in words else "true"
    if script is None or "--help" in words:
        return shlex.join(words)
    more = [override for part, overrides in OURS.items() if any(part in word for word in words) for override in overrides]
    return shlex.join([*words, *TINY, *more])


def test_the_commands_of_the_readme_run_with_the_tiny_model(newcomer: Newcomer) -> None:
    for command in commands_of("README.md"):
        newcomer.run(made_small(command))


def test_one_command_makes_a_judge_of_tickets_that_is_better_than_the_best_constant(newcomer: Newcomer) -> None:
    """As the page shows it, with the packaged model and all cores: a quarter of an hour."""
    newcomer.env.pop("OMP_NUM_THREADS", None)
    newcomer.run("python examples/make_tickets.py tickets.csv")
    said = newcomer.run("python train.py --config-dir examples experiment=own_data data=tickets")
    assert "Better than the best constant" in said
    (metrics,) = newcomer.folder.glob("runs/stages/evaluate-*/metrics.json")
    difference = json.loads(metrics.read_text())["benchmarks"]["test"]["rmse_minus_baseline"]["rail"]["constant"]
    assert difference["high"] < 0, difference
