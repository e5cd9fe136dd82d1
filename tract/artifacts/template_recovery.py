"""The template behind finished prompts: a judge that was trained on them can then be asked with separate fields. Pure.

Some data comes with finished prompts beside the fields that were filled in. Where each field stands in such a prompt exactly once,
what is left is the wording; it is trusted if filling it gives other rows' prompts back, to the character. No wording is kept in this
repository: it comes from the rows that the judge was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tract.common.errors import TractError
from tract.text.prompts import PromptTemplate, asking_for_cue
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

# Of the rows that were looked at, so many must be given back. Some rows' fields differ from their prompts in a blank.
LEAST_EQUAL = 0.9


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found.

    Attributes:
        template: that fills the trained prompts in, or None. rows: finished prompts that were looked at. equal: those of them that
            the template gives back exactly.
    """

    template: PromptTemplate | None
    rows: int
    equal: int


def recover_template(finished: PromptTemplate, examples: Sequence[JudgeExample], grid: ScoreGrid) -> Recovered:
    """The template whose filling gives the finished prompts of the examples back.

    Args:
        finished: how the judge was asked, with ``source="finished"``; its cue, system turn and escaping stay.
        examples: some rows of the training data. grid: of the judge.
    """
    rows = [example for example in examples if example.prompt]
    wanted = [_text(finished, example, grid) for example in rows]
    best, most, tried = None, 0, set()
    for example in rows:
        template = _template_of(finished, example)
        if template is None or template.blocks in tried:
            continue
        tried.add(template.blocks)
        equal = sum(_text(template, row, grid) == text is not None for row, text in zip(rows, wanted, strict=True))
        if equal > most:
            best, most = template, equal
        if most == len(rows):
            break
    return Recovered(best if rows and most >= LEAST_EQUAL * len(rows) else None, len(rows), most)


def _text(template: PromptTemplate, example: JudgeExample, grid: ScoreGrid) -> tuple[str, str] | None:
    """(system turn, user turn) of the example's prompt; None if it has none."""
    try:
        prompt = template.render(example, grid)
    except TractError:
        return None
    return prompt.system, prompt.user


def _template_of(finished: PromptTemplate, example: JudgeExample) -> PromptTemplate | None:
    """The prompt of one example with placeholders in the place of its fields; None where one cannot be told from the wording."""
    rubric = example.rubric
    shown = {
        "instruction": example.instruction,
        "response": example.response,
        "reference_answer": example.reference_answer,
        "criteria": rubric.criteria if rubric else None,
        "score_descriptions": "\n".join(f"Score {label}: {text}" for label, text in rubric.descriptions) if rubric else None,
    }
    prompt = example.prompt or ""
    if finished.reword_output_format:
        prompt = asking_for_cue(prompt, finished.cue)
    pieces = _cut(prompt, {name: text for name, text in shown.items() if text})
    if pieces is None or "{response}" not in pieces:
        return None
    try:
        return replace(finished, source="template", blocks=tuple("".join(pieces).split("\n\n")), use_reference=True)
    except TractError:  # the wording has braces of its own
        return None


def _cut(prompt: str, fields: dict[str, str]) -> list[str] | None:
    """Wording and placeholders in their order; None if a field stands there more than once or not at all, or two overlap."""
    if any(prompt.count(text) != 1 for text in fields.values()):
        return None
    places = sorted((prompt.index(text), prompt.index(text) + len(text), name) for name, text in fields.items())
    pieces, done = [], 0
    for start, end, name in places:
        if start < done:
            return None
        pieces += [prompt[done:start], f"{{{name}}}"]
        done = end
    return [*pieces, prompt[done:]]
