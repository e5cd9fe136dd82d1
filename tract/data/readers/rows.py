"""A raw row of a data source, before it becomes an example."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"(?P<file>.+):(?P<number>[0-9]+)", re.DOTALL)
_ROW_INDEX = re.compile(r"(?P<file>.+)\[(?P<number>[0-9]+)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its source yields it.

    Attributes:
        place: where the row is, for messages: "file.jsonl:17" is a line, "file.parquet[16]" a row of a file without lines.
        data: the content; the source that yielded the row knows its type.
    """

    place: str
    data: object

    def location(self) -> dict[str, str | int]:
        """The place in parts: ``file`` and ``line`` (from 1), or ``file`` and ``row_index`` (from 0); empty where it has none."""
        for key, pattern in (("line", _LINE), ("row_index", _ROW_INDEX)):
            if found := pattern.fullmatch(self.place):
                return {"file": found["file"], key: int(found["number"])}
        return {}


@dataclass(frozen=True, slots=True)
class RowProblem:
    """In place of the data of a ``RawRow`` that could not be read.

    Attributes:
        reason: why, beginning with a short category and a colon; without the place.
        text: the row as written in the file, as far as it is known.
    """

    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableCell:
    """In place of a value that could not be read, in a row that can be read otherwise; only a reader of this value refuses the row."""

    reason: str

    def __repr__(self) -> str:
        return f"a cell that cannot be read ({self.reason})"
