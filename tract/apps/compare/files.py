"""The files of a comparison: name -> content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tract.apps.compare.comparison import BenchmarkTable, RunComparison
from tract.apps.compare.csv_table import csv_text
from tract.apps.compare.curves import curves_of
from tract.apps.compare.page import Image, page
from tract.apps.compare.plots import bars_png, curve_png
from tract.apps.compare.readings import CONSTANT
from tract.apps.compare.tables import confidence_text, markdown

# Key -> how the files of its curve begin.
_CURVE_NAMES = {"objective.lambda": "lambda", "evaluation.n_cot": "n_cot"}
_LONGEST_NAME = 80


def files_of(comparison: RunComparison, folders: Sequence[str], place: Path) -> Mapping[str, str | bytes]:
    """Tables, plots and the page; the same comparison gives the same bytes.

    Args:
        comparison: what is shown. folders: as they were given, for the page. place: the folder that the files will lie in.
    """
    names = _file_names([table.benchmark for table in comparison.tables])
    images = [_images(comparison, table, name) for table, name in zip(comparison.tables, names, strict=True)]
    return {
        "comparison.md": markdown(comparison),
        "comparison.csv": csv_text(comparison),
        **{image.file: image.png for found in images for image in found},
        "index.html": page(comparison, images, folders, place),
    }


def _images(comparison: RunComparison, table: BenchmarkTable, name: str) -> list[Image]:
    if all(row.predictor == CONSTANT for row in table.rows):
        return []
    metrics, interval = comparison.options.metrics, confidence_text(comparison)
    bars = bars_png(table, metrics, interval)
    known = any(mean.kind for row in table.rows if row.predictor != CONSTANT for mean in row.means.values())
    shown = "means with their intervals" if known else "means, of too few seeds for intervals"
    images = [Image(f"bars_{name}.png", bars, f"All variants on {table.benchmark}: {shown}.")]
    for curve in curves_of(comparison.variants):
        if (png := curve_png(table, curve, metrics, interval)) is not None:
            kind = _CURVE_NAMES.get(curve.key, f"curve_{_name_part(curve.key)}")
            images.append(Image(f"{kind}_{name}.png", png, f"Variants on {table.benchmark} that differ in {curve.key} alone."))
    return images


def _name_part(text: str) -> str:
    """The text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)[:_LONGEST_NAME] or "_"


def _file_names(benchmarks: Sequence[str]) -> list[str]:
    """A name for each, no two alike, not even where capitals do not count."""
    names: list[str] = []
    for benchmark in benchmarks:
        name = base = _name_part(benchmark)
        number = 1
        while name.lower() in {used.lower() for used in names}:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names
