"""Rows without a score, graded again: alone, with what the first command would have given them, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from graders import StandIn, grade_for
from grading_files import ROWS, grade, read, write

from tract.apps.grading.files import MOST_FAILURES, GradingPlan, finish, grade_rows, plan_of
from tract.apps.grading.graded import COLUMNS, columns_of, record_of
from tract.apps.grading.journal import Journal
from tract.apps.grading.summary import Summary
from tract.common.errors import DataError, GenerationError
from tract.data.readers.files import read_rows
from tract.judge.grades import ERROR, Grade, failed
from tract.judge.requests import GradeRequest

OUTPUTS = ("out.jsonl", "out.csv", "out.parquet")


class Down(StandIn):
    """A judge whose server does not answer for some responses."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def _grade(self, request: GradeRequest) -> Grade:
        self.graded.append(request)
        if any(word in request.response for word in self.words):
            return failed(request.shown_id, ERROR, "the server did not answer")
        return grade_for(request)


def planned(source: Path, out: Path, limit: int | None = None) -> GradingPlan:
    return plan_of(source, out, {}, None, limit, overwrite=False, retry_failed=True)


def retried(source: Path, out: Path, judge: StandIn, limit: int | None = None) -> Summary:
    plan = planned(source, out, limit)
    with Journal(plan.journal_path, plan.work(judge.fingerprint)) as journal:
        grade_rows(plan, judge, journal, lambda _: None)
        return finish(plan, journal, judge.grid)


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in rows]


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("source", ["in.jsonl", "in.csv", "in.parquet"])
def test_the_file_ends_as_if_nothing_had_failed(source: str, out: str, tmp_path: Path) -> None:
    rows = write(tmp_path / source, ROWS if source == "in.jsonl" else without(ROWS, "extra"))
    grade(rows, tmp_path / f"whole_{out}", Down())
    grade(rows, tmp_path / out, Down("blue", "oak"))
    assert read(tmp_path / out) != read(tmp_path / f"whole_{out}")
    judge = Down()
    summary = retried(rows, tmp_path / out, judge)
    # Row 2 has no instruction, rows 3 and 4 have no score from any judge: all without a score are asked for, no other is.
    assert [request.response for request in judge.graded] == ["blue 4", "no mass", "broken, = 1", "truncated oak 2"]
    assert summary.statuses == {"ok": 2, "error": 2, "low_score_mass": 1, "truncated_cot": 1}
    if out != "out.parquet":
        assert (tmp_path / out).read_bytes() == (tmp_path / f"whole_{out}").read_bytes()
    else:
        assert pq.read_table(tmp_path / out).equals(pq.read_table(tmp_path / f"whole_{out}"))
    assert not planned(rows, tmp_path / out).journal_path.exists()


@pytest.mark.parametrize("out", OUTPUTS)
def test_grades_go_through_a_file_unchanged(out: str, tmp_path: Path) -> None:
    texts = ["blue 4", "", "no mass", "broken", "too long", "no cue 3", "truncated oak 2", '“ü\u2028”, = "1"\n5']
    rows = [{"instruction": f"{n}?", "response": text} for n, text in enumerate(texts)]
    grade(write(tmp_path / "in.jsonl", rows), tmp_path / out)
    expected = [columns_of(grade_for(GradeRequest(row["instruction"], row["response"]))) for row in rows]
    assert [record_of(row.data) for row in read_rows(tmp_path / out)] == expected  # type: ignore[arg-type]
    assert list(expected[0]) == list(COLUMNS)


def test_a_row_that_was_corrected_is_graded(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"instruction": "a", "response": "1"}\nnot json\n{"instruction": " ", "response": "3"}\n')
    grade(source, tmp_path / "out.jsonl")
    source.write_text(
        '{"instruction": "a", "response": "1"}\n{"instruction": "b", "response": "2"}\n{"instruction": "c", "response": "3"}\n'
    )
    retried(source, tmp_path / "out.jsonl", judge := StandIn())
    assert [request.instruction for request in judge.graded] == ["b", "c"]
    assert [row["judge_score"] for row in read(tmp_path / "out.jsonl")] == [1.0, 2.0, 3.0]
    assert [row["instruction"] for row in read(tmp_path / "out.jsonl")] == ["a", "b", "c"]


def test_an_interrupted_retry_goes_on(tmp_path: Path) -> None:
    rows = [{"instruction": f"{n}?", "response": "off 1" if n % 2 else str(n % 5 + 1)} for n in range(2 * MOST_FAILURES + 20)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    grade(source, out, Down("off"))
    before = out.read_bytes()
    plan, judge = planned(source, out), Down("off")
    with pytest.raises(GenerationError, match="rows failed one after the other"), Journal(plan.journal_path, plan.work("f")) as journal:
        grade_rows(plan, judge, journal, lambda _: None)
    assert out.read_bytes() == before
    plan = planned(source, out)
    with Journal(plan.journal_path, plan.work("f")) as journal:  # one row, then the process is gone
        journal.append(0, columns_of(replace(grade_for(GradeRequest("x", "5")), feedback="kept")))
    retried(source, out, judge := StandIn())
    assert len(judge.graded) == len(rows) // 2 - 1
    graded = read(out)
    assert [row["judge_score"] for row in graded[:4]] == [1.0, 5.0, 3.0, 1.0]
    assert graded[1]["judge_feedback"] == "kept"
    # What another judge began is not gone on with.
    grade(source, tmp_path / "b.jsonl", Down("off"))
    plan = planned(source, tmp_path / "b.jsonl")
    Journal(plan.journal_path, plan.work("f")).__exit__(None, None, None)
    with pytest.raises(DataError, match="the judge's fingerprint was"):
        Journal(plan.journal_path, plan.work("other"))


def test_another_file_than_the_one_that_was_graded_is_refused(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"out.jsonl: does not exist, and --retry-failed needs a graded file; an earlier command writes it"):
        planned(source, out)
    grade(source, out)
    with pytest.raises(DataError, match=r"is there already; .*--retry-failed"):
        plan_of(source, out, {}, None, None, overwrite=False)
    other = write(tmp_path / "other.jsonl", [{**ROWS[0], "response": "green 4"}, *ROWS[1:]])
    with pytest.raises(DataError, match=r"its grade for other.jsonl:1 belongs to another response; give the input"):
        planned(other, out)
    with pytest.raises(DataError, match=r"does not hold the rows of .*more.jsonl: .*out.jsonl ends after 6 rows"):
        planned(write(tmp_path / "more.jsonl", [*ROWS, *ROWS]), out)
    with pytest.raises(DataError, match=r"in.jsonl ends after 2 rows, .*--limit as before"):
        planned(source, out, limit=2)
    (tmp_path / "plain.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(DataError, match=r"plain.jsonl:1: judge_status: .*; --retry-failed needs a file that tract grade wrote"):
        planned(write(tmp_path / "one.jsonl", ROWS[:1]), tmp_path / "plain.jsonl")


def test_a_file_that_changes_meanwhile_is_left(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    grade(source, out)
    plan = planned(source, out)
    with Journal(plan.journal_path, plan.work("f")) as journal:
        grade_rows(plan, StandIn(), journal, lambda _: None)
        out.write_text(out.read_text() + "\n")
        with pytest.raises(DataError, match=r"out.jsonl: has changed while it was graded; nothing was written"):
            finish(plan, journal, StandIn.grid)


def test_the_first_rows_alone(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    grade(source, out, Down("blue"), limit=2)
    summary = retried(source, out, StandIn(), limit=2)
    assert (summary.rows, summary.scores.count) == (2, 2)


@pytest.mark.parametrize("out", OUTPUTS)
def test_values_are_the_same_whichever_format_they_went_through(out: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rubric = '{"criteria": "Right?", "descriptions": {"0": "no", "1": "yes"}}'
    lines = [
        f'{{"instruction": "q{n}", "response": {response}, "rubric": {rubric if n % 2 else "null"}, "id": {n}}}'
        for n, response in enumerate(["1.50", "3.50", "1E5", "true", '"007"', '"{2"', "42", '"broken"', '" 4 "'])
    ]
    source.write_text("".join(f"{line}\n" for line in lines))
    grade(source, tmp_path / out)
    assert planned(source, tmp_path / out).rows == 1


@pytest.mark.parametrize("out", OUTPUTS)
def test_a_grade_by_another_rubric_is_not_kept(out: str, tmp_path: Path) -> None:
    rows = [{"instruction": "q", "response": "3", "rubric": text} for text in ("Polite?", "Short?")]
    rows += [{"instruction": "q", "response": "broken"}]
    grade(write(tmp_path / "in.jsonl", rows), tmp_path / out)
    assert planned(tmp_path / "in.jsonl", tmp_path / out).rows == 1
    with pytest.raises(DataError, match=r"its grade for in.jsonl:1 belongs to another rubric; give the input that was graded"):
        planned(write(tmp_path / "in.jsonl", [rows[1], rows[0], rows[2]]), tmp_path / out)


def test_columns_of_the_output_alone_are_not_lost(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv", without(ROWS, "extra")), tmp_path / "out.csv"
    grade(source, out)
    again = pd.read_csv(out)
    again.to_csv(out, index=False)  # True for true, and floats where it was whole numbers
    assert planned(source, out).rows == 3
    again.assign(note="mine").to_csv(out, index=False)
    with pytest.raises(DataError, match=r"has a column 'note' that .*in.csv lacks, so that it would be lost; add it there first"):
        planned(source, out)


def test_what_was_interrupted_is_gone_on_with_first(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.partial").touch()
    with pytest.raises(DataError, match=r"a command was interrupted: give it again, without --retry-failed"):
        planned(source, out)
