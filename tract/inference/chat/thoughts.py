r"""What a reasoning model thinks, separated from what it answers. Pure.

A server with a reasoning parser sends both apart. Without one the thoughts are part of the text, in one of these forms:

    tags        <think>...</think>, [THINK]...[/THINK], and the like; a chat template that opens the tag itself leaves the closing one alone
    channels    <|channel|>analysis<|message|>...<|channel|>final<|message|>... (harmony), also where control tokens are not shown

A tag counts where a line starts or where it closes thoughts. One that the answer quotes or mentions is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAMES = r"(?:[a-z]+:)?(?:think|thinking|thoughts?|reasoning|antthinking)"
_OPENING = re.compile(
    rf"(?i:<\|?{_NAMES}(?:\s[^<>\n]{{0,40}})?\|?>)|\[THINK\]|\u25c1think\u25b7|<\|START_THINKING\|>|<\|begin_of_thought\|>"
    r"|<\|channel>thought|(?i:Here(?: is|'s) my thought process:)"
)
_CLOSING = re.compile(
    rf"(?i:<\|?/{_NAMES}\s*\|?>)|\[/THINK\]|\u25c1/think\u25b7|<\|END_THINKING\|>|<\|end_of_thought\|>"
    r"|<channel\|>|(?i:Here(?: is|'s) my response:)"
)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final\b[^<\n]*(?:<\|constrain\|>[^<\n]*)?<\|message\|>")
_CHANNELS = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
_ENDS_MESSAGE = re.compile(r"<\|(?:end|return|call)\|>")
# The same, where the server does not show control tokens: only the names of the channels are left.
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z\"'*(])")
_BARE_FINAL = "assistantfinal"
_CONTROL_TOKENS = re.compile(r"<\|(?:channel|start|end|return|call|message|constrain)\|>")
_QUOTES = frozenset("\"'`(\u201c\u201d\u2018\u2019\u00ab\u00bb")
_SENTENCE_ENDS = frozenset(".!?:)\u2026\u3002\uff01\uff1f*")


@dataclass(frozen=True, slots=True)
class Separated:
    """A text without its thoughts.

    Attributes:
        answer: what is not thought. thoughts: the rest, without tags.
        spans: (start, end) of the parts of the answer in the text, in order.
        open: whether the text ends inside a thought, so that there is no answer yet.
    """

    answer: str
    thoughts: str
    spans: tuple[tuple[int, int], ...]
    open: bool

    def place_in_text(self, place: int) -> int:
        """Where in the text a character of the answer is."""
        for start, end in self.spans:
            if place < end - start:
                return start + place
            place -= end - start
        return self.spans[-1][1] if self.spans else 0


def separate_thoughts(text: str, *, cut: bool) -> Separated:
    """The answer and the thoughts of what a model wrote.

    Args:
        text: all of it. cut: whether it ran into the limit of tokens: a thought that is not closed then has no answer behind it.
    """
    channels = _by_channels(text)
    if channels is not None:
        return channels
    blocks = list(_blocks(text, cut))
    closing = _lone_closing(text, blocks)
    if closing is not None:  # the chat template opened the thoughts
        opened = blocks[0][2] if blocks and not text[: blocks[0][0]].strip() else 0
        blocks = [(0, closing.end(), opened, closing.start()), *(block for block in blocks if block[0] >= closing.end())]
    if not blocks:
        return Separated(text, "", ((0, len(text)),), False)
    unclosed = blocks[-1][1] == len(text) and blocks[-1][3] == len(text)
    return _without(text, blocks, unclosed=unclosed)


def _without(text: str, blocks: list[tuple[int, int, int, int]], *, unclosed: bool) -> Separated:
    """The text without blocks, each (start, end, start of the thought, end of the thought)."""
    starts = [0, *(end for _, end, _, _ in blocks)]
    spans = [span for span in zip(starts, [*(start for start, _, _, _ in blocks), len(text)], strict=True) if text[slice(*span)].strip()]
    if spans:  # blanks beside thoughts belong to neither
        first, last = spans[0], spans[-1]
        spans[0] = (first[0] + len(text[slice(*first)]) - len(text[slice(*first)].lstrip()), first[1])
        spans[-1] = (spans[-1][0], last[1])
    thoughts = "\n\n".join(found for _, _, start, end in blocks if (found := text[start:end].strip()))
    return Separated("".join(text[start:end] for start, end in spans), thoughts, tuple(spans), unclosed)


def _blocks(text: str, cut: bool) -> Iterator[tuple[int, int, int, int]]:
    """Thoughts between tags, as ``_without`` takes them."""
    position = 0
    while (opening := _next_opening(text, position)) is not None:
        leads = not text[position : opening.start()].strip()
        closing = next((found for found in _CLOSING.finditer(text, opening.end()) if not _is_quoted(text, found)), None)
        if closing is not None:
            yield opening.start(), closing.end(), opening.end(), closing.start()
            position = closing.end()
        elif leads or cut:
            yield opening.start(), len(text), opening.end(), len(text)
            return
        else:
            return


def _next_opening(text: str, position: int) -> re.Match[str] | None:
    """The next tag that opens thoughts: at the start of a line, neither quoted nor in a block of code."""
    for found in _OPENING.finditer(text, position):
        line = text[max(position, text.rfind("\n", 0, found.start()) + 1) : found.start()]
        fenced = text.count("```", position, found.start()) % 2 == 1
        if not line.strip() and not fenced and not _is_quoted(text, found):
            return found
    return None


def _lone_closing(text: str, blocks: list[tuple[int, int, int, int]]) -> re.Match[str] | None:
    """The last tag that closes thoughts which no tag opened; None if there is none."""
    inside = [(start, end) for start, end, _, _ in blocks]
    lone = (found for found in _CLOSING.finditer(text) if not any(start <= found.start() < end for start, end in inside))
    return max((found for found in lone if _closes(text, found)), key=lambda found: found.start(), default=None)


def _closes(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag without an opening one closes thoughts, or is mentioned in a sentence."""
    before, after = text[text.rfind("\n", 0, tag.start()) + 1 : tag.start()], text[tag.end() :]
    if _is_quoted(text, tag) or text.count("```", 0, tag.start()) % 2 == 1:
        return False
    if not before.strip() or before[-1] in _SENTENCE_ENDS:
        return True
    ends_line = not after.split("\n", 1)[0].strip()
    if ends_line:  # at the end of a sentence, or a blank line follows
        return before.rstrip()[-1] in _SENTENCE_ENDS or after.lstrip(" \t").startswith("\n\n")
    return after[0].isalnum() or after[0] in "*#["


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    return text[tag.start() - 1 : tag.start()] in _QUOTES or text[tag.end() : tag.end() + 1] in _QUOTES - {"("}


def _by_channels(text: str) -> Separated | None:
    """The answer of a text in channels; None if it has none."""
    final = max((found for found in _FINAL_CHANNEL.finditer(text) if not _is_quoted(text, found)), key=re.Match.start, default=None)
    if final is not None:
        end = _ENDS_MESSAGE.search(text, final.end())
        return _channels(text, final.start(), final.end(), len(text) if end is None else end.start())
    if _CHANNELS.match(text):
        return Separated("", _bare(text), (), True)
    if analysis := _BARE_ANALYSIS.match(text):
        place = text.rfind(_BARE_FINAL)
        if place < 0:
            return Separated("", text[analysis.end() :].strip(), (), True)
        return _channels(text, place, place + len(_BARE_FINAL), len(text))
    return None


def _channels(text: str, before: int, start: int, end: int) -> Separated:
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return Separated(text[start:end], _bare(text[:before]), ((start, end),), False)


def _bare(text: str) -> str:
    """Thoughts without control tokens and names of channels."""
    named = re.sub(r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>[^<\n]*<\|message\|>", "\n", text)
    plain = _CONTROL_TOKENS.sub("\n", _BARE_ANALYSIS.sub("", named))
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"\n(?:assistant|start)\s*\n?$", "", plain.rstrip() + "\n")).strip()
