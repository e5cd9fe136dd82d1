"""The score that a chat model wrote: other conventions are read, and what is no score of the grid is none."""

from __future__ import annotations

import pytest

from tract.inference.chat.score import written_score
from tract.text.score_grid import ScoreGrid

FIVE = ScoreGrid(tuple("12345"))
TEN = ScoreGrid(tuple(str(score) for score in range(1, 11)))


@pytest.mark.parametrize(
    "behind",
    [
        "4", "4.0", "4/5", "4 out of 5", "4.", "(4)", "[4]", "<4>", "**4**", "`4`", "$\\boxed{4}$", "\\(4\\)",
        "Score: 4", "The final score is 4.",
        "Rating: 4/5", "= 4", "- 4", "\u2192 4", "\uff14", "four", "4 points", "4 (good)", "4 - clear", "4\n1. The next point", "4</s>",
        "<score>4</score>", "<b>4</b>", "<score>4/5</score>", "< 4 >", "<4/5>", "-> 4", "4 on a scale of 1 to 5", "4 (1-5 scale)",
        "4\uff0f5", "4 over 5", "4 of five", "4 points (out of 5)", "4 on a 5-point scale", "4 (max 5)", "|4|",
        "4 (2 mistakes)", "4\n- 2 examples",
        "4 [RESULT]", "4\n\n[RESULT] 4 [END]", "2. No: [RESULT] 4",
    ],
)  # fmt: skip
def test_a_score_is_read_as_it_is_written(behind: str) -> None:
    text = f"Good work. [RESULT] {behind}"
    found = written_score(text, "[RESULT]", FIVE, cut=False)
    assert (found.value, found.finish) == (4.0, "cue")
    assert found.place is not None
    assert text[slice(*found.place)].lower() in ("4", "4.0", "\uff14", "four")


@pytest.mark.parametrize(
    "behind",
    ["3-4", "3 \u2013 4", "3 or 4", "3 to 4", "between 3 and 4", "7", "0", "-4",
     "3.5", "3,5", "4%", "4+", "4-", "\uff13\u301c\uff14", "4\u00bd", "4 1/2", "4th", "4/10", "3/4",
     "4 points out of 10", "4 stars (of 10)", "4 on a scale of 1 to 10", "4 (scale 1-10)", "4\uff0f10", "4\u204410", "4\u221510",
     "4 over 10", "4 out of ten", "4 (0-5 scale)", "4 on a 10-point scale", "4 (max 10)", "4, where 10 is the best", "<score>4</score>/10",
     "4/5/2024",
     "3 & 4", "3 vs 4", "4\u00b11", "4 +/- 1", "|4|5|", "3, 4, 5", "3/5 - 4/5", "**3** - **4**", "4 and a half", "4 (or 5)", "3\u21924",
     "<4", ">=4", "> 3", "\u22654", "4 <-> 5", "4\\10", "+4",
     "4 or more", "4 at most", "4\u2605 of 10", "4 up to 5", "4 \u2213 1",
     "N/A", "good", "one of the worst", "The score of 5 is too high", "1 2 3 4 5", ""],
)  # fmt: skip
def test_what_is_no_score_of_the_grid_is_none(behind: str) -> None:
    found = written_score(f"Good work. [RESULT] {behind}", "[RESULT]", FIVE, cut=False)
    assert (found.cot, found.finish, found.value, found.place) == ("Good work.", "cue", None, None)


@pytest.mark.parametrize(
    "text",
    ["Good. **[RESULT]** 4", "Good. [Result] 4", "Good. [RESULT: 4]", "Good. [**RESULT**] 4", "[RESULT] 4\nGood.", "Good. **[RESULT] 4**"],
)
def test_a_cue_may_be_written_in_other_ways(text: str) -> None:
    found = written_score(text, "[RESULT]", FIVE, cut=False)
    assert (found.value, found.cot, found.finish) == (4.0, "Good.", "cue")


@pytest.mark.parametrize(("text", "value"), [("Good.\n**Score: 4/5**", 4.0), ("Good. Score: 9", None), ("Good. I rate it 4/10.", None),
                          ("Good. Score (out of 10): 4", None), ("Good. On a scale of 1 to 10, I rate it 4.", None),
                          ("Good. Score: 3 & 4", None),
                          ("Good. Score: > 3", None), ("Good. Score: 4 of 5", 4.0), ("Good. Score: **4**/5", 4.0)])  # fmt: skip
def test_without_a_cue_it_is_the_score_that_is_stated(text: str, value: float | None) -> None:
    found = written_score(text, "[RESULT]", FIVE, cut=False)
    assert (found.value, found.cot, found.finish) == (value, "Good.", "score")


@pytest.mark.parametrize(
    ("text", "value", "finish"),
    [
        ("Good. [RESULT] 1", None, "length"),  # or the beginning of 10
        ("Good. [RESULT] 2", 2.0, "cue"),
        ("Good. [RESULT] 1 and", 1.0, "cue"),
        ("Good. [RESULT] 3. Or rather [RESULT]", None, "length"),
        ("Good. Score: 4 for the first part, and for the sec", None, "length"),
    ],
)
def test_a_text_that_was_cut_may_go_on(text: str, value: float | None, finish: str) -> None:
    found = written_score(text, "[RESULT]", TEN, cut=True)
    assert (found.value, found.finish) == (value, finish)


SIGNED = ScoreGrid(("-2", "-1", "0", "1", "2"))


@pytest.mark.parametrize("minus", ["-", "\u2010", "\u2011", "\u2012", "\u2013", "\u2212", "\ufe63", "\uff0d"])
@pytest.mark.parametrize("lead", ["[RESULT] ", "[RESULT] Score: ", "Score: "])
def test_a_minus_sign_of_any_kind_is_one(minus: str, lead: str) -> None:
    text = f"Good. {lead}{minus}1"
    found = written_score(text, "[RESULT]", SIGNED, cut=False)
    assert found.place is not None
    assert (found.value, text[slice(*found.place)]) == (-1.0, f"{minus}1")


@pytest.mark.parametrize(
    ("behind", "value"),
    [("+1", 1.0), ("\u22121/2", -1.0), ("\u22121 on a scale of \u22122 to 2", -1.0), ("- 1", None), ("\u2014 1", None), ("- 0", 0.0),
     ("\u22122 to \u22121", None), ("\u22121\u2013\u22122", None), ("\u00b11", None)],
)  # fmt: skip
def test_a_score_on_a_scale_with_negative_ones(behind: str, value: float | None) -> None:
    assert written_score(f"Good. [RESULT] {behind}", "[RESULT]", SIGNED, cut=False).value == value
