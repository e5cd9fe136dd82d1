"""The items on which a judge is farthest from the true score, with all that says why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tract.evaluation.items import BenchmarkItem
from tract.evaluation.predictors import predictor_of
from tract.evaluation.scored import Scored
from tract.evaluation.scoring import score_of
from tract.inference.judgement import DIRECT, Judgement
from tract.text.score_grid import ScoreGrid

MOST_ITEMS = 50


@dataclass(frozen=True, slots=True)
class CotReading:
    """A CoT, why it ended, and the score in points that was read after it; None where there was none."""

    text: str
    finish: str
    score: float | None


@dataclass(frozen=True, slots=True)
class WorstItem:
    """A judged item.

    Attributes:
        place: of the item in its benchmark, from 0. item: the item with its texts and raters.
        prediction: in points. failed: share of its draws that failed and count with the declared score.
        distribution: score label -> probability where the predictor reads it, mean over the draws; empty where nothing was judged.
        cots: those that the judge wrote; empty for a judge or a predictor without CoTs.
    """

    place: int
    item: BenchmarkItem
    prediction: float
    failed: float
    distribution: tuple[tuple[str, float], ...]
    cots: tuple[CotReading, ...]

    @property
    def error(self) -> float:
        """Prediction minus true score, in points."""
        return self.prediction - self.item.target


@dataclass(frozen=True)
class WorstItems:
    """The worst items of one judge on one benchmark, the worst first, and how many items there are."""

    benchmark: str
    judge: str
    total: int
    items: tuple[WorstItem, ...]


def worst_items(
    judge: str, scored: Scored, items: Sequence[BenchmarkItem], judgements: Iterable[Judgement], predictor: str, grid: ScoreGrid, cue: str
) -> WorstItems:
    """The items with the largest absolute error of a predictor: all of them, or the worst ``MOST_ITEMS``; of equals the first.

    Args:
        judge: what it is called. scored: its scores. items, judgements: what they were computed from, items in the same order.
        predictor: one of ``scored``. grid, cue: the judge's.
    """
    errors = np.abs(scored.scores[predictor] - scored.targets)
    worst = np.argsort(-errors, kind="stable")[:MOST_ITEMS].tolist()
    wanted = {items[place].row for place in worst}
    by_row: dict[int, list[Judgement]] = {}
    without_cot = predictor_of(predictor).without_cot
    for judgement in judgements:
        if judgement.row in wanted and (judgement.sample == DIRECT) == without_cot:
            by_row.setdefault(judgement.row, []).append(judgement)
    found = []
    for place in worst:
        own = sorted(by_row.get(items[place].row, []), key=lambda judgement: judgement.sample)
        prediction, failed = float(scored.scores[predictor][place]), float(scored.failures[predictor][place])
        cots = tuple(_cot_reading(judgement, predictor, grid, cue) for judgement in own if judgement.sample != DIRECT)
        found.append(WorstItem(place, items[place], prediction, failed, _distribution(own, grid), cots))
    return WorstItems(scored.benchmark, judge, len(items), tuple(found))


def _cot_reading(judgement: Judgement, predictor: str, grid: ScoreGrid, cue: str) -> CotReading:
    return CotReading(judgement.cot, judgement.finish, score_of(judgement, predictor, grid, cue))


def _distribution(judgements: Sequence[Judgement], grid: ScoreGrid) -> tuple[tuple[str, float], ...]:
    if not judgements:
        return ()
    mean = np.mean([judgement.probabilities for judgement in judgements], axis=0).tolist()
    return tuple(zip(grid.labels, mean, strict=True))
