"""Reading a score out of free text: the forms that judges write, and what is no score."""

from __future__ import annotations

import pytest

from tract.evaluation.parsing import parse_score
from tract.text.score_grid import ScoreGrid

CUE = " So the overall score is "
GRID = ScoreGrid(("1", "2", "3", "4", "5"))
HALVES = ScoreGrid(("1", "1.5", "2"))
TEN = ScoreGrid(tuple(str(score) for score in range(1, 11)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good. So the overall score is 4", 4.0),
        ("Good. So the overall score is 4.", 4.0),
        ("Good.\nSo the overall score is\n4", 4.0),
        ("So the overall score is: 4", 4.0),
        ("So the overall score is (4)", 4.0),
        ("So the overall score is [4]", 4.0),
        ("So the overall score is **4**", 4.0),
        ("So the overall score is **4/5**", 4.0),
        ("So the overall score is 4/5", 4.0),
        ("So the overall score is 4 out of 5", 4.0),
        ('So the overall score is "4"', 4.0),
        ("So the overall score is 4.0", 4.0),
        ("Feedback: fine. [RESULT] 3", 3.0),
        ("Feedback: fine. [RESULT]3", 3.0),
        ("[RESULT] (3)", 3.0),
        ("[RESULT] Score: 3", None),  # words between are no score
    ],
)
def test_forms_of_a_score(text: str, expected: float | None) -> None:
    assert parse_score(text, CUE, GRID) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So the overall score is 2. No: So the overall score is 5", 5.0),
        ("[RESULT] 2 ... [RESULT] 4", 4.0),
        ("So the overall score is 2 [RESULT] 4", 4.0),
        ("[RESULT] 4 So the overall score is 2", 2.0),
        ("So the overall score is 2. So the overall score is hard to say", None),
        ("So the overall score is 2 [RESULT]", None),
    ],
)
def test_the_last_mark_counts(text: str, expected: float | None) -> None:
    assert parse_score(text, CUE, GRID) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "The answer deserves a 4.",
        "4 So the overall score is",
        "I give 4 of 5. So the overall score is",
        "So the overall score is four",
        "So the overall score is 6",
        "So the overall score is 0",
        "So the overall score is -4",
        "So the overall score is 4.5",
        "So the overall score is 44",
        "So the overall score is 10",
        "So the overall score",
        "so the overall score is 4",  # the cue as it is written
    ],
)
def test_what_is_no_score(text: str) -> None:
    assert parse_score(text, CUE, GRID) is None


def test_the_grid_decides() -> None:
    assert parse_score("So the overall score is 1.5", CUE, HALVES) == 1.5
    assert parse_score("So the overall score is 2.0", CUE, HALVES) == 2.0
    assert parse_score("So the overall score is 1.25", CUE, HALVES) is None
    assert parse_score("So the overall score is 10", CUE, TEN) == 10.0
    assert parse_score("So the overall score is 1", CUE, TEN) == 1.0


def test_the_cue_is_the_judges_own_and_no_pattern() -> None:
    assert parse_score("Score (1-5): 4", "Score (1-5): ", GRID) == 4.0
    assert parse_score("Score 1-5: 4", "Score (1-5): ", GRID) is None
    assert parse_score("So the overall score is 4", " [RESULT] ", GRID) is None
    assert parse_score("[RESULT] 4", " [RESULT] ", GRID) == 4.0


@pytest.mark.parametrize("number", ["\uff14", "\u0664", "4\u0664", "4.\u0664", "4,5", "4,000", "4_0"])
def test_no_score_is_cut_out_of_another_number(number: str) -> None:
    """Digits of other scripts are no label of a grid; a number that goes on is not its own beginning."""
    assert parse_score(f"So the overall score is {number}", CUE, GRID) is None
    assert parse_score("So the overall score is 4, not 5", CUE, GRID) == 4.0
