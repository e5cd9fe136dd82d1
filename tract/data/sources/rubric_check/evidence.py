"""What a text shows about a constraint, quoted from it: a small model copies this more easily than it judges. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tract.data.sources.rubric_check import texts


def _word_count(text: str, value: str) -> str:
    return f"The number of words is {len(text.split())}"


def _last_mark(text: str, value: str) -> str:
    return f'The last mark is "{text.rstrip()[-1:]}"'


def _first_word(text: str, value: str) -> str:
    words = re.findall(r"\w+", text)
    return f'The first word is "{words[0]}"' if words else "There is no word"


def _number(text: str, value: str) -> str:
    found = re.search(r"\d+", text)
    return f"The number is {found[0]}" if found else "There is no number"


def _comma(text: str, value: str) -> str:
    return "There is a comma" if "," in text else "There is no comma"


def _sought_word(text: str, value: str) -> str:
    there = re.search(rf"\b{re.escape(value)}\b", text, re.IGNORECASE)
    return f'The word "{value}" is {"there" if there else "not there"}'


def _colour(text: str, value: str) -> str:
    found = re.search(rf"\b({'|'.join(texts.COLOURS)})\b", text, re.IGNORECASE)
    return f"The colour is {found[0].lower()}" if found else "There is no colour"


def _quotation(text: str, value: str) -> str:
    found = re.search(r'["“][^"”]+["”]', text)
    return f"The quotation is {found[0]}" if found else "There is no quotation"


def _sentences(text: str, value: str) -> str:
    count = len(re.findall(r"[.!?]+[\"')]*(?=\s|$)", text))
    return f"The number of sentences is {count}"


# Kind -> (text, value) -> what the text shows. Whether texts are lower case shows in the first word: the writer's own texts
# begin with a capital or hold none.
_SHOWN: Mapping[str, Callable[[str, str], str]] = {
    "contains_word": _sought_word,
    "max_words": _word_count,
    "min_words": _word_count,
    "ends_question": _last_mark,
    "ends_exclamation": _last_mark,
    "has_number": _number,
    "lower_case": _first_word,
    "begins_with": _first_word,
    "no_comma": _comma,
    "mentions_colour": _colour,
    "quoted_phrase": _quotation,
    "sentence_count": _sentences,
    "avoids_word": _sought_word,
}


def evidence(kind: str, text: str, value: str) -> str:
    """A clause without its full stop, e.g. 'The last mark is "?"'.

    Args:
        kind: name of the kind. text: what is judged. value: the constraint's parameter, "" if it has none.
    """
    return _SHOWN[kind](text, value)
