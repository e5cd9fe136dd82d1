"""Comparison of two models' answers: which pair up, and the numbers against values by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tract.apps.grading.pairs import AnswerPairs, key_of, pairs_of, read_graded
from tract.common.errors import DataError
from tract.evaluation.paired import compared
from tract.evaluation.scored import Array


def graded(path: Path, rows: list[dict[str, Any]]) -> Path:
    base = {"response": "x", "judge_status": "ok", "judge_distribution": {}, "judge_error": None}
    path.write_text("".join((row if isinstance(row, str) else json.dumps({**base, **row})) + "\n" for row in rows))
    return path


def scores_of(found: AnswerPairs) -> tuple[Array, Array, tuple[str, ...]]:
    return found.first, found.second, found.questions


def pairs(first: list[float], second: list[float], questions: list[str] | None = None) -> AnswerPairs:
    return AnswerPairs(np.asarray(first), np.asarray(second), tuple(questions or map(str, range(len(first)))), {}, {})


def test_means_difference_and_shares_by_hand() -> None:
    found = compared(*scores_of(pairs([1.0, 2.0, 3.0, 4.0], [2.0, 2.25, 3.0, 2.0])), margin=0.25, seed=0, resamples=50, confidence=0.9)
    assert (found.first.value, found.second.value) == (2.5, 2.3125)
    assert found.difference.value == pytest.approx(-0.1875)
    assert (found.wins.value, found.ties.value, found.losses.value) == (0.25, 0.5, 0.25)  # +1, +0.25, 0, -2
    assert (found.pairs, found.questions) == (4, 4)


@pytest.mark.parametrize(("margin", "ties"), [(0.0, 0.0), (0.1, 1.0), (0.0999, 0.0)])
def test_a_difference_of_the_margin_is_a_tie_whatever_rounding_does(margin: float, ties: float) -> None:
    assert (
        compared(*scores_of(pairs([0.3], [0.2])), margin=margin, seed=0, resamples=0, confidence=0.9).ties.value == ties
    )  # 0.09999999999999998


def test_swapping_the_files_swaps_everything() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(1, 5, 30).tolist(), rng.uniform(1, 5, 30).tolist()
    questions = [str(k % 10) for k in range(30)]
    there = compared(*scores_of(pairs(one, two, questions)), margin=0.5, seed=0, resamples=200, confidence=0.9)
    back = compared(*scores_of(pairs(two, one, questions)), margin=0.5, seed=0, resamples=200, confidence=0.9)
    assert (there.first, there.second, there.wins, there.ties, there.losses) == (back.second, back.first, back.losses, back.ties, back.wins)
    low, high = there.difference.low, there.difference.high
    assert low is not None
    assert high is not None
    assert back.difference.low == pytest.approx(-high)
    assert back.difference.high == pytest.approx(-low)


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    """Paired: however much the questions differ, the difference does not."""
    found = compared(*scores_of(pairs([1.0, 2.0, 5.0], [1.5, 2.5, 5.5])), margin=0.0, seed=0, resamples=100, confidence=0.95)
    assert (found.difference.low, found.difference.high) == (0.5, 0.5)
    assert found.first.low is not None
    assert found.first.high is not None
    assert found.first.high - found.first.low > 1


def test_answers_to_one_question_are_drawn_together() -> None:
    """Of two questions, a resample holds one, both or the other: the interval reaches to the means of each."""
    first, second = [0.0] * 20, [1.0] * 10 + [3.0] * 10
    clustered = compared(*scores_of(pairs(first, second, ["a"] * 10 + ["b"] * 10)), margin=0.0, seed=0, resamples=400, confidence=0.9)
    assert (clustered.difference.low, clustered.difference.high) == (1.0, 3.0)
    alone = compared(*scores_of(pairs(first, second)), margin=0.0, seed=0, resamples=400, confidence=0.9)
    assert alone.difference.low is not None
    assert alone.difference.low > 1.5


def test_one_question_has_no_interval() -> None:
    found = compared(*scores_of(pairs([1.0, 2.0], [2.0, 3.0], ["a", "a"])), margin=0.0, seed=0, resamples=100, confidence=0.9)
    assert (found.difference.value, found.difference.low) == (1.0, None)


def test_pairs_and_why_others_do_not_pair(tmp_path: Path) -> None:
    first = graded(
        tmp_path / "a.jsonl",
        [
            {"id": 1, "instruction": "one", "judge_score": 1.0},
            {"id": 2, "instruction": "two", "judge_score": 2.0},
            {"id": 3, "instruction": "three", "judge_score": None, "judge_status": "error"},
            {"id": 4, "instruction": "four", "judge_score": 4.0},
            {"id": 5, "instruction": "five", "judge_score": 5.0, "judge_status": "truncated_cot"},
            {"id": 6, "instruction": "six", "judge_score": 5.0},
            {"id": 7, "instruction": "seven", "judge_score": 1.0},
            {"id": 7, "instruction": "seven", "judge_score": 2.0},
            {"id": 7, "instruction": "seven", "judge_score": 3.0},
            {"id": None, "instruction": "eight", "judge_score": 3.0},
            "no json",  # type: ignore[list-item]
        ],
    )
    second = graded(
        tmp_path / "b.jsonl",
        [
            {"id": "5", "instruction": "five", "judge_score": 4.5},
            {"id": "2", "instruction": "two", "judge_score": 2.5, "judge_status": "no_cue"},
            {"id": "3", "instruction": "three", "judge_score": 2.5},
            {"id": "4", "instruction": "four!", "judge_score": 2.5},
            {"id": "6", "instruction": "six", "judge_score": None, "judge_status": "low_score_mass"},
            {"id": "9", "instruction": "nine", "judge_score": 2.5},
        ],
    )
    assert key_of([first, second], {}) == "id"
    a, b = read_graded(first, "id", {}), read_graded(second, "id", {})
    assert (a.rows, a.scored, a.left_out) == (
        11,
        5,
        {"with a repeated id": 3, "without an id or an instruction": 1, "that cannot be read": 1},
    )
    assert (b.rows, b.scored, b.left_out) == (6, 5, {})
    found = pairs_of(a, b, ("A", "B"), "id")
    assert (found.first.tolist(), found.second.tolist()) == ([2.0, 5.0], [2.5, 4.5])
    assert found.left_out == {
        "only in A": 1, "no score in A (error)": 1, "same id, another instruction": 1, "no score in B (low_score_mass)": 1, "only in B": 1,
    }  # fmt: skip
    assert found.not_ok == {"no_cue": 1, "truncated_cot": 1}
    # Nothing is lost: every answer of A is in a pair or has a reason.
    assert len(found.first) + sum(n for reason, n in found.left_out.items() if reason != "only in B") == len(a.answers)


def test_without_ids_the_instruction_pairs(tmp_path: Path) -> None:
    first = graded(tmp_path / "a.jsonl", [{"q": "one", "judge_score": 1}, {"q": "two", "judge_score": 2}])
    second = graded(tmp_path / "b.jsonl", [{"q": "two", "judge_score": 3, "id": 1}, {"q": "one", "judge_score": 5, "id": 2}])
    given = {"instruction": "q"}
    assert key_of([first, second], given) == "instruction"
    found = pairs_of(*(read_graded(path, "instruction", given) for path in (first, second)), ("a", "b"), "instruction")
    assert (found.first.tolist(), found.second.tolist()) == ([1.0, 2.0], [5.0, 3.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"instruction": "x"}], "has no columns judge_score and judge_status; grade it first"),
        ([{"instruction": "x", "judge_score": "high"}], r"a.jsonl:1: judge_score: found 'high'; a finite number is accepted"),
        ([{"instruction": "x", "judge_score": 1, "judge_status": "fine"}], "judge_status: found 'fine'; accepted are ok, no_cue"),
        ([{"question": "x", "judge_score": 1}], "has no column 'instruction'"),
    ],
)
def test_what_was_not_graded_is_one_line(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_graded(graded(tmp_path / "a.jsonl", rows), "instruction", {})
