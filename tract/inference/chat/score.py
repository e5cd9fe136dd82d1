"""The score that a chat model wrote, and where; the words of other conventions included. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tract.inference.chat.numbers import value_of
from tract.inference.chat.scales import TAG, is_score, scale_behind
from tract.inference.judgement import CUE, END, LENGTH, SCORE
from tract.text.cot_extraction import ExtractedCot, extract_cot
from tract.text.score_grid import ScoreGrid
from tract.text.score_words import MINUSES, NUMBER_WORDS

# The mark that chat models are asked for, as they write it: "[RESULT]", "[**RESULT**]", "[RESULT: 4]".
_RESULT = r"\[[\s*]*RESULT[\s*]*(?:\]|(?=[:=\s][\s*]*\d))"
# What may precede the number: marks of emphasis and of formulas, tags, arrows, and words that say that a score follows.
_LEADS = re.compile(
    rf"(?:{TAG}|[-=]+>|[\s:=*_\"'`\u201c\u201d\u2018\u2019(\[{{<>$|#~\u2248\u2192\])}}]|\\[(\[]|\\(?:boxed|text|textbf|mathbf|mathrm)\b"
    r"|[-\u2013\u2014](?=\s)|\+(?=\d)|\b(?:the|my|final|overall|total|score|rating|grade|mark|result|answer|is|of|integer|number)\b)*",
    re.IGNORECASE,
)
_NUMBER = re.compile(rf"[{MINUSES}]?\d+(?:\.\d+)?|\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
_CLOSES = re.compile(rf"(?:[\W_]|{TAG})*(?:(?:points?|stars?|marks?|pts?)\b(?:[\W_]|{TAG})*)?(?:\n|$)", re.IGNORECASE)
_NEAR = 60  # characters between a score and the end of its scale
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
    taken = extract_cot(text, cue)
    mark = _last_mark(text, cue, cut)
    if mark is None:
        return _without_mark(text, taken, grid, cut)
    cot = text[: mark.start()].rstrip() if text.startswith(taken.cot) and len(taken.cot) > mark.start() else taken.cot
    if cot.endswith("**") and cot.count("**") % 2:  # opens the emphasis of the statement
        cot = cot[:-2].rstrip()
    number = _number_behind(text, mark.end())
    if cut and (number is None or _may_go_on(text, number, grid)):
        return Written(cot, LENGTH, None, None)
    value = None if number is None else _on_grid(text, number, mark.end(), grid)
    return Written(cot, CUE, value, number if value is not None else None)


def _without_mark(text: str, taken: ExtractedCot, grid: ScoreGrid, cut: bool) -> Written:
    if cut:
        return Written(taken.cot, LENGTH, None, None)
    if taken.place is None:
        return Written(taken.cot, END, None, None)
    place = _with_sign(text, _before_its_scale(text, taken.place), grid)
    value = _on_grid(text, place, 0, grid)
    return Written(taken.cot, SCORE, value, place if value is not None else None)


def _before_its_scale(text: str, number: tuple[int, int]) -> tuple[int, int]:
    """The place of the score where a number is the end of its scale ("4 of 5"); of the number itself elsewhere."""
    line = text.rfind("\n", 0, number[0]) + 1
    for match in _NUMBER.finditer(text, max(line, number[0] - _NEAR), number[0]):
        scale = scale_behind(text, match.end())
        if scale is not None and scale[0] <= number[0] < scale[1]:
            return match.span()
    return number


def _with_sign(text: str, number: tuple[int, int], grid: ScoreGrid) -> tuple[int, int]:
    """The place of a number with the dash directly before it, which is its sign where scores can be negative."""
    start, end = number
    is_sign = grid.lowest < 0 and re.search(rf"(?<!\w)[{MINUSES}]$", text[:start]) and text[start].isdecimal()
    return (start - 1, end) if is_sign else number


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
    led = re.sub(rf"{TAG}|\\(?:boxed|text\w*|math\w*)", "", leads[0], flags=re.IGNORECASE)
    in_words = re.search(r"[a-z]", led, re.IGNORECASE) or found[0].isalpha()
    scale = scale_behind(text, found.end()) if in_words else None
    if in_words and not _CLOSES.match(text, scale[1] if scale else found.end()):
        return None
    return found.span()


def _on_grid(text: str, number: tuple[int, int], since: int, grid: ScoreGrid) -> float | None:
    """The value of a number that is a score by itself; None if it is not (see ``is_score``), or off the grid."""
    start, end = number
    value = value_of(text[start:end])
    if value not in grid.values or not is_score(text, start, end, since, grid):
        return None
    before = text[since:start].rstrip(" \t")
    # "- 1" may be a score behind a dash or a negative one; "+1" is a score where there are negative ones.
    if before[-1:] and before[-1] in f"{MINUSES}\u2014\u2015" and -value in grid.values and value != 0:
        return None
    return None if before.endswith("+") and grid.lowest >= 0 else value


def _may_go_on(text: str, number: tuple[int, int], grid: ScoreGrid) -> bool:
    """Whether a text that was cut behind a number may have been cut inside it."""
    written: str = text[slice(*number)]
    return number[1] == len(text.rstrip()) and _begins_another(written, grid.labels)


def _begins_another(written: str, labels: Sequence[str]) -> bool:
    return any(label.startswith(written) and label != written for label in labels)
