"""A pipeline runs the code that it began with: a stage that would run half of an edit is refused before it makes anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_pipeline import SMALL, Tiny, made

from tract.common.errors import ConfigError
from tract.pipeline.identity import loaded_code
from tract.pipeline.identity.keys import code_digests
from tract.pipeline.identity.loaded_code import check_hashes, check_unchanged, hashes, source_of

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "__init__.py": "",
    "loss.py": 'def loss(x):\n    """Doc."""\n    return x  # as it is\n',
    "other.py": "y = 1\n",
    "sub/__init__.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package in the place of this one, as it is at the start."""
    monkeypatch.setattr(loaded_code, "_ROOT", tmp_path)
    for name, text in FILES.items():
        (tmp_path / "tract" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tract" / name).write_text(text)
    loaded_code.at_start.cache_clear()
    loaded_code.at_start()
    yield tmp_path / "tract"
    loaded_code.at_start.cache_clear()


def runs_loss() -> list[str]:
    return ["tract.loss", "tract.sub"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_was_not_edited_runs(package: Path) -> None:
    def ask() -> list[str]:
        raise AssertionError("asked though nothing changed")

    check_unchanged("stage2", ask)
    check_hashes("stage2", hashes(), runs_loss)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("loss.py", "return x", "return 2 * x"), ("loss.py", "return x", "return ("), ("sub/__init__.py", "", "z = 1")],
)
def test_a_stage_whose_code_was_edited_is_refused(name: str, old: str, new: str, package: Path) -> None:
    before, at_start = hashes(), source_of(package / name)
    edit(package / name, old, new)
    message = rf"^stage2: tract/{name} changed since this command was given, .*run the same command again .*git worktree add"
    with pytest.raises(ConfigError, match=message):
        check_unchanged("stage2", runs_loss)
    assert source_of(package / name) == at_start
    assert hashes() == before, "a process that is started now is still held against the start"
    loaded_code.at_start.cache_clear()  # as in the stage's own process
    with pytest.raises(ConfigError, match=message):
        check_hashes("stage2", before, runs_loss)


def test_what_the_stage_does_not_run_may_change(package: Path) -> None:
    before = hashes()
    edit(package / "other.py", "1", "2")
    (package / "new.py").write_text("x = 1")
    check_unchanged("stage2", runs_loss)
    loaded_code.at_start.cache_clear()
    check_hashes("stage2", before, runs_loss)
    with pytest.raises(ConfigError, match="tract/new.py, tract/other.py changed"):
        check_hashes("stage2", before, lambda: ["tract.other", "tract.new"])


def test_comments_and_docstrings_may_change_before_a_stage_begins(package: Path) -> None:
    edit(package / "loss.py", "# as it is", "# reworded")
    edit(package / "loss.py", "Doc.", "Other words.")
    check_unchanged("stage2", runs_loss)
    handed = hashes()
    loaded_code.at_start.cache_clear()
    check_hashes("stage2", handed, runs_loss)


def test_a_removed_file_is_told_and_many_are_counted(package: Path) -> None:
    for name in FILES:
        (package / name).unlink()
    with pytest.raises(ConfigError, match=r"tract/__init__.py, tract/loss.py, tract/other.py and 1 more changed"):
        check_unchanged("stage2", lambda: ["tract", "tract.loss", "tract.other", "tract.sub"])


def test_an_identity_is_that_of_the_code_at_the_start(package: Path) -> None:
    first = code_digests("tract.loss", ignored_fields=(), root=package.parent)
    edit(package / "loss.py", "return x", "return 2 * x")
    assert code_digests("tract.loss", ignored_fields=(), root=package.parent) == first
    (package / "late.py").write_text("x = 1\n")
    assert "tract.late" in code_digests("tract.late", ignored_fields=(), root=package.parent)


def test_a_pipeline_in_one_process_refuses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Tiny(tmp_path)
    kept = loaded_code.at_start()
    changed = {path: b"x = 1" if path.name == "generate.py" else source for path, source in kept.items()}
    monkeypatch.setattr(loaded_code, "at_start", lambda: changed)
    _, lines = tiny.run("stages=[stage1]")
    assert made(lines) == ["stage1"]
    with pytest.raises(ConfigError, match=r"^generate: tract/pipeline/stages/generate.py changed since this command was given"):
        tiny.run("stages=[stage1,generate]")
    assert {path.name.partition("-")[0] for path in (tmp_path / "runs" / "stages").glob("*-*")} == {"stage1"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project to edit."""
    for name in ("tract", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    shutil.copy(ROOT / "train.py", tmp_path)
    return tmp_path


def run_while(checkout: Path, then: Callable[[], None]) -> str:
    """The output of a pipeline of stages in processes of their own; ``then`` is called when the first has begun."""
    small = [override for override in SMALL if not override.startswith("run.subprocess_stages")]
    command = [sys.executable, str(checkout / "train.py"), *small, "run.subprocess_stages=true", "stages=[stage1,generate]"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and not list(checkout.glob("runs/stages/stage1-*")):
            time.sleep(0.05)
        then()
        output, _ = process.communicate()
    return output


@pytest.mark.slow
def test_an_edit_while_a_stage_runs_keeps_the_next_one_from_running_half_of_it(checkout: Path) -> None:
    file = checkout / "tract" / "inference" / "stopping.py"
    whole = file.read_text()
    output = run_while(checkout, lambda: file.write_text(whole + "\n\nHALF = True\n"))
    assert re.search(r"stage1: finished, ", output), output
    assert "error: generate: tract/inference/stopping.py changed since this command was given" in output
    assert not list(checkout.glob("runs/stages/generate-*"))
    file.write_text(whole)
    again = run_while(checkout, lambda: file.write_text(whole + "\n# A comment.\n"))
    assert "stage1: reused, " in again
    assert "generate: finished, " in again, again


@pytest.mark.slow
def test_a_stages_own_process_looks_for_itself(checkout: Path) -> None:
    """What changed between its start by the pipeline and its imports, here by hashes that are of another code."""
    program = (
        "from tract.pipeline import pipeline\n"
        "from tract.pipeline.identity import loaded_code\n"
        "import sys\n"
        "hashes = loaded_code.hashes\n"
        "pipeline.hashes = lambda: {**hashes(), 'tract/method/objective.py': 'another'}\n"
        "sys.argv[0] = 'train.py'\n"
        "import runpy; runpy.run_path('train.py', run_name='__main__')\n"
    )
    (checkout / "start.py").write_text(program)
    small = [override for override in SMALL if not override.startswith("run.subprocess_stages")]
    command = [sys.executable, str(checkout / "start.py"), *small, "run.subprocess_stages=true", "stages=[stage1]"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "error: stage1: tract/method/objective.py changed since this command was given" in ran.stdout + ran.stderr
    assert not list(checkout.glob("runs/stages/stage1-*"))
