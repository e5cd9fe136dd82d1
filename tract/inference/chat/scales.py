"""Whether a number that a chat model wrote is a score of the grid, by what is written around it: scales, ranges, comparisons. Pure."""

from __future__ import annotations

import re

from tract.inference.chat.numbers import value_of
from tract.text.score_grid import ScoreGrid
from tract.text.score_words import MINUSES, NUMBER_WORDS

_WORDS = "|".join(NUMBER_WORDS)
_N = rf"(?:(?:(?<!\w)[{MINUSES}])?\d+(?:\.\d+)?|\b(?:{_WORDS})\b)"
_DASH = rf"[{MINUSES}\u2014\u2015~\u223c\u301c\uff5e]"
_TO = rf"\s*(?:{_DASH}|\.\.+|\u2026|\b(?:to|through|until|and)\b)\s*"
_UNIT = r"(?:(?:points?|stars?|marks?|pts?)\b\.?|[\u2605\u2b50])"
TAG = r"</?[|]?[A-Za-z!][^<>\n]{0,60}>"
# Marks behind a number that belong to it: emphasis, quotes, the ends of brackets and tags.
_CLOSERS = rf"(?:[\s*_`\"'\u201d\u2019)\]}}>$]|\\[)\]]|{TAG})*"
_CLOSERS_IN_LINE = _CLOSERS.replace(r"[\s*", r"[^\S\n]|[*")
_OPENERS = rf"(?:[^\S\n]|[*_`\"'\u201c\u2018(\[{{<$]|\\[(\[]|\\(?:boxed|text|textbf|mathbf)\b|{TAG})*"
_FILLERS = r"(?:[\s:*_`\"'(\[{]|\b(?:an?|the|total|possible|maximum|max|of|score)\b)*"
# The end of the scale directly behind the number: "/5", "out of 5", "points (of 5)".
_OUT_OF = re.compile(
    rf"{_CLOSERS}(?:[{MINUSES}]?\s*{_UNIT})?{_CLOSERS}[,(\[]?\s*"
    rf"(?:[/\uff0f\u2044\u2215\u00f7\\]|\b(?:out\s+of|of|over|from|divided\s+by)\b){_FILLERS}(?P<most>{_N})",
    re.IGNORECASE,
)
_RANGE = rf"(?P<low>{_N}){_TO}(?P<high>{_N})"
# A scale by its name, wherever it is in the line: "on a scale of 1 to 5", "(1-5 scale)", "a 5-point scale", "max 5", "5 being the best".
_SCALES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:scale|range|likert)\b(?:[\s:*(\[{{]|\b(?:scale|of|from|is|being|goes|going|runs|running|between|the)\b)*{_RANGE}",
        rf"{_RANGE}(?:[\s)\]]|[-\u2010\u2011]|\bpoints?\b|\bstars?\b|\blikert\b)*\b(?:scale|range)\b",
        rf"[(\[]\s*{_RANGE}\s*[)\]]",
        rf"(?P<high>{_N})(?:\s|[-\u2010\u2011])*(?:points?|stars?)?(?:\s|[-\u2010\u2011])*(?:likert\s*)?\bscale\b",
        rf"\bscale\b(?:[\s:*(\[]|\b(?:of|is|up|to)\b)*(?P<high>{_N})(?!{_TO}{_N})",
        rf"\bmax(?:imum)?\b\.?(?:[\s:=]|\b(?:score|of|is|points?|possible)\b)*(?P<high>{_N})",
        rf"(?P<high>{_N})\s*(?:is|being|=|meaning|as)\s*(?:the\s+)?(?:best|highest|max\w*|top|perfect|excellent|most)\b",
        rf"(?P<high>{_N})\s*max(?:imum)?\b",
    )
)
# "Score out of 10: 4", "Score/10: 4".
_BEFORE = re.compile(rf"(?:/|\bout\s+of\b){_FILLERS}(?P<most>{_N})[^\w\n]*(?:\b(?:is|as|was)\b[^\w\n]*)?$", re.IGNORECASE)
# Between two numbers of which neither is the score.
_BESIDE = (
    rf"(?:\+\s*/\s*[{MINUSES}]|<?[-=]+>|{_DASH}|\.\.+|\u2026|[&\u00b1\u2213+^\u00d7\u3001\uff0c\u2192\u21d2\u81f3\u5230<>\u2264\u2265|]"
    rf"|[,;/]?\s*\b(?:(?:up\s+)?to|or|and|and\s*/\s*or|until|through|vs|versus|plus|minus|but|maybe|perhaps|possibly)\b\.?)"
)
_SPACE = r"[^\S\n]*"
_NOT_ALONE = re.compile(
    # More of the same number, or a power or fraction of it.
    rf"[.,_:\u066b\uff0e]\d|[A-Za-z]|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2150-\u215e\u00b0]|{_SPACE}[%+\uff05\u2030\u00b1\u00bc-\u00be\u2150-\u215e]"
    rf"|{_SPACE}\b(?:per\s*cent|plus|minus|at\s+(?:most|least)|(?:or|and)\s+(?:more|less|fewer|higher|lower|better|above|below|up|over|under))\b|{_SPACE}[{MINUSES}]{_SPACE}(?:$|\n)|{_SPACE}and\s+(?:an?|one|three)[\s-]+(?:half|quarters?|thirds?)\b"
    # Another number beside it, or a scale whose end is no number.
    rf"|[^\S\n]+\d|{_CLOSERS_IN_LINE}[(\[]?{_SPACE}{_BESIDE}{_OPENERS}{_N}|{_CLOSERS_IN_LINE}[,;]\s*{_N}\s*(?:[,;]|\band\b|\bor\b|$|\n)"
    rf"|{_SPACE}[/\uff0f\u2044\u2215\u00f7]|{_SPACE}(?:{_UNIT})?{_SPACE}\(?out\s+of\b",
    re.IGNORECASE,
)
_BESIDE_BEFORE = re.compile(
    rf"(?:\d|\b(?:{_WORDS})\b){_CLOSERS}{_BESIDE}{_OPENERS}$|(?:[:=]|\b(?:it|is|an?)\b)\s*{_N}(?:\s*[,;]\s*{_N})*\s*[,;]\s*$", re.IGNORECASE
)
_COMPARED = re.compile(r"(?:(?<![-=])>=?|<=?|[\u2264\u2265\u00b1\u2266\u2267\u2a7d\u2a7e]|\\[gl]eq?\b)[\s=]*$")
# Characters around a number that are looked at: a judge that repeats itself writes thousands.
_NEAR = 200
_UNITS_BEHIND = re.compile(rf"(?:{_UNIT}|(?:out|of|over|on)\b)", re.IGNORECASE)


def scale_behind(text: str, end: int) -> tuple[int, int] | None:
    """(start, end) of the scale that is named behind a number, directly or in the rest of its line; None where none is.

    Args:
        end: of the number in the text.
    """
    match = _OUT_OF.match(text, end, end + _NEAR)
    if match is None:
        line = _line_end(text, end)
        match = next((found for scale in _SCALES if (found := scale.search(text, end, line)) is not None), None)
    return None if match is None else match.span()


def is_score(text: str, start: int, end: int, since: int, grid: ScoreGrid) -> bool:
    """Whether a number is a score by itself, on the grid's scale: no part of another number, of a range or a comparison.

    Args:
        start, end: of the number in the text. since: where its statement begins, at most; what precedes that says nothing about it.
    """
    line = max(since, text.rfind("\n", 0, start) + 1, start - _NEAR)
    before = text[line:start]
    out_of = _OUT_OF.match(text, end, end + _NEAR)
    behind = end if out_of is None else out_of.end()
    if out_of is not None and value_of(out_of["most"]) != grid.highest:
        return False
    led = _BEFORE.search(before)
    if led is not None and value_of(led["most"]) != grid.highest:
        return False
    if any(_is_other(scale, part, grid) for scale in _SCALES for part in (before, text[behind : _line_end(text, behind)])):
        return False
    if _BESIDE_BEFORE.search(before) or _is_compared(before, text, end):
        return False
    return _NOT_ALONE.match(text, behind, behind + _NEAR) is None or (behind == end and _UNITS_BEHIND.match(text, behind) is not None)


def _is_other(scale: re.Pattern[str], text: str, grid: ScoreGrid) -> bool:
    """Whether a text names a scale that is not the grid's."""
    for match in scale.finditer(text):
        low = match.groupdict().get("low")
        if value_of(match["high"]) != grid.highest or (low is not None and value_of(low) != grid.lowest):
            return True
    return False


def _is_compared(before: str, text: str, end: int) -> bool:
    """Whether a sign before the number compares with it ("> 3"), and does not enclose it ("<4>") or end a tag ("<b>4")."""
    bare = re.sub(rf"{TAG}\s*$", "", before)
    sign = _COMPARED.search(bare)
    if sign is None:
        return False
    return not (sign[0].rstrip() == "<" and re.match(r"[^<>\n,;]{0,24}(?<![-=])>(?!\s*=?\s*\d)", text[end : end + _NEAR]))


def _line_end(text: str, start: int) -> int:
    """The end of the line, behind blanks and line breaks that precede a bracket."""
    most = min(len(text), start + _NEAR)
    bracket = re.compile(r"\s*(?=[(\[])").match(text, start, most)
    end = text.find("\n", bracket.end() if bracket else start, most)
    return most if end < 0 else end
