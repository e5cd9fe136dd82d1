"""Memory stays flat: what is held does not grow with the file."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from graders import StandIn

from tract.apps.grading.columns import Columns
from tract.apps.grading.files import MOST_FAILURES, MOST_REFUSED, finish, grade_rows, plan_of
from tract.apps.grading.journal import Journal
from tract.common.errors import GenerationError
from tract.data.readers.rows import RawRow
from tract.judge.grades import Grade
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric


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


@pytest.mark.parametrize("response", ["1", "broken"])
@pytest.mark.parametrize("keep_going", [False, True])
def test_a_run_of_rows_that_cannot_be_used_is_not_held(response: str, keep_going: bool, tmp_path: Path) -> None:
    """Behind a row that is under way, and behind one that failed; all rows stay in order."""
    bad = json.dumps({"instruction": "", "response": "y"})
    good = json.dumps({"instruction": "x", "response": response})
    lines = [good, *[bad] * (5 * MOST_REFUSED), *[good, bad] * 5]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{line}\n" for line in lines))
    plan = plan_of(source, tmp_path / "out.jsonl", {}, None, None, overwrite=False)
    taken, most = 0, 0

    class Counting(Journal):
        """How many rows were read and are not in the journal, at the most."""

        def append(self, row: int, record: Mapping[str, Any]) -> None:
            nonlocal most
            most = max(most, taken - row)
            super().append(row, record)

    def counted(columns: Columns, row: RawRow, rubric: Rubric | None) -> Any:
        nonlocal taken
        taken += 1
        return request_or_reason(columns, row, rubric)

    request_or_reason = Columns.request_or_reason
    with pytest.MonkeyPatch.context() as patch, Counting(plan.journal_path, {}) as journal:
        patch.setattr(Columns, "request_or_reason", counted)
        grade_rows(plan, Forgetful(), journal, lambda _: None, keep_going=keep_going)
        assert [str(record["judge_error"]).startswith("in.jsonl") for record in journal.records()] == [line == bad for line in lines]
    assert taken == len(lines)
    assert 0 < most <= MOST_REFUSED + 3


def test_failures_that_are_not_held_any_more_are_not_promised_again(tmp_path: Path) -> None:
    """A judge is found to be gone however many rows between cannot be used; the message says what is graded again."""
    lines = [{"instruction": "x", "response": "broken"}, *[{"instruction": "", "response": "y"}] * 60] * MOST_FAILURES
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    plan = plan_of(source, tmp_path / "out.jsonl", {}, None, None, overwrite=False)
    with Journal(plan.journal_path, {}) as journal:
        with pytest.raises(GenerationError, match=r"32 rows failed .* it goes on before the last (\d+) of them") as raised:
            grade_rows(plan, Forgetful(), journal, lambda _: None)
        again = int(str(raised.value).partition("before the last ")[2].split()[0])
        kept = sum(not record["judge_error"].startswith("in.jsonl") for record in journal.records())
    assert kept == MOST_FAILURES - again
    assert kept > 0
