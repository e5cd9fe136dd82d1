"""How training went: losses and validations by optimizer step, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tract.evaluation.drawing import GREY, colour_of, line_of, new_figure, png_of

Series = tuple[tuple[int, float], ...]  # (optimizer steps, value), ascending
# Title of a panel -> metric -> what its line is called; the last of the third one is what RMSE has to come below.
PANELS = {
    "Cross-entropy (nats a token)": {"train/ce": "training", "val/ce": "validation"},
    "Squared error (points squared)": {"train/squared_error": "training", "val/squared_error": "validation"},
    "Validation RMSE (points)": {"val/rmse": "judge", "val/rmse_constant": "best constant"},
    "Validation Pearson r": {"val/pearson_r": "judge"},
}
CURVES = tuple(metric for panel in PANELS.values() for metric in panel)
_BASELINE = "val/rmse_constant"
_SPARSE = 30  # points up to which each is marked


@dataclass(frozen=True)
class Curves:
    """One fit stage.

    Attributes:
        stage: its name. series: metric of ``CURVES`` -> values; those that were kept.
        missing: why values are missing, in a sentence; None where they are there.
    """

    stage: str
    series: Mapping[str, Series]
    missing: str | None = None


def curves_png(curves: Sequence[Curves]) -> bytes:
    """PNG with a row of panels for each fit stage that kept values; at least one does.

    Raises:
        ValueError: if none kept any.
    """
    shown = [found for found in curves if found.series]
    if not shown:
        raise ValueError("no stage kept values")
    return png_of(lambda: _figure(shown))


def _figure(shown: Sequence[Curves]) -> Figure:
    figure = new_figure(14, 3.2 * len(shown), dpi=110, pad=0.1)
    for row, found in zip(figure.subplots(len(shown), len(PANELS), squeeze=False), shown, strict=True):
        for axes, (title, lines) in zip(row, PANELS.items(), strict=True):
            _draw(axes, found, title, lines)
    return figure


def _draw(axes: Axes, found: Curves, title: str, lines: Mapping[str, str]) -> None:
    for k, (metric, name) in enumerate(lines.items()):
        if series := found.series.get(metric):
            steps, values = zip(*series, strict=True)
            marker = "o" if len(series) <= _SPARSE else ""
            look = (GREY, ":") if metric == _BASELINE else (colour_of(k), line_of(k))
            axes.plot(steps, values, color=look[0], linestyle=look[1], marker=marker, markersize=4, linewidth=1.6, label=name)
    axes.set_title(f"{found.stage}: {title}", fontsize=9)
    axes.set_xlabel("optimizer steps", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if axes.lines:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", color=GREY)
