"""Where a judge's text states its score; the CoT is what comes before. Pure.

A CoT that keeps "So the overall score is 4." gives its score away: the squared error is met by copying, and at inference that sentence is
missing. So one function takes the CoT out of every text that a judge wrote. It knows three kinds of statements:

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
from collections.abc import Collection, Iterator, Sequence
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
    DANGLING,
    FENCE,
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
    WORD,
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
_MOST_STATEMENTS = 6  # that follow each other at the end of a text


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the score.

    Attributes:
        start: where it begins in the text. number: (start, end) of the number in the text; None for a mark without one.
        form: how it is worded. headline: whether it counts wherever it occurs, not at the end of the text alone.
        sureness: ``CERTAIN``: nothing else can be meant; ``LIKELY``; or ``POSSIBLE``: a short line that ends in a number.
    """

    start: int
    number: tuple[int, int] | None
    form: str
    headline: bool
    sureness: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken out of a judge's text.

    Attributes:
        cot: the feedback, without the statement of the score.
        numbers: the scores that were cut, as they were written, the last one first; empty where none was.
        place: (start, end) of the last one in the text; None where there is none.
        form: how it was stated, or ``NOT_STATED``.
        has_more: whether feedback after the statement was dropped.
    """

    cot: str
    numbers: tuple[str, ...]
    place: tuple[int, int] | None
    form: str
    has_more: bool


def take_cot(text: str, cue: str, scores: Collection[float] = ()) -> Taken:
    """The CoT of a judge's text: all before the last statement of the score, and before others that lead up to it.

    White space before the cut belongs to the answer cue. A statement that opens the text is cut there, and what follows is the CoT.

    Args:
        text: what the judge wrote. cue: the answer cue.
        scores: in points, the one that is known to belong to the text, if any: only what states it counts where that is uncertain.
    """
    chain = _chain(text, _meant(text, cue, scores))
    if not chain:
        return Taken(text, (), None, NOT_STATED, False)
    last = chain[0]
    cot, rest = _without_dangling(text, chain[-1].start), text[_end(text, last) :]
    has_more = not _closes_sentence(rest)
    if not cot.strip() and has_more:  # the score came first
        cot, has_more = BREAK.split(rest, maxsplit=1)[1].rstrip(), False
    numbers = tuple(text[slice(*s.number)] for s in chain if s.number is not None)
    return Taken(cot, numbers, last.number, last.form, has_more)


def first_statement(text: str, cue: str) -> int | None:
    """Where a CoT that a judge is writing ends: at the first mark or headline, or where statements begin that close the text.

    Returns:
        The length of the CoT in characters; None if the text states no score.
    """
    statements = _meant(text, cue, ())
    starts = [s.start for s in (*_chain(text, statements), *(s for s in statements if s.headline))]
    return len(_without_dangling(text, min(starts))) if starts else None


def mentions_score(text: str) -> bool:
    """Whether a number is near a word that means scores and nothing else."""
    return any(set(_words(text[max(0, m.start() - 40) : m.end() + 12])) & MENTIONS for m in NUMBER.finditer(text))


def number_of(written: str) -> float | None:
    """The value of a number as ``Taken.numbers`` has it; None if it is none ("4,5", "1,000", "5th")."""
    if written.lower() in NUMBER_WORDS:
        return float(NUMBER_WORDS[written.lower()])
    if set(written) <= {"\u2605", "\u2b50"}:
        return float(len(written))
    plain = written.replace("\u2212", "-")
    value = float(plain) if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", plain) else math.inf
    return value if math.isfinite(value) else None


def statements_of(text: str, cue: str) -> list[Statement]:
    """All statements of a score in a text, in their order."""
    found = [_mark(text, match) for match in re.finditer(_marks(cue), text, re.IGNORECASE)]
    marked = {mark.number for mark in found}
    for begin, end in _units(text, [mark.start for mark in found]):
        statement = _stated(text, begin, end)
        if statement is not None and statement.number not in marked:
            found.append(statement)
    return sorted(found, key=lambda s: s.start)


def _units(text: str, marks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence or line; a mark begins another one."""
    ends = [(match.start() + len(match[0].rstrip()), match.end()) for match in BREAK.finditer(text)]
    begin = 0
    for end, following in sorted([*ends, *((mark, mark) for mark in marks), (len(text), len(text))]):
        yield begin, end
        begin = following


def _marks(cue: str) -> str:
    return "|".join(re.escape(mark) for mark in (cue.strip(), RESULT_TAG) if mark)


def _mark(text: str, match: re.Match[str]) -> Statement:
    number = re.compile(rf"[\s:(\[*_\"'<]*({ANY_NUMBER})").match(text, match.end())
    form = RESULT_TAG if match[0].upper() == RESULT_TAG else CUE
    return Statement(match.start(), number.span(1) if number else None, form, True, CERTAIN)


def _stated(text: str, begin: int, end: int) -> Statement | None:
    """The statement of a sentence or line, at ``text[begin:end]``: its last number that is assigned as a score."""
    numbers = deque(NUMBER.finditer(text, begin, end), maxlen=_SHORT)  # the last few: a line may be a table of thousands
    begin = max(begin, numbers[0].start() - _MOST_CHARACTERS) if numbers else begin
    for match in reversed(numbers):
        before, after = BY_RUBRIC.sub(_blank, text[begin : match.start()]), text[match.end() : end]
        clause = _clause(before)
        found = _assigned(before, clause, after, scaled=match["scale"] is not None, own_line=_starts_line(text, begin))
        if found is not None:
            form, sureness = found
            # What leads up to the clause is part of the statement where it is a connective alone ("Overall, I give it a 4").
            led = _all_in(before[:clause], LEADING) or _leads_in(before[:clause])
            headline = sureness == CERTAIN and _is_headline(text, before, after, begin, end)
            start = 0 if led else clause if len(_words(before[clause:])) <= _LONG else _noun_phrase(before)
            return Statement(begin + start, match.span("number"), form, headline, sureness)
    return None


def _clause(before: str) -> int:
    """Where the clause begins that a text ends in; what is in brackets divides none."""
    whole = re.sub(r"\([^()]*\)", _blank, before)
    return max((m.start() if m[0][0].isalpha() else m.end() for m in CLAUSE_BREAK.finditer(whole)), default=0)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _noun_phrase(before: str) -> int:
    """Where the last words for the score begin: "the overall score" of a sentence that runs on."""
    return max((match.start() for match in SCORE_PHRASE.finditer(before)), default=0)


def _assigned(before: str, clause: int, after: str, *, scaled: bool, own_line: bool) -> tuple[str, int] | None:
    """(form, how sure that is) of a number that is assigned as a score; None if it is something else.

    Args:
        before: its sentence up to the number. clause: where its clause begins in it. after: the rest of the sentence. scaled: "4 out of 5".
        own_line: whether the sentence begins a line, where a label in words that are not known counts too ("Gesamtnote: 4").
    """
    follows = AFTER.match(after)
    words = _words(before[clause:])
    concludes = bool(words) and set(words) <= CONNECTIVES
    if set(words) <= FRAMING or set(words) <= CONNECTIVES:  # "The score, then, is 4", "Score is therefore 4"
        words = _words(before)[-_SHORT:]
    if follows is None:
        leads = not words or words[-1] in ("a", "an") or (words[-1] == "of" and set(words) & SCORE_NOUNS)
        return (SENTENCE, CERTAIN) if leads and FITTING.match(after) and not _in_passing(words) else None
    if HYPOTHETICAL.match(after, follows.end()) or _in_passing(words) or _of_another(before, words, after):
        return None
    label = words or _words(before)
    mark = LABEL_MARK.search(before) if len(label) <= _SHORT else None
    if mark and set(label) & (LABELS | RATING_VERBS):
        plain = set(label) & SCORE_NOUNS or set(label) <= KINDS | UNITS | CONNECTIVES - OUTCOMES
        return LABEL, CERTAIN if plain else LIKELY
    if mark and label and set(label) <= CONNECTIVES:  # "Therefore: 4"
        return LABEL, LIKELY
    if mark and own_line and mark[0][0] in ":\uff1a" and len(_words(before)) <= _SHORT:
        return LABEL, POSSIBLE
    closes = CLOSED.match(after, follows.end()) is not None
    if closes and (words or not scaled) and set(_words(before)) <= CONNECTIVES and words[-1:] != ["boxed"]:
        # "4." may be the number of the next point.
        return (SENTENCE, LIKELY) if _words(before) else (ALONE, POSSIBLE if after[:1] in (".", ")", ":") else CERTAIN)
    sureness = _sentence(words, after, follows, scaled=scaled, closes=closes)
    if sureness is None and (concludes or (mark and scaled)) and closes:
        sureness = POSSIBLE  # "One point is deducted, so 4", "Minus a point: 4/5"
    return None if sureness is None else (SCALE if scaled else SENTENCE, sureness)


def _sentence(words: list[str], after: str, follows: re.Match[str], *, scaled: bool, closes: bool) -> int | None:
    """How sure it is that a clause with these words before its number assigns a score; None if it does not.

    Args:
        words: the clause's, before the number. after, scaled: as ``_assigned`` takes them. follows: what ``AFTER`` matches of ``after``.
        closes: whether nothing comes after that.
    """
    known = set(words)
    if known <= FRAMING | CONNECTIVES and IS_SCORE.match(after):
        return CERTAIN
    named = set(_words(follows[0])) & (SCORE_NOUNS | UNITS | BANDS)
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


def _of_another(before: str, words: list[str], after: str) -> bool:
    """Whether a number after these words is somebody else's score ("rates the hotel 5"), or one that a better response would get."""
    others = [judged[1] for judged in OBJECT.finditer(before)]
    others += [next(filter(None, other.groups())) for other in OF_ANOTHER.finditer(before)]
    if QUOTED.search(before) or any(other.lower() not in JUDGED | LABELS for other in others):
        return True
    if "would" in words and not set(words) & FIRST_PERSON and re.match(r"\W*with\b", after):
        return True
    return ("would", "be") in pairwise(words) and not set(words) & SCORE_NOUNS and bool(set(_words(before)) & IMPROVED)


def _in_passing(words: list[str]) -> bool:
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
    words = _words(before)
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


def _last(text: str, statements: list[Statement]) -> Statement | None:
    """The last statement that counts: a mark or headline, or one after which no other number and at most a sentence follows."""
    too_early = False  # and all before it are
    for statement in reversed(statements):
        if statement.headline:
            return statement
        if too_early:
            continue
        others = [part for part in BREAK.split(text[_end(text, statement) :])[1:] if not CLOSED.match(part)]
        if not others or (statement.sureness == CERTAIN and statement.form != ALONE and not others[1:] and not NUMBER.search(others[0])):
            return statement
        too_early = bool(others[1:])
    return None


def _meant(text: str, cue: str, scores: Collection[float]) -> list[Statement]:
    """The statements that count: without a known score the likely ones, with one the certain ones and all that state it."""
    return [s for s in statements_of(text, cue) if s.sureness >= (CERTAIN if scores else LIKELY) or _value(text, s) in scores]


def _chain(text: str, statements: list[Statement]) -> list[Statement]:
    """The statements that end the text, the last one first ("Score: 4. So the overall score is 4. [RESULT] 4"); none where none counts."""
    last = _last(text, statements)
    if last is None:
        return []
    chain, value = [last], _value(text, last)
    for statement in reversed([s for s in statements if s.start < last.start][-_MOST_STATEMENTS:]):
        between = text[_end(text, statement) : chain[-1].start]
        if value is None or _value(text, statement) in (value, None):
            leads = statement.sureness == CERTAIN and _closes_sentence(between)
        else:  # it contradicts the last one, unless something else is said between them
            leads = statement.headline and bool(CLOSED.match(between))
        if not leads:
            break
        chain.append(statement)
    return chain


def _closes_sentence(between: str) -> bool:
    """Whether only the rest of the statement's own sentence comes before the next statement."""
    return not any(not CLOSED.match(part) for part in BREAK.split(between)[1:])


def _end(text: str, statement: Statement) -> int:
    """Where a statement's number ends, with its scale; of a mark without a number, the end of the text."""
    if statement.number is None:
        return len(text)
    match = NUMBER.match(text, statement.number[0])
    return max(match.end() if match else 0, statement.number[1])


def _value(text: str, statement: Statement) -> float | None:
    return None if statement.number is None else number_of(text[slice(*statement.number)])


def _without_dangling(text: str, start: int) -> str:
    """The text before a statement, without what only led up to it: a comma, a connective, a heading such as "Score:"."""
    kept = FENCE.sub("", text[:start].rstrip())
    if kept and kept[-1] not in ".!?\u3002\"'\u201d)":
        kept = DANGLING.sub("", kept)
    last = max((match.end() for match in BREAK.finditer(kept)), default=0)
    if _all_in(kept[last:], LABELS) and (set(_words(kept[last:])) & SCORE_NOUNS or not _words(kept[last:])):
        kept = kept[:last].rstrip()
    return kept


def _leads_in(text: str) -> bool:
    """Whether a text before a statement's clause says nothing of the response: "Based on the rubric, "."""
    words = _words(text)
    return bool(words) and words[0] in LEAD_INS and len(words) <= 2 * _SHORT and text.count(",") <= 2


def _all_in(text: str, words: frozenset[str]) -> bool:
    return not set(_words(text)) - words and not NUMBER.search(text)


def _words(text: str) -> list[str]:
    return [word.lower().replace("\u2019", "'") for word in WORD.findall(text)]
