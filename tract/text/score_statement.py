"""Statements of a score in a judge's text. Pure.

There are three kinds:

    marks       the answer cue and "[RESULT]", wherever they occur
    headlines   "So the overall score is 4", "Therefore, my final rating is 4/5", a whole line such as "**Rating: 4**", wherever they occur
    closings    any other sentence or line that assigns a score ("I would give it a 4.", "4 out of 5"), where the text ends

A sentence that names a score without assigning it ("meets the criteria for a score of 5", "which keeps it from a 5") is feedback and stays.
Whatever these rules miss over a whole data set, ``tract.data.score_leak`` finds without knowing any wording.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tract.text.score_words import (
    ADJECTIVES,
    AFTER,
    ANY_NUMBER,
    ARTICLES,
    ATTAINING,
    BANDS,
    BREAK,
    BY_RUBRIC,
    CLAUSE_BREAK,
    CLOSED,
    CONNECTIVES,
    FILLERS,
    FIRST_PERSON,
    FITTING,
    FRAMING,
    GIVING_VERBS,
    HYPOTHETICAL,
    IMPROVED,
    IS_SCORE,
    JUDGED,
    KINDS,
    LABEL_MARK,
    LABELS,
    LEAD_INS,
    LEADING,
    MENTIONS,
    NAMERS,
    NOT_ASSIGNING,
    NUMBER,
    NUMBER_WORDS,
    OBJECT,
    OBSERVING,
    OF_ANOTHER,
    OUTCOMES,
    PLACING_VERBS,
    QUOTED,
    RATING_VERBS,
    SCORE_NOUNS,
    SCORE_PHRASE,
    UNITS,
    has_only,
    words_of,
)

RULES_VERSION = 2  # raise it when a text can be cut otherwise than before: cached examples are then rebuilt
RESULT_TAG = "[RESULT]"
# How a score was stated, for counts.
CUE, SENTENCE, LABEL, SCALE, ALONE = "answer cue", "sentence", "label", "out of a scale", "number alone"
NOT_STATED = "none found"
POSSIBLE, LIKELY, CERTAIN = range(3)
_SHORT = 5  # words of a label, or beside a number out of a scale
_LONG = 15  # words of a clause that are not all about the score
_MOST_CHARACTERS = 400  # before a number that are looked at


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the score.

    Attributes:
        start: where it begins in the text. number: (start, end) of the number in the text; None for a mark without one.
        form: how it is worded. headline: whether it counts anywhere in the text, rather than only at its end.
        certainty: ``CERTAIN``: nothing else can be meant; ``LIKELY``; or ``POSSIBLE``: a short line that ends in a number.
    """

    start: int
    number: tuple[int, int] | None
    form: str
    headline: bool
    certainty: int


def statements_of(text: str, cue: str) -> list[Statement]:
    """All statements of a score in a text, in their order."""
    found = [_statement_at_mark(text, match) for match in re.finditer(_marks_pattern(cue), text, re.IGNORECASE)]
    marked = {mark.number for mark in found}
    for begin, end in _sentences(text, [mark.start for mark in found]):
        statement = _statement_in(text, begin, end)
        if statement is not None and statement.number not in marked:
            found.append(statement)
    return sorted(found, key=lambda s: s.start)


def _sentences(text: str, marks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence or line; a mark begins another one."""
    ends = [(match.start() + len(match[0].rstrip()), match.end()) for match in BREAK.finditer(text)]
    begin = 0
    for end, following in sorted([*ends, *((mark, mark) for mark in marks), (len(text), len(text))]):
        yield begin, end
        begin = following


def _marks_pattern(cue: str) -> str:
    return "|".join(re.escape(mark) for mark in (cue.strip(), RESULT_TAG) if mark)


def _statement_at_mark(text: str, match: re.Match[str]) -> Statement:
    """The statement of a mark, with the number after it, if there is one."""
    number = re.compile(rf"[\s:(\[*_\"'<]*({ANY_NUMBER})").match(text, match.end())
    form = RESULT_TAG if match[0].upper() == RESULT_TAG else CUE
    return Statement(match.start(), number.span(1) if number else None, form, True, CERTAIN)


def _statement_in(text: str, begin: int, end: int) -> Statement | None:
    """The statement of a sentence or line, at ``text[begin:end]``: its last number that is assigned as a score."""
    numbers = deque(NUMBER.finditer(text, begin, end), maxlen=_SHORT)  # the last few: a line may be a table of thousands
    begin = max(begin, numbers[0].start() - _MOST_CHARACTERS) if numbers else begin
    for match in reversed(numbers):
        before, after = BY_RUBRIC.sub(_blank, text[begin : match.start()]), text[match.end() : end]
        clause = _clause_start(before)
        found = _assignment(before, clause, after, scaled=match["scale"] is not None, own_line=_starts_line(text, begin))
        if found is not None:
            form, certainty = found
            # What leads up to the clause is part of the statement where it is a connective alone ("Overall, I give it a 4").
            led = has_only(before[:clause], LEADING) or _is_lead_in(before[:clause])
            headline = certainty == CERTAIN and _is_headline(text, before, after, begin, end)
            start = 0 if led else clause if len(words_of(before[clause:])) <= _LONG else _noun_phrase_start(before)
            return Statement(begin + start, match.span("number"), form, headline, certainty)
    return None


def _clause_start(before: str) -> int:
    """Where the last clause of a text begins; text in brackets divides no clause."""
    whole = re.sub(r"\([^()]*\)", _blank, before)
    return max((m.start() if m[0][0].isalpha() else m.end() for m in CLAUSE_BREAK.finditer(whole)), default=0)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _noun_phrase_start(before: str) -> int:
    """Where the last words for the score begin: "the overall score" of a sentence that runs on."""
    return max((match.start() for match in SCORE_PHRASE.finditer(before)), default=0)


def _assignment(before: str, clause: int, after: str, *, scaled: bool, own_line: bool) -> tuple[str, int] | None:
    """(form, certainty) of a number that is assigned as a score; None if it is something else.

    Args:
        before: its sentence up to the number. clause: where its clause begins in it. after: the rest of the sentence. scaled: "4 out of 5".
        own_line: whether the sentence begins a line, where a label in words that are not known counts too ("Gesamtnote: 4").
    """
    follows = AFTER.match(after)
    words = words_of(before[clause:])
    concludes = bool(words) and set(words) <= CONNECTIVES
    if set(words) <= FRAMING or set(words) <= CONNECTIVES:  # "The score, then, is 4", "Score is therefore 4"
        words = words_of(before)[-_SHORT:]
    if follows is None:
        leads = not words or words[-1] in ("a", "an") or (words[-1] == "of" and set(words) & SCORE_NOUNS)
        return (SENTENCE, CERTAIN) if leads and FITTING.match(after) and not _is_in_passing(words) else None
    if HYPOTHETICAL.match(after, follows.end()) or _is_in_passing(words) or _is_of_another(before, words, after):
        return None
    label = words or words_of(before)
    mark = LABEL_MARK.search(before) if len(label) <= _SHORT else None
    if mark and set(label) & (LABELS | RATING_VERBS):
        plain = set(label) & SCORE_NOUNS or set(label) <= KINDS | UNITS | CONNECTIVES - OUTCOMES
        return LABEL, CERTAIN if plain else LIKELY
    if mark and label and set(label) <= CONNECTIVES:  # "Therefore: 4"
        return LABEL, LIKELY
    if mark and own_line and mark[0][0] in ":\uff1a" and len(words_of(before)) <= _SHORT:
        return LABEL, POSSIBLE
    closes = CLOSED.match(after, follows.end()) is not None
    if closes and (words or not scaled) and set(words_of(before)) <= CONNECTIVES and words[-1:] != ["boxed"]:
        # "4." may be the number of the next point.
        return (SENTENCE, LIKELY) if words_of(before) else (ALONE, POSSIBLE if after[:1] in (".", ")", ":") else CERTAIN)
    certainty = _sentence_certainty(words, after, follows, scaled=scaled, closes=closes)
    if certainty is None and (concludes or (mark and scaled)) and closes:
        certainty = POSSIBLE  # "One point is deducted, so 4", "Minus a point: 4/5"
    return None if certainty is None else (SCALE if scaled else SENTENCE, certainty)


def _sentence_certainty(words: list[str], after: str, follows: re.Match[str], *, scaled: bool, closes: bool) -> int | None:
    """The certainty that a clause with these words before its number assigns a score; None if it does not.

    Args:
        words: the clause's, before the number. after, scaled: as ``_assignment`` takes them. follows: what ``AFTER`` matches of ``after``.
        closes: whether nothing comes after that.
    """
    known = set(words)
    if known <= FRAMING | CONNECTIVES and IS_SCORE.match(after):
        return CERTAIN
    named = set(words_of(follows[0])) & (SCORE_NOUNS | UNITS | BANDS)
    leads = bool(words) and (
        words[-1] in ARTICLES
        or (words[-1] in ("at", "as") and known & PLACING_VERBS)
        or (words[-1] in ADJECTIVES and bool(set(words[-4:]) & ARTICLES))
    )
    if (
        known & (SCORE_NOUNS | RATING_VERBS)
        or (leads and known & GIVING_VERBS)
        or (named & SCORE_NOUNS and leads)
        or (named and known & (GIVING_VERBS | KINDS))
        or (leads and "enough" in known)
    ):
        return CERTAIN
    adjective = {words[-1]} if words[-2:-1] in (["a"], ["an"]) and closes else set()  # "It is an easy 4."
    if (known & {"a", "an", "say"}) and known - adjective <= FRAMING | ARTICLES | ADJECTIVES | CONNECTIVES:
        return CERTAIN
    if known & FIRST_PERSON and not known & OBSERVING and closes and len(words) <= _SHORT + 2:
        return CERTAIN
    if scaled and known <= LEADING | ARTICLES | ADJECTIVES | GIVING_VERBS:
        return CERTAIN if known <= CONNECTIVES | ARTICLES | ADJECTIVES else LIKELY
    if words[-1:] == ["boxed"] and known <= LABELS | CONNECTIVES | FRAMING:
        return LIKELY
    return POSSIBLE if not words and (FITTING.match(after) or re.match(r"\W*(?:because|since)\b", after)) else None


def _is_of_another(before: str, words: list[str], after: str) -> bool:
    """Whether a number after these words is somebody else's score ("rates the hotel 5"), or one that a better response would get."""
    others = [judged[1] for judged in OBJECT.finditer(before)]
    others += [next(filter(None, other.groups())) for other in OF_ANOTHER.finditer(before)]
    if QUOTED.search(before) or any(other.lower() not in JUDGED | LABELS for other in others):
        return True
    if "would" in words and not set(words) & FIRST_PERSON and re.match(r"\W*with\b", after):
        return True
    return ("would", "be") in pairwise(words) and not set(words) & SCORE_NOUNS and bool(set(words_of(before)) & IMPROVED)


def _is_in_passing(words: list[str]) -> bool:
    """Whether a number after these words of its clause names a score, or something else, without assigning it."""
    if (
        words[:1] == ["only"]
        or words[:2] == ["to", "be"]
        or any(word in NOT_ASSIGNING or word.endswith("n't") for word in words)
        or {("would", "have"), ("up", "to")} & set(pairwise(words))
    ):
        return True
    for place in range(len(words) - 1, -1, -1):
        word, before = words[place], words[place - 1] if place else ""
        if word in ATTAINING and before in ("to", "for", "of"):
            if before == "to":
                return "enough" not in words[max(0, place - 3) : place]
        elif word not in FILLERS:
            return word in NAMERS and before != "best" and (before, word) not in {("falls", "under"), ("fall", "under")}
    return False


def _is_headline(text: str, before: str, after: str, begin: int, end: int) -> bool:
    """Whether a statement counts wherever it occurs: it opens with a connective or speaks of the overall score, or is a line of its own."""
    words = words_of(before)
    if not set(words) & SCORE_NOUNS:
        return False
    if not text[:begin].strip():  # the score comes first
        return True
    own_line = _starts_line(text, begin) and text[end : end + _MOST_CHARACTERS].lstrip(" \t*_")[:1] in ("", "\n")
    if own_line and len(words) <= _SHORT and CLOSED.match(AFTER.sub("", after, count=1)):
        return True
    return len(words) <= 3 * _SHORT and bool(set(words) & KINDS or words[0] in ("so", "therefore", "thus", "hence"))


def _starts_line(text: str, begin: int) -> bool:
    """Whether nothing but markup comes before on the line; a line that begins with more of it than a screen holds is none."""
    return text[max(0, begin - _MOST_CHARACTERS) : begin].rstrip(" \t*_#>")[-1:] in ("", "\n")


def _is_lead_in(text: str) -> bool:
    """Whether a text before a statement's clause says nothing of the response: "Based on the rubric, "."""
    words = words_of(text)
    return bool(words) and words[0] in LEAD_INS and len(words) <= 2 * _SHORT and text.count(",") <= 2


def end_of(text: str, statement: Statement) -> int:
    """Where a statement's number ends, with its scale; of a mark without a number, the end of the text."""
    if statement.number is None:
        return len(text)
    match = NUMBER.match(text, statement.number[0])
    return max(match.end() if match else 0, statement.number[1])


def value_of(text: str, statement: Statement) -> float | None:
    """The score that a statement assigns, in points; None for a mark without a number, or for text that is no number."""
    return None if statement.number is None else number_of(text[slice(*statement.number)])


def number_of(written: str) -> float | None:
    """The value of a number as ``ExtractedCot.numbers`` has it; None if it is not a plain number ("4,5", "1,000", "5th")."""
    if written.lower() in NUMBER_WORDS:
        return float(NUMBER_WORDS[written.lower()])
    if set(written) <= {"\u2605", "\u2b50"}:
        return float(len(written))
    plain = written.replace("\u2212", "-")
    value = float(plain) if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", plain) else math.inf
    return value if math.isfinite(value) else None


def mentions_score(text: str) -> bool:
    """Whether a number is near a word that means scores and nothing else."""
    return any(set(words_of(text[max(0, m.start() - 40) : m.end() + 12])) & MENTIONS for m in NUMBER.finditer(text))
