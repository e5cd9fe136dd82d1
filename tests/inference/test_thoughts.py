"""Thoughts of reasoning models: taken out of the answer in every form, and nothing that an answer quotes is taken out."""

from __future__ import annotations

import pytest

from tract.inference.chat.thoughts import separate_thoughts

ANSWER = "Clear and right. [RESULT] 4"


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [
        (f"<think>\nMaybe [RESULT] 2?\n</think>\n\n{ANSWER}", "Maybe [RESULT] 2?"),
        (f"<think>one</think>\n<thinking>two</thinking>{ANSWER}", "one\n\ntwo"),
        (f"<think>\n\n</think>\n\n{ANSWER}", ""),
        (f"<seed:think>a</seed:think>{ANSWER}", "a"),
        (f"<reasoning>a [RESULT] 1</reasoning>\n{ANSWER}", "a [RESULT] 1"),
        (f"[THINK]a[/THINK]{ANSWER}", "a"),
        (f"\u25c1think\u25b7a\u25c1/think\u25b7{ANSWER}", "a"),
        (f'<think>The prompt says "</think>" here. </think> {ANSWER}', 'The prompt says "</think>" here.'),
        (f"<think>a<think>b</think>c</think>{ANSWER}", "a<think>b</think>c"),
        (f"So [RESULT] 2.\n</think>\n\n{ANSWER}", "So [RESULT] 2."),  # the chat template opened the tag
        (f"so it is 2</think>{ANSWER}", "so it is 2"),
        (f"<|channel|>analysis<|message|>Draft [RESULT] 2<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
         "Draft [RESULT] 2"),
        (f"Draft<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}", "Draft"),
        (f"analysisThe draft is [RESULT] 2.assistantfinal{ANSWER}", "The draft is [RESULT] 2."),
    ],
)  # fmt: skip
def test_thoughts_are_apart_from_the_answer(text: str, thoughts: str) -> None:
    found = separate_thoughts(text, cut=False)
    assert (found.answer, found.thoughts, found.open) == (ANSWER, thoughts, False)
    assert text[found.place_in_text(len(ANSWER) - 1)] == "4"


def test_thoughts_amid_an_answer_leave_its_parts() -> None:
    text = "Good.\n<think>\nor [RESULT] 1\n</think>\nClear. [RESULT] 4"
    found = separate_thoughts(text, cut=False)
    assert (found.answer, found.thoughts) == ("Good.\n\nClear. [RESULT] 4", "or [RESULT] 1")
    assert [text[found.place_in_text(found.answer.index(part))] for part in "GC4"] == ["G", "C", "4"]


@pytest.mark.parametrize(
    "text",
    [
        "The response uses <think> and </think> wrongly. [RESULT] 3",
        "The response shows its `<think>` tag\n`</think>` to the user. [RESULT] 3",
        "The response ends in </think>\nThat is bad. [RESULT] 2",
        'It wrote "<think>" (</think>) twice. [RESULT] 2',
        "The code is:\n```\n<think>\nx\n</think>\n```\nBad. [RESULT] 2",
        "A line of it is\n<think>\nand nothing closes it. [RESULT] 2",
        "The final channel `<|channel|>final<|message|>` is named. [RESULT] 2",
        "analysis of the response: it is good. [RESULT] 4",
        "",
    ],
)
def test_a_tag_that_an_answer_mentions_is_text(text: str) -> None:
    found = separate_thoughts(text, cut=False)
    assert (found.answer, found.thoughts, found.open) == (text, "", False)


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nA draft: [RESULT] 2\nBut",
        "[THINK]A draft: [RESULT] 2",
        "<|channel|>analysis<|message|>[RESULT] 2",
        "analysisThe [RESULT] 2",
    ],
)
def test_a_text_that_ends_inside_a_thought_has_no_answer(text: str) -> None:
    found = separate_thoughts(text, cut=True)
    assert (found.answer, found.open) == ("", True)
    assert "[RESULT] 2" in found.thoughts


def test_a_cut_text_may_end_in_a_thought_behind_its_answer() -> None:
    found = separate_thoughts("Good. [RESULT] 4\n<think>\nOr rather [RESULT] 1", cut=True)
    assert (found.answer, found.open) == ("Good. [RESULT] 4\n", True)
