"""Columns of memory-mapped data sets, whatever their format and order of rows; lists in them stay there until they are read."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cot_records import cot, dataset
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from tract.data.arrow_columns import arrow_column, lists_at, numpy_column, values_at
from tract.data.tokens import TOKEN_FEATURES, TokenStore
from tract.inference.batching import batches_by_length
from tract.pipeline.stages.generate import prompts_at

LENGTHS = (3, 0, 1, 900, 2)


def token_store(path: Path, lengths: list[int]) -> TokenStore:
    """A memory-mapped store of prompts of these lengths; the ids of row r begin with r."""
    with ArrowWriter(features=TOKEN_FEATURES, path=str(path)) as writer:
        for first in range(0, len(lengths), 1000):
            part = lengths[first : first + 1000]
            numbers = [pa.array((np.arange(n) + row).astype(np.int32)) for row, n in enumerate(part, start=first)]
            offsets = pa.array(np.cumsum([0, *part]), pa.int32())
            columns = {
                "prompt_ids": pa.ListArray.from_arrays(offsets, pa.concat_arrays(numbers)),
                "id": pa.array([f"example-{row}" for row in range(first, first + len(part))]),
                "status": pa.array(["ok" if n else "dropped_overlong" for n in part]),
                "row": pa.array(range(first, first + len(part)), pa.int32()),
            }
            schema = TOKEN_FEATURES.arrow_schema
            arrays = [columns.get(field.name, pa.nulls(len(part), field.type)) for field in schema]
            writer.write_table(pa.table(dict(zip(schema.names, arrays, strict=True)), schema=schema))
        writer.finalize()
    return TokenStore(Dataset.from_file(str(path), in_memory=False).with_format("numpy"), {}, "f")


def test_a_column_is_read_whole_in_the_order_of_the_rows() -> None:
    found = dataset(*(cot(row, 0, f"text {row}") for row in range(3))).with_format("numpy").select([2, 0])
    assert arrow_column(found, "cot").to_pylist() == ["text 2", "text 0"]
    assert arrow_column(found, "cot_ids").type == pa.list_(pa.int32())
    rows = numpy_column(found, "row")
    assert (rows.dtype, rows.tolist()) == (np.int32, [2, 0])
    assert values_at(found, "cot", [1]) == ["text 0"]
    assert list(lists_at(found, "cot_ids", [1])[0]) == found[1]["cot_ids"].tolist()


def test_lists_are_sequences_of_plain_numbers(tmp_path: Path) -> None:
    tokens = token_store(tmp_path / "tokens.arrow", [*LENGTHS] * 500)  # more than one part of the file
    rows = [2499, 3, 0, 1, 1503]
    found = lists_at(tokens.dataset, "prompt_ids", rows)
    assert [len(numbers) for numbers in found] == [2, 900, 3, 0, 900]
    assert list(found[0]) == [2499, 2500]
    assert (*found[2], 7) == (0, 1, 2, 7)
    assert (found[4][0], found[4][-1], found[4][1:3]) == (1503, 2402, [1504, 1505])
    assert all(type(number) is int for number in found[0])
    assert 4 in found[1]
    assert not found[3]
    with pytest.raises(IndexError):
        found[3][0]
    with pytest.raises(IndexError):
        lists_at(tokens.dataset, "prompt_ids", [2500])


def test_values_of_some_rows(tmp_path: Path) -> None:
    tokens = token_store(tmp_path / "tokens.arrow", list(LENGTHS))
    assert values_at(tokens.dataset, "id", [4, 0]) == ["example-4", "example-0"]
    assert values_at(tokens.dataset, "status", (1, 2)) == ["dropped_overlong", "ok"]
    assert values_at(tokens.dataset, "id", []) == []


def test_prompts_leave_their_token_ids_on_the_disk(tmp_path: Path) -> None:
    """20,000 prompts of 900 tokens; as tuples they take 36 bytes a token."""
    tokens = token_store(tmp_path / "tokens.arrow", [900] * 20_000)
    prompts_at(tokens, [0])  # what is loaded once
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        prompts = prompts_at(tokens, list(range(20_000)))
        batches = batches_by_length(prompts, 32, 4)
        lengths = sum(len(prompt.prompt_ids) for batch in batches for prompt in batch)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lengths == 20_000 * 900
    assert (held + pa.total_allocated_bytes() - before) / 20_000 < 900  # bytes: less than one a token
    assert (prompts[-1].id, prompts[-1].row, prompts[-1].prompt_ids[0]) == ("example-19999", 19_999, 19_999)
