"""All runs on all benchmarks: means over seeds, and paired differences to a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

import numpy as np

from tract.apps.compare.differences import differences_to
from tract.apps.compare.options import DEFAULT_BASELINE, CompareOptions
from tract.apps.compare.readings import CONSTANT, Evaluated, VariantResult, readings_of
from tract.apps.compare.results import Metrics, RunResults
from tract.artifacts.best import Measure, choice
from tract.artifacts.runs import Found, LeftOut, RecordedRun
from tract.artifacts.variants import Variant, variants_of
from tract.common.errors import ConfigError, DataError
from tract.evaluation.bootstrap import metric_estimates
from tract.evaluation.metrics import METRIC_TABLE, METRICS
from tract.evaluation.seed_intervals import MIN_SEEDS, Difference, SeedMean, mean_of
from tract.evaluation.statistics import limits_of


@dataclass(frozen=True)
class VariantRow:
    """One variant on one benchmark, read by one predictor.

    Attributes:
        variant: its label; empty for the constant baseline. predictor: its name, or ``CONSTANT``.
        seeds: of its runs. values: metric -> value of each of these seeds. means: metric -> mean over them.
        differences: metric -> to the reference; empty without one, and for the reference itself.
        constant_rmse: of the constant baseline on the same items, mean over the seeds.
    """

    variant: str
    predictor: str
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    means: Mapping[str, SeedMean]
    differences: Mapping[str, Difference]
    constant_rmse: float | None


@dataclass(frozen=True)
class BenchmarkTable:
    """One benchmark.

    Attributes:
        items, questions: how much it holds. rows: of the variants, the best by the main metric first, then of the constant baseline.
        reference: place among the rows of what differences are to; None without one. notes: what is missing or left out, and why.
        best: places of the rows to be marked as the best: of the variant that validation chooses, else those with the best mean of the main
            metric, if it has an interval; empty where there is nothing to choose from.
    """

    benchmark: str
    items: int
    questions: int
    rows: tuple[VariantRow, ...]
    reference: int | None
    notes: tuple[str, ...]
    best: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunComparison:
    """Everything that tables, plots and the page show.

    Attributes:
        chosen_by: what validation chose the best variant by, as the end of a sweep does, such as "val/rmse"; empty where it chose none.
    """

    options: CompareOptions
    baseline: str
    variants: tuple[Variant, ...]
    tables: tuple[BenchmarkTable, ...]
    left_out: tuple[LeftOut, ...]
    chosen_by: str = ""


def compare(found: Found, options: CompareOptions) -> RunComparison:
    """The comparison of the runs that were found.

    Raises:
        ConfigError: if the baseline, a predictor or a metric is not known.
        DataError: without a run, without a benchmark that two runs share, or if a product is damaged.
    """
    if unknown := [metric for metric in options.metrics if metric not in METRICS]:
        raise ConfigError(f"--metrics: there is no {unknown[0]!r}; there are {', '.join(METRICS)}")
    if not found.runs:
        raise DataError(f"no run to compare: {'; '.join(f'{out.what}: {out.why}' for out in found.left_out[:3])}")
    variants, replaced = variants_of(found.runs)
    baseline = _baseline(variants, options.baseline)
    known: dict[str, RunResults] = {}

    def results(run: RecordedRun) -> RunResults:
        place = os.path.realpath(run.product)  # runs may share it
        if place not in known:
            known[place] = RunResults.of(run)
        return known[place]

    evaluated = [(variant, {seed: results(run) for seed, run in variant.runs.items()}) for variant in variants]
    _check_predictors([found for _, runs in evaluated for found in runs.values()], options.predictors)
    names = _benchmarks(evaluated)
    chosen = choice(variants)
    tables = tuple(_table(evaluated, baseline, name, options, chosen) for name in names)
    left_out = (*found.left_out, *replaced)
    return RunComparison(options, baseline.label, variants, tables, left_out, "" if chosen is None else chosen[0].name)


def _baseline(variants: Sequence[Variant], wanted: str | None) -> Variant:
    """The variant that differences are to: by its label, else by an ablation or a name that it alone has."""
    name = DEFAULT_BASELINE if wanted is None else wanted
    kinds = map(attrgetter, ("label", "ablation", "name"))
    matching = next((found for kind in kinds if (found := [variant for variant in variants if kind(variant) == name])), [])
    if wanted is None:
        return (matching or variants)[0]
    if len(matching) == 1:
        return matching[0]
    problem = f"{len(matching)} variants are called {wanted!r}" if matching else f"there is no variant {wanted!r}"
    raise ConfigError(f"--baseline: {problem}; there are {', '.join(repr(variant.label) for variant in variants)}")


def _check_predictors(results: Sequence[RunResults], wanted: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(name for found in results for measured in found.benchmarks.values() for name in measured.predictors))
    if unknown := [name for name in wanted or () if name not in known]:
        raise ConfigError(f"--predictor: no run was read by {unknown[0]!r}; there are {', '.join(known)}, and all")


def _benchmarks(evaluated: Evaluated) -> list[str]:
    """The names of all benchmarks, in the order of the runs."""
    of_runs = [list(found.benchmarks) for _, runs in evaluated for found in runs.values()]
    names = [name for benchmarks in of_runs for name in benchmarks]
    if len(of_runs) > 1 and len(set(names)) == len(names):
        shown = "; ".join(f"{variant.label}: {', '.join(next(iter(runs.values())).benchmarks)}" for variant, runs in evaluated[:4])
        problem = f"no two of the {len(of_runs)} runs share a benchmark ({shown})"
        raise DataError(f"{problem}; evaluate them on the same, evaluation.benchmarks=[...]")
    return list(dict.fromkeys(names))


def _table(
    evaluated: Evaluated, baseline: Variant, benchmark: str, options: CompareOptions, chosen: tuple[Measure, Variant] | None
) -> BenchmarkTable:
    readings = readings_of(evaluated, benchmark, options.predictors)
    notes = _absences(evaluated, readings, benchmark)
    reference = _reference(readings, baseline)
    if reference is None and len({reading.label for reading in readings}) > 1:
        notes.append(f"{baseline.label}, the baseline, is not among these, so there are no differences")
    base = reference or (readings or readings_of(evaluated, benchmark, ()))[0]
    items, questions = base.size
    readings.append(VariantResult("", CONSTANT, benchmark, base.runs))
    differences = [dict[str, Difference]() for _ in readings]
    if reference is not None:
        differences, more = differences_to(reference, readings, options)
        notes += more
    rows = [_row(reading, difference, options) for reading, difference in zip(readings, differences, strict=True)]
    main = None if reference is None else rows[readings.index(reference)]
    best = None if chosen is None else _reference(readings, chosen[1])
    of_best = None if best is None else rows[readings.index(best)]
    rows.sort(key=lambda row: _rank(row, options.metrics[0]))
    if few := dict.fromkeys(_name(row, rows) for row in rows if row.predictor != CONSTANT and 1 < len(row.seeds) < MIN_SEEDS):
        notes.append(f"{', '.join(few)}: 2 seeds, no interval over seeds; give at least {MIN_SEEDS}")
    place = next((k for k, row in enumerate(rows) if row is main), None)
    places = _best(rows, options.metrics[0]) if chosen is None else tuple(k for k, row in enumerate(rows) if row is of_best)
    return BenchmarkTable(benchmark, items, questions, tuple(rows), place, tuple(notes), places)


def _rank(row: VariantRow, metric: str) -> tuple[bool, bool, float]:
    """What rows are sorted by: the best value first, those without one behind, the constant baseline at the end.

    Where neither the least nor the most is the best, the value next to 0 is.
    """
    value, less_is_better = row.means[metric].estimate.value, METRIC_TABLE[metric].less_is_better
    if value is None:
        return row.predictor == CONSTANT, True, 0.0
    return row.predictor == CONSTANT, False, abs(value) if less_is_better is None else value if less_is_better else -value


def _best(rows: Sequence[VariantRow], metric: str) -> tuple[int, ...]:
    """Places of the rows with the best value, of more than one that has a value; none where it has no interval, as of two seeds."""
    known = [row for row in rows if row.predictor != CONSTANT and row.means[metric].estimate.value is not None]
    if len(known) < 2 or not known[0].means[metric].kind:
        return ()
    return tuple(k for k, row in enumerate(rows) if _rank(row, metric) == _rank(known[0], metric))


def _name(row: VariantRow, rows: Sequence[VariantRow]) -> str:
    """The row's variant, with its predictor where the variant has several rows."""
    return f"{row.variant} ({row.predictor})" if sum(other.variant == row.variant for other in rows) > 1 else row.variant


def _absences(evaluated: Evaluated, readings: Sequence[VariantResult], benchmark: str) -> list[str]:
    """Which variants the table lacks, and why."""
    shown = {reading.label for reading in readings}
    missing = {
        variant.label: any(benchmark in found.benchmarks for found in runs.values())
        for variant, runs in evaluated
        if variant.label not in shown
    }
    notes = []
    if without := [label for label, there in missing.items() if not there]:
        notes.append(f"not evaluated on this benchmark: {', '.join(without)}")
    if unread := [label for label, there in missing.items() if there]:
        notes.append(f"not read by the predictors that are shown: {', '.join(unread)}")
    return notes


def _reference(readings: Sequence[VariantResult], baseline: Variant) -> VariantResult | None:
    """The baseline, by its main predictor if that is shown."""
    own = [reading for reading in readings if reading.label == baseline.label]
    main = [reading for reading in own if reading.predictor == next(iter(reading.runs.values())).main_predictor]
    return next(iter([*main, *own]), None)


def _row(reading: VariantResult, differences: Mapping[str, Difference], options: CompareOptions) -> VariantRow:
    seeds = tuple(reading.runs)
    values = {metric: tuple(reading.value(seed, metric) for seed in seeds) for metric in options.metrics}
    # The constant does not depend on the training: where its items are the same, so is its value.
    counted = 1 if reading.predictor == CONSTANT and all(len(set(found)) == 1 for found in values.values()) else len(seeds)
    alone = _alone(reading, options)
    constant = [value for seed in seeds if (value := reading.measured(seed).constant["rmse"].value) is not None]

    def mean(metric: str) -> SeedMean:
        return mean_of(values[metric][:counted], options.confidence, lambda k: alone(seeds[k])[metric], limits_of(metric))

    return VariantRow(
        variant=reading.label,
        predictor=reading.predictor,
        seeds=seeds,
        values=values,
        means={metric: mean(metric) for metric in options.metrics},
        differences=differences,
        constant_rmse=float(np.mean(constant)) if constant else None,
    )


def _alone(reading: VariantResult, options: CompareOptions) -> Callable[[int], Metrics]:
    """Seed -> metrics with intervals over questions: those of its report, or anew at another confidence."""

    @cache
    def metrics(seed: int) -> Metrics:
        if reading.runs[seed].confidence == options.confidence:
            return reading.metrics(seed)
        return metric_estimates(
            lambda weights: reading.weighted(seed, weights),
            reading.scored(seed).questions, seed=seed, resamples=options.resamples, confidence=options.confidence,
        )  # fmt: skip

    return metrics
