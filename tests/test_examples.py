"""The examples run as they stand, here with a judge of no model in the place of theirs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from graders import StandIn

import tract
from tract.judge.grades import Grade
from tract.judge.requests import GradeRequest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# Stands for Python: `-m tract ...` with a judge of no model.
PYTHON = """#!{python}
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from graders import StandIn
import tract.apps.cli.grade
tract.apps.cli.grade.open_judge = lambda path, options: StandIn()
from tract.apps.cli.main import main
assert sys.argv[1:3] == ["-m", "tract"]
main(sys.argv[3:])
"""


class Batching(StandIn):
    """The part of a judge that an example uses."""

    def grade_batch(self, requests: Any) -> list[Grade]:
        return list(self.grade_stream(GradeRequest.of(request) for request in requests))


def test_two_models_are_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tract.Judge, "from_pretrained", lambda spec, **options: Batching())
    spec = importlib.util.spec_from_file_location("compare_two_models", EXAMPLES / "compare_two_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert "6 of 6 questions have a score for both" in lines
    assert {line.split()[0] for line in lines[-6:]} == {"first", "second", "difference", "wins", "ties", "losses"}


@pytest.mark.kills
def test_a_file_is_inspected_and_graded(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable, root=str(ROOT), tests=str(ROOT / "tests" / "support")))
    python.chmod(0o755)
    out = tmp_path / "graded.jsonl"
    environment = {**os.environ, "PYTHON": str(python), "JUDGE": str(ROOT / "tract" / "assets" / "tiny"), "OUT": str(out)}
    done = subprocess.run(
        ["sh", str(EXAMPLES / "grade_a_file.sh")], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the score distribution is read here" in done.stdout
    assert "with a score 6 (100.0 %)" in " ".join(done.stdout.split())
    assert len(out.read_text().splitlines()) == 6
