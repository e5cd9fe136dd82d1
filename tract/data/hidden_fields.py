"""Fields of the data that a prompt does not show, so that the judge would be trained without them."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.compute as pc

from tract.data.arrow_columns import arrow_column
from tract.data.store import ExampleStore
from tract.text.prompts import PromptTemplate

# Field of an example -> the placeholders of a prompt that show it.
_SHOWN_BY = {
    "criteria": ("criteria", "rubric"),
    "score_descriptions": ("score_descriptions", "rubric"),
    "reference_answer": ("reference_answer",),
}


def hidden_fields(store: ExampleStore, template: PromptTemplate) -> dict[str, int]:
    """Field -> number of examples that have it, of the fields that prompts of the template do not show.

    A finished prompt of the source's own is shown as it is: nothing is known of its fields, and none is counted.
    """
    if template.source == "finished":
        return {}
    hidden = [name for name, placeholders in _SHOWN_BY.items() if not template.shown_fields.intersection(placeholders)]
    counted = {name: _examples_with(store, name) for name in hidden}
    return {name: number for name, number in counted.items() if number}


def lacks_rubric(store: ExampleStore, template: PromptTemplate) -> bool:
    """Whether prompts of the template have a place for what is judged by, and no example says it."""
    has_place = bool(template.shown_fields.intersection(_SHOWN_BY["criteria"]))
    return has_place and not _examples_with(store, "criteria")


def _examples_with(store: ExampleStore, name: str) -> int:
    column = arrow_column(store.dataset, name)
    lengths = pc.list_value_length(column) if name == "score_descriptions" else pc.binary_length(column)
    return int(pc.sum(pc.greater(lengths, 0)).as_py() or 0)


NO_RUBRIC = (
    "the data say nowhere what responses are judged by, so the judge sees no criterion; give one for all rows with data.source.rubric, or "
    "map the column that holds it: data.source.columns.criteria"
)


def warning_of(hidden: Mapping[str, int], template: PromptTemplate, examples: int) -> str:
    """One line that names the hidden fields and the keys that show them.

    Args:
        hidden: see ``hidden_fields``; not empty. examples: of the whole data set.
    """
    named = ", ".join(f"{name} ({number} of {examples} examples)" for name, number in hidden.items())
    switched_off = "reference_answer" in hidden and any("{reference_answer}" in block for block in template.blocks)
    keys = ["prompt.use_reference=true shows the reference answer"] if switched_off else []
    if others := [name for name in hidden if not (switched_off and name == "reference_answer")]:
        placeholders = " and ".join(f"{{{name}}}" for name in others)
        keys.append(f"prompt=rubric shows {'it' if len(others) == 1 else 'them'}, as does {placeholders} in prompt.blocks")
    return f"the judge does not see fields that the data have, since the prompt does not show them: {named}; {'; '.join(keys)}"
