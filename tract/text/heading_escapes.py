"""Keeps text that is judged from passing for a heading of the prompt that shows it. Pure.

A response may hold the line ``## Reference answer, worth 5`` and its own praise below. To the model such a line looks like the
template's. So each line of an untrusted field that reads like one of the template's headings gets a backslash, which in Markdown
says that what follows is no heading. Other text stays as it is, to the character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

ESCAPE = "\\"
MARK = "#"
# What ends a line for some reader of the text, a tokenizer's training data included.
_LINES = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
# Unicode's categories of what is not seen: controls, formats (zero-width, bidi), not assigned, private, marks on other characters.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me"})
_LEAST_LETTERS = 3


def escape_headings(text: str, headings: Iterable[str]) -> str:
    """The text with a backslash before each line that reads like a heading.

    A line is compared as a reader sees it: without blanks, invisible characters and accents, in the compatibility form of its
    characters (NFKD), in lower case. Beside a heading with ``#`` marks, a line with any number of them is a forgery if its words
    are the beginning of the heading's, or the other way round; beside another heading, a line that is the same, or begins with it
    where it ends in a mark such as a colon.
    Lines that are escaped already get one more backslash, so that no two texts become one.

    Args:
        text: the untrusted field. headings: lines that the template writes itself; those without letters do not count.
    """
    marked, plain = _keys(headings)
    whole = _seen(text)
    if not (marked and MARK in whole) and not any(heading in whole for heading in plain):
        return text  # as nearly all texts are
    pieces = _LINES.split(text)  # line, line end, line, ...
    for number in range(0, len(pieces), 2):
        if _is_forged(_seen(pieces[number]).lstrip(ESCAPE), marked, plain):
            pieces[number] = ESCAPE + pieces[number]
    return "".join(pieces)


def _keys(headings: Iterable[str]) -> tuple[list[str], list[str]]:
    """(words of the headings with marks, whole headings without) as they are compared."""
    marked, plain = [], []
    for heading in headings:
        key = _seen(heading)
        if not any(character.isalpha() for character in key):
            continue
        if key.startswith(MARK):
            marked.append(_letters(key))
        else:
            plain.append(key)
    return marked, plain


def _is_forged(key: str, marked: list[str], plain: list[str]) -> bool:
    # "Response:" is a label whatever follows it; the line "Response" is one only where nothing does.
    if any(key == heading or (key.startswith(heading) and not heading[-1].isalnum()) for heading in plain):
        return True
    if not key.startswith(MARK):
        return False
    words = _letters(key)
    # Fewer letters than these are no heading: "## Re" forges no "## Response".
    return len(words) >= _LEAST_LETTERS and any(words.startswith(heading) or heading.startswith(words) for heading in marked)


def _seen(text: str) -> str:
    """The text as it is compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    # By the distinct characters, so that a megabyte is no matter of seconds.
    unseen = {ord(character): None for character in set(text) if character.isspace() or unicodedata.category(character) in _UNSEEN}
    return text.translate(unseen).casefold()


def _letters(key: str) -> str:
    return "".join(character for character in key if character.isalnum())
