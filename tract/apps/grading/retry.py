"""Rows of a graded file that have no score, graded again; all others stay as they are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tract.apps.grading.columns import Columns, without_nulls
from tract.apps.grading.graded import COLUMNS, record_of
from tract.apps.grading.scan import FileFacts, numbered_rows
from tract.common.errors import DataError
from tract.data.readers import fields
from tract.data.readers.files import content_fingerprint, read_rows
from tract.data.readers.rows import RawRow

# Of JSON, leading zeros aside, which make it a text.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Retry:
    """A graded file, some of whose rows have no score.

    Attributes:
        path: the file, as it was graded before. sha256: of its content. statuses: status -> how many rows without a score have it.
    """

    path: Path
    sha256: str
    statuses: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many rows have no score."""
        return sum(self.statuses.values())

    def rows_of(self, source: Path, limit: int | None) -> Iterator[tuple[int, RawRow]]:
        """(number from 0, row) of the rows of the input that have no score here; they are numbered on their own."""
        failed = (row for row, record in _paired_rows(source, limit, self.path) if record["judge_score"] is None)
        return enumerate(failed)

    def merged(self, again: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The graded columns of all rows: those of ``again`` where a row had no score, in their order."""
        for row in read_rows(self.path):
            record = _graded_columns(row)
            yield next(again) if record["judge_score"] is None else record


def retry_of(facts: FileFacts, limit: int | None, graded: Path, columns: Columns) -> Retry:
    """What is to be graded again.

    Args:
        facts: of the input. limit: the most rows of it. graded: what an earlier command made of it. columns: of the input.

    Raises:
        DataError: if ``graded`` is no graded file, or not that of the input: a row with a score must hold the same in all columns that
            the judge is shown. Rows without one may have been corrected. Nor may it have columns that the input lacks.
    """
    if not graded.is_file():
        begun = graded.with_name(f"{graded.name}.partial").exists()
        hint = "a command was interrupted: give it again, without --retry-failed" if begun else "an earlier command writes it"
        raise DataError(f"-o {graded}: does not exist, and --retry-failed needs a graded file; {hint}")
    statuses: Counter[str] = Counter()
    names = {name.strip() for name in facts.kinds} | set(COLUMNS)
    for row, record in _paired_rows(facts.path, limit, graded):
        cells = fields.columns_of(record["input"])
        if own := next((name for name in cells if name.strip() not in names), None):
            raise DataError(f"-o {graded}: has a column {own!r} that {facts.path} lacks, so that it would be lost; add it there first")
        if record["judge_score"] is None:
            statuses[record["judge_status"]] += 1
        elif (changed := _changed(row.data, cells, columns)) is not None:
            raise DataError(
                f"-o {graded}: its grade for {row.place} belongs to another {changed}; give the input that was graded, or grade the whole "
                "file: --overwrite in place of --retry-failed"
            )
    return Retry(graded, content_fingerprint(graded), dict(statuses))


def _paired_rows(source: Path, limit: int | None, graded: Path) -> Iterator[tuple[RawRow, dict[str, Any]]]:
    """(row of the input, its graded columns and under "input" the row that they stand in)."""
    for number, (pair, done) in enumerate(zip_longest(numbered_rows(source, limit), read_rows(graded))):
        if pair is None or done is None:
            longer, shorter = (source, graded) if done is None else (graded, source)
            raise DataError(
                f"-o {graded}: does not hold the rows of {source}: {shorter} ends after {number} rows, {longer} does not; give the same "
                "input and --limit as before"
            )
        yield pair[1], {**_graded_columns(done), "input": done.data}


def _graded_columns(row: RawRow) -> dict[str, Any]:
    try:
        return record_of(fields.columns_of(row.data))
    except ValueError as error:
        raise DataError(f"{row.place}: {error}; --retry-failed needs a file that tract grade wrote") from None


def _changed(data: object, graded: Mapping[str, object], columns: Columns) -> str | None:
    """The first field that a row and its graded form differ in; None if they hold the same."""
    if not isinstance(data, Mapping):
        return "row"
    for field, column in columns.to_dict().items():
        before, now = (_comparable(fields.optional_value(cells, column)) for cells in (graded, data))
        if before != now:
            return field
    return None


def _comparable(value: object) -> object:
    """A value as it is in every format: numbers and objects may have become text, and nulls of a struct come and go."""
    if isinstance(value, str):
        number = _NUMBER.fullmatch(value.strip())
        if not number and not value.lstrip().startswith(("{", "[")):
            return value
        try:
            value = json.loads(value)
        except ValueError:
            return value
    value = without_nulls(value)
    if isinstance(value, Mapping):
        return {str(name): _comparable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_comparable(inner) for inner in value]
    if isinstance(value, bool):
        return json.dumps(value)
    return float(value) if isinstance(value, (int, float, Decimal)) else str(value)
