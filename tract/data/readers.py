"""Reading of local files: every row of a JSONL, JSON, CSV, TSV or Parquet file, or of a folder of them, with its place."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tract.data.rows import Row
from tract.errors import DataError

BATCH_ROWS = 256  # rows of a Parquet file that are in memory at once
MAX_CSV_FIELD = 2**31 - 1  # characters; the default of the csv module, 131072, is less than a long conversation
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Stands in a ``Row`` for data that could not be read.

    Attributes:
        reason: why, beginning with a short category and a colon; without the place.
        text: the row as it stands in the file, as far as it is known.
    """

    reason: str
    text: str = ""


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file or folder, one after the other; a row that cannot be read arrives as a ``RowProblem``.

    Memory stays flat, except for ``.json``, which is read as a whole.

    Args:
        path: a file with a suffix of ``SUFFIXES``, or a folder of such files, which are read in the order of their names.

    Raises:
        DataError: if the path is missing, of an unknown kind or an empty folder, or a file as a whole cannot be read. The
            path is checked at once, the content of the files as they are reached.
    """
    files = data_files(path)
    return (row for name, file in files for row in _READERS[file.suffix.lower()](file, name))


def data_files(path: str | Path) -> list[tuple[str, Path]]:
    """The data files at ``path`` as (name for messages, file), in the order in which they are read.

    Raises:
        DataError: if the path is missing, of an unknown kind, or a folder without a data file.
    """
    path = Path(path)
    accepted = f"give a {', '.join(SUFFIXES)} file or a folder of such files"
    if path.is_file():
        if path.suffix.lower() not in _READERS:
            raise DataError(f"data.path: {path} has the suffix {path.suffix!r}, which is no known format; {accepted}")
        return [(path.name, path)]
    if not path.is_dir():
        raise DataError(f"data.path: {path} does not exist; {accepted}")
    found = ((file.relative_to(path), file) for file in path.rglob("*") if file.is_file() and file.suffix.lower() in _READERS)
    # Hidden files and folders are caches and editor backups; their rows would come twice.
    files = sorted((name.as_posix(), file) for name, file in found if not any(part.startswith(".") for part in name.parts))
    if not files:
        raise DataError(f"data.path: the folder {path} holds no data file; {accepted}")
    return files


def content_fingerprint(path: str | Path) -> str:
    """The SHA-256 (hex) of a file's content, or of the relative names and contents of a folder's data files.

    Raises:
        DataError: as ``data_files`` does.
    """
    path = Path(path)
    files = data_files(path)
    if path.is_file():
        return _file_digest(path)
    whole = hashlib.sha256()
    for name, file in files:
        whole.update(f"{name}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def local_fingerprint(path: str | Path, *arguments: object) -> str:
    """The fingerprint (SHA-256, hex) of a source that reads local files: their content and the source's own arguments.

    The folder that the files lie in does not count, but their names do, because rejected rows are listed by them.

    Raises:
        DataError: as ``data_files`` does.
    """
    parts = [Path(path).name, content_fingerprint(path), *arguments]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_jsonl(file: Path, name: str) -> Iterator[Row]:
    with file.open("rb") as stream:
        # Lines are split at \n alone: texts may hold U+2028 and other characters that str.splitlines would split at.
        for line_number, line in enumerate(stream, start=1):
            if line_number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                yield Row(place=f"{name}:{line_number}", data=_parse_line(line))


def _parse_line(line: bytes) -> object:
    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowProblem(f"not UTF-8: byte {error.start} of the line; save the file as UTF-8", text)
    except (ValueError, RecursionError) as error:
        return RowProblem(f"not JSON: {error}; each line must hold one JSON object", text)
    if not isinstance(data, dict):
        return RowProblem(f"not an object: the line holds a {type(data).__name__}; each line must hold one JSON object", text)
    return data


def _read_json(file: Path, name: str) -> Iterator[Row]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not UTF-8 JSON: {error}; if it holds one object per line, name it .jsonl") from None
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(f"{name}: the object holds {len(lists)} lists; a list of objects, or an object with one list, is accepted")
        content = lists[0]
    if not isinstance(content, list):
        raise DataError(f"{name}: a {type(content).__name__} was found; a list of objects, or an object with one list, is accepted")
    for index, data in enumerate(content):
        if not isinstance(data, dict):
            data = RowProblem(f"not an object: a {type(data).__name__} was found", json.dumps(data))
        yield Row(place=f"{name}[{index}]", data=data)


def _read_table(file: Path, name: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_FIELD)
    # Bytes that are no UTF-8 become lone surrogates, so that only the rows that hold them are bad.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        # strict: otherwise a quote that is never closed takes the rest of the file for one field, without a word.
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise DataError(f"{name}: the header cannot be read: {error}") from None
        if not header or len(set(header)) < len(header):
            raise DataError(f"{name}: the first line must name each column once, found {header}")
        while True:
            place = f"{name}:{reader.line_num + 1}"  # the line where the row begins; it may span several
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(place, RowProblem(f"not CSV: {error}; quote fields that hold quotes or line breaks, and double the quotes"))
                continue
            if cells:
                yield Row(place, _named_cells(header, cells))


def _named_cells(header: list[str], cells: list[str]) -> object:
    text = "\t".join(cells)
    if len(cells) != len(header):
        return RowProblem(f"number of fields: {len(cells)} were found, the header names {len(header)}", text)
    if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
        return RowProblem("not UTF-8: save the file as UTF-8", text)
    return dict(zip(header, cells, strict=True))


def _read_csv(file: Path, name: str) -> Iterator[Row]:
    return _read_table(file, name, ",")


def _read_tsv(file: Path, name: str) -> Iterator[Row]:
    return _read_table(file, name, "\t")


def _read_parquet(file: Path, name: str) -> Iterator[Row]:
    index = 0
    try:
        # Without pre_buffer, pages are read as they are needed; with it, a whole row group is held in memory.
        with pq.ParquetFile(file, memory_map=True, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                columns: list[dict[str, Any]] = batch.to_pylist()
                for data in columns:
                    yield Row(place=f"{name}[{index}]", data=data)
                    index += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: not readable as Parquet after {index} rows: {reason}; write the file anew") from None


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
