"""A metric is one entry of a table, from which tables, report, limits, baselines and configuration read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_evaluation import make_scored

from tract.evaluation.meanings import METRIC_MEANINGS
from tract.evaluation.metrics import METRIC_TABLE, METRICS, Cases
from tract.evaluation.statistics import BASELINE_METRICS, limits_of, metrics_of
from tract.evaluation.tables import METRIC_LABELS

ROOT = Path(__file__).resolve().parents[2]


def test_everything_reads_the_table() -> None:
    assert tuple(METRIC_TABLE) == METRICS == tuple(METRIC_LABELS) == tuple(METRIC_MEANINGS)
    assert BASELINE_METRICS == ("pearson_r", "spearman_rho", "kendall_tau", "rmse", "mae", "accuracy_within_half")
    assert [limits_of(name) for name in ("pearson_r", "rmse", "failure_rate")] == [(-1.0, 1.0), (0.0, np.inf), (0.0, 1.0)]


@pytest.mark.parametrize("name", METRICS)
def test_values_are_within_the_limits_and_each_weighting_has_one(name: str) -> None:
    scored = make_scored("x", ("rail",), 0.5)
    weights = np.vstack([np.ones(60), np.r_[np.zeros(30), np.ones(30)]])
    scores = scored.scores["rail"]
    values = METRIC_TABLE[name].compute(
        Cases(weights, scored.targets, scores, scores - scored.targets, scored.failures["rail"], scored.score_mass["rail"])
    )
    low, high = limits_of(name)
    assert values.shape == (2,)
    assert np.all((values >= low) & (values <= high))
    assert values[0] == pytest.approx(metrics_of(scored, "rail")[name])


def test_a_metric_is_added_in_one_place(tmp_path: Path) -> None:
    """In a process whose table has one more entry: computed, in the table's heading and the report, known to the configuration."""
    program = """
import numpy as np
from tract.evaluation import metrics
metrics.METRIC_TABLE["bias"] = metrics.Metric(
    "bias", "mean of predicted minus true score.", lambda c: metrics.weighted_mean(c.weights, c.residuals),
    "residuals", -np.inf, np.inf, None,
)
metrics.METRICS = tuple(metrics.METRIC_TABLE)
from example_evaluation import make_evaluation, make_scored
from tract.apps.compare.comparison import METRICS
from tract.evaluation.report import html
from tract.evaluation.statistics import BASELINE_METRICS, metrics_of
from tract.evaluation.tables import markdown_table
scored = make_scored("x", ("rail",), 0.5)
assert np.isclose(metrics_of(scored, "rail")["bias"], (scored.scores["rail"] - scored.targets).mean())
assert "bias" in BASELINE_METRICS and "bias" in METRICS
page, table = html(make_evaluation()), markdown_table(make_evaluation())
assert "mean of predicted minus true score." in page and "| bias |" in table
from composing import composed
from tract.pipeline.validation import validate
validate(composed(["model=tiny", "optimized_metric=test/bias"]))
"""
    path = [str(ROOT), str(ROOT / "tests" / "support")]
    code = f"import sys; sys.path[:0] = {path!r}\n{program}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
