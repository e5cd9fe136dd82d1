"""CoTs that a judge generated: their file, the true scores that are attached to them, and the check of their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from numpy.typing import NDArray

from tract.common.durable import write_atomically
from tract.common.errors import DataError
from tract.data.arrow_columns import arrow_column, numpy_column

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
        "finish": Value(
            "string"
        ),  # "cue": the answer cue; "score": another statement of the score; "end": end of turn without it; "length": token limit
        "score": Value("float32"),  # the true score that is attached, in points
        "score_index": Value("int32"),  # its place in the grid
        "probabilities": List(Value("float32")),  # of the scores of the grid, after this CoT
        "rail": Value("float32"),  # the judge's own mean score after this CoT, in points
        "score_mass": Value("float32"),
    }
)


def attached_score(example_annotations_score_index: Sequence[int], example_id: str, sample: int) -> int:
    """The place in the grid of the true score that is attached to a generated CoT.

    Where an example has several annotations, sample k gets that of annotation (k + hash of the id) modulo their number, so
    all annotations are used evenly over the data. The squared error has, in expectation over the annotations, the same
    gradient as against their mean: E[2 (p - y)] = 2 (p - E[y]).

    Args:
        example_annotations_score_index: for each annotation, the place of its score in the grid.
        example_id: the same on every machine gives the same.
        sample: number of the CoT, from 0.

    Raises:
        DataError: if the example has no annotation.
    """
    n_annotations = len(example_annotations_score_index)
    if n_annotations == 0:
        raise DataError(f"example {example_id}: has no annotation, so its CoTs have no true score; leave it out of the generation")
    start = int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:8], "big")
    return int(example_annotations_score_index[(start + sample) % n_annotations])


def write_cots(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes generated CoTs to a Parquet file, a batch at a time; the file appears when it is whole.

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
        for table in _checked((pa.RecordBatch.from_pylist(chunk, schema=schema) for chunk in chunks), path):
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
        for table in _checked(parquet.iter_batches(BATCH_COTS), path):
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


def _checked(batches: Iterable[pa.RecordBatch], path: Path) -> Iterator[pa.Table]:
    """The batches with the types of ``COT_FEATURES``, without empty values or unknown finishes, ascending by (row, sample)."""
    last, n_before = (-1, -1), 0
    for batch in batches:
        columns = [_typed(batch.column(name), name, n_before, path) for name in COT_FEATURES]
        table = pa.table(columns, schema=COT_FEATURES.arrow_schema)
        known = pc.is_in(table["finish"], value_set=pa.array(FINISHES)).to_numpy()
        if not known.all():
            place = int(np.flatnonzero(~known)[0])
            found = table["finish"][place].as_py()
            raise DataError(f"{path}: finish of row {n_before + place} is {found!r}; accepted are {', '.join(FINISHES)}")
        rows = np.concatenate([[last[0]], table["row"].to_numpy()])
        samples = np.concatenate([[last[1]], table["sample"].to_numpy()])
        ascends = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (samples[1:] > samples[:-1]))
        if not (ascends & (samples[1:] >= 0)).all():
            place = int(np.flatnonzero(~(ascends & (samples[1:] >= 0)))[0])
            raise DataError(
                f"{path}: row {n_before + place} (row={rows[place + 1]}, sample={samples[place + 1]}) follows (row={rows[place]}, "
                f"sample={samples[place]}); one row per (row, sample), ascending, is accepted; sort them and leave out repeated ones"
            )
        last, n_before = (int(rows[-1]), int(samples[-1])), n_before + len(table)
        yield table


def _typed(column: pa.Array, name: str, n_before: int, path: Path) -> pa.Array:
    """A column with the type of ``COT_FEATURES``."""
    accepted = COT_FEATURES.arrow_schema.field(name).type
    if column.null_count:
        place = n_before + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{path}: {name} of row {place} has no value; a value of type {accepted} is accepted in every row")
    try:
        return column.cast(accepted)
    except pa.ArrowException as error:
        raise DataError(f"{path}: column {name} has the type {column.type}; {accepted} is accepted; generate the CoTs anew") from error


def check_splits(cots: Dataset, rows_by_split: Mapping[str, Sequence[int]]) -> None:
    """Checks that every example is in the split in which its CoTs were generated; so no validation question enters training.

    Args:
        cots: generated CoTs.
        rows_by_split: all examples of each split, as ``split_questions`` gives them: before any limit, usable or not.

    Raises:
        DataError: if an example is in another split now.
    """
    rows, splits = numpy_column(cots, "row"), arrow_column(cots, "split")
    for split in pc.unique(splits).to_pylist():
        wrong = pc.equal(splits, split).to_numpy() & ~np.isin(rows, np.asarray(rows_by_split.get(split, ()), dtype=np.int64))
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            now = [name for name, members in rows_by_split.items() if rows[place] in members]
            _refuse_split(cots, place, f"is in {now[0]!r} now" if now else "is in no split now")


def check_training(cots: Dataset, train_rows: Sequence[int] | NDArray[np.integer[Any]]) -> None:
    """Checks that the CoTs of the training rows, and no others, were generated as training data.

    Args:
        cots: generated CoTs.
        train_rows: all rows of the training split, before any limit.

    Raises:
        DataError: if a CoT was generated for the training split and its example is not in it now, or the reverse.
    """
    labelled = pc.equal(arrow_column(cots, "split"), "train").to_numpy()
    wrong = labelled != np.isin(numpy_column(cots, "row"), np.asarray(train_rows, dtype=np.int64))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        _refuse_split(cots, place, "is not in 'train' now" if labelled[place] else "is in 'train' now")


def _refuse_split(cots: Dataset, place: int, now: str) -> None:
    cot = cot_at(cots, place)
    raise DataError(
        f"{COTS_FILE}: the CoTs of example {cot['id']} were generated for {cot['split']!r}, but it {now}; set data.split_seed, the "
        "fractions and the data as they were, or generate the CoTs anew"
    )


def cot_at(cots: Dataset, place: int) -> dict[str, Any]:
    """The id, split, sample and text of a CoT."""
    found: dict[str, Any] = cots.select_columns(["id", "split", "sample", "cot"]).with_format(None)[place]
    return found
