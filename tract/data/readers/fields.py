"""Typed values from raw rows. Every error names the field, what was found and what is accepted; the caller adds the place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Collection, Mapping
from decimal import Decimal

from tract.common.near_names import near_names
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid, grid_with

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_SHOWN_CHARACTERS = 60  # characters of a found value in a message
_EXACT_INTEGERS = 2**53  # whole numbers up to here are exact as floats
# How programs write "no number" as text; where text is accepted, these are texts as any others.
_NO_NUMBER = frozenset(("nan", "na", "n/a", "<na>", "nat", "null", "none"))


class WrittenNumber(float):
    """A number of a JSON file that keeps its spelling, for fields that are text: 3.50 is not 3.5 there.

    Attributes:
        written: the number as written in the file.
    """

    __slots__ = ("written",)
    written: str

    def __new__(cls, written: str) -> WrittenNumber:
        """The number that a JSON text spells."""
        found = super().__new__(cls, written)
        found.written = written
        return found


def columns_of(data: object) -> Mapping[str, object]:
    """The row as a mapping from column to value.

    Raises:
        ValueError: if it is no mapping.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"not an object: found {shown(data)}; an object with named columns is accepted")
    return data


def column_called(name: str, columns: Collection[object]) -> str | None:
    """The column with a name; blanks around names do not count, unless they alone tell two columns apart. None if there is none."""
    if name in columns:
        return name
    similar = [column for column in columns if isinstance(column, str) and column.strip() == name.strip()]
    return similar[0] if len(similar) == 1 else None


def did_you_mean(name: str, columns: Collection[object]) -> str:
    """The columns whose names are like one that is not there, for a message: " (did you mean 'a' or 'b'?)", or "" without any."""
    by_plain = {_normalized_name(column): column for column in map(str, columns) if column.strip()}
    plain = _normalized_name(name)
    near = [plain] if plain in by_plain else near_names(plain, by_plain)
    return f" (did you mean {' or '.join(shown(by_plain[match]) for match in near)}?)" if near else ""


def _normalized_name(column: str) -> str:
    """A column's name without what is often mistyped: capitals, and signs between words."""
    return re.sub(r"[\s_.-]+", "", column.casefold())


def column_shown(column: str) -> str:
    """The name of a column at the start of a message; a name of blanks is quoted."""
    return column if column.strip() else f"the column {column!r}"


def value_of(row: Mapping[str, object], column: str) -> object:
    """The value in a column, which may be None.

    Raises:
        ValueError: if the row lacks the column.
    """
    if column in row:
        return row[column]
    if (similar := column_called(column, row)) is None:
        meant = did_you_mean(column, row)
        raise ValueError(f"{column_shown(column)}: the row has no such column{meant}; it has {shown(sorted(map(str, row)), 200)}")
    return row[similar]


def optional_value(row: Mapping[str, object], column: str | None) -> object:
    """The value in a column; None where there is no such column, or it holds no value (``is_missing``)."""
    found = None if column is None else column_called(column, row)
    return None if found is None or is_missing(row[found]) else row[found]


def is_null(value: object) -> bool:
    """Whether a value stands for none: None, or the NaN, NA or NaT of Python, NumPy, pandas or decimals."""
    if value is None or isinstance(value, float):
        return value is None or value != value
    if isinstance(value, Decimal):
        return value.is_nan()
    kind = type(value)
    if kind.__module__.partition(".")[0] == "pandas":  # without importing it: NA and NaT, whose comparisons give no boolean
        return kind.__name__ in ("NAType", "NaTType")
    return _is_numpy_scalar(value) and value.dtype.kind in "fmM" and bool(value != value)  # type: ignore[attr-defined]


def is_missing(value: object) -> bool:
    """Whether a cell holds no value: null (``is_null``) or text of white space alone, which is how CSV writes null."""
    return not value.strip() if isinstance(value, str) else is_null(value)


def _python_scalar(value: object) -> object:
    """A scalar of NumPy as Python's; anything else as it is."""
    return value.item() if _is_numpy_scalar(value) else value  # type: ignore[attr-defined]


def _is_numpy_scalar(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and getattr(value, "ndim", None) == 0


def text(value: object, field: str) -> str:
    """The value as text, verbatim; it may be empty. Numbers and booleans become the text that JSON writes for them.

    Raises:
        ValueError: if it is neither, or holds lone surrogates, which no UTF-8 file and no tokenizer can take.
    """
    if not isinstance(value, str):
        return _number_as_text(value, field)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{column_shown(field)}: not valid Unicode at character {error.start}; re-encode the file as UTF-8") from None
    return value


def _number_as_text(value: object, field: str) -> str:
    """A number or boolean as JSON writes it; of a JSON file, as the file does."""
    if isinstance(value, WrittenNumber) and math.isfinite(value):
        return value.written
    found = _python_scalar(value)
    if isinstance(found, (bool, int)):
        with contextlib.suppress(ValueError):  # thousands of digits, which Python refuses to write out
            return json.dumps(found)
    if (isinstance(found, float) and math.isfinite(found)) or (isinstance(found, Decimal) and found.is_finite()):
        return repr(found) if isinstance(found, float) else str(found)
    if is_null(value):
        raise ValueError(f'{column_shown(field)}: holds no value (null or NaN); text is needed here, "" where it is empty')
    raise ValueError(f"{column_shown(field)}: found {shown(value)}; text is accepted, or a number, true or false, which become text")


def filled_text(value: object, field: str) -> str:
    """The value as ``text`` gives it, with at least one character that is not white space.

    Raises:
        ValueError: if it is no text, or there is no value.
    """
    if is_missing(value):
        raise ValueError(f"{column_shown(field)}: holds no value (blank, null or NaN); text that is not empty is needed here")
    return text(value, field)


def optional_text(value: object, field: str) -> str | None:
    """The value as ``text`` gives it, or None where there is none (``is_missing``).

    Raises:
        ValueError: if it is something else.
    """
    return None if is_missing(value) else text(value, field)


def number(value: object, field: str) -> float:
    """The value as a finite number; text that spells one is accepted.

    Raises:
        ValueError: if it is something else, a boolean and NaN included.
    """
    found = _python_scalar(value)
    if isinstance(found, str) and _NUMBER.fullmatch(found.strip()):
        found = float(found)
    if isinstance(found, (int, float, Decimal)) and not isinstance(found, bool):
        try:
            found = float(found)
        except (OverflowError, ValueError):
            found = math.inf
        if math.isfinite(found):
            return found
    comma = ", with a decimal point in place of the comma" if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) else ""
    raise ValueError(f"{column_shown(field)}: found {shown(value)}; a finite number is accepted{comma}")


def optional_number(value: object, field: str) -> float | None:
    """The value as a finite number, or None where there is none: ``is_missing``, or text that says so ("NaN", "NA", "null", "None").

    Raises:
        ValueError: as ``number`` does.
    """
    missing = is_missing(value) or (isinstance(value, str) and value.strip().lower() in _NO_NUMBER)
    return None if missing else number(value, field)


def on_grid(score: float, field: str, grid: ScoreGrid) -> float:
    """The score itself, in points.

    Raises:
        ValueError: if it is not on the grid.
    """
    try:
        return grid.values[grid.index(score)]
    except ValueError as error:
        raise ValueError(f"{field}: {error}; {grid_with(score, grid)}") from None


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
        ValueError: if it is something else, empty, or a float so large that it may represent several whole numbers.
    """
    found = _python_scalar(value)
    if isinstance(found, float) and found.is_integer() and abs(found) < _EXACT_INTEGERS:
        found = int(found)  # Parquet and pandas turn whole numbers beside nulls into floats
    if isinstance(found, int) and not isinstance(found, bool):
        return text(found, field)
    if isinstance(found, str) and found.strip():
        return text(found, field)
    raise ValueError(f"{column_shown(field)}: found {shown(value)}; an id as text or as a whole number is accepted")


def shown(value: object, limit: int = _SHOWN_CHARACTERS) -> str:
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
