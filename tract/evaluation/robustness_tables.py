"""The tables of a robustness report, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterator

from tract.evaluation.cells import Table, TextRow, cell
from tract.evaluation.results import Evaluation, Robustness
from tract.text.perturbations import PERTURBATIONS

SHIFT_LABELS = {
    "true_change": "true change",
    "undue_shift": "undue shift",
    "undue_size": "mean size",
    "raised": "raised > 0.5",
    "lowered": "lowered",
}
SUMMARY_LABELS = {"attack_shift": "shift by attacks", "attack_size": "mean size"}
CONSISTENCY_LABELS = {"alpha": "alpha", "spread": "spread of CoTs", "length_slope": "per doubling of words", "length_r": "r with length"}
MEANINGS = {
    "undue shift": "how far the score moves, minus how far the true score does, in points, mean over the items; an attack that works "
    "has it above 0. Items with a failed draw on either side are left out.",
    "mean size": "mean absolute undue shift, in points.",
    "raised > 0.5": "share of items whose score rises by more than half a point beyond the true change.",
    "lowered": "share of items whose score is lower than before; for one_more_met each of them is a fault.",
    "shift by attacks": "mean undue shift over all attacks, each counting the same.",
    "alpha": "Krippendorff's alpha (interval) of the scores that an item's CoTs give by themselves: 1 is agreement, 0 is chance.",
    "spread of CoTs": "standard deviation of the scores of one item's CoTs, in points.",
    "per doubling of words": "points that a response with twice the words gets more, at the same true score.",
    "r with length": "partial correlation of score and log words, at the same true score.",
}


def robust_benchmarks(evaluation: Evaluation) -> list[str]:
    """The benchmarks with a robustness report of this judge."""
    return [found.benchmark for found in evaluation.robustness.get(evaluation.judge, ())]


def robustness_on(evaluation: Evaluation, benchmark: str) -> list[tuple[str, Robustness]]:
    """(judge, its robustness on a benchmark), this judge first."""
    return [(name, found) for name, parts in evaluation.robustness.items() for found in parts if found.benchmark == benchmark]


def robustness_tables(evaluation: Evaluation, benchmark: str) -> list[Table]:
    """Shifts read by the main predictor, undue shifts read by each, and agreement, length and attacks in sum."""
    main, judges = evaluation.main_predictor, robustness_on(evaluation, benchmark)
    predictors = list(judges[0][1].summary)
    tables = [
        Table(
            f"Read by {main}; * marks an interval that excludes 0",
            ("judge", "perturbation", "kind", "pairs", "unchanged", "failed", *SHIFT_LABELS.values()),
            tuple(row for name, found in judges for row in _shift_rows(name, found, main)),
        ),
        Table(
            "Undue shift, read by each predictor",
            ("judge", "perturbation", *predictors),
            tuple(row for name, found in judges for row in _by_predictor(name, found, predictors)),
        ),
        Table(
            "Attacks in sum, agreement of an item's CoTs, and length",
            ("judge", "predictor", *SUMMARY_LABELS.values(), *CONSISTENCY_LABELS.values()),
            tuple(row for name, found in judges for row in _summary_rows(name, found)),
        ),
    ]
    if differences := judges[0][1].differences:
        rows = tuple(
            TextRow((predictor,), tuple(cell(values[metric], metric, difference=True) for metric in SUMMARY_LABELS))
            for predictor, values in differences.items()
        )
        tables.append(Table("This judge minus the other, paired", ("predictor", *SUMMARY_LABELS.values()), rows))
    return [table for table in tables if table.rows]


def _shift_rows(judge: str, found: Robustness, main: str) -> Iterator[TextRow]:
    for shift in found.shifts:
        values = {"true_change": shift.true_change, **shift.metrics[main]}
        counts = (str(shift.pairs), str(shift.unchanged), str(shift.failed[main]))
        kind = PERTURBATIONS[shift.perturbation].kind
        signed = ("true_change", "undue_shift")
        cells = tuple(cell(values[metric], metric, difference=metric in signed) for metric in SHIFT_LABELS)
        yield TextRow((judge, shift.perturbation, kind, *counts), cells)


def _by_predictor(judge: str, found: Robustness, predictors: list[str]) -> Iterator[TextRow]:
    for shift in found.shifts:
        estimates = (shift.metrics.get(predictor, {}).get("undue_shift") for predictor in predictors)
        yield TextRow((judge, shift.perturbation), tuple(cell(estimate, "undue_shift", difference=True) for estimate in estimates))


def _summary_rows(judge: str, found: Robustness) -> Iterator[TextRow]:
    for predictor in found.summary:
        values = {**found.summary[predictor], **found.consistency[predictor]}
        signed = ("attack_shift", "length_slope", "length_r")
        cells = tuple(cell(values[metric], metric, difference=metric in signed) for metric in (*SUMMARY_LABELS, *CONSISTENCY_LABELS))
        yield TextRow((judge, predictor), cells)
