"""The score that a chat model wrote, and where; the words of other conventions included. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tract.generation.judgement import CUE, END, LENGTH, SCORE
from tract.score_grid import ScoreGrid
from tract.score_statement import Taken, number_of, take_cot
from tract.score_words import NUMBER_WORDS

# The mark that chat models are asked for, as they write it: "[RESULT]", "[**RESULT**]", "[RESULT: 4]".
_RESULT = r"\[[\s*]*RESULT[\s*]*(?:\]|(?=[:=\s][\s*]*\d))"
# What may precede the number: marks of emphasis and of formulas, and words that say that a score follows.
_LEADS = re.compile(
    r"(?:[\s:=*_\"'`\u201c\u201d\u2018\u2019(\[{<>$|#~\u2248\u2192\])}]|\\[(\[]|\\(?:boxed|text|textbf|mathbf|mathrm)\b|[-\u2013\u2014](?=\s)"
    r"|\b(?:the|my|final|overall|total|score|rating|grade|mark|result|answer|is|of|integer|number)\b)*",
    re.IGNORECASE,
)
_NUMBER = re.compile(rf"[-\u2212]?\d+(?:\.\d+)?|\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
# Behind the number: the end of its scale, or what makes another number of it or a range.
_SCALE = re.compile(r"[\s*)}\]]*(?:/|\bout\s+of\b|\bof\b)[\s*(\[{]*(\d+(?:\.\d+)?)", re.IGNORECASE)
_NOT_ALONE = re.compile(
    r"[.,_:\u066b]\d|\s*(?:[-\u2013\u2014~\u301c\uff5e]|\.\.+|\u2026|\b(?:to|or|and|until|through)\b)\s*\d|(?:st|nd|rd|th)\b|\s*[%+\u00b0\u00bc\u00bd\u00be]"
    r"|[ \t]+\d|\s*[,;|]\s*\d+\s*(?:$|\n)|\s*/|[eE]\d|[-\u2212]\s*(?:$|\n)",
    re.IGNORECASE,
)
_CLOSES = re.compile(r"[\W_]*(?:(?:points?|stars?)\b[\W_]*)?(?:\n|$)", re.IGNORECASE)
_ENDS = re.compile(r"<\|?[^<>\s]{1,40}>|\[/?[A-Z_]{2,12}\]")


@dataclass(frozen=True, slots=True)
class Written:
    """What a chat model wrote.

    Attributes:
        cot: the feedback. finish: why it ended, one of ``judgement.FINISHES``.
        value: the score in points, on the grid; None where there is none, or none that can be read.
        place: (start, end) of its number in the text; None without a value.
    """

    cot: str
    finish: str
    value: float | None
    place: tuple[int, int] | None


def written_score(text: str, cue: str, grid: ScoreGrid, *, cut: bool) -> Written:
    """The score behind the last answer cue, else where it is stated otherwise.

    Args:
        text: what the model wrote, without its thoughts. cue: the answer cue. grid: the scores that count.
        cut: whether the text ran into the limit of tokens, so that what it states last need not be its last word.
    """
    taken = take_cot(text, cue)
    mark = _last_mark(text, cue, cut)
    if mark is None:
        return _without_mark(text, taken, grid, cut)
    cot = text[: mark.start()].rstrip() if text.startswith(taken.cot) and len(taken.cot) > mark.start() else taken.cot
    if cot.endswith("**") and cot.count("**") % 2:  # opens the emphasis of the statement
        cot = cot[:-2].rstrip()
    number = _number_behind(text, mark.end())
    if cut and (number is None or _may_go_on(text, number, grid)):
        return Written(cot, LENGTH, None, None)
    value = None if number is None else _on_grid(text, number, grid)
    return Written(cot, CUE, value, number if value is not None else None)


def _without_mark(text: str, taken: Taken, grid: ScoreGrid, cut: bool) -> Written:
    if cut:
        return Written(taken.cot, LENGTH, None, None)
    if taken.place is None:
        return Written(taken.cot, END, None, None)
    value = _on_grid(text, taken.place, grid)
    return Written(taken.cot, SCORE, value, taken.place if value is not None else None)


def _last_mark(text: str, cue: str, cut: bool) -> re.Match[str] | None:
    """The last mark that something follows; the last one of all if nothing follows any."""
    marks = list(re.finditer(f"{re.escape(cue.strip())}|{_RESULT}" if cue.strip() else _RESULT, text, re.IGNORECASE))
    for place in range(len(marks) - 1, -1, -1):
        last = place == len(marks) - 1
        rest = text[marks[place].end() : len(text) if last else marks[place + 1].start()]
        if re.search(r"\w", _ENDS.sub("", rest)) or (last and cut):
            return marks[place]
    return marks[-1] if marks else None


def _number_behind(text: str, start: int) -> tuple[int, int] | None:
    """(start, end) of the number that follows a mark; behind words, or in words, it must end the line."""
    leads = _LEADS.match(text, start)
    assert leads is not None
    found = _NUMBER.match(text, leads.end())
    if found is None:
        return None
    in_words = re.search(r"[a-z]", leads[0].replace("\\boxed", "").replace("\\text", ""), re.IGNORECASE) or found[0].isalpha()
    scale = _SCALE.match(text, found.end())
    if in_words and not _CLOSES.match(text, scale.end() if scale else found.end()):
        return None
    return found.span()


def _on_grid(text: str, number: tuple[int, int], grid: ScoreGrid) -> float | None:
    """The value of a number that stands alone; None if it is part of another one or of a range, out of another scale, or off the grid."""
    start, end = number
    scale = _SCALE.match(text, end)
    if scale is not None and float(scale[1]) != grid.highest:
        return None
    if scale is None and _NOT_ALONE.match(text, end):
        return None
    value = number_of(text[start:end]) if not text[start:end].isdecimal() else float(text[start:end])
    return value if value in grid.values else None


def _may_go_on(text: str, number: tuple[int, int], grid: ScoreGrid) -> bool:
    """Whether a text that was cut behind a number may have been cut inside it."""
    written: str = text[slice(*number)]
    return number[1] == len(text.rstrip()) and _begins_another(written, grid.labels)


def _begins_another(written: str, labels: Sequence[str]) -> bool:
    return any(label.startswith(written) and label != written for label in labels)
