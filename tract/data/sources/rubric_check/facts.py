"""A response that meets given constraints, and the true score of a response. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from tract.data.sources.rubric_check import texts
from tract.data.sources.rubric_check.constraints import KINDS, Constraint
from tract.data.sources.rubric_check.writer import ResponsePlan, write
from tract.text.perturbations import with_response
from tract.text.schema import JudgeExample

META_KEY = "constraints"

_MOST_TRIES = 100


def respond(constraints: tuple[Constraint, ...], wanted: tuple[bool, ...], actions: tuple[str, ...], rng: Random) -> str:
    """A text that meets exactly the wanted constraints, as their checks find.

    Args:
        constraints: constraints that fit together.
        wanted: whether each is to be met.
        actions: what the text tells of (see ``texts.TOPICS``).
        rng: where all draws come from.
    """
    for _ in range(_MOST_TRIES):
        plan = ResponsePlan()
        for constraint, met in zip(constraints, wanted, strict=True):
            constraint.steer(plan, met, rng)
        text = write(plan, actions, rng)
        if all(constraint.check(text) == met for constraint, met in zip(constraints, wanted, strict=True)):
            return text
    raise AssertionError(f"constraints do not fit together: {[(c.kind.name, c.value) for c in constraints]}")


def to_meta(constraints: Sequence[Constraint]) -> str:
    """The constraints as JSON, for ``JudgeExample.meta``."""
    return json.dumps([[constraint.kind.name, constraint.value] for constraint in constraints])


def constraints_of(example: JudgeExample) -> tuple[Constraint, ...] | None:
    """The constraints that the example's score counts; None for an example of another source."""
    if META_KEY not in example.meta:
        return None
    kinds = {kind.name: kind for kind in KINDS}
    return tuple(Constraint(kinds[name], value) for name, value in json.loads(example.meta[META_KEY]))


def true_score(constraints: Sequence[Constraint], response: str) -> int:
    """The true score of a response, in points: 1 + the number of constraints that it meets."""
    return 1 + sum(constraint.check(response) for constraint in constraints)


def one_more_met(example: JudgeExample) -> JudgeExample | None:
    """The example with another response, which meets the same constraints and one more; None where all are met, or none are known."""
    constraints = constraints_of(example)
    if constraints is None:
        return None
    met = [constraint.check(example.response) for constraint in constraints]
    if all(met):
        return None
    rng = Random(f"{example.id}-one-more")
    more = rng.choice([place for place, is_met in enumerate(met) if not is_met])
    wanted = tuple(is_met or place == more for place, is_met in enumerate(met))
    _, actions = rng.choice([topic for topic in texts.TOPICS if topic[0] in example.instruction])
    return with_response(example, respond(constraints, wanted, actions, rng))


def rescored(example: JudgeExample, original: JudgeExample) -> JudgeExample:
    """The changed example with the true score of its response where that can be computed; else unchanged."""
    constraints = constraints_of(example)
    if constraints is None or example.response == original.response:
        return example
    score = true_score(constraints, example.response)
    target = original.target
    new_target = None if target is None else target + score - int(original.meta["true_score"])
    return replace(example, target_score=new_target, meta={**example.meta, "true_score": str(score)})
