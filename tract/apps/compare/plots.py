"""Figures of a comparison: bars of all variants, and curves along a key that differs alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from tract.apps.compare.comparison import BenchmarkTable, VariantRow
from tract.apps.compare.curves import Curve
from tract.apps.compare.readings import CONSTANT
from tract.evaluation.drawing import COLOURS, DASHED, GREY, colour_of, draw_legend, drawable, line_of, marker_of, new_figure, png_of
from tract.evaluation.seed_intervals import QUESTIONS, SEEDS, SeedMean
from tract.evaluation.tables import METRIC_LABELS

_MOST_TICKS = 8
# Largest over smallest value from which on a logarithmic axis tells the points apart better.
_LOG_FROM = 8.0


@dataclass(frozen=True)
class _Points:
    """One line of a curve: values of the key, and the row of each."""

    label: str
    rows: tuple[tuple[float, VariantRow], ...]


def bars_png(table: BenchmarkTable, metrics: Sequence[str], interval: str) -> bytes:
    """PNG with one panel per metric: a bar for each variant with its interval, a dot for each seed, a dashed line for the constant."""
    return png_of(lambda: _bars(table, metrics, interval))


def curve_png(table: BenchmarkTable, curve: Curve, metrics: Sequence[str], interval: str) -> bytes | None:
    """PNG with one panel per metric: the metric along the curve's key, with intervals; None if the table has not two points of a line."""
    points = _curve_points(table, curve)
    return png_of(lambda: _curve(table, curve, points, metrics, interval)) if points else None


def _panels(metrics: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    columns = min(2, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = new_figure(11, 1.2 + rows * height)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(metrics) :]:
        unused.remove()
    return figure, axes[: len(metrics)]


def _judges(table: BenchmarkTable) -> list[VariantRow]:
    return [row for row in table.rows if row.predictor != CONSTANT]


def _constant(table: BenchmarkTable, metric: str) -> float | None:
    return table.rows[-1].means[metric].estimate.value if table.rows[-1].predictor == CONSTANT else None


def _bars(table: BenchmarkTable, metrics: Sequence[str], interval: str) -> Figure:
    rows = _judges(table)
    predictors = {row.predictor for row in rows}
    figure, panels = _panels(metrics, 0.9 + 0.34 * len(rows))
    for number, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        for place, row in enumerate(rows):
            _draw_bar(axes, row, metric, place, COLOURS[1] if place == table.reference else COLOURS[0])
        if (constant := _constant(table, metric)) is not None:
            axes.axvline(constant, color=GREY, linewidth=1.4, linestyle=DASHED, zorder=4)
        axes.set(title=METRIC_LABELS[metric], ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(visible=False, axis="y")
        names = [drawable(row.variant if len(predictors) == 1 else f"{row.variant} ({row.predictor})") for row in rows]
        axes.set_yticks(range(len(rows)), labels=["-"] * len(rows))
        for tick in axes.get_yticklabels():
            tick.set_parse_math(False)  # a $ in a name is a dollar
        axes.yaxis.set_major_formatter(FixedFormatter(names if number % 2 == 0 else [""] * len(rows)))
    _title(figure, f"{drawable(table.benchmark)}: means over seeds; dots: the seeds\n{_legend(rows, interval)}")
    return figure


def _draw_bar(axes: Axes, row: VariantRow, metric: str, place: int, colour: str) -> None:
    estimate = row.means[metric].estimate
    if estimate.value is None:
        axes.text(0.02, place, "undefined", color=GREY, va="center", transform=axes.get_yaxis_transform())
        return
    axes.barh(place, estimate.value, height=0.62, color=colour, alpha=0.75, linewidth=0, zorder=2)
    if len(row.seeds) > 1:
        values = [value for value in row.values[metric] if value is not None]
        axes.plot(values, [place + 0.18] * len(values), color="black", alpha=0.55, marker="o", markersize=3, linestyle="", zorder=5)
    if estimate.interval is not None:
        axes.plot(estimate.interval, [place, place], color="black", marker="|", markersize=7, zorder=4, **_interval_look(row.means[metric]))


def _interval_look(mean: SeedMean) -> dict[str, Any]:
    """How an interval is drawn: one over questions is dotted."""
    return {"linestyle": ":" if mean.kind == QUESTIONS else "-", "linewidth": 1.3}


def _curve_points(table: BenchmarkTable, curve: Curve) -> list[_Points]:
    """The lines of the curve that the table has at least two points of, for each predictor."""
    predictors = list(dict.fromkeys(row.predictor for row in _judges(table)))
    found = []
    for line in curve.lines:
        for predictor in predictors:
            of_label = {row.variant: row for row in _judges(table) if row.predictor == predictor}
            rows = tuple((value, of_label[label]) for value, label in line.points if label in of_label)
            if len(rows) > 1:
                found.append(_Points(" ".join(filter(None, (line.label, predictor if len(predictors) > 1 else ""))), rows))
    return found


def _curve(table: BenchmarkTable, curve: Curve, lines: Sequence[_Points], metrics: Sequence[str], interval: str) -> Figure:
    figure, panels = _panels(metrics, 3.3)
    values = sorted({value for line in lines for value, _ in line.rows})
    for axes, metric in zip(panels, metrics, strict=True):
        _scale(axes, values)
        for number, line in enumerate(lines):
            _draw_line(axes, line, metric, number)
        if (constant := _constant(table, metric)) is not None:
            axes.axhline(constant, color=GREY, linewidth=1.4, linestyle=DASHED, zorder=1)
        axes.set(title=METRIC_LABELS[metric])
        axes.set_xlabel(drawable(curve.key), parse_math=False)
    legend = _legend([row for line in lines for _, row in line.rows], interval)
    title = f"{drawable(table.benchmark)}: means over seeds, along {drawable(curve.key)}\n{legend}"
    if len(lines) > 1:
        draw_legend(figure, title, [line.label for line in lines])
    else:
        _title(figure, title)
    return figure


def _draw_line(axes: Axes, line: _Points, metric: str, number: int) -> None:
    shown = [(value, row.means[metric]) for value, row in line.rows]
    points = [(value, mean.estimate.value) for value, mean in shown if mean.estimate.value is not None]
    colour = colour_of(number)
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker_of(number), linestyle=line_of(number), markersize=6, linewidth=1.5)
    for value, mean in shown:
        if mean.estimate.interval is not None:
            axes.plot([value, value], mean.estimate.interval, color=colour, marker="_", markersize=8, **_interval_look(mean))


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where values are far apart, linear around 0 where 0 is among them; ticks at the values themselves."""
    positive = [value for value in values if value > 0]
    if values[0] == 0 and positive:
        axes.set_xscale("symlog", linthresh=positive[0])
    elif values[0] > 0 and values[-1] / values[0] >= _LOG_FROM:
        axes.set_xscale("log")
    if len(values) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(list(values)))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{value:g}" for value in values]))
        axes.xaxis.set_minor_locator(NullLocator())


def _legend(rows: Sequence[VariantRow], interval: str) -> str:
    """What intervals and lines mean."""
    kinds = {mean.kind for row in rows for mean in row.means.values()}
    words = {SEEDS: f"solid: {interval} interval over seeds", QUESTIONS: f"dotted: {interval} interval over questions (one seed)"}
    return "; ".join([*(text for kind, text in words.items() if kind in kinds), "dashed: the constant baseline"])


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=11).set_parse_math(False)
