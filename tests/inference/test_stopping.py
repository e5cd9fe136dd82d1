"""Where a CoT ends, with tokenizers of every kind: the cue is found by its text, however it is cut into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from tokenizer_zoo import NAMES, member

from tract.inference.judgement import CUE as CUED
from tract.inference.judgement import END, LENGTH, SCORE
from tract.inference.stopping import CueFinder
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.tokenization import Span

CUE = " So the overall score is "
GRID = ScoreGrid(("1", "2", "3", "4", "5"))
COT = "It is polite. The answer meets 3 of 4 constraints."


@cache
def layout_of(name: str) -> SequenceLayout:
    return SequenceLayout.build(member(name).tokenizer, system=False, cue=CUE, grid=GRID, chat_template_kwargs={})


def first_length(finder: CueFinder, ids: Sequence[int]) -> tuple[int, int] | None:
    """(tokens sampled, tokens of the CoT) when the cue is complete for the first time, fed token by token as in sampling."""
    at_once = finder.first_cue(ids)
    for count in range(1, len(ids) + 1):
        if (length := finder.cot_length(ids[:count])) is not None:
            assert at_once == (length, count), "what is sampled in one go ends at the same place"
            return count, length
    assert at_once is None
    return None


def pieces(layout: SequenceLayout, *texts: str) -> list[int]:
    """Token ids of texts that are encoded each by itself, so that no token spans two of them."""
    return [token for text in texts for token in layout.encoder.encode([Span(text)])]


@pytest.mark.parametrize("name", NAMES)
def test_the_layouts_own_cue_gives_the_layouts_own_cot(name: str) -> None:
    """A CoT as it is trained, then the cue's ids: the CoT's ids come back, whatever the tokenizer."""
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    cot = layout.cot_ids(COT)
    found = first_length(finder, [*cot, *layout.cue_ids, *layout.score_ids[3]])
    assert found is not None
    assert found[1] == len(cot)
    # Complete with its last letter, whether or not a token for the blank follows.
    assert len(cot) + len(layout.cue_ids) - 1 <= found[0] <= len(cot) + len(layout.cue_ids) + len(layout.score_ids[3])


@pytest.mark.parametrize("name", NAMES)
def test_a_cue_that_is_cut_otherwise_is_found(name: str) -> None:
    """Letter by letter; the tokens before it are the CoT's."""
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    cot = layout.cot_ids(COT)
    letters = _letters(layout, CUE.strip())
    ids = [*cot, *_letters(layout, " "), *letters]
    decoded = finder._text(ids)
    if CUE.strip() not in decoded:
        pytest.skip(f"{name} writes no letters without blanks between them: {decoded[-40:]!r}")
    found = first_length(finder, ids)
    assert found is not None
    assert found[0] == len(ids)
    assert finder.text(ids[: found[1]]).rstrip() == finder.text(cot).rstrip()


def _letters(layout: SequenceLayout, text: str) -> list[int]:
    """Token ids that write a text letter by letter."""
    tokenizer = layout.tokenizer
    found = []
    for letter in text:
        single = (
            [token for form in (letter, "▁", "Ġ", "Ċ") if (token := tokenizer.get_vocab().get(form)) is not None] if letter == " " else []
        )
        if letter != " " and letter in tokenizer.get_vocab():
            single = [tokenizer.get_vocab()[letter]]
        found += single[:1] or layout.encoder.encode([Span(letter)])
    return found


@pytest.mark.parametrize("name", ["smollm2", "mistral", "byte_level", "tiny"])
def test_a_cue_behind_a_line_break_is_found(name: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    ids = layout.encoder.encode([Span(COT + "\n\n" + CUE.strip() + " 4")])
    found = first_length(finder, ids)
    assert found is not None
    cot = finder.text(ids[: found[1]])
    assert cot.rstrip("\n") == finder.text(layout.cot_ids(COT))
    assert CUE.strip() in finder.text(ids[: found[0]])


@pytest.mark.parametrize("name", ["smollm2", "mistral", "tiny"])
@pytest.mark.parametrize(
    "text", ["So the overall score", " So the overall scores are", "so the overall score is", "So the  overall score is", ""]
)
def test_what_is_no_cue_is_not_found(name: str, text: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    assert first_length(finder, layout.encoder.encode([Span(COT + text)])) is None


@pytest.mark.parametrize("name", ["smollm2", "mistral", "joined", "tiny"])
def test_of_two_cues_the_first_ends_the_cot(name: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    cot = layout.cot_ids(COT)
    ids = [*cot, *layout.cue_ids, *layout.score_ids[3], *layout.cue_ids, *layout.score_ids[1]]
    found = first_length(finder, ids)
    assert found is not None
    assert found[1] == len(cot)


@pytest.mark.parametrize("name", ["smollm2", "mistral", "tiny"])
def test_a_cue_at_once_leaves_an_empty_cot(name: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    found = first_length(finder, layout.encoder.encode([Span(CUE.strip() + " 4")]))
    assert found is not None
    assert finder.text(layout.encoder.encode([Span(CUE.strip() + " 4")])[: found[1]]).strip() == ""


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_letters_of_several_bytes_before_the_cue_stay_whole(name: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    cot = layout.cot_ids("Très bien 👍🏽")
    found = first_length(finder, [*cot, *layout.cue_ids, *layout.score_ids[0]])
    assert found is not None
    assert found[1] == len(cot)
    assert "👍🏽" in finder.text(cot[: found[1]])


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_turn_ends_and_is_no_text(name: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    assert layout.end_id in finder.end_ids
    cot = layout.cot_ids(COT)
    assert finder.end_ids.isdisjoint(cot)
    assert finder.text([*cot, layout.end_id]).strip() == COT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "statement", [" So the overall score is 4. [RESULT] 4", " Thus the rating is 4/5.", "\n[RESULT] 4", " I give it a 4."]
)
def test_a_cot_ends_before_its_score_is_stated_in_other_words(name: str, statement: str) -> None:
    """Whatever the cue is, with or without it behind: no score is read behind a score that is spelled out."""
    layout = SequenceLayout.build(member(name).tokenizer, system=False, cue=" My verdict: ", grid=GRID, chat_template_kwargs={})
    finder, cot = CueFinder(layout), layout.cot_ids(COT)
    for finish in (END, LENGTH, CUED):
        length, reason = finder.closed([*cot, *layout.cot_ids(statement)], finish)
        assert reason == SCORE
        assert finder.text([*cot, *layout.cot_ids(statement)][:length]).strip() == finder.text(cot).strip()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mention", ["", " It meets the criteria for a score of 4.", " It names 4 of 4 points. 1. It is short. 2."])
def test_a_score_that_is_mentioned_ends_no_cot(name: str, mention: str) -> None:
    layout, finder = layout_of(name), CueFinder(layout_of(name))
    ids = layout.cot_ids(COT + mention)
    assert finder.closed(ids, END) == (len(ids), END)
