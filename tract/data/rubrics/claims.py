"""Sentences that say on which scale to grade, beside scores that the text describes: whether they agree with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tract.data.rubrics.signs import COUNTS, POINTS, RATE, UNTIL, asking_sentences, in_question

_SPAN = rf"(?P<low>{POINTS})(?: ?\([^()\n]{{1,60}}\))?(?:{UNTIL}|(?<=[ \w)])[ ]and[ ])(?P<high>{POINTS})"
_IS = r"(?:goes|go|runs?|ranges?|ranging|is|are|should be|must be|can be|between|from|of|in|the range|an?|number|integer|whole)"
_SCALED = r"\b(?:scale|scores?|scoring|ratings?)\b"
# (sentence, whether it is a request, whether a question may hold it and mean the response)
_CLAIMS = tuple((re.compile(pattern, re.IGNORECASE | re.MULTILINE), is_request, may_be_asked) for pattern, is_request, may_be_asked in (
    *((pattern.pattern, True, False) for pattern in asking_sentences(rf"(?:from |of |between )?{_SPAN}")),
    (rf"{_SCALED}[ \t:=(\[]{{0,3}}(?:{_IS}[ \t]){{0,5}}{_SPAN}", False, True),
    (rf"\b(?:rate|score|grade)\b(?:[ ](?:it|this|them|each|the \w{{1,20}})){{0,2}}[ ]{_SPAN}", False, True),
    (rf"(?P<low>{POINTS}){UNTIL}(?P<high>{POINTS})[ -]?(?:points? )?(?:likert )?{_SCALED}", False, True),
    (rf"[(\[](?:{_SCALED}[ :]{{1,2}})?(?:from )?(?P<low>{POINTS}){UNTIL}(?P<high>{POINTS})[)\]][ \t]?(?::|[.?]?[ \t]*$)", False, False),
    (rf"\b(?:answer|reply|respond|output|return)\b[^.?!\n]{{0,40}}?{_SPAN}", False, True),
    (rf"\b(?:{RATE}|scored|rated|graded|ratings?)\b[^.?!\n]{{0,60}}?(?<![0-9])[ ]out of (?P<high>{POINTS})", False, True),
    (rf"(?<![0-9])[ (]out of (?P<high>{POINTS})(?=\W{{0,4}}$)", False, True),
    (rf"\b(?:max(?:imum|imal)?|highest|top)[ ](?:score|points?|marks?|rating)[ :=]{{1,3}}(?:(?:is|of) )?(?P<high>{POINTS})", False, True),
    (rf"\b(?:scores?|ratings?|grades?)[ \t:=]{{1,3}}[0-9_x]{{0,4}}/(?P<high>{POINTS})", False, True),
    (rf"^how\b[^?\n]{{0,100}}\b(?:from|between) {_SPAN}", False, True),
    (rf"(?P<count>{POINTS})[ -](?:points?|levels?|stars?)[ -](?:likert )?(?:scale|rating|grid|score)\b", False, True),
))  # fmt: skip

_PART = r"(?:half|quarter|tenth)"
# Scores between whole numbers, or whole numbers that are left out.
_STEPS = re.compile(
    rf"\b(?:steps?|increments?|intervals?|multiples)(?: sizes?)?[ :=]{{1,3}}(?:of |is |by )?(?:an? |one )?"
    rf"(?:(?!1(?![0-9]|[.,][0-9]))[0-9.]*[0-9]|{_PART}|(?!one\b){'(?:' + '|'.join(COUNTS) + ')'}\b)|"
    rf"\b{_PART}s?[ -](?:an? )?(?:points?|marks?|stars?|steps?|scores?|grades?|increments?|intervals?|ratings?|values?|numbers?)\b|"
    r"\bhalves\b|(?<![\w.])[0-9]*\.[0-9]+ (?:precision|resolution)\b|\b(?:give|use|assign) [0-9]\.[0-9]|"
    r"\b(?:intermediate|in-between|floating[ -]point|float|real-valued|continuous)[ ](?:values?|scores?|numbers?|grades?|ratings?)\b|"
    r"\b(?:one|two|three|[0-9])[ ]decimals?\b|"
    r"(?<![\w.])[0-9]*[.,][0-9]+[ -]?(?:points?[ -])?(?:steps?|increments?|intervals?|points?|marks?)\b|"
    r"\b[0-9]+[ -](?:points?[ -])?(?:increments?|intervals?)\b|\b[0-9]+[ -]points?[ -]steps?\b|"
    r"\b(?:decimals?|fractions?|fractional|decimal (?:points?|numbers?|scores?|values?))[ ](?:(?:is|are|may|can)[ ](?:be[ ])?)?"
    r"(?:allowed|permitted|accepted|fine|ok|okay|possible|welcome|used|scores?|values?|places?|grades?|ratings?)\b|"
    r"\b(?:use|using|with|allow(?:ing)?|accept)[ ](?:decimals?|fractions?|floats?)\b|\bnearest[ ](?:half|quarter|tenth|[0-9.]*[0-9])|"
    r"\b(?:even|odd)[ ](?:numbers?|scores?)[ ]only\b|\bonly[ ](?:even|odd)[ ](?:numbers?|scores?)\b|"
    r"\b(?:e\.g\.|like|such as|for example),?[ ][0-9]\.[0-9]",
    re.IGNORECASE,
)  # fmt: skip
_DENIED = re.compile(r"\b(?:no|not|without|never|avoid|within|neither|nor)\b[^.?!\n]*$|n't\b[^.?!\n]*$", re.IGNORECASE)
_GIVE = r"(?:give|use|assign|answer|return|output|write|score|say|respond with|rate)"
# A score for a case apart: "or 0 if it is empty", "If it is empty, give 0", "or N/A".
_BESIDE = re.compile(
    rf"\b(?:or|otherwise|else|and|{_GIVE})[ ](?:it[ ])?(?:an?[ ])?([+-]?[0-9]{{1,3}})[ ](?:if|when|in case)\b|"
    rf"\b(?:if|when)\b[^.?!\n]{{1,80}}?[, ][ ]?(?:then[ ])?{_GIVE}[ ](?:it[ ])?(?:an?[ ])?([+-]?[0-9]{{1,3}})(?=[.;,!)]|\s*$)|"
    r"\b(?:or|otherwise|else|and)[ ]?[\"'(]{0,2}(N/?A)\b",
    re.IGNORECASE,
)


def claimed_scales(around: str, within: str, scores: Sequence[float]) -> list[tuple[tuple[float, float], str]]:
    """((lowest, highest), words) of each sentence that names the scale of ``scores`` or another one.

    Args:
        around: the lines around the scores. within: the text in the lines of descriptions, where only a request names a scale.
        scores: in points; they complete a sentence that names the highest score or how many there are.
    """
    found = []
    for pattern, is_request, may_be_asked in _CLAIMS:
        for match in pattern.finditer(f"{around}\n{within}" if is_request else around):
            ends = _ends_of(match, scores)
            if ends is not None and is_request:
                ends = min(ends), max(ends)  # "from 5 to 1"; elsewhere "3-1" is the result of a match
            if ends is not None and ends[0] < ends[1] and (is_request or not may_be_asked or not in_question(around, match)):
                found.append((ends, " ".join(match[0].split()).lstrip(".:;,!?( ")))
    return found


def _ends_of(match: re.Match[str], scores: Sequence[float]) -> tuple[float, float] | None:
    """(lowest, highest) that a sentence names, or None where it counts the scores and these are as many."""
    lowest, highest = min(scores), max(scores)
    named = {name: _points(value) for name, value in match.groupdict().items() if value}
    if (count := named.get("count")) is None:
        return named.get("low", lowest), named.get("high", highest)
    if count == highest - lowest + 1 or (count == highest and lowest == 0):
        return lowest, highest
    return None if count == len(scores) else (1, count)


def _points(written: str) -> float:
    return float(COUNTS.get(written.lower(), written))


def finer_steps(text: str) -> str | None:
    """The words that ask for scores between whole numbers, or for some whole numbers alone ("in steps of 0.5"), or None."""
    for match in _STEPS.finditer(text):
        if not _DENIED.search(text[max(0, match.start() - 40) : match.start()]) and not in_question(text, match):
            return " ".join(match[0].split())
    return None


def unlisted_score(text: str, scores: Sequence[float]) -> str | None:
    """The words that ask for a score that is none of ``scores`` ("or 0 if it is empty"), or None."""
    for match in _BESIDE.finditer(text):
        written = match[1] or match[2] or "nan"  # N/A equals no score
        if float(written) not in scores and not in_question(text, match):
            return " ".join(match[0].split())
    return None
