"""Evaluations with random numbers in the shape of real ones: shared by the tests of tables, plots and report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tract.evaluation.results import BenchmarkReport, Bin, Evaluation
from tract.evaluation.scored import Estimate, Scored

PREDICTORS = ("rail", "rail_normalized", "argmax", "median", "decode_forced", "decode_free", "no_cot")
POINTS = ("rmse", "mae")
CORRELATIONS = ("pearson_r", "spearman_rho", "kendall_tau")


def make_scored(benchmark: str, predictors: Sequence[str], noise: float, items: int = 60, seed: int = 0) -> Scored:
    """Four items per question; targets are those of the benchmark, whatever the noise."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    targets = truth.integers(3, 16, items) / 3
    words = np.floor(truth.lognormal(4.5, 0.8, items))
    scores = {}
    for number, predictor in enumerate(predictors):
        raw = np.clip(3 + 0.8 * (targets - 3) + rng.normal(0, noise, items) + 0.2 * (np.log1p(words) - 4.5), 1, 5)
        scores[predictor] = raw if number < 2 or predictor == "no_cot" else np.round(raw)
    return Scored(
        benchmark=benchmark,
        ids=tuple(f"{benchmark}-{k}" for k in range(items)),
        questions=tuple(f"q{k // 4}" for k in range(items)),
        targets=targets,
        response_words=words,
        scores=scores,
        failures={p: np.zeros(items) for p in predictors},
        score_mass={p: np.full(items, 0.999) for p in predictors},
    )


def make_report(scored: Scored, other: Scored | None = None, other_name: str | None = None) -> BenchmarkReport:
    """Point values are computed; intervals are made up around them."""
    metrics = {p: _estimates(scored, p) for p in scored.scores}
    spread = float(scored.targets.std())
    constant = {**dict.fromkeys(CORRELATIONS, Estimate(None)), **{m: Estimate(spread, spread - 0.05, spread + 0.05) for m in POINTS}}
    shared = [p for p in scored.scores if other is not None and p in other.scores]
    return BenchmarkReport(
        scored=scored,
        metrics=metrics,
        baselines={"constant": constant, "length": {"pearson_r": Estimate(-0.0312, -0.14, 0.08), "rmse": constant["rmse"]}},
        reliability={p: _bins(scored, p) for p in scored.scores},
        differences={p: {"pearson_r": Estimate(0.0512, 0.0101, 0.09), "rmse": Estimate(-0.02, -0.1, 0.06)} for p in shared},
        compared_to=other_name,
    )


def _estimates(scored: Scored, predictor: str) -> dict[str, Estimate]:
    predicted, targets = scored.scores[predictor], scored.targets
    r = float(np.corrcoef(predicted, targets)[0, 1])
    error = np.abs(predicted - targets)
    values = {
        "pearson_r": r,
        "spearman_rho": 0.98 * r,
        "kendall_tau": 0.8 * r,
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(error.mean()),
        "accuracy_within_half": float((error <= 0.5).mean()),
        "score_mass": 0.9991,
        "failure_rate": 0.0002,
    }
    return {m: Estimate(v, max(v - 0.02, 0.0), v + 0.02 if m in POINTS else min(v + 0.02, 1.0)) for m, v in values.items()}


def _bins(scored: Scored, predictor: str) -> tuple[Bin, ...]:
    predicted, edges = scored.scores[predictor], np.linspace(1, 5, 9)
    places = np.clip(np.digitize(predicted, edges) - 1, 0, 7)
    return tuple(
        Bin(float(edges[k]), float(edges[k + 1]), int(here.sum()), float(predicted[here].mean()), float(scored.targets[here].mean()))
        for k in range(8)
        if (here := places == k).any()
    )


def make_evaluation(
    judge: str = "tract", other: str = "base model", benchmarks: Sequence[str] = ("vicuna",), predictors: Sequence[str] = PREDICTORS[:2],
    items: int = 60, facts: tuple[tuple[str, object], ...] = (("model", "tiny"), ("confidence", 0.95)),
) -> Evaluation:  # fmt: skip
    reports, others = [], []
    for benchmark in benchmarks:
        mine = make_scored(benchmark, predictors, 0.5, items, seed=1)
        theirs = make_scored(benchmark, predictors, 1.1, items, seed=2)
        reports.append(make_report(mine, theirs, other))
        others.append(make_report(theirs))
    return Evaluation(judge, tuple(reports), ((other, tuple(others)),), facts, "rail")
