"""The best variant of a sweep: chosen by validation, mean over seeds, and by nothing where validation cannot tell. Reads products alone.

The test split is for the final number. A choice by it would make that number too good, so only ``optimized_metric``, which names it on
purpose, can lead there, and is said to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tract.artifacts.fit_stages import not_comparable, validated_on
from tract.artifacts.products import read_manifest
from tract.artifacts.runs import REPORT_FILE, RecordedRun
from tract.artifacts.variants import Variant, differing_keys, variants_of
from tract.common.errors import DataError
from tract.config.vocabulary import FIT_STAGES
from tract.evaluation.cells import format_number
from tract.evaluation.metrics import METRIC_TABLE
from tract.evaluation.results import METRICS_FILE

VALIDATION = "val"  # the split's name among the benchmarks
# Keys of the data that leave the validation split as it is.
_SAME_ITEMS = ("data.num_workers", "data.max_train_items")
_DEFAULT_METRIC = "rmse"
_MOST_NAMED = 4


@dataclass(frozen=True)
class Measure:
    """What variants are chosen by.

    Attributes:
        name: such as "val/rmse". of: what measured it, in words. value: run -> number; None where it is not defined.
        less_is_better: whether the least is the best. caution: what else has to be said of a choice by it; or empty.
    """

    name: str
    of: str
    value: Callable[[RecordedRun], float | None]
    less_is_better: bool
    caution: str = ""


@dataclass(frozen=True)
class Ranked:
    """A variant's place. ``mean``: over the seeds of ``values``, seed -> number, of those where it is defined."""

    variant: Variant
    mean: float
    values: Mapping[int, float]


def best_lines(runs: Sequence[RecordedRun]) -> list[str]:
    """What the end of a sweep says of its best variant: which, by which metric, its judge and report; or why none is named.

    Args:
        runs: the evaluated ones.

    Raises:
        DataError: if a product of theirs cannot be read.
    """
    variants, _ = variants_of(runs)
    if not variants:
        return []
    measure, why_not = _measure(variants)
    if measure is None:
        return [f"no best run is named: {why_not}"]
    ranked = ranking(variants, measure)
    if not ranked:
        return [f"no best run is named: {measure.name} is defined for none of them"]
    best = [place for place in ranked if place.mean == ranked[0].mean]
    if len(best) > 1:
        names = _variant_labels([place.variant for place in best])
        return [f"no best run is named: {measure.name} {measure.of} is the same for {names}; {_validation_hint(variants)}"]
    return _lines(ranked, measure, len(variants))


def choice(variants: Sequence[Variant]) -> tuple[Measure, Variant] | None:
    """The variant that the end of a sweep names as the best, and by what; None where it names none, or there is nothing to choose from."""
    try:
        measure, _ = _measure(variants)
        ranked = [] if measure is None else ranking(variants, measure)
    except DataError:  # of a judge that was removed; its evaluation is there
        return None
    if measure is None or len(ranked) < 2 or ranked[0].mean == ranked[1].mean:
        return None
    return measure, ranked[0].variant


def ranking(variants: Sequence[Variant], measure: Measure) -> list[Ranked]:
    """The variants that the measure is defined for, the best first."""
    found = []
    for variant in variants:
        values = {seed: value for seed, run in variant.runs.items() if (value := measure.value(run)) is not None}
        if values:
            found.append(Ranked(variant, float(np.mean(list(values.values()))), values))
    return sorted(found, key=lambda place: place.mean if measure.less_is_better else -place.mean)


def _lines(ranked: Sequence[Ranked], measure: Measure, variants: int) -> list[str]:
    best, *others = ranked
    metric = measure.name.rpartition("/")[2]

    def shown(place: Ranked) -> str:
        seeds = f"mean of {len(place.values)} seeds" if len(place.values) > 1 else "1 seed"
        return f"{place.variant.label} ({format_number(place.mean, metric)}, {seeds})"

    direction = "less is better" if measure.less_is_better else "more is better"
    lines = [f"best of {variants} variants by {measure.name} {measure.of}, {direction}: {shown(best)}"]
    if variants == 1:
        lines = [f"one variant, {measure.name} {measure.of}: {shown(best)}"]
    if others:
        lines.append(f"  next: {', '.join(map(shown, others[: _MOST_NAMED - 1]))}")
    if left_out := variants - len(ranked):
        lines.append(f"  {left_out} of the variants cannot be chosen so, since {measure.name} is not known of them")
    if len({len(place.values) for place in ranked}) > 1:
        lines.append("  not all have the same number of seeds, so part of a difference may be the seeds'")
    if measure.caution:
        lines.append(f"  {measure.caution}")
    seed = (min if measure.less_is_better else max)(best.values, key=lambda seed: best.values[seed])
    run, of_seed = best.variant.runs[seed], f" (seed {seed}, the best of {len(best.values)} by it)" if len(best.values) > 1 else ""
    if run.judge is not None:
        lines.append(f"  judge{of_seed}: {os.path.relpath(run.judge)}")
    if run.folder is not None:
        lines.append(f"  run: {os.path.relpath(run.folder)}")
    lines.append(f"  report: {os.path.relpath(run.product / REPORT_FILE)}")
    return lines


def _measure(variants: Sequence[Variant]) -> tuple[Measure | None, str]:
    """(what to choose by, "") or (None, why there is nothing)."""
    runs = [run for variant in variants for run in variant.runs.values()]
    wanted = {str(run.config.get("optimized_metric") or "") for run in runs}
    if len(wanted) == 1 and (name := wanted.pop()):
        metric = METRIC_TABLE.get(name.rpartition("/")[2])  # one of the user's own may be gone
        if metric is None or metric.less_is_better is None:
            return None, f"neither the least nor the most of {name} (optimized_metric) is the best; {_validation_hint(variants)}"
        return _of_evaluation(name), ""
    if moved := _other_items(variants):
        return None, f"their validation items are not the same, since {moved} differs; compare them on one benchmark"
    if all(VALIDATION in _metrics_content(run)["benchmarks"] for run in runs):
        return _of_evaluation(f"{VALIDATION}/{_DEFAULT_METRIC}"), ""
    trained = [run for run in runs if run.judge is not None]
    if not trained:
        return None, f"nothing but the test split measured them, which is not for choosing; {_validation_hint(variants)}"
    monitors = {(str(run.config.get("train.monitor")), str(run.config.get("train.monitor_mode"))) for run in trained}
    if len(monitors) > 1:
        return (
            None,
            f"they were trained by several train.monitor ({', '.join(sorted(name for name, _ in monitors))}); {_validation_hint(variants)}",
        )
    if not_comparable({_validation_cots(run) for run in trained}):
        told = "training validated some of them on annotated CoTs, which can give a score away, and others without"
        return None, f"{told}, so these numbers cannot be compared; {_validation_hint(variants)}"
    (name, mode) = monitors.pop()
    return Measure(name, "in training", lambda run: _monitored(run, name), mode == "min"), ""


def _of_evaluation(name: str) -> Measure:
    benchmark, _, metric = name.rpartition("/")
    caution = (
        "" if benchmark == VALIDATION else f"it was chosen on {benchmark}, so its numbers there are too good; confirm them on other data"
    )
    return Measure(
        name, "of the evaluation", lambda run: _evaluated(run, benchmark, metric), bool(METRIC_TABLE[metric].less_is_better), caution
    )


def _other_items(variants: Sequence[Variant]) -> str:
    """The first key by which variants may have other validation items; empty if they have the same."""
    keys = differing_keys([variant.settings for variant in variants])
    return next((key for key in keys if key.startswith(("data.", "grid.")) and key not in _SAME_ITEMS), "")


def _validation_cots(run: RecordedRun) -> str:
    stage = next((stage for stage in reversed(FIT_STAGES) if stage in run.stages), "")
    return validated_on(stage, use_cot=run.config.get("objective.use_cot") is not False)


def _metrics_content(run: RecordedRun) -> dict[str, Any]:
    """What its evaluation measured."""
    path = run.product / METRICS_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); evaluate the run anew with force=[evaluate]") from error
    return content


def _evaluated(run: RecordedRun, benchmark: str, metric: str) -> float | None:
    """The metric of the main predictor on a benchmark."""
    content = _metrics_content(run)
    predictors = content["benchmarks"].get(benchmark, {}).get("predictors", {})
    value: float | None = predictors.get(content["main_predictor"], {}).get(metric, {}).get("value")
    return value


def _monitored(run: RecordedRun, monitor: str) -> float | None:
    """The metric of the weights that its last fit stage exported, on the validation split."""
    if run.judge is None:
        return None
    value = read_manifest(run.judge)[0].get("training", {}).get("exported", {}).get(monitor)
    return None if value is None else float(value)


def _validation_hint(variants: Sequence[Variant]) -> str:
    """How validation would tell the variants apart."""
    run = next(iter(variants[0].runs.values()))
    benchmarks = [VALIDATION, *(str(name) for name in run.config.get("evaluation.benchmarks", []) if name != VALIDATION)]
    return (
        f"to choose by the validation split, give the same command with 'evaluation.benchmarks=[{','.join(benchmarks)}]' added, which "
        "trains nothing again"
    )


def _variant_labels(variants: Sequence[Variant]) -> str:
    labels = [variant.label for variant in variants]
    return ", ".join(labels[:_MOST_NAMED]) + (f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else "")
