"""A first look through a file of responses: how many rows, which columns of which kinds, and its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from tract.common.errors import DataError
from tract.data.readers.files import content_fingerprint, read_rows
from tract.data.readers.formats import ACCEPTED, format_of, refusal
from tract.data.readers.rows import RawRow, RowProblem

# Whole numbers up to here are exact as float64, up to the next as int64.
_EXACT, _INT64 = 2**53, 2**63


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file before it is graded.

    Attributes:
        path: the file. rows: those that are to be graded. sha256: of its content.
        kinds: column -> kinds of values that its rows hold ("text", "whole", "large", "number", "bool", "other"; null is none), in
            the order in which the columns come.
    """

    path: Path
    rows: int
    sha256: str
    kinds: Mapping[str, frozenset[str]]

    @property
    def is_parquet(self) -> bool:
        """Whether its columns have types of their own."""
        return format_of(self.path) == ".parquet"


def scan(path: Path, limit: int | None) -> FileFacts:
    """The facts of a file; memory stays flat.

    Args:
        limit: the most rows that count, from the first one on; None for all.

    Raises:
        DataError: if it is no file that can be read, or holds no row.
    """
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {found}; give a {ACCEPTED} file")
    if format_of(path) is None:
        raise DataError(f"{path}: {refusal(path)}")
    rows, kinds = _facts_of_parquet(path, limit) if format_of(path) == ".parquet" else _facts_of_text(path, limit)
    if not rows:
        raise DataError(f"{path}: holds no row; there is nothing to grade")
    return FileFacts(path, rows, content_fingerprint(path), kinds)


def first_columns(path: Path) -> list[str]:
    """The columns of the first rows; lines of JSON need not all have the same."""
    found: dict[str, None] = {}
    for number, row in enumerate(read_rows(path)):
        if isinstance(row.data, Mapping):
            found |= dict.fromkeys(row.data)
        if number >= 255:
            break
    return list(found)


def numbered_rows(path: Path, limit: int | None) -> Iterator[tuple[int, RawRow]]:
    """(number from 0, row) of each row of a file."""
    return enumerate(islice(read_rows(path), limit))


def _facts_of_text(path: Path, limit: int | None) -> tuple[int, dict[str, frozenset[str]]]:
    found: dict[str, set[str]] = {}
    rows = 0
    for number, row in numbered_rows(path, limit):
        rows = number + 1
        if isinstance(row.data, RowProblem):
            continue
        assert isinstance(row.data, Mapping)
        for column, value in row.data.items():
            kinds = found.setdefault(column, set())
            if value is not None:
                kinds.add(_kind(value))
    return rows, {column: frozenset(kinds) for column, kinds in found.items()}


def _facts_of_parquet(path: Path, limit: int | None) -> tuple[int, dict[str, frozenset[str]]]:
    next(read_rows(path), None)  # says what is wrong with a file that is none
    with pq.ParquetFile(path) as file:
        rows, names = file.metadata.num_rows, file.schema_arrow.names
    return rows if limit is None else min(rows, limit), {name: frozenset() for name in names}


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "whole" if abs(value) <= _EXACT else "large" if -_INT64 <= value < _INT64 else "other"
    return "number" if isinstance(value, float) else "other"
