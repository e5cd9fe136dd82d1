"""A raw row of a data source, before it becomes an example."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row as its source yields it.

    Attributes:
        place: where the row stands, for messages, e.g. "file.jsonl:17".
        data: what stands there; the source that yielded the row knows its type.
    """

    place: str
    data: object
