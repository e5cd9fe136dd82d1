"""Scores on several scales: each has its mean, and differences are of one scale or normalized."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from graders import GRID, grade_for

from tract.apps.grading.graded import columns_of, refused
from tract.apps.grading.pairs import pairs_of, read_graded
from tract.apps.grading.scales import normalized, scale_of, shown_scale, shown_scales
from tract.apps.grading.summary import MOST_SCALES, Summary
from tract.common.errors import DataError
from tract.judge.requests import GradeRequest


def record(score: float | None, *scale: float) -> dict[str, Any]:
    spread = {f"{value:g}": 1 / len(scale) for value in scale}
    blank = {**columns_of(grade_for(GradeRequest("a", "1"))), "judge_distribution": spread, "judge_status": "ok"}
    return {**blank, "judge_score": score, "judge_raw_score": score, "judge_status": "ok" if score is not None else "low_score_mass"}


def table(summary: Summary) -> dict[str, str]:
    lines = summary.lines("1 s")
    found = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in lines[: lines.index("")])
    return {name: value for name, value in found}


def test_scales_and_what_they_are_called() -> None:
    assert scale_of(["10", "1", "5.0"]) == (1.0, 5.0, 10.0)
    assert (scale_of([]), scale_of(["1"]), scale_of(["a", "b"]), scale_of(["1", "1.0"])) == (None, None, None, None)
    assert (shown_scale((1, 2, 3, 4, 5)), shown_scale((0, 1)), shown_scale((1, 3, 5, 9))) == ("1 to 5", "0, 1", "1, 3, 5, 9")
    assert shown_scale([k / 2 for k in range(30)]) == "0, 0.5, 1, 1.5, 2, 2.5, ..., 13.5, 14, 14.5"
    assert (shown_scales([]), shown_scales([(0.0, 1.0)] * 5)) == ("scale not known", "0, 1; 0, 1; 0, 1 and 2 more")
    assert (normalized(3.0, (1.0, 5.0)), normalized(-1.0, (-1.0, 1.0))) == (0.5, 0.0)


def test_a_summary_has_a_mean_and_a_histogram_of_each_scale() -> None:
    summary = Summary(GRID)
    for own in (record(3, 0, 3), record(0, 0, 3), record(10, 1, 3, 10), record(2, 1, 2, 3, 4, 5), record(None, 1, 2), refused("x")):
        summary.add(own)
    text = "\n".join(summary.lines("1 s"))
    found = table(summary)
    assert found["mean score"] == "none over 3 scales; of each:"
    assert found["of 0, 3"] == "1.500 (standard deviation 2.121), rows: 2"
    assert (found["of 1, 3, 10"], found["of 1 to 5"]) == ("10.000, rows: 1", "2.000, rows: 1")
    assert found["normalized"] == "0.562, 0 the lowest and 1 the highest score of each row's scale"  # of 1, 0, 1 and 0.25
    assert found["with a score"] == "4 (66.7 %)"
    assert text.count("each counted at the nearest of the grid") == 3
    assert "scores of 0, 3, each counted at the nearest of the grid\n0 | " in text


def test_one_scale_is_summarized_in_points_whatever_the_judges_own_is() -> None:
    summary = Summary(GRID)
    for score in (1, 9):
        summary.add(record(score, *range(1, 11)))
    text = "\n".join(summary.lines("1 s"))
    found = table(summary)
    assert found["mean score"] == "5.000 (standard deviation 5.657)"
    assert "normalized" not in found
    assert "10 | 0" in text


def test_many_scales_are_counted() -> None:
    summary = Summary(GRID)
    for high in range(1, MOST_SCALES + 4):
        summary.add(record(high, 0, high))
    text = "\n".join(summary.lines("1 s"))
    assert table(summary)["of further scales"] == "3 scales, rows: 3"
    assert text.count("each counted at the nearest") == MOST_SCALES


def graded(path: Path, *rows: tuple[float, tuple[float, ...]]) -> Path:
    content = [
        {"id": n, "instruction": f"Q{n}?", "judge_score": score, "judge_status": "ok"}
        | ({"judge_distribution": {f"{value:g}": 0.1 for value in scale}} if scale else {})
        for n, (score, scale) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


FIVE, TEN = (1.0, 2.0, 3.0, 4.0, 5.0), tuple(map(float, range(1, 11)))
NAMES = ("a", "b")


def test_points_of_two_scales_are_not_subtracted(tmp_path: Path) -> None:
    a = read_graded(graded(tmp_path / "a.jsonl", (3, FIVE), (5, FIVE)), "id", {})
    b = read_graded(graded(tmp_path / "b.jsonl", (5.5, TEN), (1, TEN)), "id", {})
    assert (a.scales, b.scales) == ((FIVE,), (TEN,))
    with pytest.raises(DataError, match=r"the scores of a \(1 to 5\) and b \(1 to 10\) are on several scales, .* give --normalize"):
        pairs_of(a, b, NAMES, "id")
    pairs = pairs_of(a, b, NAMES, "id", normalize=True)
    assert (pairs.first.tolist(), pairs.second.tolist(), pairs.normalized) == ([0.5, 1.0], [0.5, 0.0], True)
    assert pairs_of(a, a, NAMES, "id").first.tolist() == [3.0, 5.0]


def test_several_scales_in_one_file_are_refused_as_well(tmp_path: Path) -> None:
    a = read_graded(graded(tmp_path / "a.jsonl", (3, FIVE), (5, TEN)), "id", {})
    with pytest.raises(DataError, match=r"a \(1 to 5; 1 to 10\) and b \(1 to 5; 1 to 10\)"):
        pairs_of(a, a, NAMES, "id")
    assert pairs_of(a, a, NAMES, "id", normalize=True).first.tolist() == [0.5, pytest.approx(4 / 9)]


def test_a_scale_that_is_not_known_is_taken_in_points_and_never_normalized(tmp_path: Path) -> None:
    a = read_graded(graded(tmp_path / "a.jsonl", (3, FIVE), (5, FIVE)), "id", {})
    b = read_graded(graded(tmp_path / "b.jsonl", (2, ()), (4, FIVE)), "id", {})
    assert pairs_of(a, b, NAMES, "id").second.tolist() == [2.0, 4.0]
    pairs = pairs_of(a, b, NAMES, "id", normalize=True)
    assert (pairs.second.tolist(), pairs.left_out) == ([0.75], {"no judge_distribution, and so no scale, in b": 1})
