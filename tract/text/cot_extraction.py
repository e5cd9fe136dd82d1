"""Takes the CoT out of a text that a judge wrote: what comes before the statement of its score. Pure.

A CoT that keeps "So the overall score is 4." gives its score away: the squared error is met by copying, and at inference that sentence is
missing. So these functions take the CoT out of every text that a judge wrote; ``tract.text.score_statement`` finds the statements.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tract.text.score_statement import ALONE, CERTAIN, LIKELY, NOT_STATED, Statement, end_of, statements_of, value_of
from tract.text.score_words import BREAK, CLOSED, DANGLING, FENCE, LABELS, NUMBER, SCORE_NOUNS, has_only, words_of

_MOST_STATEMENTS = 6  # that follow each other at the end of a text


@dataclass(frozen=True, slots=True)
class ExtractedCot:
    """A judge's text without the statement of its score.

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


def extract_cot(text: str, cue: str, scores: Collection[float] = ()) -> ExtractedCot:
    """The CoT of a judge's text: all before the last statement of the score, and before others that lead up to it.

    White space before the cut belongs to the answer cue. A statement that opens the text is cut there, and what follows is the CoT.

    Args:
        text: what the judge wrote. cue: the answer cue.
        scores: the score in points that is known to belong to the text, if any: an uncertain statement counts only if it states that one.
    """
    chain = _closing_statements(text, _accepted_statements(text, cue, scores))
    if not chain:
        return ExtractedCot(text, (), None, NOT_STATED, False)
    last = chain[0]
    cot, rest = _without_dangling(text, chain[-1].start), text[end_of(text, last) :]
    has_more = not _closes_sentence(rest)
    if not cot.strip() and has_more:  # the score came first
        cot, has_more = BREAK.split(rest, maxsplit=1)[1].rstrip(), False
    numbers = tuple(text[slice(*s.number)] for s in chain if s.number is not None)
    return ExtractedCot(cot, numbers, last.number, last.form, has_more)


def cot_end(text: str, cue: str) -> int | None:
    """Where a CoT that a judge is writing ends: at the first mark or headline, or where statements begin that close the text.

    Returns:
        The length of the CoT in characters; None if the text states no score.
    """
    statements = _accepted_statements(text, cue, ())
    starts = [s.start for s in (*_closing_statements(text, statements), *(s for s in statements if s.headline))]
    return len(_without_dangling(text, min(starts))) if starts else None


def _accepted_statements(text: str, cue: str, scores: Collection[float]) -> list[Statement]:
    """The statements that are accepted: without a known score the likely ones, with one the certain ones and those of that very score."""
    return [s for s in statements_of(text, cue) if s.certainty >= (CERTAIN if scores else LIKELY) or value_of(text, s) in scores]


def _closing_statements(text: str, statements: list[Statement]) -> list[Statement]:
    """The statements that end the text, last one first ("Score: 4. So the overall score is 4. [RESULT] 4"); empty if there are none."""
    last = _last_statement(text, statements)
    if last is None:
        return []
    chain, value = [last], value_of(text, last)
    for statement in reversed([s for s in statements if s.start < last.start][-_MOST_STATEMENTS:]):
        between = text[end_of(text, statement) : chain[-1].start]
        if value is None or value_of(text, statement) in (value, None):
            leads = statement.certainty == CERTAIN and _closes_sentence(between)
        else:  # it contradicts the last one, unless something else is said between them
            leads = statement.headline and bool(CLOSED.match(between))
        if not leads:
            break
        chain.append(statement)
    return chain


def _last_statement(text: str, statements: list[Statement]) -> Statement | None:
    """The last statement that counts: a mark or headline, or one after which no other number and at most a sentence follows."""
    too_early = False  # and all before it are
    for statement in reversed(statements):
        if statement.headline:
            return statement
        if too_early:
            continue
        others = [part for part in BREAK.split(text[end_of(text, statement) :])[1:] if not CLOSED.match(part)]
        if not others or (statement.certainty == CERTAIN and statement.form != ALONE and not others[1:] and not NUMBER.search(others[0])):
            return statement
        too_early = bool(others[1:])
    return None


def _closes_sentence(between: str) -> bool:
    """Whether only the rest of the statement's own sentence comes before the next statement."""
    return not any(not CLOSED.match(part) for part in BREAK.split(between)[1:])


def _without_dangling(text: str, start: int) -> str:
    """The text before a statement, without what only led up to it: a comma, a connective, a heading such as "Score:"."""
    kept = FENCE.sub("", text[:start].rstrip())
    if kept and kept[-1] not in ".!?\u3002\"'\u201d)":
        kept = DANGLING.sub("", kept)
    last = max((match.end() for match in BREAK.finditer(kept)), default=0)
    if has_only(kept[last:], LABELS) and (set(words_of(kept[last:])) & SCORE_NOUNS or not words_of(kept[last:])):
        kept = kept[:last].rstrip()
    return kept
