"""Relative grading and the names of prometheus-eval."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tract import Grade, GradeRequest, Judge, Rubric
from tract.common.errors import DataError
from tract.inference.judgement import CUE, Judgement
from tract.judge.grades import ERROR, failed, grade_of
from tract.judge.relative import compared
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3"))


def graded(*cots: tuple[float, float, float]) -> Grade:
    """A grade of CoTs with these distributions."""
    judgements = [Judgement("x", 0, n, (1,), f"feedback {n}", CUE, p, None, None) for n, p in enumerate(cots)]
    return grade_of(judgements, GRID, " cue ", request_id="x", predictor="rail", least_score_mass=0.5, calibration=None)


def test_the_higher_expectation_wins_and_equal_ones_tie() -> None:
    low, high = graded((0.5, 0.5, 0.0)), graded((0.0, 0.5, 0.5))
    assert (compared(low, high).winner, compared(high, low).winner, compared(low, low).winner) == ("B", "A", "tie")
    assert compared(high, low).difference == pytest.approx(1.0)
    # P(A > B) + P(equal) / 2: A is 2 or 3, B is 1 or 2, with halves: 3/4 above, 1/4 equal.
    assert compared(high, low).probability_a == pytest.approx(0.875)
    assert compared(low, low).probability_a == pytest.approx(0.5)


def test_a_margin_makes_ties() -> None:
    a, b = graded((0.0, 1.0, 0.0)), graded((0.1, 0.9, 0.0))
    assert [compared(a, b, margin).winner for margin in (None, 0.05, 0.2)] == ["A", "A", "tie"]
    with pytest.raises(DataError, match="tie_margin: -1 is not a number of points >= 0"):
        compared(a, b, -1)


def test_without_a_distribution_there_is_no_probability() -> None:
    a = replace(graded((0.0, 1.0, 0.0)), distribution={"1": 0.0, "2": 0.0, "3": 0.0})
    assert compared(a, graded((0.0, 1.0, 0.0))).probability_a is None
    with pytest.raises(DataError, match="tie_margin: 'x' is not a number"):
        compared(a, a, "x")  # type: ignore[arg-type]


def test_the_interval_of_a_difference_is_welchs() -> None:
    from scipy.stats import ttest_ind

    a = graded((0.0, 0.2, 0.8), (0.1, 0.2, 0.7), (0.0, 0.9, 0.1))
    b = graded((0.6, 0.4, 0.0), (0.5, 0.4, 0.1))
    expected = ttest_ind([c.score for c in a.cots], [c.score for c in b.cots], equal_var=False).confidence_interval(0.9)
    assert compared(a, b).interval == pytest.approx((expected.low, expected.high))
    assert compared(a, graded((0.5, 0.5, 0.0))).interval is None


def test_a_failure_on_either_side_is_no_winner() -> None:
    found = compared(graded((0.0, 0.5, 0.5)), failed("y", ERROR, "it broke"))
    assert (found.winner, found.difference, found.probability_a, found.status) == (None, None, None, ERROR)


def test_swapping_the_responses_swaps_the_result(judge: Judge, requests: Sequence[GradeRequest]) -> None:
    for first, second in zip(requests[:3], requests[3:6], strict=True):
        there = judge.compare(first.instruction, first.response, second.response)
        back = judge.compare(first.instruction, second.response, first.response)
        assert there.difference is not None
        assert back.difference == pytest.approx(-there.difference, abs=1e-5)  # rounding depends on what shares a batch
        assert {"A": "B", "B": "A", "tie": "tie"}[str(there.winner)] == back.winner
        assert (there.a.feedbacks, there.b.feedbacks) == (back.b.feedbacks, back.a.feedbacks)
        assert there.winner != "tie"


def test_a_response_ties_with_itself(judge: Judge, requests: Sequence[GradeRequest]) -> None:
    found = judge.compare(requests[0].instruction, requests[0].response, requests[0].response)
    assert (found.winner, found.difference, found.probability_a) == ("tie", 0.0, pytest.approx(0.5))


def test_the_names_of_prometheus_eval_take_its_arguments() -> None:
    """As its 0.1.20 has them, in this order; ``params`` may be left out there too."""
    single = ["self", "instruction", "response", "rubric", "reference_answer", "params"]
    assert list(inspect.signature(Judge.single_absolute_grade).parameters) == single
    assert list(inspect.signature(Judge.single_relative_grade).parameters) == [
        *single[:2], "response_A", "response_B", *single[3:],
    ]  # fmt: skip
    batch = ["self", "instructions", "responses", "rubric", "reference_answers", "params"]
    for method, expected in (
        (Judge.absolute_grade, batch),
        (Judge.relative_grade, [*batch[:2], "responses_A", "responses_B", *batch[3:]]),
    ):
        parameters = inspect.signature(method).parameters
        assert list(parameters) == expected
        assert all(p.kind == p.KEYWORD_ONLY for name, p in parameters.items() if name != "self")


def test_they_return_its_shapes(judge: Judge, requests: Sequence[GradeRequest]) -> None:
    instructions, responses = [r.instruction for r in requests[:4]], [r.response for r in requests[:4]]
    rubric = "[Is it good?]\nScore 1: no\nScore 5: yes"
    feedbacks, scores = judge.absolute_grade(
        instructions=instructions, responses=responses, rubric=rubric, params={"temperature": 0.0, "max_tokens": 40, "best_of": 1}
    )
    assert [type(x) for x in (feedbacks, scores)] == [list, list]
    assert all(isinstance(text, str) for text in feedbacks)
    assert all(isinstance(score, float) for score in scores)
    feedback, score = judge.single_absolute_grade(instructions[0], responses[0], rubric, params={"temperature": 0.0, "max_tokens": 40})
    assert (feedback, pytest.approx(score, abs=1e-4)) == (feedbacks[0], scores[0])
    feedback, winner = judge.single_relative_grade(instructions[0], responses[0], responses[1], rubric)
    assert winner in ("A", "B", "tie")
    assert feedback.startswith("Response A: ")
    feedbacks, winners = judge.relative_grade(
        instructions=instructions, responses_A=responses, responses_B=responses[::-1], rubric=[rubric] * 4, reference_answers=[None] * 4
    )
    swapped = judge.relative_grade(instructions=instructions, responses_A=responses[::-1], responses_B=responses, rubric=rubric)[1]
    assert [{"A": "B", "B": "A", "tie": "tie"}[str(winner)] for winner in winners] == swapped


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"responses": ["a"]}, "responses: found 1 for 2 instructions; one for each is accepted"),
        ({"rubric": ["r"]}, "rubric: found 1 for 2 instructions"),
        ({"reference_answers": "r"}, "reference_answers: found one text for 2 instructions"),
        ({"params": {"top_k": 3}}, "params.top_k: unknown; accepted are max_tokens"),
        ({"params": {"best_of": 4}}, "params.best_of: only 1 is accepted"),
    ],
)
def test_wrong_arguments_are_one_line(judge: Judge, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        judge.absolute_grade(**{"instructions": ["a", "b"], "responses": ["c", "d"], "rubric": "r", **changed})


def test_what_failed_has_no_score_and_says_why(talking_folder: str) -> None:
    with Judge.from_pretrained(talking_folder, max_length=1100) as judge:
        feedback, score = judge.single_absolute_grade("a", "word " * 400, "r")
        both, winner = judge.single_relative_grade("a", "word " * 400, "b", "r")
    assert (score, winner) == (None, None)
    assert feedback.startswith("over_length: max_length: the prompt has")
    assert "over_length" in both


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Is it kind?]\nScore 1: no\nScore 2: yes", Rubric("Is it kind?", {1: "no", 2: "yes"})),
        ("[Is it kind?]\nScore 0: no\nor never\nScore 10: yes\n", Rubric("Is it kind?", {0: "no\nor never", 10: "yes"})),
        ("Is it kind?", Rubric("Is it kind?")),
        ("Is it kind?\nScore 2: a\nScore 1: b", Rubric("Is it kind?", {1: "b", 2: "a"})),
    ],
)
def test_a_rubric_of_text_keeps_its_scores(text: str, expected: Rubric) -> None:
    assert replace(GradeRequest("a", "b"), rubric=text).rubric == expected  # type: ignore[arg-type]


def test_a_rubric_takes_scores_in_any_order_and_kind() -> None:
    assert Rubric("c", {5: "e", "1": "a", 2.0: "b", 2.5: "c"}).labels == ("1", "2", "2.5", "5")
    with pytest.raises(DataError, match="'high' is no score"):
        Rubric("c", {"high": "x"})
    with pytest.raises(DataError, match="the score 1.0 is described twice"):
        Rubric("c", {1: "x", "1.0": "y"})


def test_grades_on_two_scales_are_not_compared() -> None:
    def grade(*labels: str) -> Grade:
        judgement = Judgement("x", 0, 0, (), "f", CUE, tuple(1 / len(labels) for _ in labels), None, None)
        return grade_of([judgement], ScoreGrid(labels), " Score: ", request_id="x", predictor="rail", least_score_mass=0.5,
                        calibration=None)  # fmt: skip

    with pytest.raises(DataError, match=r"different scales, 0 to 1 \(2 scores\) and 1 to 10 \(3 scores\), .* use one rubric"):
        compared(grade("0", "1"), grade("1", "5", "10"))
    assert compared(grade("0", "1"), grade("0", "1")).winner == "tie"


def test_absolute_grading_takes_a_rubric_in_every_form(judge: Judge, requests: Sequence[GradeRequest]) -> None:
    texts = {"instructions": [requests[0].instruction], "responses": [requests[0].response]}
    mapping = {"criteria": "Is it kind?", "score1_description": "no", "score2_description": "yes"}
    found = [
        judge.absolute_grade(**texts, rubric=rubric)
        for rubric in (
            mapping,
            "[Is it kind?]\nScore 1: no\nScore 2: yes",
            "Is it kind?\n2 = yes\n1 = no",
            Rubric("Is it kind?", {1: "no", 2: "yes"}),
        )
    ]
    assert all(each == found[0] for each in found)
    with pytest.raises(DataError, match="rubric: names scores by words"):
        judge.absolute_grade(**texts, rubric="Is it kind? (yes/no)")
