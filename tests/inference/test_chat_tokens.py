"""Scores among tokens: found by bytes from the end, whatever precedes, and with the probabilities of a tree of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tract.inference.chat.tokens import Spread, Token, place_of, spread_of, tokens_of
from tract.text.score_grid import ScoreGrid

FIVE = ScoreGrid(tuple("12345"))
TEN = ScoreGrid(tuple(str(score) for score in range(1, 11)))
HALVES = ScoreGrid(("1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"))
SCORE = ("3", {"3": 0.5, "4": 0.4, "5": 0.1})
Told = tuple[str, Mapping[str, float]] | str | dict[str, Any]


def tokens(*told: Told) -> tuple[Token, ...]:
    """Tokens as a server tells them: (text, alternatives), text alone, or all of the JSON."""
    content = []
    for each in told:
        text, others = (each, {}) if isinstance(each, str) else each if isinstance(each, tuple) else ("", {})
        alternatives = [{"token": other, "logprob": math.log(p)} for other, p in others.items()]
        content.append(
            each if isinstance(each, dict) else {"token": text, "logprob": math.log(others.get(text, 1.0)), "top_logprobs": alternatives}
        )
    found = tokens_of(content)
    assert found is not None
    return found


def spread(told: Sequence[Told], text: str, written: str, grid: ScoreGrid = FIVE) -> Spread | None:
    found, start = tokens(*told), text.rindex(written)
    place = place_of(found, text, start, start + len(written))
    assert place is not None
    return spread_of(found, place, written, grid)


def part(*data: int) -> dict[str, Any]:
    """A token that is a part of a character."""
    return {"token": "bytes:" + "".join(f"\\x{each:02x}" for each in data), "logprob": -0.1, "bytes": list(data), "top_logprobs": []}


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (["Good. [RESULT] "], "Good. [RESULT] 3"),
        ([part(0xE5, 0xBE), part(0x88), " [RESULT] "], "\u5f88 [RESULT] 3"),
        ([{"token": "bytes:\\xe5\\xbe\\x88", "logprob": -0.1}, " [RESULT] "], "\u5f88 [RESULT] 3"),
        (["\ufffd", "\ufffd", " [RESULT] "], "\U0001f60a [RESULT] 3"),
        ([{"token": "\ufffd", "logprob": 0.0, "bytes": [0xEF, 0xBF, 0xBD]}, " [RESULT] "], "\U0001f60a [RESULT] 3"),
        (["<0xE5>", "<0xBE>", "<0x88>", " [RESULT] "], "\u5f88 [RESULT] 3"),
        (["Thoughts: 3 or [RESULT] 3?", "</think>", "Good. [RESULT] "], "Good. [RESULT] 3"),
        (["\n\nGood. [RESULT] "], "Good. [RESULT] 3"),  # the server took blanks away
        (["3 of 3. [RESULT]", "\n"], "3 of 3. [RESULT]\n3"),
    ],
)
@pytest.mark.parametrize(
    ("behind", "tail"),
    [
        ([], ""), (["<|im_end|>"], ""), ([{"token": "", "logprob": 0.0, "bytes": []}], ""), (["\n", "</s>"], ""), (["/5", "."], "/5."),
        ([" \ufffd", "\ufffd", " 3 stars"], " \U0001f60a 3 stars"), ([" [END]", "<|eot_id|>"], ""), ([". Fine", "."], ". Fine."),
    ],
)  # fmt: skip
def test_a_score_is_found_whatever_stands_around_it(before: list[Told], text: str, behind: list[Told], tail: str) -> None:
    found = tokens(*before, SCORE, *behind)
    place = place_of(found, text + tail, len(text) - 1, len(text))
    assert place is not None
    assert (place.token, place.offset) == (len(before), 0)
    read = spread_of(found, place, "3", FIVE)
    assert read is not None
    assert read.probabilities == pytest.approx((0, 0, 0.5, 0.4, 0.1))


@pytest.mark.parametrize(
    ("token", "alternatives"),
    [
        (" 3", {" 3": 0.5, "4": 0.1, " 4": 0.3, " 5": 0.1, " five": 0.1}),
        ("[3", {"[3": 0.5, "[4": 0.4, "5": 0.1}),
        ("3/5", {"3/5": 0.5, "4/5": 0.4, "5": 0.1}),
        ("3", {"3": 0.5, "\uff14": 0.2, " 4": 0.2, "5": 0.1}),
        ("3", {"3": 0.5, "4.0": 0.4, "5.": 0.1}),
        ("\u25813", {"\u25813": 0.5, "\u25814": 0.4, "\u25815": 0.1}),
        ("\u01203", {"\u01203": 0.5, "\u01204": 0.4, "\u01205": 0.1}),
        ("**3", {"**3": 0.5, "**4": 0.4, " **5": 0.1}),
    ],
)
def test_a_score_may_share_its_token(token: str, alternatives: dict[str, float]) -> None:
    text = "[RESULT] " + token.replace("\u2581", " ").replace("\u0120", " ")
    found = spread(["[RESULT] " if token[0] not in "\u2581\u0120" else "[RESULT] ", (token, alternatives)], text, "3")
    assert found is not None
    assert found.probabilities == pytest.approx((0, 0, 0.5, 0.4, 0.1))


def test_what_was_written_counts_where_it_is_not_among_the_likely_ones() -> None:
    told = {"token": "3", "logprob": math.log(0.02), "top_logprobs": [{"token": "4", "logprob": math.log(0.9)}]}
    found = spread(["[RESULT] ", told], "[RESULT] 3", "3")
    assert found is not None
    assert found.probabilities == pytest.approx((0, 0, 0.02, 0.9, 0))


def test_a_score_in_words_is_among_words() -> None:
    found = spread(["[RESULT]", (" four", {" four": 0.6, " Three": 0.3, " 5": 0.1})], "[RESULT] four", "four")
    assert found is not None
    assert found.probabilities == pytest.approx((0, 0, 0.3, 0.6, 0.1))


def test_a_score_of_two_tokens_has_the_product_of_their_probabilities() -> None:
    told = ["[RESULT] ", ("1", {"1": 0.8, "9": 0.2}), ("0", {"0": 0.75, "\n": 0.2, ".": 0.05})]
    found = spread(told, "[RESULT] 10", "10", TEN)
    assert found is not None
    assert found.undecided == 0
    assert dict(zip(TEN.labels, found.probabilities, strict=True)) == pytest.approx(
        {**dict.fromkeys("2345678", 0.0), "1": 0.2, "9": 0.2, "10": 0.6}
    )


def test_the_same_where_the_shorter_score_was_written() -> None:
    told = ["[RESULT] ", ("1", {"1": 0.8, "9": 0.2}), ("\n", {"\n": 0.2, "0": 0.75, "5": 0.05}), "Done."]
    found = spread(told, "[RESULT] 1\nDone.", "1", TEN)
    assert found is not None
    assert (found.probabilities[0], found.probabilities[9]) == pytest.approx((0.16, 0.6))


def test_a_score_with_a_fraction_goes_over_three_tokens() -> None:
    told = ["[RESULT] ", ("4", {"4": 0.9, "3": 0.1}), (".", {".": 0.5, "<|im_end|>": 0.5}), ("5", {"5": 0.8, "0": 0.2}), "<|im_end|>"]
    found = spread(told, "[RESULT] 4.5", "4.5", HALVES)
    assert found is not None
    # 4: ended at once, or written as 4.0; what 3 may go on with is at most a half, so it counts as 3.
    assert dict(zip(HALVES.labels, found.probabilities, strict=True))["4.5"] == pytest.approx(0.9 * 0.5 * 0.8)
    assert dict(zip(HALVES.labels, found.probabilities, strict=True))["4"] == pytest.approx(0.9 * 0.5 + 0.9 * 0.5 * 0.2)
    assert dict(zip(HALVES.labels, found.probabilities, strict=True))["3"] == pytest.approx(0.1)


def test_a_longer_score_that_is_one_token_decides_the_shorter_one() -> None:
    found = spread(["[RESULT] ", ("9", {"9": 0.5, "10": 0.3, "1": 0.2})], "[RESULT] 9", "9", TEN)
    assert found is not None
    assert (found.undecided, found.probabilities[0], found.probabilities[9]) == pytest.approx((0, 0.2, 0.3))


def test_what_may_be_of_two_distant_scores_is_of_none() -> None:
    found = spread(["[RESULT] ", ("8", {"8": 0.9, "1": 0.1})], "[RESULT] 8", "8", TEN)
    assert found is not None
    assert found.probabilities[0] == found.probabilities[9] == 0
    assert found.undecided == pytest.approx(0.1 * 9 / 0.9 / 9)


def test_negative_scores_are_read() -> None:
    grid = ScoreGrid(("-1", "0", "1"))
    for told in (["[RESULT] ", ("-1", {"-1": 0.7, "1": 0.3})], ["[RESULT] ", ("-", {"-": 0.7, "1": 0.3}), ("1", {"1": 1.0})]):
        found = spread(told, "[RESULT] -1", "-1", grid)
        assert found is not None
        assert found.probabilities == pytest.approx((0.7, 0, 0.3))


@pytest.mark.parametrize("minus", ["\u2010", "\u2013", "\u2212", "\uff0d"])
def test_a_minus_sign_of_any_kind_is_one(minus: str) -> None:
    grid = ScoreGrid(("-1", "0", "1"))
    whole = [f"{minus}1", {f"{minus}1": 0.6, "-1": 0.1, "1": 0.3}]
    for told in (["[RESULT] ", tuple(whole)], ["[RESULT] ", (minus, {minus: 0.6, "-1": 0.1, "1": 0.3}), ("1", {"1": 1.0})]):
        found = spread(told, f"[RESULT] {minus}1", f"{minus}1", grid)
        assert found is not None
        assert found.probabilities == pytest.approx((0.7, 0, 0.3))
    beside = spread(["[RESULT] ", ("1", {"1": 0.6, f"{minus}1": 0.3, "\u20141": 0.1})], "[RESULT] 1", "1", grid)
    assert beside is not None
    assert beside.probabilities == pytest.approx((0.3, 0, 0.6))


@pytest.mark.parametrize(
    "told",
    [
        [{"token": "3", "logprob": None, "top_logprobs": []}],
        [("3", {"3": 0.9, "4": 0.9})],  # more than 1
        [{"token": "3", "logprob": -0.1, "top_logprobs": [{"token": "3", "logprob": 2.0}]}],
    ],
)
def test_what_is_no_distribution_is_none(told: list[Told]) -> None:
    assert spread(["[RESULT] ", *told], "[RESULT] 3", "3") is None


def test_tokens_of_another_text_are_not_read() -> None:
    assert place_of(tokens("Bad. [RESULT] ", "2"), "Good. [RESULT] 3", 15, 16) is None
    assert place_of(tokens("Something 3 else"), "Good. [RESULT] 3", 15, 16) is None


@pytest.mark.parametrize("content", [None, [], "text", {}, [{"logprob": 0.0}], [1]])
def test_what_is_no_list_of_tokens_is_none(content: object) -> None:
    assert tokens_of(content) is None
