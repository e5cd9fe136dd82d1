"""Reading of local files: every row of a JSONL, JSON, CSV, TSV or Parquet file, or of a folder of them, with its place."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tract.common.errors import DataError
from tract.data.readers.delimited import read_delimited
from tract.data.readers.fields import WrittenNumber, shown
from tract.data.readers.formats import (
    ACCEPTED,
    DAMAGED,
    format_of,
    is_compressed,
    is_other_data,
    open_bytes,
    refusal,
    uncompressed_name,
)
from tract.data.readers.rows import RawRow, RowProblem, UnreadableCell

log = logging.getLogger(__name__)

BATCH_ROWS = 256  # rows of a Parquet file that are in memory at once
BOM = b"\xef\xbb\xbf"


def read_rows(path: str | Path) -> Iterator[RawRow]:
    """The rows of a file or folder, one after the other; a row that cannot be read arrives as a ``RowProblem``.

    Memory stays flat, except for ``.json``, which is read as a whole.

    Args:
        path: a file of a format that ``tract.data.readers.formats`` knows, or a folder of such files, which are read in the order of their
            names.

    Raises:
        DataError: if the path is missing, of an unknown kind or an empty folder, or a file as a whole cannot be read. The
            path is checked at once, the content of the files as they are reached.
    """
    files = data_files(path)
    _warn_of_others(Path(path))
    return (row for name, file in files for row in _rows_of(file, name))


def _rows_of(file: Path, name: str) -> Iterator[RawRow]:
    try:
        yield from _READERS[str(format_of(file))](file, name)
    except DAMAGED as error:
        raise _damaged_error(name, error) from None
    except OSError as error:
        if is_compressed(file) and error.errno is None:  # raised by gzip and bz2 for content in another format
            raise _damaged_error(name, error) from None
        raise _unreadable_error(name, error) from None


def _warn_of_others(path: Path) -> None:
    """Logs which files of a folder look like data and are not read."""
    others = sorted(file.name for file in path.rglob("*") if is_other_data(file) and file.is_file()) if path.is_dir() else []
    if others:
        log.warning("%s: %d files of other formats are not read: %s; accepted are %s", path, len(others), shown(others, 200), ACCEPTED)


def data_files(path: str | Path) -> list[tuple[str, Path]]:
    """The data files at ``path`` as (name for messages, file), in the order in which they are read.

    Raises:
        DataError: if the path is missing, of an unknown kind, or a folder without a data file.
    """
    path = Path(path)
    accepted = f"give a {ACCEPTED} file, or a folder of such files"
    if path.is_file():
        if format_of(path) is None:
            raise DataError(f"data.path: {path} {refusal(path)}, or a folder of such files")
        return [(path.name, path)]
    if not path.is_dir():
        raise DataError(f"data.path: {path} does not exist; {accepted}")
    # A link whose target is missing counts as a file, so that reading it fails instead of skipping it.
    present = (file for file in path.rglob("*") if file.is_file() or (file.is_symlink() and not file.exists()))
    found = ((file.relative_to(path), file) for file in present if format_of(file) is not None)
    # Hidden files and folders are caches and editor backups; their rows would come twice.
    files = sorted((name.as_posix(), file) for name, file in found if not any(part.startswith(".") for part in name.parts))
    if not files:
        raise DataError(f"data.path: the folder {path} holds no data file; {accepted}")
    seen: dict[str, str] = {}
    for name, _ in files:
        if (same := seen.setdefault(uncompressed_name(name), name)) != name:
            raise DataError(f"data.path: the folder {path} holds {same} and {name}, whose rows would come twice; move one of them away")
    return files


def content_fingerprint(path: str | Path) -> str:
    """The SHA-256 (hex) of a file's content, or of the relative names and contents of a folder's data files.

    Raises:
        DataError: as ``data_files`` does.
    """
    path = Path(path)
    files = data_files(path)
    if path.is_file():
        return _file_digest(path, path.name)
    whole = hashlib.sha256()
    for name, file in files:
        whole.update(os.fsencode(f"{name}\0{_file_digest(file, name)}\n"))  # a file's name need not be UTF-8
    return whole.hexdigest()


def local_fingerprint(path: str | Path, *arguments: object) -> str:
    """The fingerprint (SHA-256, hex) of a source that reads local files: their content and the source's own arguments.

    The folder that the files lie in does not count, but their names do, because rejected rows are listed by them.

    Raises:
        DataError: as ``data_files`` does.
    """
    parts = [Path(path).name, content_fingerprint(path), *arguments]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file_digest(file: Path, name: str) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable_error(name, error) from None


def _damaged_error(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{name}: cannot be unpacked: {reason}; it is damaged or not whole, compress it again or give it uncompressed")


def _unreadable_error(name: str, error: OSError) -> DataError:
    return DataError(f"{name}: cannot be read: {error.strerror or type(error).__name__}; check the file, its rights and its disk")


class _DuplicateKeyError(ValueError):
    """A key occurs twice in one object, so that its value is ambiguous."""


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(f"{shown(next(key for key in keys if keys.count(key) > 1))} stands twice in one object")
    return found


_decode_line = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=WrittenNumber).decode


def _read_jsonl(file: Path, name: str) -> Iterator[RawRow]:
    with open_bytes(file) as stream:
        # Lines are split at \n alone: texts may hold U+2028 and other characters that str.splitlines would split at.
        for line_number, line in enumerate(stream, start=1):
            if line_number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                yield RawRow(place=f"{name}:{line_number}", data=_parse_line(line))


def _parse_line(line: bytes) -> object:
    try:
        data = _decode_line(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowProblem(_json_problem(line, error), line.decode("utf-8", errors="replace").rstrip("\r\n"))
    if not isinstance(data, dict):
        text = line.decode("utf-8").rstrip("\r\n")
        return RowProblem(f"not an object: the line holds a {type(data).__name__}; each line must hold one JSON object", text)
    return data


def _json_problem(line: bytes, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte {error.start} of the line; save the file as UTF-8"
    if isinstance(error, _DuplicateKeyError):
        return f"duplicate key: {error}; each key may stand once"
    if line.startswith(BOM):
        return "byte order mark: stands inside the file; files were joined, take it out"
    return f"not JSON: {error}; each line must hold one JSON object"


def _read_json(file: Path, name: str) -> Iterator[RawRow]:
    try:
        # Bytes that are no UTF-8 become lone surrogates, which no field accepts: only the rows that hold them are bad.
        with open_bytes(file) as stream:
            text = stream.read().removeprefix(BOM).decode("utf-8", errors="surrogateescape")
        content = json.loads(text, object_pairs_hook=_object_or_problem, parse_int=_int_or_infinity, parse_float=WrittenNumber)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not UTF-8 JSON: {error}; if it holds one object per line, name it .jsonl") from None
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(f"{name}: the object holds {len(lists)} lists; a list of objects, or an object with one list, is accepted")
        content = lists[0]
    if not isinstance(content, list):
        found = content.reason if isinstance(content, RowProblem) else f"a {type(content).__name__} was found"
        raise DataError(f"{name}: {found}; a list of objects, or an object with one list, is accepted")
    for index, data in enumerate(content):
        if not isinstance(data, (dict, RowProblem)):
            data = RowProblem(f"not an object: a {type(data).__name__} was found", shown(data, 200))
        yield RawRow(place=f"{name}[{index}]", data=data)


def _object_or_problem(pairs: list[tuple[str, object]]) -> dict[str, object] | RowProblem:
    """The object, or why it cannot be used, so that one bad object does not end the file; an object that holds it is bad too."""
    inner = next((value for _, value in pairs if isinstance(value, RowProblem)), None)
    if inner is not None:
        return inner
    try:
        return _unique_keys(pairs)
    except _DuplicateKeyError as error:
        return RowProblem(f"duplicate key: {error}; each key may stand once", shown(dict(pairs), 200))


def _int_or_infinity(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # thousands of digits, which Python refuses to read
        return -math.inf if digits.startswith("-") else math.inf


def _read_table(file: Path, name: str, *, delimiter: str) -> Iterator[RawRow]:
    # Bytes that are no UTF-8 become lone surrogates, so that only the rows that hold them are bad.
    with open_bytes(file) as content, io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for line_number, data in read_delimited(stream, name, delimiter):
            yield RawRow(f"{name}:{line_number}", data)


def _read_parquet(file: Path, name: str) -> Iterator[RawRow]:
    index = 0
    try:
        # Without pre_buffer, pages are read as they are needed; with it, a whole row group is held in memory.
        with pq.ParquetFile(file, memory_map=True, pre_buffer=False, page_checksum_verification=True) as parquet:
            columns = parquet.schema_arrow.names
            if len(set(columns)) < len(columns):
                raise DataError(f"{name}: each column must have a name of its own, found {shown(columns, 200)}")
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                for data in _batch_rows(batch):
                    yield RawRow(place=f"{name}[{index}]", data=data)
                    index += 1
            if index != parquet.metadata.num_rows:
                raise DataError(f"{name}: holds {index} rows, but its footer says {parquet.metadata.num_rows}; write the file anew")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: not readable as Parquet after {index} rows: {reason}; write the file anew") from None


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, object]]:
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except Exception:  # text that is no UTF-8, a date after the year 9999, ...: each type of column raises its own errors
        columns = {name: [_value_or_unreadable(value) for value in batch.column(name)] for name in batch.schema.names}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows


def _value_or_unreadable(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except Exception as error:  # as above
        return UnreadableCell(f"{type(error).__name__}: {' '.join(str(error).split())}")


_READERS: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(_read_table, delimiter=","),
    ".tsv": partial(_read_table, delimiter="\t"),
    ".parquet": _read_parquet,
}
