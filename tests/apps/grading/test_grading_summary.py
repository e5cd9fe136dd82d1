"""Summaries and histograms, against values by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from graders import GRID, grade_for

from tract.apps.grading.graded import columns_of, refused
from tract.apps.grading.summary import RunningMean, Summary
from tract.common.counts import GRADES
from tract.evaluation.text_histogram import Histogram
from tract.judge.requests import GradeRequest


def records(*responses: str) -> list[dict[str, Any]]:
    return [columns_of(grade_for(GradeRequest("x", response))) for response in responses]


def test_mean_and_deviation_are_those_of_all_numbers_at_once() -> None:
    numbers = [1e9 + 1.0, 1e9 + 4.0, 1e9 + 2.5, 1e9 - 7.25]
    mean = RunningMean()
    for number in numbers:
        mean.add(number)
    assert mean.mean == pytest.approx(statistics.mean(numbers), abs=1e-6)
    assert mean.std == pytest.approx(statistics.stdev(numbers), rel=1e-9)
    assert (RunningMean().mean, RunningMean().std) == (None, None)


def test_the_table_counts_each_row_once_and_averages_scores_alone() -> None:
    summary = Summary(GRID)
    given = [
        *records("1", "5", "truncated 5", "no cue 4", "no mass", "unreadable", "too long", "broken"),
        refused("in.csv:9: response: missing"),
    ]
    assert list(summary.counted(given)) == given
    assert summary.rows == sum(summary.statuses.values()) == 9
    lines = summary.lines("3 s")
    table = dict(line.split("  ", 1) for line in lines[: lines.index("")])
    assert max(map(len, lines)) <= 110
    assert {name.strip(): value.strip() for name, value in table.items() if name.strip()} == {
        "rows": "9",
        "with a score": "4 (44.4 %)",
        "mean score": "3.750 (standard deviation 1.893)",  # of 1, 5, 5, 4: squares 7.5625 + 1.5625 + 1.5625 + 0.0625 over 3
        "mean score mass": "0.810",  # of 1, 1, 1, 1 and 0.05; the unreadable one has none
        "shortened": "0 (0.0 %)",
        "time": "3 s",
        "errors": "1 x max_length: too long",
    }
    assert lines[14:16] == [f"{'':<20}1 x the model failed", f"{'':<20}1 x in.csv:9: response: missing"]
    counted = [
        ("ok", 2),
        ("no_cue", 1),
        ("truncated_cot", 1),
        ("low_score_mass", 1),
        ("unreadable_score", 1),
        ("over_length", 1),
        ("error", 2),
    ]
    explained = [f"  {name:<18}{count} ({100 * count / 9:.1f} %){f': {GRADES[name]}' if name != 'ok' else ''}" for name, count in counted]
    assert lines[1:8] == explained
    full, half = "#" * 40, "#" * 20
    assert lines[-5:] == [f"1 | {half} 1", "2 | 0", "3 | 0", f"4 | {half} 1", f"5 | {full} 2"]


def test_without_a_score_there_is_no_mean_and_no_histogram() -> None:
    summary = Summary(GRID)
    summary.add(records("no mass")[0])
    text = "\n".join(summary.lines("1 s"))
    assert "mean score        none: no row got a score" in text
    assert "|" not in text


def test_numbers_belong_to_the_nearest_score() -> None:
    histogram = Histogram.over(("0", "1", "10"), (0.0, 1.0, 10.0))
    for value in (-3.0, 0.5, 0.51, 5.5, 5.6, 99.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]


def test_a_fine_grid_is_shown_in_stretches() -> None:
    values = [float(value) for value in range(101)]
    histogram = Histogram.over([f"{value:g}" for value in values], values)
    histogram.add(10.0)
    histogram.add(100.0)
    assert (histogram.labels[0], histogram.labels[-1]) == ("0 to 10", "90 to 100")
    assert histogram.counts == [1, *[0] * 8, 1]


def test_few_of_many_still_have_a_bar() -> None:
    histogram = Histogram(("a", "bb"), (0.0,))
    histogram.add(-1)
    for _ in range(1000):
        histogram.add(1)
    assert histogram.lines() == [" a | # 1", f"bb | {'#' * 40} 1000"]
