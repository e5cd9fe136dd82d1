"""What a run returns to a sweeper is the number of its evaluation, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tract.artifacts.products import Product
from tract.common.errors import ConfigError
from tract.pipeline.pipeline import run
from tract.pipeline.sweeps.sweep_objective import optimized_metric


def wanted(metric: str | None, predictor: str = "rail") -> Any:
    return SimpleNamespace(optimized_metric=metric, evaluation=SimpleNamespace(main_predictor=predictor))


@pytest.fixture
def product(tmp_path: Path) -> Product:
    measured = {"rail": {"rmse": {"value": 0.5}, "pearson_r": {"value": None}}, "no_cot": {"rmse": {"value": 0.75}}}
    (tmp_path / "metrics.json").write_text(
        json.dumps({"benchmarks": {"val": {"predictors": measured}, "sets/own": {"predictors": measured}}})
    )
    return Product(tmp_path, {}, "f")


@pytest.mark.parametrize(
    ("metric", "predictor", "value"),
    [
        ("val/rmse", "rail", 0.5),
        ("val/rmse", "no_cot", 0.75),
        ("sets/own/rmse", "rail", 0.5),
        ("val/pearson_r", "rail", None),
        (None, "rail", None),
    ],
)
def test_the_main_predictor_s_value(metric: str | None, predictor: str, value: float | None, product: Product) -> None:
    assert optimized_metric(wanted(metric, predictor), product) == value


def test_a_benchmark_that_was_not_evaluated_is_named(product: Product) -> None:
    with pytest.raises(ConfigError, match="optimized_metric: there is no benchmark 'ood'; the evaluation has val, sets/own"):
        optimized_metric(wanted("ood/rmse"), product)


def test_a_run_returns_it(whole: Any) -> None:
    config = whole.tiny.compose("optimized_metric=test/rmse")
    content = json.loads((whole.products["evaluate"].path / "metrics.json").read_text())
    assert run(config) == content["benchmarks"]["test"]["predictors"]["rail"]["rmse"]["value"]
    assert run(whole.tiny.compose("stages=[stage1]")) is None
