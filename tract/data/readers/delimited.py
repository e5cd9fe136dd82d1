"""The rows of CSV and TSV files. A quote that is never closed costs its own line: the lines below it are read again."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TextIO

from tract.common.errors import DataError
from tract.data.readers.fields import shown
from tract.data.readers.rows import RowProblem

MAX_OPEN = 2**22  # characters of a row over several lines; in a longer one a quote counts as never closed, so memory is bounded
MAX_FIELD = 2**31 - 1  # characters; the default of the csv module, 131072, is less than a long conversation
BOM = "\ufeff"
_HINT = "quote fields that hold quotes or line breaks, and double the quotes"

log = logging.getLogger(__name__)

# In the order in which they are tried where the expected one gives a single column.
_DELIMITERS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
_SEP_LINE = re.compile(r'"?sep=([^\w"\r\n])"?[\r\n]*', re.IGNORECASE)  # above the header, for spreadsheets

RowOrProblem = dict[str, str] | RowProblem


def read_delimited(stream: TextIO, name: str, delimiter: str) -> Iterator[tuple[int, RowOrProblem]]:
    """The rows below the header as (line where the row begins, from 1; column -> text); blank lines are no rows.

    A row over several lines that is no CSV or has the wrong number of fields is a problem of its first line alone. The lines below
    it are read again: those before the one where the fault was noticed each as one row, that one and the rest as
    usual. So no line is parsed more than twice, however many are broken.

    Args:
        stream: opened with ``newline=""``; bytes that are no UTF-8 arrive as lone surrogates.
        name: the file, for messages.
        delimiter: one character; where the header is one column by it and several by another one, that one is taken, with a warning.
            A line ``sep=;`` above the header sets it for the file.

    A column without a name is called "", or "Unnamed: 2" (as pandas does, counted from 0) where there are several. Fields that the
    first row has beyond the header, all empty, are such columns too: each line ends in the delimiter, or some do.

    Raises:
        DataError: if the first line does not name each column once.
    """
    csv.field_size_limit(MAX_FIELD)
    lines, delimiter, n_above = _lines_from_header(stream, name, delimiter)
    row = lines.row
    reader = _reader(lines, delimiter)
    table = _Table(_header(reader, name), delimiter)
    number = 1 + len(row) + n_above
    in_doubt = False  # a row was broken, and what follows may be the rest of it
    while True:
        row.clear()
        try:
            cells = next(reader)
            table.add_unnamed_columns(cells)
            cells = table.filled(cells)
            found = table.row_of(cells, row) if cells else None
            broken = len(row) > 1 and len(cells) != len(table.header)
        except StopIteration:
            return
        except csv.Error as error:
            found, broken = _not_csv(error, row[0]), True
        if in_doubt and isinstance(found, dict):
            found = table.without_stray_quotes(found, row)
            in_doubt = broken = isinstance(found, RowProblem)
        if found is not None:
            yield number, found
        in_doubt = in_doubt or broken
        if broken and len(row) > 1:
            for below, line in enumerate(row[1:-1], start=1):
                if (single := table.row_of_line(line)) is not None:
                    yield number + below, single
            number += len(row) - 1
            lines.give_back(row[-1])
            reader = _reader(lines, delimiter)  # the old one may have reached the end of its lines
        else:
            number += len(row)


def _lines_from_header(stream: TextIO, name: str, delimiter: str) -> tuple[_Lines, str, int]:
    """(the lines from the header on, the delimiter of their columns, the number of lines above the header)."""
    first = stream.readline()
    sep_line = _SEP_LINE.fullmatch(first)
    if sep_line:
        first, delimiter = stream.readline(), sep_line[1]
    else:
        delimiter = _delimiter_of(first, delimiter, name)
    lines = _Lines(stream)
    lines.give_back(first)
    return lines, delimiter, int(sep_line is not None)


def _delimiter_of(header: str, expected: str, name: str) -> str:
    """The delimiter of a file: the expected one, unless the header is a single column by it and several by another one."""
    if _n_columns(header, expected) > 1:
        return expected
    found = max((other for other in _DELIMITERS if other != expected), key=lambda other: _n_columns(header, other))
    if _n_columns(header, found) < 2:
        return expected
    _warn_of_delimiter(name, _DELIMITERS[found], _DELIMITERS.get(expected, repr(expected)))
    return found


def _n_columns(header: str, delimiter: str) -> int:
    """How many columns a header names by a delimiter; 0 if it does not name each once."""
    cells = next(csv.reader([header], delimiter=delimiter), [])
    names = [cell.strip() for cell in cells]
    return len(names) if all(names) and len(set(names)) == len(names) else 0


@lru_cache(maxsize=64)  # a file is read several times and warned of once
def _warn_of_delimiter(name: str, found: str, expected: str) -> None:
    log.warning("%s: its header is one column with %s between fields, and several with %s; it is read with these", name, expected, found)


class _Lines:
    """The lines of a file for a csv reader.

    Attributes:
        row: the lines that were given since it was cleared last.
    """

    def __init__(self, stream: TextIO) -> None:
        self.row: list[str] = []
        self._stream = stream
        self._given_back = ""

    def give_back(self, line: str) -> None:
        """Makes the line the next one again."""
        self._given_back = line

    def __iter__(self) -> Iterator[str]:
        """Ends early where the current row is longer than ``MAX_OPEN``."""
        row, readline, size = self.row, self._stream.readline, 0
        while True:
            if not row:
                size = 0
            elif size > MAX_OPEN:
                return
            line = self._given_back or readline()
            if not line:
                return
            self._given_back = ""
            row.append(line)
            size += len(line)
            yield line


def _reader(lines: _Lines | list[str], delimiter: str) -> Iterator[list[str]]:
    # strict: otherwise a quote that is never closed silently takes the rest of the file for one field.
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{name}: the header cannot be read: {error}") from None
    header = _all_named(header)
    if not header or len(set(header)) < len(header):
        raise DataError(f"{name}: the first line must name each column once, found {shown(header, 200)}")
    if not all(map(_is_unicode, header)):
        raise DataError(f"{name}: the header is not UTF-8, found {shown(header, 200)}; save the file as UTF-8")
    return header


def _all_named(header: list[str]) -> list[str]:
    """The header with names for columns without one, if there are several."""
    if sum(not name.strip() for name in header) < 2:
        return header
    taken, found = set(header), []
    for place, name in enumerate(header):
        if not name.strip():
            name = f"Unnamed: {place}"
            while name in taken:
                name += ".1"
            taken.add(name)
        found.append(name)
    return found


class _Table:
    """The header of a file, and the rows that fields make below it.

    Args:
        header: names of the columns. delimiter: one character.
    """

    def __init__(self, header: list[str], delimiter: str) -> None:
        self.header = header
        self._delimiter = delimiter
        self._n_named = len(header)
        self._has_rows = False

    def add_unnamed_columns(self, first_row: list[str]) -> None:
        """Adds columns without a name where the first row has fields beyond the header that are all empty; later rows add none."""
        if first_row and not self._has_rows:
            self._has_rows = True
            beyond = first_row[self._n_named :]
            self.header = self.header if any(beyond) else _all_named([*self.header, *beyond])

    def filled(self, cells: list[str]) -> list[str]:
        """The cells of a row, with empty ones for columns without a name where the row does not end in the delimiter."""
        return [*cells, *[""] * (len(self.header) - self._n_named)] if len(cells) == self._n_named else cells

    def row_of(self, cells: list[str], lines: list[str]) -> RowOrProblem:
        """The row that the filled cells of some lines make."""
        if len(cells) != len(self.header):
            over = f" over {len(lines)} lines" if len(lines) > 1 else ""
            reason = f"number of fields: {len(cells)} were found{over}, the header names {len(self.header)}; {_HINT}"
            return RowProblem(reason, lines[0])
        if cells == self.header:
            return RowProblem("header: stands here once more; files were joined, take it out", lines[0])
        for line in lines:
            if not line.isascii():
                if not _is_unicode(line):
                    return RowProblem("not UTF-8: save the file as UTF-8", line)
                if line is lines[0] and line.startswith(BOM):
                    return RowProblem("byte order mark: stands inside the file; files were joined, take it out", line)
        return dict(zip(self.header, cells, strict=True))

    def row_of_line(self, line: str) -> RowOrProblem | None:
        """A line as a whole row, or None if it is blank."""
        try:
            cells = next(_reader([line], self._delimiter))
        except csv.Error as error:
            return _not_csv(error, line)
        return self.without_stray_quotes(self.row_of(self.filled(cells), [line]), [line]) if cells else None

    def without_stray_quotes(self, found: RowOrProblem, lines: list[str]) -> RowOrProblem:
        """What was found, unless a quote stands inside a field without quotes: this may be the end of a broken row."""
        delimiter = re.escape(self._delimiter)
        field = rf'(?:"(?:[^"]++|"")*+"|[^"{delimiter}\r\n]*+)'
        if isinstance(found, RowProblem) or re.fullmatch(rf"{field}(?:{delimiter}{field})*+[\r\n]*", "".join(lines)):
            return found
        return RowProblem(f"not CSV: a stray quote below a broken row, which may be its end; {_HINT}", lines[0])


def _not_csv(error: csv.Error, line: str) -> RowProblem:
    reason = "a quote is never closed" if "end of data" in str(error) else str(error).replace("\t", "\\t")
    return RowProblem(f"not CSV: {reason}; {_HINT}", line)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
