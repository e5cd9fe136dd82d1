"""Dirty data: each row of each file is accepted as an independent oracle says, or listed as rejected with its place and reason."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import dirty_oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dirty_oracle import MAPPING, Judged, Ledger, RefusedError
from dirty_rows import Place, feedback_row, write

from tract.data.sources import FeedbackCollection, MappedColumns, PrometheusEval, Source
from tract.data.store import ExampleStore, build_store
from tract.errors import DataError
from tract.schema import JudgeExample
from tract.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
SOURCES = ("feedback", "benchmark", "mapped")
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
ROWS = 90  # mutated rows of each source in each format, about


def source_of(kind: str, path: Path) -> Source:
    if kind == "feedback":
        return FeedbackCollection(str(path), "train")
    return PrometheusEval(str(path)) if kind == "benchmark" else MappedColumns(str(path), MAPPING)


def build(kind: str, path: Path, on_bad_row: str = "skip") -> ExampleStore:
    return build_store(source_of(kind, path), GRID, on_bad_row, True, path.parent / "cache")


def content(example: JudgeExample) -> Judged:
    rubric = example.rubric
    described = (None, ()) if rubric is None else (rubric.criteria, rubric.descriptions)
    text = (example.question_id, example.prompt, example.instruction, example.response, example.reference_answer, *described)
    return Judged(text, "", [(one.cot, one.score) for one in example.annotations], example.target_score, example.split)


def expected(kind: str, places: list[Place]) -> tuple[list[Judged], list[tuple[Place, str]], int, Counter[str]]:
    """Examples, rejected places with their category, annotations dropped as duplicates, and how the mutated rows fared."""
    ledger, rejected, fared = Ledger(), [], Counter[str]()
    for place in places:
        try:
            if isinstance(place.content, str):
                raise RefusedError(place.content)
            outcome = "accepted" if ledger.admit(getattr(dirty_oracle, kind)(place.content)) else "duplicate"
        except RefusedError as refused:
            rejected.append((place, str(refused)))
            outcome = "rejected"
        assert place.mutated or outcome == "accepted", place  # good rows are good
        fared[outcome] += place.mutated
    return list(ledger.examples.values()), rejected, ledger.duplicates, fared


def check(folder: Path, kind: str, suffix: str, count: int, seed: int) -> Counter[str]:
    """Builds a store of mutated and good rows, compares all of it with the oracle; returns how the mutated rows fared."""
    places = write(folder / "data", kind, suffix, count, seed)
    examples, rejected, duplicates, fared = expected(kind, places)
    store = build(kind, folder / "data")
    by_line = suffix not in ("json", "parquet")
    number = "line" if by_line else "row_index"
    found = [(entry["file"], entry[number]) for entry in store.rejected]
    assert found == [(place.file, place.number) for place, _ in rejected]
    for entry, (place, category) in zip(store.rejected, rejected, strict=True):
        assert entry["place"] == (f"{place.file}:{place.number}" if by_line else f"{place.file}[{place.number}]")
        named, colon, rest = entry["reason"].partition(": ")
        assert colon, entry
        assert rest, entry
        assert category in ("", named), (category, entry, place)
        assert "\n" not in entry["reason"]
        assert len(entry["reason"]) < 600
        assert len(entry["row"]) <= 200
    made = [content(store.example(index)) for index in range(len(store))]
    for example, wanted in zip(made, examples, strict=True):
        wanted.identity = ""
        assert example == wanted
    counts = store.counts
    assert counts["rows_read"] == len(places)
    assert counts["rows_rejected"] == len(rejected) == sum(counts["rejected_by_reason"].values())
    assert (counts["examples"], counts["annotations"]) == (len(examples), sum(len(one.annotations) for one in examples))
    assert counts["duplicates_dropped"] == duplicates
    with pytest.raises(DataError) as caught:
        build(kind, folder / "data", on_bad_row="raise")
    first = store.rejected[0]
    assert str(caught.value) == f"{first['place']}: {first['reason']} (set data.on_bad_row=skip to leave such rows out)"
    assert "\n" not in str(caught.value)
    return fared


def totals(folder: Path, count: int = ROWS, seed: int = 0) -> dict[str, Counter[str]]:
    """How the mutated rows of each format fared, all sources together."""
    return {suffix: sum((check(folder / suffix / kind, kind, suffix, count, seed) for kind in SOURCES), Counter()) for suffix in FORMATS}


def test_a_thousand_mutated_rows_are_accepted_as_valid_or_listed(tmp_path: Path) -> None:
    fared = totals(tmp_path)
    for suffix, counts in fared.items():
        print(f"{suffix}: {sum(counts.values())} mutated, {dict(counts)}")  # noqa: T201 - for the documents: pytest -s
        assert min(counts["accepted"], counts["rejected"]) > 20, suffix
    assert sum(counts.total() for counts in fared.values()) >= 1000
