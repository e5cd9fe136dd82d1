"""Weighted agreement of predictions and targets: item i counts as if it stood w_i times in the data. Pure.

A bootstrap resample is such a weight per item, so all resamples go through the same few matrix operations. Results equal
scipy's on the repeated rows. NaN marks what is undefined; ``bootstrap`` turns it into None before anything leaves the package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract.evaluation.scored import Array

Indices = NDArray[np.int64]

# A spread below this share of the mean is rounding error: the values are constant (scipy.stats.pearsonr warns from here on).
ROUNDING = 1e-13
# Scores that differ by less, in points, are equal: rounding of float32.
SAME_SCORE = 1e-6
# Pairs of items that weighted_kendall holds at once: 16 MiB per float32 array.
PAIRS_AT_ONCE = 2**22
# float32 holds every integer up to here.
EXACT_FLOAT32 = 2**24


@dataclass(frozen=True, eq=False)
class TieGroups:
    """Items by value: equal values share a group, groups ascend.

    Attributes:
        group: [n] int64, each item's group.
        order: [n] int64, the items sorted by group. starts: [G] int64, where each group begins in ``order``.
    """

    group: Indices
    order: Indices
    starts: Indices

    @classmethod
    def of(cls, values: Array) -> TieGroups:
        """The groups of values [n] float64; only exactly equal values tie."""
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(group.astype(np.int64), np.argsort(group, kind="stable"), np.cumsum(counts) - counts)

    def totals(self, weights: Array) -> Array:
        """[R, G] float64: the weight of every group for weights [R, n] float64."""
        totals: Array = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        return totals

    def midranks(self, weights: Array) -> Array:
        """[R, n] float64: the mean rank, counted from 1, that an item's copies have among all copies; weights [R, n] float64."""
        totals = self.totals(weights)
        ranks = np.cumsum(totals, axis=1) - (totals - 1) / 2  # [R, G]
        return ranks[:, self.group]


def weighted_mean(weights: Array, values: Array) -> Array:
    """[R] float64: the mean of values ([n] or [R, n] float64) under each row of weights [R, n] float64."""
    mean: Array = (weights * values).sum(axis=1) / weights.sum(axis=1)
    return mean


def deviations(weights: Array, values: Array) -> tuple[Array, Array]:
    """How far values lie from their weighted mean.

    Args:
        weights: [R, n] float64. values: [n] or [R, n] float64.

    Returns:
        Deviations [R, n] float64 and standard deviations [R] float64; the latter are NaN where the values are constant.
    """
    mean = weighted_mean(weights, values)
    deviation = values - mean[:, None]
    std = np.sqrt(weighted_mean(weights, deviation**2))
    return deviation, np.where(std > ROUNDING * np.abs(mean), std, np.nan)


def weighted_pearson(weights: Array, x: Array, y: Array) -> Array:
    """[R] float64: Pearson r for weights [R, n] float64 and x, y [n] or [R, n] float64; NaN where x or y is constant."""
    x_deviation, x_std = deviations(weights, x)
    y_deviation, y_std = deviations(weights, y)
    correlation = weighted_mean(weights, x_deviation * y_deviation) / (x_std * y_std)
    return np.clip(correlation, -1.0, 1.0)  # perfect agreement may come out an ulp above 1


def weighted_spearman(weights: Array, x: TieGroups, y: TieGroups) -> Array:
    """[R] float64: Spearman rho (Pearson r of midranks) for weights [R, n] float64; NaN where x or y is constant."""
    return weighted_pearson(weights, x.midranks(weights), y.midranks(weights))


def weighted_kendall(weights: Array, x: TieGroups, y: TieGroups) -> Array:
    """[R] float64: Kendall tau-b for weights [R, n] float64, whole numbers; NaN where x or y is constant.

    With S[i, j] = sign(x_i - x_j) sign(y_i - y_j), concordant minus discordant pairs are w'Sw / 2. Copies of one item tie in x
    and y, as they should. S is made in blocks of rows, so memory stays bounded for any n.
    """
    n, total = weights.shape[1], weights.sum(axis=1)
    # Entries of w'S are whole numbers no larger than the total weight, so float32 is exact up to 2^24, and twice as fast.
    dtype = np.float32 if total.max() < EXACT_FLOAT32 else np.float64
    factors, x_group, y_group = weights.astype(dtype), x.group.astype(dtype), y.group.astype(dtype)
    concordance = np.zeros(len(weights))  # twice the number of pairs
    step = max(1, PAIRS_AT_ONCE // n)
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        signs = np.sign(np.subtract.outer(x_group[rows], x_group)) * np.sign(np.subtract.outer(y_group[rows], y_group))
        concordance += (weights[:, rows] * (factors @ signs.T)).sum(axis=1)  # [R, n] @ [n, rows] -> [R, rows]
    untied_x = total**2 - (x.totals(weights) ** 2).sum(axis=1)
    untied_y = total**2 - (y.totals(weights) ** 2).sum(axis=1)
    scale = np.sqrt(untied_x * untied_y)
    tau: Array = concordance / np.where(scale > 0, scale, np.nan)
    return np.clip(tau, -1.0, 1.0)


def line_residuals(weights: Array, x: Array, y: Array) -> Array:
    """[R, n] float64: y minus the weighted least-squares line of y on x; where x is constant, y minus its mean.

    Args:
        weights: [R, n] float64, the line is fitted for every row. x, y: [n] float64.
    """
    x_deviation, x_std = deviations(weights, x)
    y_deviation, _ = deviations(weights, y)
    slope = weighted_mean(weights, x_deviation * y_deviation) / x_std**2
    return y_deviation - np.nan_to_num(slope, nan=0.0)[:, None] * x_deviation


def krippendorff_alpha(weights: Array, draws: Array) -> Array:
    """[R] float64: Krippendorff's alpha for interval data, one for each row of weights; NaN where it is not defined.

    Args:
        weights: [R, n] float64: how often each item counts.
        draws: [n, S] float64: the values given to each item; NaN is a missing one. Items with fewer than two do not count.
    """
    counts = np.isfinite(draws).sum(axis=1)
    paired = counts >= 2
    values, counts, weights = draws[paired], counts[paired], weights[:, paired]
    if not len(values):
        return np.full(len(weights), np.nan)
    values = values - np.nanmean(values)
    return alpha_of_sums(weights, counts.astype(np.float64), np.nansum(values, axis=1), np.nansum(values**2, axis=1))


def alpha_of_sums(weights: Array, counts: Array, sums: Array, squares: Array) -> Array:
    """[R] float64: Krippendorff's alpha for interval data from sums over each item's values; NaN where it is not defined.

    1 is perfect agreement, 0 what chance gives. With D_o the mean squared difference within items and D_e that between any two
    values, alpha = 1 - D_o / D_e (Krippendorff, Content Analysis, 2004, section 11.3).

    Args:
        weights: [R, n] float64: how often each item counts.
        counts: [n] float64, two or more values of each item. sums, squares: [n] float64, their sum and sum of squares, of values
            that were moved to a mean near 0, or digits are lost.
    """
    # Over ordered pairs, sum of (v_i - v_j)^2 = 2 (m sum v^2 - (sum v)^2).
    within = 2 * (counts * squares - sums**2) / (counts - 1)
    number = weights @ counts
    between = 2 * (number * (weights @ squares) - (weights @ sums) ** 2)
    observed = np.divide(weights @ within, number, out=np.full(len(weights), np.nan), where=number > 0)
    expected = np.divide(between, number * (number - 1), out=np.full(len(weights), np.nan), where=number > 1)
    alpha: Array = 1 - np.divide(observed, expected, out=np.full(len(weights), np.nan), where=expected > SAME_SCORE**2)
    return alpha
