"""The Arrow file of validated examples: built once from a source, cached by content, read memory-mapped."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from tract.common import counts as in_words
from tract.common.durable import sync_folder, sync_tree
from tract.common.errors import ConfigError, DataError, TractError
from tract.data.arrow_columns import lengths_of, list_lengths
from tract.data.grouping import AnnotationGrouper
from tract.data.readers.fields import short_hash, shown
from tract.data.readers.rows import RawRow, RowProblem
from tract.data.records import FEATURES, from_record, to_record
from tract.data.sources.source import Source
from tract.data.stated_scores import how_stated, without_scores
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid
from tract.text.score_statement import RULES_VERSION

log = logging.getLogger(__name__)

STORE_VERSION = 5  # raise it when FEATURES, the rules of grouping or rejected.jsonl change: cached stores are then rebuilt
BATCH_EXAMPLES = 256  # examples of one Arrow record batch, held in memory while writing
SOURCE_FLAGS = ("equal_rows_are_votes", "ids_tell_apart", "rows_are_ratings")  # attributes of a source for the AnnotationGrouper
MAPPED_ROWS = 64 * BATCH_EXAMPLES  # rows whose pages may stay in memory while rows are grouped, about 100 MB
REJECTED_CHARACTERS = 200  # of a rejected row's content


@dataclass(frozen=True)
class ExampleStore:
    """The examples of one source, on disk.

    Attributes:
        folder: holds ``examples.arrow``, ``rejected.jsonl`` and ``store.json``.
        dataset: the Arrow rows (``FEATURES``), memory-mapped.
        counts: ``rows_read``, ``rows_rejected``, ``rejected_by_reason`` (category -> rows), ``examples``, ``annotations``,
            ``ratings`` (scores without a text), ``equal_rows_kept`` (annotations and ratings that are equal to one of an earlier row, and
            count as those of other raters), ``duplicates_dropped`` (annotations, ratings, or rows without either, that the same prompt
            had already), ``scores_in_cots`` (how the CoTs stated their scores, see ``stated_scores.how_stated`` -> annotations; what was
            stated is cut).
        fingerprint: SHA-256 (hex) over the source and the options that made the store.
    """

    folder: Path
    dataset: Dataset
    counts: dict[str, Any]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def rejected_path(self) -> Path:
        """The file with one JSON object per rejected row.

        Its keys: ``place``; the same in parts, ``file`` and ``line`` (from 1; of CSV and TSV the line where the row begins), or
        ``file`` and ``row_index`` (from 0; JSON lists and Parquet); ``reason``; and ``row``, the beginning of the row.
        """
        return self.folder / "rejected.jsonl"

    @property
    def rejected(self) -> list[dict[str, Any]]:
        """The rejected rows, as ``rejected_path`` lists them."""
        return [json.loads(line) for line in self.rejected_path.read_text(encoding="utf-8").splitlines()]

    def example(self, index: int) -> JudgeExample:
        """The example at ``index``."""
        return from_record(self.dataset[index])

    def questions(self) -> list[str]:
        """The question id of each example; reads that column alone."""
        return list(self.dataset.data.column("question_id").to_pylist())

    def scores_by_rater(self) -> list[list[tuple[str | None, float]]]:
        """(rater, score in points) of each annotation and rating, for the examples with two or more; reads none of the CoTs."""
        columns = [self.dataset.data.column(name) for name in ("annotations", "ratings")]
        sizes = [lengths_of(column) for column in columns]
        several = sizes[0] + sizes[1] >= 2
        found: list[list[tuple[str | None, float]]] = [[] for _ in range(int(several.sum()))]
        place = np.cumsum(several) - 1
        for column, size in zip(columns, sizes, strict=True):
            kept = pa.array(np.repeat(several, size))
            given = pc.list_flatten(column)
            raters, scores = (pc.struct_field(given, part).filter(kept).to_pylist() for part in ("rater", "score"))
            for example, rater, score in zip(np.repeat(place[several], size[several]).tolist(), raters, scores, strict=True):
                found[example].append((rater, score))
        return found

    def n_ratings(self, rows: Sequence[int]) -> int:
        """How many scores without a CoT the given examples have in all."""
        return int(list_lengths(self.dataset, "ratings")[np.asarray(rows, dtype=np.int64)].sum())

    def fixed_splits(self) -> list[str | None]:
        """The split that the source assigns to each example, or None; reads that column alone."""
        return list(self.dataset.data.column("split").to_pylist())


def build_store(
    source: Source, grid: ScoreGrid, on_bad_row: str, group_annotations: bool, cache_dir: Path, *, cue: str | None
) -> ExampleStore:
    """The validated examples of a source, from the cache if they are there, else built with flat memory.

    Safe to call from several processes at once: each builds in its own folder, and the first to finish is kept.

    Args:
        source: yields the rows.
        grid: the scores that annotations may have.
        on_bad_row: "raise" ends at the first row that cannot be used; "skip" lists such rows in ``rejected.jsonl``.
        group_annotations: group rows with the same prompt into one example with several annotations, in file order.
        cache_dir: the store is kept in ``examples-<key>`` below it.
        cue: the answer cue; CoTs are cut where they state their score, by it or in other words. None: they are not cut.

    Raises:
        ConfigError: if ``on_bad_row`` is unknown.
        DataError: if the source cannot be read, a row cannot be used and ``on_bad_row`` is "raise", or no row can be used.
    """
    if on_bad_row not in ("raise", "skip"):
        raise ConfigError(f"data.on_bad_row: {on_bad_row!r} is unknown; raise or skip are accepted")
    cut_by = None if cue is None else [cue.strip(), RULES_VERSION]
    fingerprint = short_hash(source.fingerprint(), grid.labels, on_bad_row, group_annotations, STORE_VERSION, cut_by, length=64)
    folder = _store_folder(fingerprint, cache_dir)
    if (store := _open_store(folder, fingerprint)) is not None:
        log.debug("%s: %d examples from the cache, %s", source.describe(), len(store), folder)
        return store
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        started = time.monotonic()
        counts = _write(partial, source, grid, on_bad_row, group_annotations, cue)
        (partial / "store.json").write_text(json.dumps({"fingerprint": fingerprint, "counts": counts}, indent=2) + "\n", encoding="utf-8")
        sync_tree(partial)
        store = _publish(partial, folder, fingerprint)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: %s; %.1f s, kept in %s", source.describe(), in_words.rows(counts), time.monotonic() - started, folder)
    return store


def cached_store(fingerprint: str, cache_dir: Path) -> ExampleStore | None:
    """The store with a fingerprint, as ``build_store`` left it in the cache; None if it is not there."""
    return _open_store(_store_folder(fingerprint, cache_dir), fingerprint)


def _store_folder(fingerprint: str, cache_dir: Path) -> Path:
    return Path(cache_dir) / f"examples-{fingerprint[:16]}"


def _open_store(folder: Path, fingerprint: str) -> ExampleStore | None:
    """The store in a folder, or None if it is absent, half-written or damaged."""
    if not folder.exists():
        return None
    try:
        content = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        dataset = Dataset.from_file(str(folder / "examples.arrow"), in_memory=False)
        complete = content["fingerprint"] == fingerprint and content["counts"]["examples"] == len(dataset)
        if complete and dataset.features == FEATURES and (folder / "rejected.jsonl").is_file():
            return ExampleStore(folder, dataset, content["counts"], fingerprint)
        reason = "its parts do not fit together"
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {error}"
    log.warning("%s is not complete (%s) and is built anew", folder, reason)
    return None


def _publish(partial: Path, folder: Path, fingerprint: str) -> ExampleStore:
    """Moves a finished store to its place, unless another process has put a complete one there in the meantime."""
    for _ in range(3):  # further processes may be replacing the same damaged folder
        with contextlib.suppress(OSError):  # there is a folder that is not empty
            partial.rename(folder)
        sync_folder(folder.parent)
        if (store := _open_store(folder, fingerprint)) is not None:
            return store
        # Moved aside before it is deleted, so that no process finds half of it.
        aside = partial.with_name(f"{partial.name}.damaged")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise DataError(f"{folder}: the store just written there cannot be read back; check the disk that holds the cache")


def _write(folder: Path, source: Source, grid: ScoreGrid, on_bad_row: str, group_annotations: bool, cue: str | None) -> dict[str, Any]:
    """Writes ``examples.arrow`` and ``rejected.jsonl``; returns the counts."""
    stated: Counter[str] = Counter()
    grouper = AnnotationGrouper(group_annotations, *(getattr(source, name, False) for name in SOURCE_FLAGS))
    with (folder / "rejected.jsonl").open("w", encoding="utf-8") as stream:
        rejections = _Rejections(stream, on_bad_row)
        n_written = _write_arrow(folder / "rows.arrow", _valid_records(source, grid, cue, grouper, rejections, stated))
    if rejections.rows_read == 0:
        raise DataError(f"data.path: {source.describe()}: no rows were found; check that the path holds data")
    if n_written == 0:
        raise DataError(f"data.path: {source.describe()}: all {rejections.rows_read} rows were rejected; the first: {rejections.first}")
    groups = grouper.final_groups()
    if max(groups) + 1 == n_written:  # every row is an example
        (folder / "rows.arrow").rename(folder / "examples.arrow")
        n_examples = n_written
    else:
        n_examples = _write_arrow(folder / "examples.arrow", _grouped_records(folder / "rows.arrow", groups))
        (folder / "rows.arrow").unlink()
    return {
        "rows_read": rejections.rows_read,
        "rows_rejected": rejections.by_reason.total(),
        "rejected_by_reason": dict(sorted(rejections.by_reason.items())),
        "examples": n_examples,
        "annotations": grouper.n_annotations,
        "ratings": grouper.n_ratings,
        "equal_rows_kept": grouper.n_equal_votes,
        "duplicates_dropped": grouper.n_duplicates,
        "scores_in_cots": dict(sorted(stated.items())),
    }


class _Rejections:
    """Applies ``on_bad_row``: raises at the first row that cannot be used, or lists such rows in a file."""

    def __init__(self, stream: TextIO, on_bad_row: str) -> None:
        self.rows_read = 0
        self.by_reason: Counter[str] = Counter()
        self.first = ""
        self._raise = on_bad_row == "raise"
        self._stream = stream

    def add(self, row: RawRow, reason: str) -> None:
        """Rejects a row.

        Raises:
            DataError: if no row may be rejected.
        """
        if self._raise:
            raise DataError(f"{row.place}: {reason} (set data.on_bad_row=skip to leave such rows out)")
        self.first = self.first or f"{row.place}: {reason}"
        self.by_reason[reason.split(":", 1)[0][:60]] += 1
        entry = {"place": row.place, **row.location(), "reason": reason, "row": _row_excerpt(row.data)}
        self._stream.write(json.dumps(entry) + "\n")  # ASCII escapes, because rejected rows may hold what UTF-8 cannot


def _row_excerpt(data: object) -> str:
    """The first characters of a rejected row, as JSON where it could be read; a huge or deep row is not written out for them."""
    if isinstance(data, RowProblem):
        return data.text[:REJECTED_CHARACTERS]
    written = ""
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, default=repr).iterencode(data):
            written += piece
            if len(written) >= REJECTED_CHARACTERS:
                break
    except (TypeError, ValueError, RecursionError):  # keys that are no text, numbers of thousands of digits
        written = shown(data, REJECTED_CHARACTERS)
    return written[:REJECTED_CHARACTERS]


def _valid_records(
    source: Source, grid: ScoreGrid, cue: str | None, grouper: AnnotationGrouper, rejections: _Rejections, stated: Counter[str]
) -> Iterator[dict[str, Any]]:
    for row in source.rows():
        rejections.rows_read += 1
        try:
            if isinstance(row.data, RowProblem):
                raise ValueError(row.data.reason)
            written = source.to_example(row, grid)
            example = grouper.admit(written if cue is None else without_scores(written, cue))
        except TractError:  # no fault of this row
            raise
        except ValueError as error:
            rejections.add(row, str(error))
            continue
        if example is not None:
            stated.update(how_stated(example))
            yield to_record(example)


def _grouped_records(path: Path, groups: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of a file with those of the same group made one, in the order in which the groups first occur."""
    order = np.argsort(np.asarray(groups), kind="stable")  # stable: annotations stay in file order
    for _, members in groupby(_records_by_index(path, order), key=lambda item: groups[item[0]]):
        same_prompt = [record for _, record in members]
        grouped = {name: [one for record in same_prompt for one in record[name]] for name in ("annotations", "ratings")}
        yield {**same_prompt[0], **grouped}


def _records_by_index(path: Path, order: NDArray[np.intp]) -> Iterator[tuple[int, dict[str, Any]]]:
    for start in range(0, len(order), BATCH_EXAMPLES):
        if start % MAPPED_ROWS == 0:  # a new mapping lets go of the pages of the last one
            rows = Dataset.from_file(str(path), in_memory=False).with_format("arrow")
        chunk = order[start : start + BATCH_EXAMPLES].tolist()
        yield from zip(chunk, rows[chunk].to_pylist(), strict=True)


def _write_arrow(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Writes records to an Arrow file, a batch at a time; returns their number."""
    batch: list[dict[str, Any]] = []
    with ArrowWriter(features=FEATURES, path=str(path)) as writer:
        for record in records:
            batch.append(record)
            if len(batch) == BATCH_EXAMPLES:
                writer.write_table(pa.Table.from_pylist(batch, schema=FEATURES.arrow_schema))
                batch.clear()
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=FEATURES.arrow_schema))
        n_written, _ = writer.finalize()
    return int(n_written)
