"""What a run returns to a sweeper that optimises: one metric of its evaluation."""

from __future__ import annotations

import json

from tract.artifacts.products import Product
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.evaluation.results import METRICS_FILE


def optimized_metric(cfg: Config, evaluated: Product) -> float | None:
    """The metric that ``optimized_metric`` names, of the main predictor; None where none is named, or it is not defined.

    Raises:
        ConfigError: if the evaluation has no such benchmark.
    """
    if cfg.optimized_metric is None:
        return None
    benchmark, _, metric = cfg.optimized_metric.rpartition("/")
    measured = json.loads((evaluated.path / METRICS_FILE).read_text(encoding="utf-8"))["benchmarks"]
    if benchmark not in measured:
        raise ConfigError(f"optimized_metric: there is no benchmark {benchmark!r}; the evaluation has {', '.join(measured)}")
    value: float | None = measured[benchmark]["predictors"][cfg.evaluation.main_predictor][metric]["value"]
    return value
