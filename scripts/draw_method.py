"""Draws docs/img/pipeline.png: the stages of TRACT, and what each part of the training sequence is supervised by.

python scripts/draw_method.py --out docs/img/pipeline.png      (make docs)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]

INK, QUIET = "#1f2933", "#56616c"
Colours = tuple[str, str]  # of a box: inside and edge
MODEL, DATA, STAGE, RESULT = ("#dbe9f8", "#2f6db0"), ("#f0f1f3", "#8a949e"), ("#fbe3cd", "#c8701d"), ("#dcefdf", "#3c8a4d")
TITLE, TEXT = 12.5, 11.0
LINE = 4.9  # height of a line of text
Point = tuple[float, float]


def box(axes: Axes, place: tuple[float, float, float, float], title: str, lines: Sequence[str], colours: Colours) -> None:
    """A rounded box at (left, bottom, width, height): a bold title and lines below it, centred."""
    left, bottom, width, height = place
    style = "round,pad=0,rounding_size=1.2"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, facecolor=colours[0], edgecolor=colours[1], linewidth=1.4))
    top = bottom + height / 2 + LINE * len(lines) / 2
    for number, line in enumerate([title, *lines]):
        weight, size = ("bold", TITLE) if number == 0 else ("normal", TEXT)
        axes.text(left + width / 2, top - LINE * number, line, ha="center", va="center", fontsize=size, fontweight=weight, color=INK)


def arrow(axes: Axes, points: Sequence[Point]) -> None:
    """An arrow along straight pieces; the head is at the last point."""
    for start, end in zip(points[:-2], points[1:-1], strict=True):
        axes.plot(*zip(start, end, strict=True), color=INK, linewidth=1.5, solid_capstyle="round")
    style = {"arrowstyle": "-|>", "mutation_scale": 15, "linewidth": 1.5, "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(points[-2], points[-1], **style))


def note(axes: Axes, place: Point, text: str, align: str = "center") -> None:
    """Small text beside an arrow."""
    axes.text(*place, text, ha=align, va="center", fontsize=TEXT, color=QUIET, style="italic")


def pipeline(axes: Axes) -> None:
    """Base model and annotated CoTs -> stage 1 -> its own CoTs -> stage 2, from the base model again -> RAIL -> evaluation."""
    top, middle, low, height = 104, 80, 57, 14
    box(axes, (0, top, 26, height), "annotated CoTs", ["with true scores"], DATA)
    box(axes, (0, middle, 26, height), "base model", ["instruction-tuned"], MODEL)
    box(axes, (37, top, 22, height), "stage 1", ["fine-tuning"], STAGE)
    box(axes, (70, top, 30, height), "stage-1 judge", ["writes feedback of its own"], MODEL)
    box(axes, (70, middle, 30, height), "self-generated CoTs", ["with the true scores"], DATA)
    box(axes, (37, middle, 22, height), "stage 2", ["fine-tuning"], STAGE)
    box(axes, (37, low, 22, height), "TRACT judge", ["after stage 2"], MODEL)
    box(axes, (70, low, 30, height), "RAIL, mean over n CoTs", ["expected score of each"], RESULT)
    box(axes, (0, low, 26, height), "evaluation", ["r, RMSE, intervals"], RESULT)

    half = height / 2
    arrow(axes, [(26, top + half), (37, top + half)])
    arrow(axes, [(13, middle + height), (13, top - 5), (48, top - 5), (48, top)])
    arrow(axes, [(59, top + half), (70, top + half)])
    arrow(axes, [(85, top), (85, middle + height)])
    note(axes, (86.5, top - 5), "generate", "left")
    arrow(axes, [(70, middle + half), (59, middle + half)])
    arrow(axes, [(26, middle + half), (37, middle + half)])
    note(axes, (31.5, middle + half + 3), "anew")
    arrow(axes, [(48, middle), (48, low + height)])
    arrow(axes, [(59, low + half), (70, low + half)])
    note(axes, (64.5, low + half + 3), "predict")
    arrow(axes, [(85, low), (85, low - 5), (13, low - 5), (13, low)])


def sequence(axes: Axes) -> None:
    """The parts of a training example, and what supervises each."""
    parts = [
        ("prompt", "instruction, response, ...", "nothing", 28.8, DATA),
        ("CoT", "feedback", "cross-entropy", 18, MODEL),
        ("answer cue", "So the overall score is", "cross-entropy", 23, MODEL),
        ("score", "4", "squared error", 15.4, STAGE),
        ("end", "of turn", "cross-entropy", 15.6, MODEL),
    ]
    axes.text(
        0, 42, "A training example, and what each part is supervised by, in both stages", fontsize=TITLE, fontweight="bold", color=INK
    )
    left = 0.0
    for title, text, loss, width, colours in parts:
        box(axes, (left, 24, width - 0.8, 14), title, [text], colours)
        colour, weight = (QUIET, "normal") if loss == "nothing" else (colours[1], "bold")
        axes.text(left + width / 2 - 0.4, 19.5, loss, ha="center", va="center", fontsize=TEXT, color=colour, fontweight=weight)
        left += width
    formula = r"$L \;=\; \mathrm{CE}(\mathrm{CoT,\ cue,\ end})\;+\;\lambda\,(y^{*}-\hat{y})^{2}$"
    rail = r"$\hat{y}\;=\;\sum_{y}\; y \cdot p(y \mid \mathrm{prompt,\ CoT,\ cue})$"
    axes.text(24, 8, formula, ha="center", va="center", fontsize=14.5, color=INK)
    axes.text(76, 8, rail, ha="center", va="center", fontsize=14.5, color=INK)


def figure() -> Figure:
    """The whole picture."""
    drawn, axes = plt.subplots(figsize=(9.6, 8.0))
    drawn.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    axes.set(xlim=(-1, 101), ylim=(1, 120))
    axes.axis("off")
    pipeline(axes)
    sequence(axes)
    return drawn


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img" / "pipeline.png")
    # Without the version of matplotlib, which is in each file otherwise.
    figure().savefig(parser.parse_args().out, dpi=125, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
