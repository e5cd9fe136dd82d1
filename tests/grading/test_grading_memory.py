"""Memory stays flat: what is held does not grow with the file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from graders import StandIn

from tract.grading.files import finish, grade_rows, plan_of
from tract.grading.journal import Journal
from tract.judge.grades import Grade
from tract.judge.requests import GradeRequest


class Forgetful(StandIn):
    """Keeps no request."""

    def _grade(self, request: GradeRequest) -> Grade:
        grade = super()._grade(request)
        self.graded.clear()
        return grade


def peak(folder: Path, rows: int, out: str) -> int:
    """Bytes of Python objects at the most."""
    source = folder / f"{rows}.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            bad = number % 3 == 0
            file.write(f"{json.dumps({'instruction': '' if bad else f'{number}' + 'x' * 1000, 'response': 'y' * 1000})}\n")
    tracemalloc.start()
    try:
        plan = plan_of(source, folder / f"{rows}_graded{out}", {}, None, None, overwrite=False)
        with Journal(plan.journal_path, {}) as journal:
            grade_rows(plan, Forgetful(), journal, lambda _: None)
            finish(plan, journal, Forgetful.grid)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("out", [".jsonl", ".csv"])
def test_ten_times_the_rows_need_no_more(out: str, tmp_path: Path) -> None:
    peak(tmp_path, 50, out)  # imports and caches
    small, large = peak(tmp_path, 300, out), peak(tmp_path, 3000, out)
    assert (tmp_path / "3000.jsonl").stat().st_size > 4_000_000
    assert large < small + 500_000
