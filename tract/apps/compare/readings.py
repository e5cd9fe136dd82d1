"""The judges of a benchmark, each a variant read by one predictor, and which of their seeds can be paired. Pure but for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tract.apps.compare.results import BenchmarkNumbers, Metrics, RunResults
from tract.artifacts.variants import Variant
from tract.common.errors import DataError
from tract.evaluation.scored import Array, Scored
from tract.evaluation.statistics import baseline_metrics, check_same_items, judge_metrics

CONSTANT = "constant"  # in the place of a predictor: the baseline of that name

Evaluated = Sequence[tuple[Variant, Mapping[int, RunResults]]]  # variants, each with the evaluations of its seeds


@dataclass(frozen=True)
class VariantResult:
    """What the runs of a variant say on one benchmark, read by one predictor.

    Attributes:
        label: of the variant. predictor: its name, or ``CONSTANT``. benchmark: its name.
        runs: seed -> evaluation, of those that were evaluated so; ascending.
    """

    label: str
    predictor: str
    benchmark: str
    runs: Mapping[int, RunResults]

    def measured(self, seed: int) -> BenchmarkNumbers:
        """The benchmark's numbers in the run of a seed."""
        return self.runs[seed].benchmarks[self.benchmark]

    @property
    def size(self) -> tuple[int, int]:
        """Items and questions, of the first run."""
        measured = self.measured(next(iter(self.runs)))
        return measured.items, measured.questions

    def metrics(self, seed: int) -> Metrics:
        """Metric -> estimate of a seed, with the interval over questions that its own report shows."""
        measured = self.measured(seed)
        return measured.constant if self.predictor == CONSTANT else measured.predictors[self.predictor]

    def value(self, seed: int, metric: str) -> float | None:
        """The metric of a seed; None where it is not defined."""
        estimate = self.metrics(seed).get(metric)
        return None if estimate is None else estimate.value

    def scored(self, seed: int) -> Scored:
        """The scores of its items."""
        return self.runs[seed].scored[self.benchmark]

    def weighted(self, seed: int, weights: Array) -> Mapping[str, Array]:
        """Metric -> [R] for weights [R, n] of its items."""
        scored = self.scored(seed)
        if self.predictor == CONSTANT:
            return baseline_metrics(scored, weights)["constant"]
        return judge_metrics(scored, self.predictor, weights)


@dataclass(frozen=True)
class SeedPairs:
    """Which seeds of two readings are paired.

    Attributes:
        seeds: those that both have, on the same items. unpaired: those that only one of them has.
        problem: the first difference of their items, if the items of a seed are not the same; else empty.
    """

    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]
    problem: str


def readings_of(variants: Evaluated, benchmark: str, predictors: Sequence[str] | None) -> list[VariantResult]:
    """The readings on a benchmark, in the order of variants and predictors.

    Args:
        variants: each with the evaluations of its seeds.
        predictors: to read by, where a run was; empty for all; None for the main predictor of each variant.
    """
    readings = []
    for variant, results in variants:
        runs = {seed: found for seed, found in results.items() if benchmark in found.benchmarks}
        if not runs:
            continue
        known = list(dict.fromkeys(name for found in runs.values() for name in found.benchmarks[benchmark].predictors))
        wanted = [next(iter(runs.values())).main_predictor] if predictors is None else predictors or known
        for name in wanted:
            if name in known:
                read = {seed: found for seed, found in runs.items() if name in found.benchmarks[benchmark].predictors}
                readings.append(VariantResult(variant.label, name, benchmark, read))
    return readings


def pairs_of(reading: VariantResult, reference: VariantResult) -> SeedPairs:
    """The seeds of two readings that can be compared: the same items with the same true scores."""
    shared = sorted(set(reading.runs) & set(reference.runs))
    problems = {seed: items_problem(reading.scored(seed), reference.scored(seed)) for seed in shared}
    return SeedPairs(
        tuple(seed for seed in shared if not problems[seed]),
        tuple(sorted(set(reading.runs) ^ set(reference.runs))),
        next((problem for problem in problems.values() if problem), ""),
    )


def items_problem(scored: Scored, other: Scored) -> str:
    """How the items or true scores of two judges differ; empty if they do not."""
    try:
        check_same_items(scored, other)
    except DataError as error:
        return str(error)
    return "" if scored.questions == other.questions else f"benchmark {scored.benchmark}: the items belong to other questions"
