"""Paired differences of judges to one of them: by seed, and on the same resamples of the questions. Pure but for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tract.apps.compare.options import CompareOptions
from tract.apps.compare.readings import CONSTANT, SeedPairs, VariantResult, items_problem, pairs_of
from tract.evaluation.bootstrap import estimates
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.seed_intervals import Difference, t_interval

BOOTSTRAP_SEED = 0


def differences_to(
    reference: VariantResult, readings: Sequence[VariantResult], options: CompareOptions
) -> tuple[list[dict[str, Difference]], list[str]]:
    """(metric -> this reading minus the reference, for each reading; notes on what they leave out). None for the reference itself."""
    pairs = [SeedPairs((), (), "") if reading is reference else pairs_of(reading, reference) for reading in readings]
    items = reference.scored(next(iter(reference.runs)))
    resampled = [all(not items_problem(reference.scored(seed), items) for seed in pair.seeds) for pair in pairs]
    over_questions = _over_questions(
        {k: (reading, pair.seeds) for k, (reading, pair) in enumerate(zip(readings, pairs, strict=True)) if pair.seeds and resampled[k]},
        reference, items.questions, options,
    )  # fmt: skip

    def difference(k: int, metric: str) -> Difference:
        values = list(_by_seed(readings[k], reference, pairs[k].seeds, metric).values())
        over_seeds = t_interval(values, options.confidence)
        same = over_questions[k][metric] if k in over_questions else Estimate(over_seeds.value)
        return Difference(over_seeds, same, len(values), len(pairs[k].seeds))

    found = [{metric: difference(k, metric) for metric in options.metrics if pair.seeds} for k, pair in enumerate(pairs)]
    return found, _notes(readings, pairs, resampled)


def _by_seed(reading: VariantResult, reference: VariantResult, seeds: Sequence[int], metric: str) -> dict[int, float]:
    """Seed -> difference, where both have a value."""
    found = {}
    for seed in seeds:
        this, that = reading.value(seed, metric), reference.value(seed, metric)
        if this is not None and that is not None:
            found[seed] = this - that
    return found


def _over_questions(
    readings: Mapping[int, tuple[VariantResult, Sequence[int]]], reference: VariantResult, questions: Sequence[str], options: CompareOptions
) -> dict[int, dict[str, Estimate]]:
    """Number of a reading -> metric -> mean difference over its seeds, with the interval over resampled questions.

    All runs see the same resamples, so that differences are paired by item and by seed.
    """
    both = {
        (k, metric): list(_by_seed(reading, reference, seeds, metric))
        for k, (reading, seeds) in readings.items()
        for metric in options.metrics
    }

    def compute(weights: Array) -> dict[int, dict[str, Array]]:
        known: dict[tuple[str, str], Mapping[str, Array]] = {}

        def weighted(reading: VariantResult, seed: int) -> Mapping[str, Array]:
            key = (str(reading.runs[seed].product.path), reading.predictor)
            if key not in known:
                known[key] = reading.weighted(seed, weights)
            return known[key]

        def mean(reading: VariantResult, seeds: Sequence[int], metric: str) -> Array:
            parts = [weighted(reading, seed)[metric] - weighted(reference, seed)[metric] for seed in seeds]
            return np.mean(parts, axis=0) if parts else np.full(len(weights), np.nan)

        return {k: {metric: mean(reading, both[k, metric], metric) for metric in options.metrics} for k, (reading, _) in readings.items()}

    if not readings:
        return {}
    return estimates(compute, questions, seed=BOOTSTRAP_SEED, resamples=options.resamples, confidence=options.confidence)


def _notes(readings: Sequence[VariantResult], pairs: Sequence[SeedPairs], resampled: Sequence[bool]) -> list[str]:
    """What the differences leave out, one line for what several variants share."""
    labels: dict[str, dict[str, None]] = {}
    for reading, pair, whole in zip(readings, pairs, resampled, strict=True):
        if reading.predictor == CONSTANT:
            continue
        if pair.problem:
            constant = reading.measured(next(iter(reading.runs))).constant["rmse"].value or 0.0
            beside = f"the constant baseline of its items has RMSE {constant:.3f}"
            note = f"no paired differences where the items are not those of the baseline ({pair.problem}); {beside}"
            labels.setdefault(note, {})[reading.label] = None
        if pair.unpaired:
            seeds = f"seed{'s' * (len(pair.unpaired) > 1)} {', '.join(map(str, pair.unpaired))}"
            labels.setdefault(f"differences leave out {seeds}, which only it or only the baseline has", {})[reading.label] = None
        if not whole:
            labels.setdefault("no intervals over questions, since the items change with the seed", {})[reading.label] = None
    return [f"{', '.join(names)}: {note}" for note, names in labels.items()]
