"""The texts around a response, in drawn wordings: instruction, rubric, and the chain of thought that judges it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from tract.data.sources.rubric_check import texts
from tract.data.sources.rubric_check.constraints import Constraint
from tract.text.schema import Rubric

WORDING_CHOICES = ("varied", "plain")

_T = TypeVar("_T")


class _First(Random):
    """Draws the first of several wordings each time."""

    def choice(self, seq: Sequence[_T]) -> _T:  # type: ignore[override]
        return seq[0]


def wording_draws(wording: str, rng: Random) -> Random:
    """Where wordings are drawn from: ``rng`` if they are to vary, else what takes the first one each time."""
    return rng if wording == "varied" else _First()


def instruction(topic: str, requirements: Sequence[str], rng: Random) -> str:
    """The task: a topic, and what the text must do, as a bullet list or inline."""
    opening = rng.choice(texts.INSTRUCTIONS).format(topic=topic)
    style = rng.choice(("bullets", "numbers", "plain"))
    if style == "bullets":
        return opening + ":" + "".join(f"\n- {requirement}" for requirement in requirements)
    items = [f"({i}) {item}" for i, item in enumerate(requirements, start=1)] if style == "numbers" else list(requirements)
    return f"{opening} {', '.join(items[:-1])} and {items[-1]}."


def rubric(n_constraints: int, rng: Random) -> Rubric:
    """The criterion, and what each score 1..n_constraints + 1 stands for."""
    none, some, every = rng.choice(texts.DESCRIPTIONS)
    n = texts.COUNT_NAMES[n_constraints]
    described = [none.format(n=n)]
    for count in range(1, n_constraints):
        line = some.format(c=texts.COUNT_NAMES[count], n=n, are=_are(count), constraints="constraint" if count == 1 else "constraints")
        described.append(_capital(line))
    described.append(every.format(n=n))
    labels = tuple((str(score), line) for score, line in enumerate(described, start=1))
    return Rubric(criteria=rng.choice(texts.CRITERIA), descriptions=labels)


def chain_of_thought(
    constraints: Sequence[Constraint], requirements: Sequence[str], verdicts: Sequence[bool], style: int, rng: Random
) -> str:
    """The constraints judged one by one, in their order, and then their count.

    Args:
        constraints: what is judged.
        requirements: the constraints as the task words them.
        verdicts: whether each is judged as met; the findings and the count follow them.
        style: index of the frame of the verdicts, modulo the number of frames.
        rng: where the other wordings come from.
    """
    frame = texts.VERDICT_LINES[style % len(texts.VERDICT_LINES)]
    lines = []
    for i, (constraint, requirement, met) in enumerate(zip(constraints, requirements, verdicts, strict=True), start=1):
        heading = _capital(constraint.heading(rng))
        line = frame.format(i=i, h=heading, r=requirement, finding=constraint.finding(met, rng), verdict="met" if met else "not met")
        lines.append(line)
    count = sum(verdicts)
    lines.append(rng.choice(texts.COT_ENDS).format(c=count, n=len(verdicts), are=_are(count)))
    return " ".join(lines)


def plain_chain_of_thought(constraints: Sequence[Constraint], text: str, verdicts: Sequence[bool]) -> str:
    """The constraints judged one by one: what the text shows, the verdict, and how many are met so far.

    A small model that sees a few hundred items can neither judge without looking nor count verdicts in retrospect.

    Args:
        constraints: what is judged, in order.
        text: the response, from which the evidence is taken.
        verdicts: whether each is judged as met.
    """
    lines = []
    count = 0
    for constraint, met in zip(constraints, verdicts, strict=True):
        count += met
        lines.append(texts.PLAIN_VERDICT_LINE.format(e=constraint.evidence(text), verdict="met" if met else "not met", c=count))
    return " ".join(lines)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
