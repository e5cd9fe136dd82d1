"""Typed values from raw rows. Every error names the field, what was found and what is accepted; the caller adds the place."""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Mapping
from decimal import Decimal

from tract.schema import Rubric
from tract.score_grid import ScoreGrid

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN = 60  # characters of a found value in a message
_EXACT = 2**53  # whole numbers up to here are exact as floats


def columns_of(data: object) -> Mapping[str, object]:
    """The row as a mapping from column to value.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"not an object: found {shown(data)}; an object with named columns is accepted")
    return data


def value_of(row: Mapping[str, object], column: str) -> object:
    """The value in a column, which may be None.

    Raises:
        ValueError: if the row lacks the column.
    """
    if column not in row:
        raise ValueError(f"{column}: the row has no such column; it has {shown(sorted(map(str, row)), 200)}")
    return row[column]


def text(value: object, field: str) -> str:
    """The value as text, verbatim; it may be empty.

    Raises:
        ValueError: if it is no text, or holds lone surrogates, which no UTF-8 file and no tokenizer can take.
    """
    if not isinstance(value, str):
        raise ValueError(f"{field}: found {shown(value)}; text is accepted")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{field}: not valid Unicode at character {error.start}; re-encode the file as UTF-8") from None
    return value


def filled_text(value: object, field: str) -> str:
    """The value as text, verbatim, with at least one character that is not white space.

    Raises:
        ValueError: if it is no text, or blank.
    """
    found = text(value, field)
    if not found.strip():
        raise ValueError(f"{field}: found {shown(found)}; text that is not empty is accepted")
    return found


def optional_text(value: object, field: str) -> str | None:
    """The value as text, verbatim, or None for null and for "", which is how CSV writes null.

    Raises:
        ValueError: if it is something else.
    """
    return None if value is None or value == "" else text(value, field)


def number(value: object, field: str) -> float:
    """The value as a finite number; text that spells one is accepted.

    Raises:
        ValueError: if it is something else, a boolean and NaN included.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
    raise ValueError(f"{field}: found {shown(value)}; a finite number is accepted")


def optional_number(value: object, field: str) -> float | None:
    """The value as a finite number, or None for null and blank text.

    Raises:
        ValueError: as ``number`` does.
    """
    return None if value is None or (isinstance(value, str) and not value.strip()) else number(value, field)


def on_grid(score: float, field: str, grid: ScoreGrid) -> float:
    """The score itself, in points.

    Raises:
        ValueError: if it is not on the grid.
    """
    try:
        return grid.values[grid.index(score)]
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def within_grid(score: float, field: str, grid: ScoreGrid) -> float:
    """The score itself, in points; it may lie between two scores of the grid, as means do.

    Raises:
        ValueError: if it lies outside the grid's range.
    """
    if not grid.lowest <= score <= grid.highest:
        raise ValueError(
            f"{field}: found {score:g}; a number from {grid.labels[0]} to {grid.labels[-1]} is accepted (the range of grid.labels)"
        )
    return score


def identifier(value: object, field: str) -> str:
    """An id, given as text or as a whole number, as text; 7, 7.0 and "7" are the same.

    Raises:
        ValueError: if it is something else, empty, or a float so large that it may stand for several whole numbers.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)  # Parquet and pandas turn whole numbers beside nulls into floats
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return text(value, field)
    raise ValueError(f"{field}: found {shown(value)}; an id as text or as a whole number is accepted")


def shown(value: object, limit: int = _SHOWN) -> str:
    """How a found value stands in a message: its ``repr`` on one line, shortened to ``limit`` characters.

    However large or deep the value is, only its beginning is looked at.
    """
    if isinstance(value, (str, bytes)):
        value = value[:limit]  # the quotes around it make what was cut longer than limit
        written = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    else:
        written = _Brief(limit).repr(value)
    return written if len(written) <= limit else f"{written[: limit - 3]}..."


class _Brief(reprlib.Repr):
    """Writes the beginning of a value, no deeper than six levels."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        for size in ("maxtuple", "maxlist", "maxdict", "maxset", "maxstring", "maxother", "maxlong"):
            setattr(self, size, limit + 1)

    def repr_int(self, x: int, level: int) -> str:
        """As usual, also where Python refuses to write a number out."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return "<int of thousands of digits>"


def short_hash(*parts: object, length: int) -> str:
    """The first ``length`` hex digits of a SHA-256 over one text, or over several parts kept apart."""
    content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else json.dumps(parts)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:length]


def content_id(question_id: str, prompt: str | None, instruction: str, response: str, reference: str | None, rubric: Rubric | None) -> str:
    """An id made of the content that is judged: the same wherever the row stands and however often it is annotated."""
    if prompt is not None:
        return f"{question_id}-{short_hash(prompt, length=12)}"
    rubric_parts = None if rubric is None else [rubric.criteria, rubric.descriptions]
    return f"{question_id}-{short_hash(instruction, response, reference, rubric_parts, length=12)}"
