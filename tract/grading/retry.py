"""Rows of a graded file that have no score, graded again; all others stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tract.data import fields
from tract.data.readers import content_fingerprint, read_rows
from tract.data.rows import Row
from tract.errors import DataError
from tract.grading.columns import REQUIRED, Columns
from tract.grading.graded import record_of
from tract.grading.scan import numbered_rows


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

    def rows_of(self, source: Path, limit: int | None) -> Iterator[tuple[int, Row]]:
        """(number from 0, row) of the rows of the input that have no score here; they are numbered on their own."""
        failed = (row for row, record in _beside(source, limit, self.path) if record["judge_score"] is None)
        return enumerate(failed)

    def merged(self, again: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The graded columns of all rows: those of ``again`` where a row had no score, in their order."""
        for row in read_rows(self.path):
            record = _record(row)
            yield next(again) if record["judge_score"] is None else record


def retry_of(source: Path, limit: int | None, graded: Path, columns: Columns) -> Retry:
    """What is to be graded again.

    Args:
        source: the input. limit: the most rows of it. graded: what an earlier command made of it. columns: of the input.

    Raises:
        DataError: if ``graded`` is no graded file, or not that of the input: a row with a score must have the same instruction and
            response in both. Rows without one may have been corrected.
    """
    if not graded.is_file():
        raise DataError(f"-o {graded}: does not exist; --retry-failed needs the graded file that an earlier command wrote there")
    statuses: Counter[str] = Counter()
    for row, record in _beside(source, limit, graded):
        if record["judge_score"] is None:
            statuses[record["judge_status"]] += 1
        elif _texts(row.data, columns) != _texts(record["input"], columns):
            raise DataError(
                f"-o {graded}: its grade for {row.place} belongs to another instruction or response; give the input that was graded, or "
                "grade the whole file: --overwrite in place of --retry-failed"
            )
    return Retry(graded, content_fingerprint(graded), dict(statuses))


def _beside(source: Path, limit: int | None, graded: Path) -> Iterator[tuple[Row, dict[str, Any]]]:
    """(row of the input, its graded columns and under "input" the row that they stand in)."""
    for number, (pair, done) in enumerate(zip_longest(numbered_rows(source, limit), read_rows(graded))):
        if pair is None or done is None:
            longer, shorter = (source, graded) if done is None else (graded, source)
            raise DataError(
                f"-o {graded}: does not hold the rows of {source}: {shorter} ends after {number} rows, {longer} does not; give the same "
                "input and --limit as before"
            )
        yield pair[1], {**_record(done), "input": done.data}


def _record(row: Row) -> dict[str, Any]:
    try:
        return record_of(fields.columns_of(row.data))
    except ValueError as error:
        raise DataError(f"{row.place}: {error}; --retry-failed needs a file that tract grade wrote") from None


def _texts(data: object, columns: Columns) -> list[str] | None:
    """Instruction and response of a row; None if it has none that can be graded."""
    try:
        cells = fields.columns_of(data)
        return [fields.text(fields.value_of(cells, columns.of[field]), field) for field in REQUIRED]
    except ValueError:
        return None
