"""The figure of one benchmark: four panels that show where a judge is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from scipy.optimize import isotonic_regression

from tract.evaluation.drawing import DASHED, GREY, colour_of, draw_legend, drawable, line_of, marker_of, new_figure, png_of, png_with
from tract.evaluation.results import BenchmarkReport, Robustness
from tract.evaluation.scored import Array
from tract.evaluation.tables import counts

Judges = Sequence[tuple[str, BenchmarkReport]]
DOTTED = (0, (1, 2))  # the best constant


@dataclass(frozen=True)
class BenchmarkPlot:
    """A figure and where it shows the items.

    Attributes:
        png: the image. size: its width and height in pixels.
        points: name of a judge -> [n, 2] float64, pixels from the left and the top: its items among predicted and true scores.
    """

    png: bytes
    size: tuple[int, int]
    points: Mapping[str, Array]


def benchmark_plot(judges: Judges, predictor: str) -> BenchmarkPlot:
    """Four panels, and where the first one shows each item: predicted against true, reliability, residuals by length, histogram.

    Args:
        judges: (name, report) on one benchmark, this judge first; each colour is one judge. At least one.
        predictor: whose scores are shown; every report has it.

    Returns:
        Bytes that depend on the input and the version of matplotlib alone.
    """
    places: dict[int, Array] = {}  # number of the judge -> its points in the units of the axes
    png, figure = png_with(lambda: _figure(judges, predictor, places))
    width, height = (round(float(size)) for size in figure.bbox.size)
    axes = figure.axes[0]
    points = {judges[k][0]: axes.transData.transform(found) for k, found in places.items()}
    return BenchmarkPlot(png, (width, height), {name: np.column_stack([at[:, 0], height - at[:, 1]]) for name, at in points.items()})


def shifts_png(judges: Sequence[tuple[str, Robustness]], predictor: str) -> bytes:
    """PNG of the undue shift of each perturbation with its interval, one colour per judge.

    Args:
        judges: (name, robustness) on one benchmark, this judge first. predictor: whose scores are shown.
    """
    return png_of(lambda: _shifts_figure(judges, predictor))


def _shifts_figure(judges: Sequence[tuple[str, Robustness]], predictor: str) -> Figure:
    names = [shift.perturbation for shift in judges[0][1].shifts]
    figure = new_figure(11, 1.6 + 0.42 * len(names))
    axes = figure.subplots()
    axes.axvline(0.0, color=GREY, linewidth=1.2, linestyle=DASHED, zorder=1)
    for k, (_, found) in enumerate(judges):
        _draw_shifts(axes, found, predictor, names, k, len(judges))
    axes.set(yticks=range(len(names)), xlabel="undue shift (points)")
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    title = f"{drawable(judges[0][1].benchmark)}: what moves the score, predictor {drawable(predictor)}"
    draw_legend(figure, title, [name for name, _ in judges])
    return figure


def _draw_shifts(axes: Axes, found: Robustness, predictor: str, names: Sequence[str], number: int, judges: int) -> None:
    for shift in found.shifts:
        estimate = shift.metrics[predictor]["undue_shift"]
        if shift.perturbation not in names or estimate.value is None:
            continue
        height = names.index(shift.perturbation) + 0.5 * ((number + 0.5) / judges - 0.5)
        axes.plot([estimate.value], [height], color=colour_of(number), marker=marker_of(number), markersize=6, linestyle="", zorder=3)
        if estimate.interval is not None:
            axes.plot(estimate.interval, [height, height], color=colour_of(number), linewidth=1.6, zorder=2)


def _figure(judges: Judges, predictor: str, places: dict[int, Array]) -> Figure:
    figure = new_figure(11, 8.8)
    (scatter, reliability), (residuals, histogram) = figure.subplots(2, 2)
    places |= _draw_scores(scatter, judges, predictor)
    _draw_reliability(reliability, judges, predictor)
    _draw_residuals(residuals, judges, predictor)
    _draw_histogram(histogram, judges, predictor)
    report = judges[0][1]
    title = f"{drawable(report.scored.benchmark)}: {counts(report)}, predictor {drawable(predictor)}"
    lines = [
        (Line2D([], [], color=GREY, linewidth=1.2, linestyle=DASHED), "a perfect judge"),
        (Line2D([], [], color=GREY, linewidth=1.6, linestyle=DOTTED), "the best constant (mean true score)"),
    ]
    draw_legend(figure, title, [name for name, _ in judges], truth=True, lines=lines)
    return figure


def _layers(judges: Judges) -> list[tuple[int, BenchmarkReport]]:
    """(number of the judge, its report), this judge last and so on top."""
    return [(k, report) for k, (_, report) in enumerate(judges)][::-1]


def _alpha(count: int) -> float:
    """Opacity that keeps many points readable."""
    return float(np.clip(8.0 / np.sqrt(count), 0.08, 0.6))


def _limits(judges: Judges, predictor: str) -> tuple[float, float]:
    """Lowest and highest score, true or predicted by any judge, with a margin, in points."""
    scores = np.concatenate([part for _, r in judges for part in (r.scored.targets, r.scored.scores[predictor])])
    low, high = float(scores.min()), float(scores.max())
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _identity(axes: Axes, limits: tuple[float, float]) -> None:
    axes.plot(limits, limits, color=GREY, linewidth=1.2, linestyle=DASHED, zorder=1)
    axes.set(xlim=limits, ylim=limits)


def _draw_scores(axes: Axes, judges: Judges, predictor: str) -> dict[int, Array]:
    """Draws the points; returns them by the number of their judge, [n, 2] in the units of the axes."""
    places: dict[int, Array] = {}
    limits = _limits(judges, predictor)
    _identity(axes, limits)
    mean = float(judges[0][1].scored.targets.mean())
    axes.axhline(mean, color=GREY, linewidth=1.6, linestyle=DOTTED, zorder=1)
    spread = 0.015 * (limits[1] - limits[0])
    for k, report in _layers(judges):
        targets, scores = report.scored.targets, report.scored.scores[predictor]
        noise = np.random.default_rng(k).uniform(-spread, spread, size=(2, len(targets)))
        places[k] = np.column_stack([targets + noise[0], scores + noise[1]])
        axes.scatter(
            places[k][:, 0],
            places[k][:, 1],
            s=16,
            color=colour_of(k),
            marker=marker_of(k),
            alpha=_alpha(len(targets)),
            linewidths=0,
            zorder=2,
        )
    axes.set(title="Predicted and true score", xlabel="true score (points, jittered)", ylabel="predicted score (points, jittered)")
    return places


def _draw_reliability(axes: Axes, judges: Judges, predictor: str) -> None:
    low, high = _limits(judges, predictor)
    _identity(axes, (low, high))
    # The counts stand below the lines, one row per judge, each under its point.
    row_height = 0.06 * (high - low)
    axes.set_ylim(low - row_height * len(judges), high)
    for k, report in _layers(judges):
        bins = report.reliability.get(predictor, ())
        axes.plot(
            [b.predicted for b in bins], [b.true for b in bins],
            color=colour_of(k), marker=marker_of(k), linestyle=line_of(k), linewidth=1.4, markersize=6, zorder=2,
        )  # fmt: skip
        width = 0.0155 * max((len(str(b.count)) for b in bins), default=1) + 0.01  # of a count with its gap, as a share of the axes
        for b, place in zip(bins, spread_out([b.predicted for b in bins], width * (high - low), low, high), strict=True):
            axes.text(
                place, low - row_height * (k + 0.5), str(b.count), color=colour_of(k), fontsize=8, ha="center", va="center", clip_on=True
            )
    axes.set(title="Reliability (below: items per bin)", xlabel="mean predicted score of the bin (points)")
    axes.set_ylabel("mean true score of the bin (points)")


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending places moved apart by the least squares that leave ``gap`` between them, within [low, high] as far as they fit there."""
    count = len(places)
    gap = min(gap, (high - low) / max(1, count))
    # Less ``gap`` for each place before, they need only ascend.
    ascending = isotonic_regression(np.asarray(places) - gap * np.arange(count)).x if count else []
    first, furthest = low + gap / 2, high - gap / 2 - (count - 1) * gap
    return [float(min(max(place, first), furthest) + k * gap) for k, place in enumerate(ascending)]


def _draw_residuals(axes: Axes, judges: Judges, predictor: str) -> None:
    axes.axhline(0.0, color=GREY, linewidth=1.2, linestyle=DASHED, zorder=1)
    axes.set_xscale("log")
    for k, report in _layers(judges):
        words = 1.0 + report.scored.response_words  # an empty response has a place on the log axis too
        residuals = report.scored.scores[predictor] - report.scored.targets
        axes.scatter(words, residuals, s=16, color=colour_of(k), marker=marker_of(k), alpha=_alpha(len(words)), linewidths=0, zorder=2)
        _draw_trend(axes, words, residuals, k)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(title="Residual by response length, with least-squares line", xlabel="response length (words + 1, log scale)")
    axes.set_ylabel("predicted minus true (points)")


def _draw_trend(axes: Axes, words: Array, residuals: Array, number: int) -> None:
    """Least-squares line of the residual on the log of the length; none where all lengths are equal."""
    x = np.log(words)
    spread = float(((x - x.mean()) ** 2).sum())
    if spread <= 1e-12:
        return
    slope = float(((x - x.mean()) * residuals).sum()) / spread
    ends = np.array([x.min(), x.max()])
    axes.plot(
        np.exp(ends), residuals.mean() + slope * (ends - x.mean()),
        color=colour_of(number), linewidth=2.2, linestyle=line_of(number), zorder=3,
    )  # fmt: skip


def _draw_histogram(axes: Axes, judges: Judges, predictor: str) -> None:
    ticks = np.asarray(MaxNLocator(nbins=20, steps=[1, 2, 2.5, 5, 10]).tick_values(*_limits(judges, predictor)))
    half = (ticks[1] - ticks[0]) / 2
    edges = np.append(ticks - half, ticks[-1] + half).tolist()  # whole scores lie in the middle of a bin
    targets = judges[0][1].scored.targets
    axes.hist(targets, bins=edges, color=GREY, alpha=0.45, zorder=1)
    for k, report in _layers(judges):
        scores = report.scored.scores[predictor]
        axes.hist(scores, bins=edges, histtype="step", linewidth=1.8, color=colour_of(k), linestyle=line_of(k), zorder=2)
    axes.set(title="Distribution of scores", xlabel="score (points)", ylabel="items")
