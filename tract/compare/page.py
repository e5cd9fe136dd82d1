"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract.compare.comparison import BenchmarkTable, Comparison
from tract.compare.tables import meanings, percent, row_label, size, tables_of
from tract.compare.variants import NAMES, Variant, differing_keys, setting
from tract.evaluation.meanings import METRIC_MEANINGS
from tract.evaluation.plots import data_uri
from tract.evaluation.predictors import meanings_of
from tract.evaluation.report import page_template
from tract.evaluation.tables import METRIC_LABELS

TEMPLATE = Path(__file__).with_name("comparison.html.jinja")
_MOST_SETTINGS = 8


@dataclass(frozen=True)
class Image:
    """A plot. ``file``: its name. ``caption``: what it shows."""

    file: str
    png: bytes
    caption: str


def page(comparison: Comparison, images: Sequence[Sequence[Image]], folders: Sequence[str]) -> str:
    """The comparison as one HTML page: facts, tables, plots, runs and a legend; styles and images are inside, nothing is loaded.

    The same comparison gives the same text. All names and values are escaped.

    Args:
        comparison: what is shown. images: those of each of its tables. folders: what was compared, as it was given.
    """
    options = comparison.options
    used = {row.predictor for table in comparison.tables for row in table.rows}
    return page_template(TEMPLATE).render(
        facts=_facts(comparison, folders),
        sections=[_section(comparison, table, own) for table, own in zip(comparison.tables, images, strict=True)],
        variants=_variants(comparison.variants),
        left_out=comparison.left_out,
        meanings=meanings(comparison),
        metric_meanings=[(METRIC_LABELS[metric], METRIC_MEANINGS[metric]) for metric in options.metrics],
        predictor_meanings=list(meanings_of(used).items()),
    )


def _facts(comparison: Comparison, folders: Sequence[str]) -> list[tuple[str, Any]]:
    runs = sum(len(variant.runs) for variant in comparison.variants)
    return [
        ("compared", ", ".join(folders)),
        ("runs", f"{runs} in {len(comparison.variants)} variants; {len(comparison.left_out)} left out"),
        ("baseline", comparison.baseline),
        ("confidence", percent(comparison)),
        ("bootstrap resamples", comparison.options.resamples),
    ]


def _section(comparison: Comparison, table: BenchmarkTable, images: Sequence[Image]) -> dict[str, Any]:
    """What the template shows of one benchmark."""
    reference = None if table.reference is None else table.rows[table.reference]
    return {
        "benchmark": table.benchmark,
        "size": size(table),
        "tables": [part for part in tables_of(comparison, table) if part.rows],
        "notes": table.notes,
        "images": [(data_uri(image.png), image.caption) for image in images],
        "main": None if reference is None else (row_label(reference), reference.predictor),
    }


def _variants(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """What the template shows of each variant: its runs, and what it differs in from the others."""
    keys = [key for key in differing_keys([variant.settings for variant in variants]) if key not in NAMES]
    return [
        {
            "label": variant.label,
            "name": variant.name,
            "ablation": variant.ablation,
            "settings": [setting(key, variant.settings) for key in keys[:_MOST_SETTINGS]],
            "more": max(0, len(keys) - _MOST_SETTINGS),
            "runs": [(seed, str(run.product)) for seed, run in variant.runs.items()],
        }
        for variant in variants
    ]
