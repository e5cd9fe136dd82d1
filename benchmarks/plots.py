"""Plots of the benchmarks' results: bars of ratios to the plain way, lines of cost against size.

    python benchmarks/plots.py --results benchmarks/results --out docs/img

Writes performance_<name>.png for each result that is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
Rows = Sequence[dict[str, Any]]

# Result -> (what the groups of bars are, what the bars show, its column)
BARS = {
    "train_step": ("annotations", "tokens/s over the plain way's", "ratio"),
    "generate": ("n_cot", "tokens/s over those of waiting batches", "ratio"),
    "evaluate": ("n_cot", "examples/s over the plain way's", "ratio"),
    "memory": ("annotations", "peak MiB over the plain way's", "ratio"),
}
# Result -> (column along the axis, columns that make a line of their own, columns drawn)
LINES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "scaling_data": ("rows", (), ("build s", "us/item", "peak MiB")),
    "scaling_prompt": ("prompt tokens", ("way",), ("s/step", "peak MiB")),
    "scaling_n_cot": ("n_cot", ("way",), ("s/example",)),
    "scaling_vocabulary": ("vocabulary", ("head", "way"), ("s", "above inputs MiB")),
}


def bars(rows: Rows, group: str, label: str, column: str) -> Figure:
    """A group of bars for each value of one column, a bar in it for each way; with the range over the rounds, if it is known."""
    groups = list(dict.fromkeys(row.get(group, "") for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
    width = 0.8 / len(ways)
    for number, way in enumerate(ways):
        found = [row for row in rows if row["way"] == way]
        places = [groups.index(row.get(group, "")) + (number - (len(ways) - 1) / 2) * width for row in found]
        drawn = axes.bar(places, [row[column] for row in found], width, yerr=_spread(found, column), capsize=2, label=way)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7, padding=1)
    axes.axhline(1, color="gray", linewidth=0.6)
    axes.set_xticks(range(len(groups)), [str(value) for value in groups])
    axes.set(xlabel=group if groups != [""] else "", ylabel=label)
    axes.margins(y=0.15)
    axes.legend(fontsize=7)
    return figure


def _spread(rows: Rows, column: str) -> list[list[float]] | None:
    if not all("least" in row for row in rows):
        return None
    return [[row[column] - row["least"] for row in rows], [row["most"] - row[column] for row in rows]]


def lines(rows: Rows, along: str, kinds: Sequence[str], columns: Sequence[str]) -> Figure:
    """A panel for each column, a line in it for each kind."""
    figure, panels = plt.subplots(1, len(columns), figsize=(3.2 * len(columns) + 0.4, 2.8), layout="constrained", squeeze=False)
    for axes, column in zip(panels[0], columns, strict=True):
        for kind in dict.fromkeys(tuple(row[name] for name in kinds) for row in rows):
            found = [row for row in rows if tuple(row[name] for name in kinds) == kind]
            axes.plot([row[along] for row in found], [row[column] for row in found], marker="o", markersize=3, label=", ".join(kind))
        _sizes(axes, sorted({row[along] for row in rows}))
        axes.set(xlabel=along, ylabel=column)
        axes.set_ylim(0, 1.1 * max(row[column] for row in rows))
        if kinds:
            axes.legend(fontsize=7)
    return figure


def _sizes(axes: Axes, sizes: Sequence[float]) -> None:
    """Sizes double or grow tenfold, so they stand on a logarithmic axis, each under its own name."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size / 1024:g}k" if size >= 1024 and size % 1024 == 0 else f"{size:g}" for size in sizes])
    axes.set_xticks([], minor=True)


def parts(rows: Rows) -> Figure:
    """Shares of a training, the model's and the others'."""
    shares = {row["part"]: row["% of training"] for row in rows if isinstance(row["% of training"], float)}
    names = [name for name in shares if name != "training loop"]
    figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
    drawn = axes.barh(names[::-1], [shares[name] for name in names[::-1]])
    axes.bar_label(drawn, fmt="%.1f", fontsize=7, padding=1)
    axes.set(xlabel="% of training")
    axes.margins(x=0.12)
    return figure


def stacks(rows: Rows) -> Figure:
    """A bar for each kind of step, made of the shares of its parts; less than nothing is noise and not drawn."""
    steps = list(dict.fromkeys(row["step"] for row in rows))[::-1]
    figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
    reached = [0.0] * len(steps)
    for part in dict.fromkeys(row["part"] for row in rows):
        shares = {row["step"]: max(0.0, 100 * row["share"]) for row in rows if row["part"] == part}
        widths = [shares[step] for step in steps]
        drawn = axes.barh(steps, widths, left=reached, label=part)
        axes.bar_label(drawn, [f"{width:.0f}" if width >= 3 else "" for width in widths], label_type="center", fontsize=7)
        reached = [left + width for left, width in zip(reached, widths, strict=True)]
    axes.set(xlabel="% of a step")
    axes.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def plotted(name: str, rows: Rows) -> Figure | None:
    """The plot of a result, if there is one."""
    if name in BARS and "way" in rows[0]:
        return bars(rows, *BARS[name])
    if name in LINES:
        return lines(rows, *LINES[name])
    if name == "step_profile":
        return stacks(rows)
    return parts(rows) if name == "overhead" else None


def main() -> None:
    """Plots every result of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img", help="folder of the plots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if (figure := plotted(result["benchmark"], result["rows"])) is not None:
            target = options.out / f"performance_{result['benchmark']}.png"
            figure.savefig(target, dpi=110)
            plt.close(figure)
            print(target)


if __name__ == "__main__":
    main()
