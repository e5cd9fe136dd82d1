"""Where a text names scores: the marks before descriptions ("Score 1:", "2 = ", "| 3 |"), as people write them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# How sure a mark is: it names a score; it is a number with a colon, dash or equals sign; or it may as well number a list.
NAMED, PLAIN, LISTED = "named", "plain", "listed"

# Full-width and typographic characters -> their ASCII forms, one for one, so that places in the text stay the same.
_ASCII = {ord(full): chr(ord(full) - 0xFEE0) for full in "０１２３４５６７８９：＝（）［］．，；｜／＋"}
_ASCII |= dict.fromkeys(map(ord, "‐‑‒–—―−－"), "-") | dict.fromkeys((0xA0, 0x3000, 0x202F, 0x2009, 0xFE0F), " ")

_NUMBER = r"[+-]?[0-9]{1,6}(?:\.[0-9]{1,3})?(?![.,]?[0-9])"
_VALUE = rf"(?P<low>{_NUMBER})(?:[ \t]*(?:-|to|\.\.\.?)[ \t]*(?P<high>{_NUMBER}))?"
_OUT_OF = r"(?:[ \t]*(?:/|out of|of)[ \t]*[0-9]{1,6}(?![\d.]))?"
_TAG = r"</?[A-Za-z][^<>\n]{0,60}>"
_STYLE = rf"(?:[*_`\"'“”‘’]|{_TAG}){{0,6}}"  # bounded, so that no text makes the search slow
_TITLE = r"(?:[ \t]*[(\[](?P<title>[^()\[\]\n]{1,80})[)\]])?"
_UNIT = r"(?:points?|pts?|stars?|marks?)\b"
_NOUN = r"(?:scores?|ratings?|levels?|grades?|marks?)"
_WORDS = r"(?:means|indicates|denotes|represents|stands for)\b"
_SIGN = rf"(?::(?!\d)|=+>?(?![\d=])|->|→|{_WORDS})"
_INLINE_END = rf"(?:[ \t]*{_SIGN}|[ \t]+-+>?(?=\s))"
_CLOSED = rf"(?:[*_`\"”’]+(?=\s|$)|{_TAG}){{0,4}}"
_LINE_END = rf"(?:{_INLINE_END}|-+(?=\s)|[ \t]*\||[ \t]*\t)[ \t]*{_CLOSED}"
_LEAD = r"^[ \t>]*(?:(?:[-*+•·◦‣▪●○■]|\#{1,6})[ \t]+|\#{1,6})?"
_OF = r"(?:of\b|:|=|-(?=[ \t])|(?<=\w)-(?=[0-9])|is\b)?"
_NAME = (
    rf"(?:an?[ \t]|the[ \t])?{_NOUN}[ \t_#]{{0,3}}{_OF}[ \t_]{{0,3}}{_STYLE}[(\[]?{_VALUE}[)\]]?{_OUT_OF}(?:[ \t]*{_UNIT})?"
    r"(?:_desc(?:ription)?)?"
)
_COUNT = rf"{_VALUE}{_OUT_OF}[ \t-]*{_UNIT}"

_NAME_END = rf"{_STYLE}{_TITLE}{_STYLE}(?:{_LINE_END}|[.),](?=\s|$)|[ \t]*$|(?<=[*_`>])[ \t]|-+(?=[^\W\d_]))"

_LINES = (
    (NAMED, rf"{_LEAD}(?:\w{{1,2}}[.)][ \t]+)?{_STYLE}{_NAME}{_NAME_END}"),
    (NAMED, rf"{_LEAD}(?:score|rating)[ \t]+{_VALUE}(?=[ \t]+[^\W\d])"),
    (NAMED, rf"{_LEAD}{_STYLE}{_COUNT}{_NAME_END}"),
    (PLAIN, rf"{_LEAD}{_STYLE}[(\[]?{_VALUE}[)\]]?{_OUT_OF}(?:[ ]?\u20e3)?{_STYLE}{_TITLE}{_STYLE}{_LINE_END}"),
    (PLAIN, rf"{_LEAD}{_STYLE}{_VALUE}{_STYLE}[ \t]*[(\[](?P<title>[^()\[\]\n]{{1,80}})[)\]]{_STYLE}[ \t]*$"),
    (PLAIN, rf"^[ \t]*\#{{1,6}}[ \t]*{_VALUE}{_OUT_OF}[ \t]*$"),
    (PLAIN, rf"{_LEAD}(?:[*_`]|{_TAG}){{1,6}}{_VALUE}{_OUT_OF}(?:[*_`]|{_TAG}){{1,6}}(?=\s|[^\W\d])"),
    (LISTED, rf"{_LEAD}{_STYLE}(?:{_VALUE}[.)]|[(\[](?P<low2>{_NUMBER})[)\]]){_STYLE}(?=\s|$)"),
    (LISTED, rf"{_LEAD}{_STYLE}{_VALUE}[ ]?\u20e3"),
    (LISTED, rf"{_LEAD}{_STYLE}(?P<low>[\u2460-\u2473])"),
)  # fmt: skip
_INLINES = (
    (NAMED, rf"(?<!\w)(?:{_NAME}|(?P<low2>{_NUMBER}){_OUT_OF}[ \t-]*{_UNIT}){_TITLE}{_INLINE_END}"),
    (PLAIN, rf"(?<![\w.+/$€£#%-])(?<![0-9][,:]){_VALUE}{_OUT_OF}[*_`\"']{{0,4}}{_TITLE}{_INLINE_END}"),
    (LISTED, rf"(?<![\w.+/$€£#%-])(?:{_VALUE}[.)]|\((?P<low2>{_NUMBER})\))(?=\s)"),
)
_LINE_MARKS = tuple((style, re.compile(pattern, re.MULTILINE | re.IGNORECASE)) for style, pattern in _LINES)
_INLINE_MARKS = tuple((style, re.compile(pattern, re.IGNORECASE)) for style, pattern in _INLINES)
_CELL = re.compile(rf"{_STYLE}(?:{_NOUN}[ \t_#:=]*)?{_VALUE}{_OUT_OF}(?:[ \t]*{_UNIT})?{_STYLE}", re.IGNORECASE)
_HEADING = re.compile(
    r"[\W_]*(?:(?:final |numeric )?(?:scores?|ratings?|levels?|grades?|marks?|points?|scale|value|stars?))?[\W_]*", re.IGNORECASE
)
_RULE = re.compile(r"[-:= ]+")
_SEVERAL = re.compile(r"[0-9][ \t]*(?:,|/|&|\bor|\band)$", re.IGNORECASE)
# What may be before the first of several marks in one line; "section 4: Taxes" is none.
_BOUNDS = ";,.?!:([{|/\n"


@dataclass(frozen=True, slots=True)
class Mark:
    """A score that a text names, or a range of scores.

    Attributes:
        start, end: span of the mark in the text; the description begins at ``end``.
        low: the score, as a judge writes it. high: the last one of a range, or None.
        style: ``NAMED``, ``PLAIN`` or ``LISTED``. title: the text in parentheses after the score, or "".
    """

    start: int
    end: int
    low: str
    high: str | None
    style: str
    title: str = ""

    @property
    def value(self) -> float:
        """The score in points."""
        return float(self.low)


def normalize_signs(text: str) -> str:
    """The text with ASCII digits, colons, dashes and blanks for their other forms; as long as it was."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text.translate(_ASCII))


def line_marks(text: str, style: str) -> list[Mark]:
    """The marks of a style that begin lines, in order; ``text`` is the result of ``normalize_signs``."""
    return _disjoint(mark for own, pattern in _LINE_MARKS if own == style for mark in _found(pattern, text, style))


def inline_marks(text: str, style: str) -> list[Mark]:
    """The marks of a style anywhere, from the first one on that follows a line's beginning or a punctuation mark."""
    marks = _disjoint(mark for own, pattern in _INLINE_MARKS if own == style for mark in _found(pattern, text, style))
    kept: list[Mark] = []
    for mark in marks:
        if style == NAMED or _is_bounded(text, mark.start) or (kept and style == PLAIN and text[mark.end - 1] in ":="):
            kept.append(mark)
    return kept


def table_of(text: str) -> tuple[int, int, str, list[tuple[str, str | None, str]]] | None:
    """(start, end, heading of the scores, [(low, high, description)]) of the first table that has numbers in one column or row, or None.

    The heading is "" where there is none, or it calls the numbers scores.
    """
    for start, end, rows in _tables(text):
        turned = [list(column) for column in zip(*rows, strict=True)] if len({len(row) for row in rows}) == 1 else []
        for cells in (rows, turned):
            if found := _scored_rows(cells):
                return start, end, *found
    return None


def _tables(text: str) -> Iterator[tuple[int, int, list[list[str]]]]:
    for block in re.finditer(r"(?:^[ \t]*\|.*(?:\n|$))+", text, re.MULTILINE):
        lines = [line.strip().removeprefix("|").removesuffix("|").split("|") for line in block[0].splitlines()]
        rows = [[cell.strip() for cell in cells] for cells in lines if not all(_RULE.fullmatch(cell) for cell in cells)]
        if len(rows) > 1:
            yield block.start(), block.end(), rows


def _scored_rows(rows: list[list[str]]) -> tuple[str, list[tuple[str, str | None, str]]] | None:
    """(heading, rows) by a column that holds numbers alone, perhaps below a heading."""
    for column in range(min(map(len, rows), default=0)):
        cells = [_CELL.fullmatch(normalize_signs(row[column])) for row in rows]
        own = list(zip(cells[0 if cells[0] else 1 :], rows[0 if cells[0] else 1 :], strict=True))
        if len(own) > 1 and all(cell for cell, _ in own) and any(len(row) > 1 for row in rows):
            texts = [": ".join(cell for place, cell in enumerate(row) if place != column and cell) for _, row in own]
            heading = "" if cells[0] or _HEADING.fullmatch(rows[0][column]) else rows[0][column]
            return heading, [(_label(cell["low"]), _label(cell["high"]) if cell["high"] else None, text)
                    for (cell, _), text in zip(own, texts, strict=True) if cell]  # fmt: skip
    return None


def _found(pattern: re.Pattern[str], text: str, style: str) -> Iterator[Mark]:
    for match in pattern.finditer(text):
        groups = match.groupdict()
        low, high = groups.get("low") or groups.get("low2") or "", groups.get("high")
        yield Mark(match.start(), match.end(), _label(low), _label(high) if high else None, style, groups.get("title") or "")


def _label(written: str) -> str:
    """A number as a judge writes it: no plus sign, no leading zeros."""
    if not written.isascii():  # a number in a circle
        return str(int(unicodedata.numeric(written)))
    sign, digits = ("-" if written.startswith("-") else ""), written.lstrip("+-")
    whole, point, rest = digits.partition(".")
    return f"{sign}{int(whole)}{point}{rest}"


def _disjoint(marks: Iterator[Mark]) -> list[Mark]:
    """Those that overlap no earlier one, in order; of two that begin together, the longer one."""
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept


def _is_bounded(text: str, start: int) -> bool:
    while start and text[start - 1] in " \t*_`\"'":
        start -= 1
    if _SEVERAL.search(text[max(0, start - 12) : start]):  # "1, 2: bad" and "1 or 2: bad" are of two scores
        return False
    return not start or text[start - 1] in _BOUNDS or text[max(0, start - 4) : start].lower().endswith((" and", " or"))
