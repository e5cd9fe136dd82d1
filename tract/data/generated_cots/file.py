"""The file of the CoTs that a judge generated, and the true scores that are attached to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock

from tract.common.durable import write_atomically
from tract.common.errors import DataError
from tract.data.arrow_columns import first_true

BATCH_COTS = 1024  # CoTs held in memory while a file is written or read
COTS_FILE = "cots.parquet"  # in the folder of a generate stage
FINISHES = ("cue", "score", "end", "length")

COT_FEATURES = Features(
    {
        "row": Value("int32"),  # row of the example in the example store, which is its row in the token store
        "id": Value("string"),
        "split": Value("string"),  # of the example, when the CoT was generated
        "sample": Value("int32"),  # 0..n-1
        "cot_ids": List(Value("int32")),
        "cot": Value("large_string"),
        # "cue": the answer cue; "score": another statement of the score; "end": end of turn without either; "length": token limit
        "finish": Value("string"),
        "score": Value("float32"),  # the true score that is attached, in points
        "score_index": Value("int32"),  # its index in the grid
        "probabilities": List(Value("float32")),  # of the scores of the grid, after this CoT
        "rail": Value("float32"),  # the judge's own mean score after this CoT, in points
        "score_mass": Value("float32"),
    }
)


def attached_score(score_index: Sequence[int], example_id: str, sample: int) -> int:
    """The index in the grid of the true score that is attached to a generated CoT.

    Where an example has several annotations, sample k gets that of annotation (k + hash of the id) modulo their number, so
    all annotations are used evenly over the data. The squared error has, in expectation over the annotations, the same
    gradient as against their mean: E[2 (p - y)] = 2 (p - E[y]).

    Args:
        score_index: for each annotation, the index of its score in the grid.
        example_id: the result depends on it in the same way on every machine.
        sample: number of the CoT, from 0.

    Raises:
        DataError: if the example has no annotation.
    """
    n_annotations = len(score_index)
    if n_annotations == 0:
        raise DataError(f"example {example_id}: has no annotation, so its CoTs have no true score; leave it out of the generation")
    start = int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:8], "big")
    return int(score_index[(start + sample) % n_annotations])


def write_cots(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes generated CoTs to a Parquet file, a batch at a time; the file is complete or absent.

    Args:
        path: the file.
        records: values of all columns of ``COT_FEATURES``, ascending by (row, sample).

    Raises:
        DataError: if a record lacks a value, or the records do not ascend.
    """
    schema = COT_FEATURES.arrow_schema
    iterator = iter(records)
    with write_atomically(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        chunks = iter(lambda: list(islice(iterator, BATCH_COTS)), [])
        for table in _checked_tables((pa.RecordBatch.from_pylist(chunk, schema=schema) for chunk in chunks), path):
            writer.write_table(table)


def read_cots(path: Path, cache_dir: Path, fingerprint: str | None = None) -> Dataset:
    """Generated CoTs, memory-mapped: the Parquet file is unpacked once to ``cots-<content>.arrow`` in the cache.

    Args:
        path: a file that ``write_cots`` made; rows may have been taken out of it.
        cache_dir: holds the unpacked file. fingerprint: that of ``cots_fingerprint``, where it is known.

    Raises:
        DataError: if there is no such file, or its columns, values or order are not those of ``COT_FEATURES``.
    """
    unpacked = cache_dir / f"cots-{(fingerprint or cots_fingerprint(path))[:16]}.arrow"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{unpacked}.lock"):
        if not unpacked.is_file():
            try:
                with write_atomically(unpacked) as partial:
                    _unpack(path, partial)
            except pa.ArrowException as error:
                raise DataError(f"{path}: is no readable Parquet file ({' '.join(str(error).split())}); generate the CoTs anew") from error
    return Dataset.from_file(str(unpacked), in_memory=False)


def _unpack(path: Path, arrow: Path) -> None:
    with ArrowWriter(features=COT_FEATURES, path=str(arrow)) as writer, pq.ParquetFile(path) as parquet:
        _check_columns(parquet.schema_arrow, path)
        for table in _checked_tables(parquet.iter_batches(BATCH_COTS), path):
            writer.write_table(table)
        writer.finalize()


def cots_fingerprint(path: Path) -> str:
    """SHA-256 (hex) over the content of a file of generated CoTs.

    Raises:
        DataError: if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run the stage that generates CoTs first")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_columns(schema: pa.Schema, path: Path) -> None:
    if missing := [name for name in COT_FEATURES if name not in schema.names]:
        raise DataError(
            f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(schema.names) or 'none'}; generate the CoTs anew"
        )
    if strangers := [name for name in schema.names if name not in COT_FEATURES]:
        raise DataError(f"{path}: has unknown columns {', '.join(strangers)}; accepted are {', '.join(COT_FEATURES)}")


def _checked_tables(batches: Iterable[pa.RecordBatch], path: Path) -> Iterator[pa.Table]:
    """The batches with the types of ``COT_FEATURES``, without empty values or unknown finishes, ascending by (row, sample)."""
    last, n_before = (-1, -1), 0
    for batch in batches:
        columns = [_cast_column(batch.column(name), name, n_before, path) for name in COT_FEATURES]
        table = pa.table(columns, schema=COT_FEATURES.arrow_schema)
        known = pc.is_in(table["finish"], value_set=pa.array(FINISHES)).to_numpy()
        if (place := first_true(~known)) is not None:
            found = table["finish"][place].as_py()
            raise DataError(f"{path}: finish of row {n_before + place} is {found!r}; accepted are {', '.join(FINISHES)}")
        rows = np.concatenate([[last[0]], table["row"].to_numpy()])
        samples = np.concatenate([[last[1]], table["sample"].to_numpy()])
        ascends = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (samples[1:] > samples[:-1]))
        if (place := first_true(~ascends | (samples[1:] < 0))) is not None:
            raise DataError(
                f"{path}: row {n_before + place} (row={rows[place + 1]}, sample={samples[place + 1]}) follows (row={rows[place]}, "
                f"sample={samples[place]}); one row per (row, sample), ascending, is accepted; sort them and leave out repeated ones"
            )
        last, n_before = (int(rows[-1]), int(samples[-1])), n_before + len(table)
        yield table


def _cast_column(column: pa.Array, name: str, n_before: int, path: Path) -> pa.Array:
    """A column with the type of ``COT_FEATURES``."""
    accepted = COT_FEATURES.arrow_schema.field(name).type
    if (place := first_true(column.is_null().to_numpy(zero_copy_only=False))) is not None:
        raise DataError(f"{path}: {name} of row {n_before + place} has no value; a value of type {accepted} is accepted in every row")
    try:
        return column.cast(accepted)
    except pa.ArrowException as error:
        raise DataError(f"{path}: column {name} has the type {column.type}; {accepted} is accepted; generate the CoTs anew") from error
