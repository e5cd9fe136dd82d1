"""Signs of a mistake in the raters of the data: one under two names, or no item that two have scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

import pyarrow.compute as pc

from tract.data.readers.fields import shown
from tract.data.store import ExampleStore


def rater_warnings(store: ExampleStore, *, gathered: bool) -> Iterator[str]:
    """One line for each sign of a mistake.

    Args:
        store: the examples. gathered: whether rows of the same prompt become one example (``data.group_annotations``).
    """
    judgements = [store.dataset.data.column(name) for name in ("annotations", "ratings")]
    unique = [pc.unique(pc.struct_field(pc.list_flatten(column), "rater")).to_pylist() for column in judgements]
    names = {name for found in unique for name in found if name is not None}
    most = pc.max(pc.add(*map(pc.list_value_length, judgements))).as_py()
    yield from _alike(names)
    if gathered and len(names) > 1 and most < 2:
        yield (
            f"{len(names)} raters are named, but no item has scores of two: rows are of the same item if all of its texts are equal, "
            "blanks and line breaks too, and so are question_id and what id tells apart (data.source.columns); no agreement is measured"
        )


def _alike(names: Collection[str]) -> Iterator[str]:
    """One line about the names that differ in upper and lower case alone, which count as different raters."""
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
