"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tract.apps.compare.comparison import BenchmarkTable, RunComparison
from tract.apps.compare.tables import confidence_text, marked_label, meanings, order_of, size, tables_of, title_of
from tract.artifacts.runs import REPORT_FILE, RecordedRun
from tract.artifacts.variants import NAMES, Variant, differing_keys, setting
from tract.evaluation.html_page import data_uri, page_template
from tract.evaluation.meanings import METRIC_MEANINGS
from tract.evaluation.predictors import meanings_of
from tract.evaluation.tables import METRIC_LABELS

TEMPLATE = Path(__file__).with_name("comparison.html.jinja")
_MOST_SETTINGS = 8


@dataclass(frozen=True)
class Image:
    """A plot. ``file``: its name. ``caption``: what it shows."""

    file: str
    png: bytes
    caption: str


def page(comparison: RunComparison, images: Sequence[Sequence[Image]], folders: Sequence[str], place: Path) -> str:
    """The comparison as one HTML page: facts, tables, plots, runs and a legend; styles and images are inside, nothing is loaded.

    The same comparison gives the same text. All names and values are escaped.

    Args:
        comparison: what is shown. images: those of each of its tables. folders: what was compared, as it was given.
        place: the folder that the page will lie in, from which its links lead to the runs.
    """
    options = comparison.options
    used = {row.predictor for table in comparison.tables for row in table.rows}
    return page_template(TEMPLATE).render(
        title=title_of(comparison),
        order=order_of(comparison),
        facts=_facts(comparison, folders),
        sections=[_section(comparison, table, own) for table, own in zip(comparison.tables, images, strict=True)],
        variants=_variants(comparison.variants, place),
        left_out=comparison.left_out,
        meanings=meanings(comparison),
        metric_meanings=[(METRIC_LABELS[metric], METRIC_MEANINGS[metric]) for metric in options.metrics],
        predictor_meanings=list(meanings_of(used).items()),
    )


def _facts(comparison: RunComparison, folders: Sequence[str]) -> list[tuple[str, Any]]:
    runs = sum(len(variant.runs) for variant in comparison.variants)
    return [
        ("compared", ", ".join(folders)),
        ("runs", f"{runs} in {len(comparison.variants)} variants; {len(comparison.left_out)} left out"),
        ("baseline", comparison.baseline),
        ("confidence", confidence_text(comparison)),
        ("bootstrap resamples", comparison.options.resamples),
    ]


def _section(comparison: RunComparison, table: BenchmarkTable, images: Sequence[Image]) -> dict[str, Any]:
    """What the template shows of one benchmark."""
    labels = [marked_label(comparison, table, k, comparison.options.metrics) for k in range(len(table.rows))]
    names = [(label, row.predictor) for label, row in zip(labels, table.rows, strict=True)]
    return {
        "benchmark": table.benchmark,
        "size": size(table),
        "tables": [part for part in tables_of(comparison, table) if part.rows],
        "notes": table.notes,
        "images": [(data_uri(image.png), image.caption) for image in images],
        "main": None if table.reference is None else names[table.reference],
        "best": [names[k] for k in table.best],
    }


def _variants(variants: Sequence[Variant], place: Path) -> list[dict[str, Any]]:
    """What the template shows of each variant: its runs, and what it differs in from the others."""
    keys = [key for key in differing_keys([variant.settings for variant in variants]) if key not in NAMES]
    return [
        {
            "label": variant.label,
            "name": variant.name,
            "ablation": variant.ablation,
            "settings": [setting(key, variant.settings) for key in keys[:_MOST_SETTINGS]],
            "more": max(0, len(keys) - _MOST_SETTINGS),
            "runs": [(seed, _links(run, place)) for seed, run in variant.runs.items()],
        }
        for variant in variants
    ]


def _links(run: RecordedRun, place: Path) -> list[tuple[str, str]]:
    """(what it leads to, address from the page) of what there is of a run."""
    ways = [(f"{run.product.name} report", run.product / REPORT_FILE), ("evaluation", run.product)]
    ways += [(name, path) for name, path in (("judge", run.judge), ("run", run.folder)) if path is not None]
    return [(name, _address(path, place)) for name, path in ways if path.exists()]


def _address(path: Path, place: Path) -> str:
    """A relative address, so that it holds where the folder of all runs is moved or opened on another machine."""
    # Of real places: a path through a link of a run's folder would lead elsewhere by "..".
    return quote(os.path.relpath(os.path.realpath(path), os.path.realpath(place))) + "/" * path.is_dir()
