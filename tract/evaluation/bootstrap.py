"""Percentile bootstrap over questions: items of one question share its difficulty, so they are drawn together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tract.evaluation.scored import Array, Estimate

Row = TypeVar("Row", bound=Hashable)

# Weights held at once: 16 MiB per float64 array.
WEIGHTS_AT_ONCE = 2**21
# With more undefined resamples than this, the rest no longer says where the middle of all of them lies.
MAX_UNDEFINED_SHARE = 0.05


def resample_weights(questions: Sequence[str], *, seed: int, resamples: int) -> Iterator[Array]:
    """Yields how often each item is drawn when as many questions as there are get drawn with replacement.

    The weights depend on the arguments only, so all predictors and both judges of a comparison see the same resamples.

    Args:
        questions: [n] question ids; the items of one question always have the same weight.
        seed: of the numpy Generator. resamples: how many, R.

    Yields:
        [r, n] float64, whole numbers; r is as large as memory allows and adds up to R.
    """
    names, question = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    share = np.full(len(names), 1 / len(names))
    step = max(1, WEIGHTS_AT_ONCE // len(question))
    for start in range(0, resamples, step):
        counts = rng.multinomial(len(names), share, size=min(step, resamples - start))  # [r, questions]
        yield counts.astype(np.float64)[:, question]


def percentile_interval(values: Array, confidence: float) -> tuple[float, float] | None:
    """The interval that holds the middle ``confidence`` of the resampled values [R] float64.

    NaN marks undefined resamples; they are left out. None if more than 5 % of the resamples are undefined.
    """
    undefined = np.isnan(values)
    if undefined.mean() > MAX_UNDEFINED_SHARE:
        return None
    low, high = np.quantile(values[~undefined], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def metric_estimates(
    compute: Callable[[Array], Mapping[str, Array]], questions: Sequence[str], *, seed: int, resamples: int, confidence: float
) -> dict[str, Estimate]:
    """As ``estimates``, of a single row: ``compute`` gives metric -> [r] float64."""
    return estimates(lambda weights: {"": compute(weights)}, questions, seed=seed, resamples=resamples, confidence=confidence)[""]


def estimates(
    compute: Callable[[Array], Mapping[Row, Mapping[str, Array]]],
    questions: Sequence[str],
    *,
    seed: int,
    resamples: int,
    confidence: float,
) -> dict[Row, dict[str, Estimate]]:
    """Values with percentile intervals, clustered by question.

    Args:
        compute: weights [r, n] float64 -> row -> metric -> [r] float64, NaN where undefined. Called with ones for the values.
        questions: [n] question ids. With a single question there is nothing to resample: values have no interval.
        seed, resamples: as in ``resample_weights``; without resamples no value has an interval. confidence: in (0, 1).

    Returns:
        Row -> metric -> estimate, in the order of ``compute``.
    """
    values = compute(np.ones((1, len(questions))))
    clustered = len(set(questions)) > 1
    parts = [compute(weights) for weights in resample_weights(questions, seed=seed, resamples=resamples)] if clustered else []

    def estimate(row: Row, metric: str) -> Estimate:
        value = float(values[row][metric][0])
        if np.isnan(value):
            return Estimate(None)
        interval = percentile_interval(np.concatenate([part[row][metric] for part in parts]), confidence) if parts else None
        return Estimate(value) if interval is None else Estimate(value, *interval)

    return {row: {metric: estimate(row, metric) for metric in metrics} for row, metrics in values.items()}
