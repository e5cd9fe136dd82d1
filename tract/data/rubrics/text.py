r"""The rubric in a text that people write or paste: the criterion, and what deserves each score, in any of many forms. Pure.

The scale is taken from the text, or the text is refused with an example: a text that speaks of scores is never graded on other scores.
A text without any sign of a scale is a criterion alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from tract.data.readers.fields import shown
from tract.data.rubrics.claims import claimed_scales, finer_steps, unlisted_score
from tract.data.rubrics.mapping import mapping_of, rubric_from_mapping
from tract.data.rubrics.marks import LISTED, NAMED, PLAIN, Mark, inline_marks, line_marks, normalize_signs, table_of
from tract.data.rubrics.refusals import (
    MOST_SCORES,
    SCALE_HEADING,
    counts_from_one,
    is_headed,
    line_at,
    refuse,
    refuse_disorder,
    refuse_inline_marks,
    refuse_many_marks,
    refuse_numbered_list,
    refuse_other_marks,
)
from tract.data.rubrics.signs import asked_ranges, sign_of_scale
from tract.text.schema import Rubric

# A larger number is a year or a section, not a score.
_LARGEST = 1000

_PROMETHEUS_SCORE = re.compile(r"^Score ([+-]?[0-9]+(?:\.[0-9]+)?): ?", re.MULTILINE)
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029\x85]|<br ?/?>", re.IGNORECASE)
# Markup that ends a line where it is shown.
_BLOCKS = re.compile(r"(</(?:li|tr|p|div|ul|ol|table|thead|tbody|h[1-6])>)(?!\n)", re.IGNORECASE)


@lru_cache(maxsize=256)
def rubric_from_text(text: str) -> Rubric:
    r"""The rubric of a text.

    Scores are found where each begins a line ("Score 1: ...", "1 = ...", "**Score 1** - ...", "5 points: ...", headings, rows of a table)
    or where several are in one line ("1: bad; 2: fair"), in ascending or descending order; ranges are read as each of their whole
    numbers; "Rate it from 1 to 10" for scores without descriptions; a text of JSON or YAML for a mapping of ``rubric_from_mapping``.

    Returns:
        The rubric with its scores in ascending order, or a criterion alone where the text names no scale.

    Raises:
        DataError: if the text speaks of scores in a way that leaves doubt which they are; the message shows an accepted form.
    """
    if (mapping := mapping_of(text)) is not None:
        return rubric_from_mapping(mapping)
    lines = _BLOCKS.sub(r"\1\n", _BREAKS.sub("\n", text))
    if classic := _prometheus_rubric(lines.strip()):
        return _with_checked_scale(classic, lines)
    normalized = normalize_signs(lines)
    for find_rubric in (_table_rubric, _scale_beside_list_rubric, _line_rubric, _inline_rubric, _range_rubric):
        if (rubric := find_rubric(lines, normalized)) is not None:
            return _with_checked_scale(rubric, lines)
    if (sign := sign_of_scale(normalized)) is not None:
        refuse(sign)
    return Rubric(text)


def _prometheus_rubric(text: str) -> Rubric | None:
    r"""The rubric of prometheus-eval's form, verbatim: "[criteria]\nScore 1: ...\nScore 2: ...", the scores ascending; None for others."""
    marks, normalized = list(_PROMETHEUS_SCORE.finditer(text)), normalize_signs(text)
    if len(marks) < 2 or {mark.start() for mark in marks} != {mark.start for mark in line_marks(normalized, NAMED)}:
        return None
    head = text[: marks[0].start()].strip()
    scores = [float(mark[1]) for mark in marks]
    ascend = all(a < b for a, b in zip(scores, scores[1:], strict=False))
    if not (head.startswith("[") and head.endswith("]") and head[1:-1].strip() and ascend):
        return None
    refuse_inline_marks(normalized, line_marks(normalized, NAMED))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    described = [(mark[1], text[mark.end() : end].rstrip("\n")) for mark, end in zip(marks, ends, strict=True)]
    return _sorted_rubric(head[1:-1], described, verbatim=True)


def _table_rubric(text: str, normalized: str) -> Rubric | None:
    """Of a table with a score in each row or column."""
    if (table := table_of(text)) is None or len(line_marks(normalized, NAMED)) > 1:
        return None
    start, end, heading, rows = table
    if heading:
        refuse(f"cannot tell whether the numbers of {shown(heading, 40)} in a table are scores")
    refuse_many_marks(len(rows))
    refuse_disorder([low for low, _, _ in rows])
    described = [pair for low, high, description in rows for pair in _scores_of_range(low, high, description)]
    return _sorted_rubric(_criteria_around(text[:start], text[end:]), described)


def _scale_beside_list_rubric(text: str, normalized: str) -> Rubric | None:
    """Of a sentence that says the scale, beside a numbered list that is not of its length and so no list of its scores."""
    lists = [listed for listed in (line_marks(normalized, LISTED), inline_marks(normalized, LISTED)) if len(listed) > 1]
    ranges = asked_ranges(normalized)
    if len(ranges) != 1 or not lists or not all(counts_from_one(listed) and not is_headed(text, listed) for listed in lists):
        return None
    others = [mark for style in (NAMED, PLAIN) for mark in (*line_marks(normalized, style), *inline_marks(normalized, style))]
    same = any(len(listed) in (int(ranges[0][1]), int(ranges[0][1]) - int(ranges[0][0]) + 1) for listed in lists)
    return None if others or same else _range_rubric(text, normalized)


def _line_rubric(text: str, normalized: str) -> Rubric | None:
    """Of marks that begin lines."""
    named, plain, listed = (line_marks(normalized, style) for style in (NAMED, PLAIN, LISTED))
    marks = named if len(named) > 1 else sorted([*named, *plain], key=lambda mark: mark.start)
    if len(marks) < 2 and not named:
        marks = listed if len(listed) > 1 and not plain else marks
    if len(marks) < 2:
        if len(marks) == 1 and len(_first_inline_marks(normalized)) < 2:
            refuse(f"found one score, {line_at(text, marks[0])}; two or more are a scale")
        return None
    refuse_many_marks(len(marks))
    refuse_other_marks(text, marks, [*named, *plain] if marks is not listed else plain, normalized)
    if any(mark.style == LISTED for mark in marks):
        refuse_numbered_list(text, marks)
    elif marks is not named:
        refuse_disorder([mark.low for mark in marks])
    ends = [mark.start for mark in marks[1:]] + [len(text)]
    bodies = [text[mark.end : end].strip() for mark, end in zip(marks, ends, strict=True)]
    bodies[-1], tail = _last_body_and_tail(bodies, "\n[ \t]*\n")
    return _sorted_rubric(_criteria_around(text[: marks[0].start], tail), _described_scores(marks, bodies))


def _inline_rubric(text: str, normalized: str) -> Rubric | None:
    """Of several marks in one line."""
    marks = _first_inline_marks(normalized)
    if len(marks) < 2:
        return None
    refuse_many_marks(len(marks))
    if marks[0].style == LISTED:
        refuse_numbered_list(text, marks)
    else:
        refuse_disorder([mark.low for mark in marks])
    start, stop, after = _scores_span(text, marks)
    ends = [mark.start for mark in marks[1:]] + [stop]
    bodies = [re.sub(r"[\s;,|/]{1,9}(?:and|or)?$", "", text[mark.end : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    bodies[-1], tail = _last_body_and_tail(bodies, r"(?<=[.!?])\s")
    return _sorted_rubric(_criteria_around(text[:start], f"{tail}\n{text[after:]}", joint=" "), _described_scores(marks, bodies))


def _first_inline_marks(normalized: str) -> list[Mark]:
    return next((marks for style in (NAMED, PLAIN, LISTED) if len(marks := inline_marks(normalized, style)) > 1), [])


def _scores_span(text: str, marks: Sequence[Mark]) -> tuple[int, int, int]:
    """(where the scores begin, where they end, where the text continues): parentheses around them, else to the end of the line."""
    before = text[: marks[0].start].rstrip(" \t\n\"'*_`")
    if before.endswith(("(", "[", "{")):
        depth = 1
        for place in range(marks[0].start, len(text)):
            depth += (text[place] in "([{") - (text[place] in ")]}")
            if not depth and place >= marks[-1].end:
                return len(before) - 1, place, place + 1
    end = text.find("\n", marks[-1].end)
    return marks[0].start, end if end >= 0 else len(text), end if end >= 0 else len(text)


def _described_scores(marks: Sequence[Mark], bodies: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for mark, body in zip(marks, bodies, strict=True):
        text = _without_closing_markup(body)
        pairs += _scores_of_range(mark.low, mark.high, ": ".join(part for part in (mark.title, text) if part))
    return pairs


def _scores_of_range(low: str, high: str | None, text: str) -> list[tuple[str, str]]:
    """(score, text) of a score, or of each whole number of a range."""
    if high is None:
        return [(low, text)]
    try:
        first, last = int(low), int(high)
    except ValueError:
        first, last = 0, 0
    if not 0 < last - first < MOST_SCORES:
        refuse(f"the range {low}-{high} is not one of up to {MOST_SCORES} whole numbers, the lowest first")
    return [(str(score), text) for score in range(first, last + 1)]


def _without_closing_markup(body: str) -> str:
    """The text without the closing half of markup or quotes whose opening half stands before the score."""
    for sign in ("***", "**", "__", "`", "*", "_", '"'):
        if body.endswith(sign) and body.count(sign) % 2:
            body = body.removesuffix(sign).rstrip()
    if body.count("**") % 2:
        body = body.replace("**", "", 1)
    body = body.removesuffix(";")
    while (tag := re.search(r"</(\w{1,20})>$", body)) and f"<{tag[1]}" not in body:
        body = body[: tag.start()].rstrip()
    return body.rstrip(",")[1:-1] if re.fullmatch(r""""[^"]*",?|'[^']*',?""", body) else body


def _last_body_and_tail(bodies: Sequence[str], end: str) -> tuple[str, str]:
    """The last description, and what follows it: beyond an end that no other description runs over."""
    if any(re.search(end, body) for body in bodies[:-1]):
        return bodies[-1], ""
    parts = re.split(end, bodies[-1], maxsplit=1)
    return parts[0].strip(), parts[1].strip() if len(parts) > 1 else ""


def _criteria_around(before: str, after: str, joint: str = "\n\n") -> str:
    """What is judged: the text around the scores, without their heading."""
    found = []
    for part in (before, after):
        lines = part.strip().split("\n")
        while lines and (not lines[-1].strip() or SCALE_HEADING.fullmatch(lines[-1].strip())):
            lines.pop()
        while lines and (not lines[0].strip() or SCALE_HEADING.fullmatch(lines[0].strip())):
            lines.pop(0)
        kept = "\n".join(lines).strip()
        found.append(kept[1:-1].strip() if kept.startswith("[") and kept.endswith("]") else kept)
    return joint.join(part for part in found if part)


def _sorted_rubric(criteria: str, described: Sequence[tuple[str, str]], *, verbatim: bool = False) -> Rubric:
    """The rubric of a criterion and (score, description), in any order.

    Raises:
        DataError: if scores repeat, are fewer than two or larger than any score, some lack a description, or there is no criterion.
    """
    labels = [label for label, _ in described]
    values = [float(label) for label in labels]
    if twice := [label for place, label in enumerate(labels) if values[place] in values[:place]]:
        refuse(f"the score {twice[0]} is described twice, among {shown(', '.join(labels))}")
    if not verbatim and (large := [label for label in labels if abs(float(label)) > _LARGEST]):
        refuse(f"found {large[0]} where a score is expected; scores up to {_LARGEST} are found in texts")
    blank = [label for label, text in described if not text.strip()]
    if blank and len(blank) < len(described):
        refuse(f"the score {blank[0]} has no description, others have one")
    if not any(char.isalnum() for char in criteria):
        refuse(f"describes the scores {shown(', '.join(labels))}, but not what is judged; write the question above them")
    return Rubric(criteria, tuple(sorted(described, key=lambda pair: float(pair[0]))))


def _range_rubric(text: str, normalized: str) -> Rubric | None:
    """Of a sentence that says between which scores to rate, and describes none."""
    found = asked_ranges(normalized)
    if len(found) != 1:
        return None  # ``sign_of_scale`` refuses it if it speaks of a scale all the same
    return _sorted_rubric(text.strip(), _scores_of_range(*found[0], ""))


def _with_checked_scale(rubric: Rubric, text: str) -> Rubric:
    """The rubric, if its scores are those of every scale that its sentences name.

    Where a sentence names whole numbers of which the text describes some ("from 1 to 5; 1 = bad, 5 = good"), these are the scores and the
    text is the criterion.

    Raises:
        DataError: if a sentence names another scale, or steps that are no whole numbers.
    """
    values = [float(label) for label in rubric.labels]
    low, high, labels = min(values), max(values), shown(", ".join(rubric.labels))
    criteria = normalize_signs(rubric.criteria)
    # A sentence below the last score ends up in its description.
    bodies = [normalize_signs(body).partition("\n") for _, body in rubric.descriptions]
    around = "\n".join([criteria, *(lines for _, _, lines in bodies)])
    within = "\n".join(re.split(r"(?<=[.!?])\s", line, maxsplit=1)[-1] for line, _, _ in bodies if re.search(r"[.!?]\s", line))
    claims = claimed_scales(around, within, values)
    for ends, words in claims:
        if ends != (low, high):
            refuse(f"describes the scores {labels}, but {shown(words, 60)} names others")
    whole = all(value.is_integer() for value in values)
    if whole and (steps := finer_steps(f"{around}\n{within}")) is not None:
        refuse(f"{shown(steps, 60)} names steps between the scores {labels}")
    if (other := unlisted_score(around, values)) is not None:
        refuse(f"{shown(other, 60)} names a score beside {labels}")
    missing = [score for score in range(int(low), int(high) + 1) if score not in values] if claims else []
    if not missing:
        return rubric
    if not whole:
        refuse(f"describes the scores {labels}, but {shown(claims[0][1], 60)} names {missing[0]} as well")
    return _sorted_rubric(text.strip(), _scores_of_range(str(int(low)), str(int(high)), ""))
