"""Which end of a metric is the best is said once, in its table, and read from there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tract.apps.compare import comparison
from tract.artifacts import best
from tract.artifacts.judge_choice import LESS_IS_BETTER
from tract.evaluation.metrics import METRIC_TABLE


def test_errors_and_failures_are_better_where_they_are_less() -> None:
    assert {name for name, metric in METRIC_TABLE.items() if metric.less_is_better} == {"rmse", "mae", "failure_rate"}
    assert not any(metric.less_is_better is None for metric in METRIC_TABLE.values())


def test_a_judge_is_chosen_in_the_direction_of_the_table() -> None:
    assert {name for name, less in LESS_IS_BETTER.items() if less} == {"rmse", "squared_error", "ce"}
    assert all(LESS_IS_BETTER[name] == METRIC_TABLE[name].less_is_better for name in LESS_IS_BETTER.keys() & METRIC_TABLE.keys())


@pytest.mark.parametrize(("less_is_better", "order"), [(True, [-2.0, 0.5, 3.0]), (False, [3.0, 0.5, -2.0]), (None, [0.5, -2.0, 3.0])])
def test_rows_are_sorted_in_the_direction_of_the_table(
    less_is_better: bool | None, order: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRIC_TABLE, "rmse", replace(METRIC_TABLE["rmse"], less_is_better=less_is_better))

    class Row:
        predictor = "rail"

        def __init__(self, value: float) -> None:
            estimate = type("Estimate", (), {"value": value})
            self.means = {"rmse": type("Mean", (), {"estimate": estimate})}

    rows = sorted([Row(3.0), Row(-2.0), Row(0.5)], key=lambda row: comparison._rank(row, "rmse"))  # type: ignore[arg-type]
    assert [row.means["rmse"].estimate.value for row in rows] == order


def test_no_best_is_named_by_a_metric_without_a_best_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRIC_TABLE, "rmse", replace(METRIC_TABLE["rmse"], less_is_better=None))
    run = type("Run", (), {"config": {"optimized_metric": "val/rmse", "evaluation.benchmarks": ["test"]}, "seed": 0})
    variant = type("Variant", (), {"runs": {0: run}, "settings": {}})
    measure, why_not = best._measure([variant])  # type: ignore[list-item]
    assert measure is None
    assert why_not.startswith("neither the least nor the most of val/rmse (optimized_metric) is the best; to choose by")
