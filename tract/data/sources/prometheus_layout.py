"""The parts of a finished prompt in the Prometheus layout: instruction, response, reference answer and rubric.

The layout is that of prometheus-eval's absolute grading with a reference answer (Apache-2.0); known here by its headers only:

    ###Task Description:
    <wording>

    ###The instruction to evaluate:
    <instruction>

    ###Response to evaluate:
    <response>

    ###Reference Answer (Score 5):
    <reference answer>

    ###Score Rubrics:
    [<criteria>]
    Score 1: <description>
    ...
    Score 5: <description>

    ###Feedback:
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tract.text.schema import Rubric

_HEADERS = (
    "###Task Description:",
    "###The instruction to evaluate:",
    "###Response to evaluate:",
    "###Reference Answer (Score 5):",
    "###Score Rubrics:",
    "###Feedback:",
)
_LABELS = ("1", "2", "3", "4", "5")
_BLANK_LINE = "\n\n"
# Any label, so that a sixth score or a description that contains such a line is noticed.
_SCORE_LINE = re.compile(r"^Score ([^\s:]+):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PromptParts:
    """What a finished prompt shows, verbatim: no white space is stripped.

    Attributes:
        instruction: what was asked; not blank.
        response: what is graded; may be empty.
        reference_answer: an answer that deserves the best score; None where its section is empty.
        rubric: criteria and the descriptions of the scores 1 to 5.
    """

    instruction: str
    response: str
    reference_answer: str | None
    rubric: Rubric


def recover_parts(prompt: str) -> PromptParts | None:
    """The parts of a finished prompt, or None where there is any doubt about them.

    Every header must occur exactly once in the whole prompt, and in order: a response that holds a header itself could
    otherwise pass off its own text as another part. The layout filled with the parts must give the prompt back exactly.
    """
    sections = _sections(prompt)
    if sections is None:
        return None
    task, instruction, response, reference, rubric_text, tail = sections
    rubric = _rubric(rubric_text)
    # A layout without reference answer exists too: there, that header can only be part of the response.
    if rubric is None or "reference answer" not in task or not instruction.strip() or tail.strip():
        return None
    parts = PromptParts(instruction, response, reference or None, rubric)
    return parts if _fill(task, parts, tail) == prompt else None


def _sections(prompt: str) -> list[str] | None:
    """What stands below each header, up to the blank line before the next one; None if the headers leave any doubt."""
    if any(prompt.count(header) != 1 for header in _HEADERS) or not prompt.startswith(_HEADERS[0]):
        return None
    sections, rest = [], prompt.removeprefix(_HEADERS[0])
    for header in _HEADERS[1:]:
        section, found, rest = rest.partition(_BLANK_LINE + header)
        if not found or not section.startswith("\n"):
            return None
        sections.append(section[1:])
    return [*sections, rest]


def _rubric(text: str) -> Rubric | None:
    marks = list(_SCORE_LINE.finditer(text))
    if tuple(mark[1] for mark in marks) != _LABELS:
        return None
    criteria = text[: marks[0].start()].removeprefix("[").removesuffix("]\n")
    if not criteria.strip():
        return None
    # One character (a line break) comes before each mark, and one (a blank) after it; ``_fill`` checks both.
    ends = [mark.start() - 1 for mark in marks[1:]] + [len(text)]
    descriptions = [text[mark.end() + 1 : end] for mark, end in zip(marks, ends, strict=True)]
    return Rubric(criteria, tuple(zip(_LABELS, descriptions, strict=True)))


def _fill(task: str, parts: PromptParts, tail: str) -> str:
    """The layout with the parts in it."""
    scores = "\n".join(f"Score {label}: {text}" for label, text in parts.rubric.descriptions)
    rubric = f"[{parts.rubric.criteria}]\n{scores}"
    sections = (task, parts.instruction, parts.response, parts.reference_answer or "", rubric)
    filled = [f"{header}\n{section}" for header, section in zip(_HEADERS[:-1], sections, strict=True)]
    return _BLANK_LINE.join([*filled, _HEADERS[-1] + tail])
