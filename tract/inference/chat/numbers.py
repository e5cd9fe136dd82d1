"""Numbers as chat models write them, for the readers of text and of tokens alike. Pure."""

from __future__ import annotations

from tract.text.score_statement import number_of
from tract.text.score_words import MINUSES


def plain_number(written: str) -> str:
    """The same text with digits of any script as 0 to 9, and minus signs of any kind as hyphens."""
    return "".join(str(int(each)) if each.isdecimal() else "-" if each in MINUSES else each for each in written)


def value_of(written: str) -> float | None:
    """The value of a number in digits or as a word; None if it is none."""
    return number_of(plain_number(written))
