"""The worst items: which they are, in which order, and what belongs to each."""

from __future__ import annotations

import numpy as np
import pytest

from tract.evaluation.items import BenchmarkItem
from tract.evaluation.scoring import score_items
from tract.evaluation.worst_items import MOST_ITEMS, WorstItems, worst_items
from tract.inference.judgement import CUE, DIRECT, LENGTH, NONE, Judgement
from tract.text.score_grid import ScoreGrid

GRID, CUE_TEXT = ScoreGrid(("1", "2", "3")), " So the overall score is "


def item(row: int, target: float) -> BenchmarkItem:
    return BenchmarkItem(f"e{row}", row, f"q{row}", target, 5, "ok", {}, instruction="Ask", response=f"Answer {row}")


def judgement(row: int, sample: int, probabilities: tuple[float, ...], finish: str = CUE, forced: int | None = 0) -> Judgement:
    ended = NONE if sample == DIRECT else finish
    return Judgement(f"e{row}", row, sample, (1,), f"CoT {sample} of {row}", ended, probabilities, forced, None)


def found(items: list[BenchmarkItem], judgements: list[Judgement], predictor: str = "rail") -> WorstItems:
    scored = score_items("test", items, judgements, [predictor], GRID, CUE_TEXT, 2.0)
    return worst_items("tract", scored, items, judgements, predictor, GRID, CUE_TEXT)


def test_the_largest_error_comes_first_whatever_its_sign_and_of_equals_the_first() -> None:
    sure = {1: (1.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0), 3: (0.0, 0.0, 1.0)}
    items = [item(10, 2.0), item(11, 1.0), item(12, 3.0), item(13, 3.0)]
    made = found(items, [judgement(row, 0, sure[said]) for row, said in ((10, 2), (11, 3), (12, 2), (13, 1))])
    assert [worst.item.id for worst in made.items] == ["e11", "e13", "e12", "e10"]
    assert [worst.error for worst in made.items] == [2.0, -2.0, -1.0, 0.0]
    assert [worst.place for worst in made.items] == [1, 3, 2, 0]
    assert made.total == 4


def test_of_many_items_the_worst_are_kept_and_the_others_counted() -> None:
    targets = np.linspace(1, 3, 3 * MOST_ITEMS).tolist()
    items = [item(row, target) for row, target in enumerate(targets)]
    made = found(items, [judgement(row, 0, (1.0, 0.0, 0.0)) for row in range(len(items))])
    assert (len(made.items), made.total) == (MOST_ITEMS, 3 * MOST_ITEMS)
    assert {worst.item.row for worst in made.items} == set(range(2 * MOST_ITEMS, 3 * MOST_ITEMS))


def test_each_predictor_shows_what_it_was_read_from() -> None:
    items = [item(0, 3.0)]
    judgements = [
        judgement(0, 1, (0.0, 0.5, 0.0), LENGTH, forced=None),
        judgement(0, DIRECT, (0.9, 0.1, 0.0)),
        judgement(0, 0, (0.5, 0.0, 0.5)),
    ]
    (rail,) = found(items, judgements).items
    assert [(cot.text, cot.finish, cot.score) for cot in rail.cots] == [("CoT 0 of 0", CUE, 2.0), ("CoT 1 of 0", LENGTH, 1.0)]
    assert dict(rail.distribution) == pytest.approx({"1": 0.25, "2": 0.25, "3": 0.25})
    (without,) = found(items, judgements, "no_cot").items
    assert without.cots == ()
    assert dict(without.distribution) == pytest.approx({"1": 0.9, "2": 0.1, "3": 0.0})
    (drawn,) = found(items, judgements, "decode_forced").items
    assert [cot.score for cot in drawn.cots] == [1.0, None]
    assert drawn.failed == 0.5


def test_an_item_that_was_not_judged_has_no_distribution() -> None:
    (worst,) = found([item(0, 3.0)], []).items
    assert (worst.distribution, worst.cots, worst.failed, worst.prediction) == ((), (), 1.0, 2.0)


def test_a_predictor_of_a_users_own_is_read_as_it_reads() -> None:
    judgements = [judgement(0, DIRECT, (1.0, 0.0, 0.0)), judgement(0, 0, (0.5, 0.0, 0.5)), judgement(0, 1, (0.0, 1.0, 0.0))]
    own, rail = (found([item(0, 3.0)], judgements, name).items for name in ("numpy.dot", "rail"))
    assert own == rail
