"""From judgements to scores: by hand, with failures counted and the same rows for every predictor."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tract.common.errors import DataError
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.scoring import draws_of, prediction_rows, predictions, score_items
from tract.inference.judgement import CUE, DIRECT, GIVEN, LENGTH, NONE, Judgement
from tract.text.score_grid import ScoreGrid

CUE_TEXT = " So the overall score is "
GRID = ScoreGrid(("1", "2", "3", "4", "5"))
PREDICTORS = ("rail", "rail_normalized", "argmax", "median", "decode_forced", "decode_free", "no_cot")


def judgement(row: int, sample: int, probabilities: tuple[float, ...], **changed: Any) -> Judgement:
    values = {
        "cot_ids": (5, 6),
        "cot": "Good.",
        "finish": CUE,
        "forced_decode": 3,
        "raw_output": "Good. So the overall score is 4",
        **changed,
    }
    return Judgement(f"e{row}", row, sample, probabilities=probabilities, **values)


def without_cot(row: int, probabilities: tuple[float, ...]) -> Judgement:
    return judgement(row, DIRECT, probabilities, cot_ids=(), cot="", finish=NONE, raw_output=None)


def item(row: int, target: float = 3.0, status: str = "ok") -> BenchmarkItem:
    return BenchmarkItem(f"e{row}", row, f"q{row // 2}", target, 10 + row, status, {"kind": "x"})


def test_each_predictor_by_hand() -> None:
    found = predictions(judgement(0, 0, (0.1, 0.2, 0.1, 0.3, 0.1)), GRID, CUE_TEXT)
    assert found == {
        "rail": pytest.approx(0.1 + 0.4 + 0.3 + 1.2 + 0.5),
        "rail_normalized": pytest.approx(2.5 / 0.8),
        "argmax": 4.0,
        "median": 3.0,  # 0.4 of 0.8 lies at or below 3
        "decode_forced": 4.0,
        "decode_free": 4.0,
    }


@pytest.mark.parametrize(
    ("probabilities", "argmax", "median"),
    [
        ((0.4, 0.0, 0.0, 0.0, 0.4), 1.0, 1.0),
        ((0.0, 0.0, 0.0, 0.0, 1.0), 5.0, 5.0),
        ((1.0, 0.0, 0.0, 0.0, 0.0), 1.0, 1.0),
        ((0.1, 0.1, 0.2, 0.2, 0.4), 5.0, 4.0),
        ((1e-9, 1e-9, 3e-9, 0.0, 0.0), 3.0, 3.0),
    ],
)
def test_first_of_equals_and_lower_median(probabilities: tuple[float, ...], argmax: float, median: float) -> None:
    found = predictions(judgement(0, 0, probabilities), GRID, CUE_TEXT)
    assert (found["argmax"], found["median"]) == (argmax, median)


def test_no_mass_and_no_score_are_failures_and_no_numbers() -> None:
    found = predictions(judgement(0, 0, (0.0,) * 5, forced_decode=None, raw_output="Good."), GRID, CUE_TEXT)
    assert found == {"rail": 0.0, "rail_normalized": None, "argmax": None, "median": None, "decode_forced": None, "decode_free": None}
    assert "decode_free" not in predictions(judgement(0, 0, (0.2,) * 5, finish=GIVEN, raw_output=None), GRID, CUE_TEXT)


def scored(judgements: list[Judgement], items: list[BenchmarkItem], fallback: float = 3.0) -> Any:
    return score_items("test", items, judgements, PREDICTORS, GRID, CUE_TEXT, fallback)


def test_scores_are_means_over_the_cots_of_an_item() -> None:
    first, second = (0.0, 0.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.0, 0.0, 0.0)
    found = scored([judgement(0, 1, second), without_cot(0, (0.0, 1.0, 0.0, 0.0, 0.0)), judgement(0, 0, first)], [item(0)])
    assert found.scores["rail"][0] == pytest.approx((5 + 0.5) / 2)
    assert found.scores["rail_normalized"][0] == pytest.approx((5 + 1) / 2)
    assert found.scores["argmax"][0] == 3.0
    assert found.scores["no_cot"][0] == 2.0
    assert found.score_mass["rail"][0] == pytest.approx(0.75)
    assert found.score_mass["no_cot"][0] == 1.0
    assert all(found.failures[predictor][0] == 0 for predictor in PREDICTORS)


def test_failed_draws_count_with_the_fallback() -> None:
    found = scored(
        [judgement(0, 0, (0.2,) * 5), judgement(0, 1, (0.2,) * 5, forced_decode=None, raw_output="Good.", finish=LENGTH)], [item(0)], 1.0
    )
    assert found.scores["decode_forced"][0] == (4 + 1) / 2
    assert found.scores["decode_free"][0] == (4 + 1) / 2
    assert found.failures["decode_free"][0] == found.failures["decode_forced"][0] == 0.5
    assert found.failures["rail"][0] == 0


def test_all_predictors_have_the_same_rows_and_an_unjudged_item_is_a_failure() -> None:
    items = [item(2), item(0, 5.0), item(1, 1.0, "dropped_overlong")]
    found = scored(
        [judgement(0, 0, (0.2,) * 5), without_cot(0, (0.2,) * 5), judgement(2, 0, (0.2,) * 5), without_cot(2, (0.2,) * 5)], items, 5.0
    )
    assert found.ids == ("e2", "e0", "e1")
    assert found.questions == ("q1", "q0", "q0")
    assert found.targets.tolist() == [3.0, 5.0, 1.0]
    assert found.response_words.tolist() == [12, 10, 11]
    for predictor in PREDICTORS:
        assert found.scores[predictor].shape == (3,)
        assert np.isfinite(found.scores[predictor]).all()
        assert found.failures[predictor].tolist() == [0, 0, 1]
        assert found.scores[predictor][2] == 5.0
        assert found.score_mass[predictor][2] == 0


def test_a_grid_that_begins_elsewhere() -> None:
    grid = ScoreGrid(("0", "0.5", "1"))
    found = predictions(judgement(0, 0, (0.25, 0.25, 0.5), forced_decode=1, raw_output="So the overall score is 0.5"), grid, CUE_TEXT)
    assert found["rail"] == pytest.approx(0.625)
    assert found["decode_forced"] == found["decode_free"] == 0.5


def test_prediction_rows_hold_every_judgement_and_every_unjudged_item() -> None:
    items = [item(0), item(1, status="dropped_overlong")]
    judgements = [without_cot(0, (0.2,) * 5), judgement(0, 0, (0.1,) * 5), judgement(0, 1, (0.0,) * 5, forced_decode=None, raw_output="x")]
    rows = prediction_rows("test", items, judgements, GRID, CUE_TEXT)
    assert [(row["id"], row["reading"], row["cot_index"]) for row in rows] == [
        ("e0", "no_cot", None),
        ("e0", "cot", 0),
        ("e0", "cot", 1),
        ("e1", None, None),
    ]
    assert len({tuple(sorted(row)) for row in rows}) == 1  # the same columns
    assert rows[1]["probabilities"] == dict.fromkeys(GRID.labels, 0.1)
    assert rows[1]["score_mass"] == pytest.approx(0.5)
    assert rows[1]["cot_tokens"] == 2
    assert rows[2]["decode_forced"] is rows[2]["decode_free"] is rows[2]["argmax"] is None
    assert rows[3]["status"] == "dropped_overlong"
    assert rows[3]["rail"] is rows[3]["finish"] is None
    assert json.loads(json.dumps(rows)) == rows


def test_the_draws_of_an_item_are_those_of_its_cots() -> None:
    def judgement(row: int, sample: int, probabilities: tuple[float, ...], free: str | None) -> Judgement:
        return Judgement(f"i{row}", row, sample, (), "", "cue", probabilities, None, free)

    grid = ScoreGrid(("1", "2"))
    items = [BenchmarkItem(f"i{row}", row, "q", 1.0, 1, "ok", {}) for row in (4, 7)]
    found = [
        judgement(7, 1, (0.0, 1.0), " cue 1"), judgement(7, 0, (1.0, 0.0), "nothing"), judgement(7, DIRECT, (0.5, 0.5), None),
        judgement(9, 0, (1.0, 0.0), None),
    ]  # fmt: skip
    assert np.array_equal(draws_of(items, found, "rail", grid, " cue "), [[np.nan, np.nan], [1.0, 2.0]], equal_nan=True)
    assert np.array_equal(draws_of(items, found, "decode_free", grid, " cue "), [[np.nan, np.nan], [np.nan, 1.0]], equal_nan=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_probabilities_that_are_none_are_no_failed_draw(value: float, predictor: str) -> None:
    """Before, NaN counted with the fallback where the most likely score or the median was asked for."""
    judgements = [judgement(0, 0, (0.1, 0.2, 0.1, 0.3, 0.1)), judgement(1, 0, (0.1, value, 0.1, 0.1, 0.1))]
    with pytest.raises(DataError, match="benchmark b, item e1, CoT 0: the probabilities are none: .*; judge it again"):
        score_items("b", [item(0), item(1)], judgements, [predictor], GRID, CUE_TEXT, 3.0)
    with pytest.raises(DataError, match="benchmark b, item e1, CoT 0"):
        prediction_rows("b", [item(0), item(1)], judgements, GRID, CUE_TEXT)
