"""Signs of a mistake in the data: fields that the prompt does not show, no rubric, raters with two names or without a shared item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import pyarrow.compute as pc

from tract.data.arrow_columns import arrow_column
from tract.data.readers.fields import shown
from tract.data.sources.source import Source
from tract.data.store import ExampleStore
from tract.text.prompts import PromptTemplate

# Field of an example -> the placeholders of a prompt that show it.
_SHOWN_BY = {
    "criteria": ("criteria", "rubric"),
    "score_descriptions": ("score_descriptions", "rubric"),
    "reference_answer": ("reference_answer",),
}
_NO_RUBRIC = (
    "the data say nowhere what responses are judged by, so the judge sees no criterion; give one for all rows with data.source.rubric, or "
    "map the column that holds it: data.source.columns.criteria"
)


def data_warnings(source: Source, store: ExampleStore, template: PromptTemplate, *, grouped: bool) -> Iterator[str]:
    """One line for each sign of a mistake.

    Args:
        source: of the examples. store: the examples. template: words the prompts.
        grouped: whether rows of the same prompt become one example (``data.group_annotations``).
    """
    if not getattr(source, "instructions_hold_rubric", False):
        if hidden := _hidden_fields(store, template):
            yield _hidden_fields_warning(hidden, template, len(store))
        if getattr(source, "takes_rubric", False) and _lacks_rubric(store, template):
            yield _NO_RUBRIC
    yield from rater_warnings(store, grouped=grouped)


def _hidden_fields(store: ExampleStore, template: PromptTemplate) -> dict[str, int]:
    """Field -> number of examples that have it, of the fields that prompts of the template do not show.

    A finished prompt of the source's own is shown as it is: nothing is known of its fields, and none is counted.
    """
    if template.source == "finished":
        return {}
    hidden = [name for name, placeholders in _SHOWN_BY.items() if not template.shown_fields.intersection(placeholders)]
    counted = {name: _examples_with(store, name) for name in hidden}
    return {name: number for name, number in counted.items() if number}


def _lacks_rubric(store: ExampleStore, template: PromptTemplate) -> bool:
    """Whether prompts of the template have a place for the criterion, and no example has one."""
    has_place = bool(template.shown_fields.intersection(_SHOWN_BY["criteria"]))
    return has_place and not _examples_with(store, "criteria")


def _examples_with(store: ExampleStore, name: str) -> int:
    column = arrow_column(store.dataset, name)
    lengths = pc.list_value_length(column) if name == "score_descriptions" else pc.binary_length(column)
    return int(pc.sum(pc.greater(lengths, 0)).as_py() or 0)


def _hidden_fields_warning(hidden: Mapping[str, int], template: PromptTemplate, examples: int) -> str:
    """One line that names the hidden fields and the keys that show them."""
    named = ", ".join(f"{name} ({number} of {examples} examples)" for name, number in hidden.items())
    switched_off = "reference_answer" in hidden and any("{reference_answer}" in block for block in template.blocks)
    keys = ["prompt.use_reference=true shows the reference answer"] if switched_off else []
    if others := [name for name in hidden if not (switched_off and name == "reference_answer")]:
        placeholders = " and ".join(f"{{{name}}}" for name in others)
        keys.append(f"prompt=rubric shows {'it' if len(others) == 1 else 'them'}, as does {placeholders} in prompt.blocks")
    return f"the judge does not see fields that the data have, since the prompt does not show them: {named}; {'; '.join(keys)}"


def rater_warnings(store: ExampleStore, *, grouped: bool) -> Iterator[str]:
    """One line for each sign of a mistake in the raters: one under two names, or no item that two have scored.

    Args:
        store: the examples. grouped: whether rows of the same prompt become one example.
    """
    judgements = [store.dataset.data.column(name) for name in ("annotations", "ratings")]
    unique = [pc.unique(pc.struct_field(pc.list_flatten(column), "rater")).to_pylist() for column in judgements]
    names = {name for found in unique for name in found if name is not None}
    most = pc.max(pc.add(*map(pc.list_value_length, judgements))).as_py()
    yield from _similar_name_warnings(names)
    if grouped and len(names) > 1 and most < 2:
        yield (
            f"{len(names)} raters are named, but no item has scores of two: rows are of the same item if all of its texts are equal, "
            "blanks and line breaks too, and so are question_id and what id tells apart (data.source.columns); no agreement is measured"
        )


def _similar_name_warnings(names: Collection[str]) -> Iterator[str]:
    """At most one line: about the names that differ in upper and lower case alone, which count as different raters."""
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        by_plain[" ".join(name.split()).casefold()].append(name)
    groups = [" and ".join(map(shown, group)) for group in by_plain.values() if len(group) > 1]
    if groups:
        more = f" (and {len(groups) - 3} more)" if len(groups) > 3 else ""
        yield (
            f"raters: {'; '.join(groups[:3])}{more} differ only in upper and lower case or blanks, and count as different raters; "
            "if they are one, write the name alike"
        )
