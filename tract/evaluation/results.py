"""What an evaluation knows: one judge's scores on one benchmark, and the numbers drawn from them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tract.evaluation.scored import Estimate, Scored

if TYPE_CHECKING:
    from tract.evaluation.agreement import RaterAgreement
    from tract.evaluation.curves import Curves
    from tract.evaluation.worst_items import WorstItems

# Whether the judge's prompts show what raters judge by.
RUBRIC_SHOWN, RUBRIC_HIDDEN, RUBRIC_ABSENT = "shown", "hidden", "absent"

# The files of an evaluation that others read: numbers, and a row for each judgement as JSON lines and as a table.
METRICS_FILE, PREDICTIONS_FILE, PREDICTIONS_TABLE = "metrics.json", "predictions.jsonl", "predictions.parquet"


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the reliability diagram: items whose predicted score lies in [low, high)."""

    low: float
    high: float
    count: int
    predicted: float
    true: float


@dataclass(frozen=True)
class BenchmarkReport:
    """The numbers of one judge on one benchmark.

    Attributes:
        scored: what they were computed from.
        metrics: predictor -> metric -> estimate; metrics are ``statistics.METRICS``.
        baselines: "constant", "length", "question_mean" -> metric -> estimate; only the metrics that a baseline has.
        reliability: predictor -> bins.
        differences: predictor -> metric -> this judge minus the other one, paired; empty without another judge.
        compared_to: the other judge's name, or None.
        over_baselines: predictor -> "constant", "length", "question_mean" -> its RMSE minus the baseline's, paired, in points.
        agreement: of the raters of the items, or None where no item has two scores.
        rubric: whether the judge's prompts show the items' rubric: "shown", "hidden", "absent" where no item has one, None if not known.
    """

    scored: Scored
    metrics: Mapping[str, Mapping[str, Estimate]]
    baselines: Mapping[str, Mapping[str, Estimate]]
    reliability: Mapping[str, tuple[Bin, ...]]
    differences: Mapping[str, Mapping[str, Estimate]]
    compared_to: str | None
    over_baselines: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    agreement: RaterAgreement | None = None
    rubric: str | None = None


@dataclass(frozen=True)
class Shift:
    """What one perturbation does.

    Attributes:
        perturbation: its name. pairs: items that were judged as they are and changed.
        unchanged: items that it does not apply to, or whose prompts do not show it.
        true_change: by how much the true score moves, in points.
        failed: predictor -> pairs that are left out because a draw failed on one side.
        metrics: predictor -> ``SHIFT_METRICS``: mean undue shift and mean size of it, in points; share of items that it raises by
            more than half a point; share of items whose score is lower than before.
    """

    perturbation: str
    pairs: int
    unchanged: int
    true_change: Estimate
    failed: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Robustness:
    """One judge's robustness on one benchmark.

    Attributes:
        benchmark: its name. shifts: one for each perturbation that applied.
        consistency: predictor -> ``CONSISTENCY_METRICS``: Krippendorff's alpha (interval) of the scores that an item's CoTs give;
            the standard deviation among them, in points; points per doubling of the response's words at equal true score, and the
            partial correlation of the two.
        summary: predictor -> ``SUMMARY_METRICS``: mean undue shift, and mean size of it, over all attacks, in points.
        differences: predictor -> the same, this judge minus the other one, paired; empty without another judge.
    """

    benchmark: str
    shifts: tuple[Shift, ...]
    consistency: Mapping[str, Mapping[str, Estimate]]
    summary: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Evaluation:
    """One judge on all benchmarks.

    Attributes:
        judge: what it is called in tables. reports: one per benchmark.
        others: further judges on the same benchmarks (the one compared to), shown beside it.
        facts: (name, value) pairs for the head of a report: run folder, model, CoTs per item, sampling, fallback, seed.
        main_predictor: the predictor that plots and the short table show.
        robustness: judge -> how its scores move on perturbed benchmarks, one for each benchmark; empty where none were judged.
        run: name of the run, for titles. model: name of the judge's model.
        counts: benchmark -> what became of prompts and CoTs, as the manifest of the predict stage has it.
        worst: the worst items of each judge on each benchmark, this judge first.
        curves: the fit stages behind the judge, first to last.
    """

    judge: str
    reports: tuple[BenchmarkReport, ...]
    others: tuple[tuple[str, tuple[BenchmarkReport, ...]], ...]
    facts: tuple[tuple[str, Any], ...]
    main_predictor: str
    robustness: Mapping[str, tuple[Robustness, ...]] = field(default_factory=dict)
    run: str = ""
    model: str = ""
    counts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    worst: tuple[WorstItems, ...] = ()
    curves: tuple[Curves, ...] = ()
