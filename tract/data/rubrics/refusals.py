r"""Marks in a text that leave doubt which scores it means: each check raises a ``DataError`` that shows an accepted form. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from tract.common.errors import DataError
from tract.data.readers.fields import shown
from tract.data.rubrics.marks import NAMED, PLAIN, Mark, inline_marks

EXAMPLE = r"Is it right?\nScore 1: It is wrong.\nScore 2: It is right."
_HELP = f'write each score on a line of its own, e.g. "{EXAMPLE}"; for a criterion without scores give {{"criteria": "..."}}'
# The most scores that a range such as "0-100" may have.
MOST_SCORES = 101
# A line that is the heading of a scale and nothing else.
SCALE_HEADING = re.compile(
    r"(?:\#{1,6} ?|\*\*|__)?(?:(?:score|scoring|rating|grading) ?(?:rubrics?|scale|descriptions?|guide|levels?)|"
    r"scores|scoring|scale|ratings|score descriptions)\s*(?:\*\*|__)?:?(?:\*\*|__)?",
    re.IGNORECASE,
)  # fmt: skip


def refuse(reason: str) -> NoReturn:
    """Raises a ``DataError`` with a reason and an accepted form."""
    raise DataError(f"rubric: {reason}; {_HELP}")


def refuse_many_marks(number: int) -> None:
    """Refuses more marks than a scale has scores."""
    if number > MOST_SCORES:
        refuse(f"found {number} marks of scores; up to {MOST_SCORES} are accepted")


def refuse_other_marks(text: str, taken: Sequence[Mark], others: Sequence[Mark], normalized: str) -> None:
    """Refuses a text that has more scores than were taken: they would be lost in the description of another one.

    Args:
        text: the text. taken: the marks that begin its lines. others: further marks that begin lines.
        normalized: ``normalize_signs(text)``.
    """
    values = {mark.value for mark in taken}
    if left := [mark for mark in others if mark.value not in values and mark.start > taken[0].start]:
        refuse(f"writes scores in several ways, as {line_at(text, taken[0])} and {line_at(text, left[0])}")
    if taken[0].style != NAMED:
        last = taken[-1]
        for line in re.finditer(r"^[^\w\n]{0,4}(?<![\w.])[0-9].*$", normalized[taken[0].end : last.end], re.MULTILINE):
            place = taken[0].end + line.start()
            if line.start() and not any(mark.start <= place < mark.end or mark.start == place for mark in taken):
                refuse(f"cannot tell whether {shown(line[0].strip(), 40)} is a score")
        after = re.search(r"^[^\w\n]{0,4}[0-9].*$", normalized[last.end :], re.MULTILINE)
        if after and after.start():
            refuse(f"cannot tell whether {shown(after[0].strip(), 40)} is a score")
    refuse_inline_marks(normalized, taken)


def refuse_inline_marks(normalized: str, taken: Sequence[Mark]) -> None:
    """Refuses a text whose lines hold further scores; a number in the last one is a score if it is the next of the scale."""
    values = [mark.value for mark in taken]
    following = 2 * values[-1] - values[-2]
    for mark in inline_marks(normalized, taken[0].style):
        if mark.value not in values and (mark.style == NAMED or mark.start < taken[-1].start or mark.value == following):
            refuse(f"the score {mark.low} does not begin its line, others do")
    dashed = re.compile(rf"[ \t]{following:g}[ \t]+-+[ \t](?![0-9])")  # between blanks, a dash is a mark where lines begin
    if taken[-1].style == PLAIN and dashed.search(normalized, taken[-1].end):
        refuse(f"the score {following:g} does not begin its line, others do")


def refuse_numbered_list(text: str, marks: Sequence[Mark]) -> None:
    """Refuses 1., 2., 3., which number lists as well as scores, unless a heading says which."""
    if counts_from_one(marks) and not is_headed(text, marks):
        found = f"{line_at(text, marks[0])} and {line_at(text, marks[1])}"
        refuse(f"cannot tell whether {found} are scores or a numbered list")
    refuse_disorder([mark.low for mark in marks])


def refuse_disorder(labels: Sequence[str]) -> None:
    """Refuses scores that neither ascend nor descend."""
    values = [float(label) for label in labels]
    if values not in (sorted(values), sorted(values, reverse=True)):
        refuse(f"the numbers {shown(', '.join(labels))} are in no order; write scores in ascending order")


def is_headed(text: str, marks: Sequence[Mark]) -> bool:
    """Whether the line above calls the marks a scale."""
    before = text[: marks[0].start].strip().rpartition("\n")[2]
    heading = r"\bscale\b[^.?!]{0,80}:\W{0,3}$"
    return SCALE_HEADING.fullmatch(before.strip()) is not None or re.search(heading, before, re.IGNORECASE) is not None


def counts_from_one(marks: Sequence[Mark]) -> bool:
    """Whether the marks are 1, 2, 3, ..., as in a numbered list."""
    return [mark.value for mark in marks] == list(range(1, len(marks) + 1))


def line_at(text: str, mark: Mark) -> str:
    """The beginning of the line of a mark, for a message."""
    return shown(text[mark.start :].strip().partition("\n")[0], 40)
