"""Writing of graded files: the input's rows and columns as they were, with the grades beside; whole or not at all."""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from tract.apps.grading.graded import COLUMNS, TYPES
from tract.apps.grading.scan import FileFacts, numbered_rows
from tract.common.containers import not_finite_in
from tract.common.durable import sync_folder, write_atomically
from tract.data.readers.fields import WrittenNumber
from tract.data.readers.rows import RowProblem, UnreadableCell

# Rows of Parquet that are in memory at once.
BATCH_ROWS = 1024

Records = Iterator[dict[str, Any]]


class Losses(Protocol):
    """Counts the values of the input that the output's format cannot hold."""

    not_finite: int
    unreadable: int


def write_output(facts: FileFacts, limit: int | None, out: Path, records: Records, losses: Losses) -> None:
    """Writes the graded file; its suffix says the format.

    Args:
        facts: of the input. limit: the most rows of it. records: the graded columns of each row, in order.
        losses: is told of values that become null: NaN and infinity in JSON, cells that cannot be read.
    """
    whole = ({name: record.get(name) for name in COLUMNS} for record in records)  # a journal may be of before a column
    with write_atomically(out, concurrent=True) as temporary:
        OUTPUTS[out.suffix.lower()](facts, limit, temporary, whole, losses)
    sync_folder(out.absolute().parent)


def _graded_rows(facts: FileFacts, limit: int | None, records: Records) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """(columns of the input, graded columns) of each row; a row that could not be read has no columns."""
    for (_, row), record in zip(numbered_rows(facts.path, limit), records, strict=True):
        yield {} if isinstance(row.data, RowProblem) else _mapping(row.data), record


def _mapping(data: object) -> Mapping[str, Any]:
    assert isinstance(data, Mapping)
    return data


def _write_jsonl(facts: FileFacts, limit: int | None, path: Path, records: Records, losses: Losses) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for cells, record in _graded_rows(facts, limit, records):
            content = {**_finite(cells, losses), **record}
            line = json.dumps(content, ensure_ascii=False, allow_nan=False, default=_json_form)
            try:
                file.write(f"{line}\n")
            except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write in ASCII alone
                file.write(f"{json.dumps(content, allow_nan=False, default=_json_form)}\n")


def _finite(cells: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The cells with null for what JSON has no number or text for."""
    found = _without_unreadable(cells, losses)
    if not any(True for _ in not_finite_in(found)):
        return found

    def null_if_not_finite(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            losses.not_finite += 1
            return None
        if isinstance(value, dict):
            return {name: null_if_not_finite(inner) for name, inner in value.items()}
        return [null_if_not_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    return {name: null_if_not_finite(value) for name, value in found.items()}


def _without_unreadable(cells: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The cells with None for those that could not be read."""
    lost = [name for name, value in cells.items() if isinstance(value, UnreadableCell)]
    losses.unreadable += len(lost)
    return {**cells, **dict.fromkeys(lost)}


def _write_csv(facts: FileFacts, limit: int | None, path: Path, records: Records, losses: Losses) -> None:
    columns = list(facts.kinds)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(_LineFeedRows(file))
        writer.writerow([*map(_encodable, columns), *COLUMNS])
        for cells, record in _graded_rows(facts, limit, records):
            known = _without_unreadable(cells, losses)
            writer.writerow([*(_csv_text(known.get(name)) for name in columns), *(_csv_text(record[name]) for name in COLUMNS)])


class _LineFeedRows:
    """Ends rows in a line feed, while the writer ends them in two characters, so that it quotes fields that hold either."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Writes a row."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _csv_text(value: Any) -> str:
    """A value in CSV: text as it is, nothing for null, else JSON."""
    if value is None:
        return ""
    if isinstance(value, WrittenNumber):
        return value.written
    if not isinstance(value, (str, bool, int, float, list, tuple, dict)):
        value = _json_form(value)
    return _encodable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_json_form))


def _encodable(text: str) -> str:
    """The text with an escape for half of a surrogate pair, which no UTF-8 file can hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _json_form(value: Any) -> Any:
    """What JSON has no form for: times as ISO text, decimals as they are written, bytes as base64."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, (decimal.Decimal, datetime.timedelta)) else repr(value)


def _write_parquet(facts: FileFacts, limit: int | None, path: Path, records: Records, losses: Losses) -> None:
    if facts.is_parquet:
        _extend_parquet(facts, limit, path, records)
        return
    types = {name: _type_of(kinds) for name, kinds in facts.kinds.items()}
    schema = pa.schema([*((_encodable(name), kind) for name, kind in types.items()), *TYPES.items()])
    rows = _graded_rows(facts, limit, records)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            cells = [[_parquet_value(own.get(name), kind) for own, _ in batch] for name, kind in types.items()]
            arrays = [pa.array(column, kind) for column, kind in zip(cells, types.values(), strict=True)]
            writer.write_table(pa.Table.from_arrays([*arrays, *_graded([record for _, record in batch])], schema=schema))


def _extend_parquet(facts: FileFacts, limit: int | None, path: Path, records: Records) -> None:
    """Batch by batch, so that the input's columns are not even decoded to Python."""
    left = facts.rows
    with pq.ParquetFile(facts.path, memory_map=True, pre_buffer=False) as source:
        schema = source.schema_arrow
        # What pandas wrote about its index still holds, so the metadata stay.
        schema = pa.schema([*schema, *(pa.field(name, kind) for name, kind in TYPES.items())], metadata=schema.metadata)
        with pq.ParquetWriter(path, schema) as writer:
            for batch in source.iter_batches(batch_size=BATCH_ROWS):
                batch = batch.slice(0, min(left, batch.num_rows))
                left -= batch.num_rows
                if batch.num_rows:
                    graded = _graded(list(islice(records, batch.num_rows)))
                    writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *graded], schema=schema))
    assert not left, "the file has as many rows as its footer says"
    assert next(records, None) is None, "the journal has a record for each row"


def _graded(records: list[dict[str, Any]]) -> list[pa.Array]:
    columns = {name: [record[name] for record in records] for name in COLUMNS}
    columns["judge_distribution"] = [list(distribution.items()) for distribution in columns["judge_distribution"]]
    return [pa.array(column, TYPES[name]) for name, column in columns.items()]


def _type_of(kinds: frozenset[str]) -> pa.DataType:
    """The type of a column with values of these kinds; text where they have none in common."""
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"whole", "large"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"whole", "number"} else pa.string()


def _parquet_value(value: Any, kind: pa.DataType) -> Any:
    return _csv_text(value) if value is not None and pa.types.is_string(kind) else value


_Writer = Callable[[FileFacts, "int | None", Path, Records, Losses], None]
OUTPUTS: dict[str, _Writer] = {".jsonl": _write_jsonl, ".ndjson": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
