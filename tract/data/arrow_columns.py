"""Columns of memory-mapped data sets, for work on a whole column at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray


def arrow_column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow; memory-mapped, not copied."""
    return dataset.with_format("arrow")[name][:]


def numpy_column(dataset: Dataset, name: str) -> NDArray[Any]:
    """A column of numbers."""
    values: NDArray[Any] = arrow_column(dataset, name).to_numpy()
    return values


def list_lengths(dataset: Dataset, name: str) -> NDArray[np.int64]:
    """[N] int64: the length of each list of a column, read from its offsets without the content."""
    return lengths_of(arrow_column(dataset, name))


def lengths_of(lists: pa.ListArray | pa.ChunkedArray) -> NDArray[np.int64]:
    """[N] int64: the length of each list."""
    return np.asarray(pc.list_value_length(lists), dtype=np.int64)


def first_true(mask: NDArray[np.bool_]) -> int | None:
    """The first place where a mask [N] holds, or None."""
    return int(np.argmax(mask)) if mask.any() else None


def values_at(dataset: Dataset, name: str, rows: Sequence[int]) -> list[Any]:
    """The values of a column in the given rows; no other column is read."""
    values: list[Any] = arrow_column(dataset, name).take(pa.array(rows, pa.int64())).to_pylist()
    return values


class StoredNumbers(Sequence[int]):
    """The whole numbers of one row of a column of lists, which stay in the data set until they are read."""

    __slots__ = ("_column", "_length", "_row")

    def __init__(self, column: pa.ChunkedArray, row: int, length: int) -> None:
        self._column = column
        self._row = row
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self._read())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._read()[index]

    def _read(self) -> list[int]:
        numbers: list[int] = self._column[self._row].values.to_numpy().tolist()
        return numbers


def lists_at(dataset: Dataset, name: str, rows: Sequence[int]) -> list[StoredNumbers]:
    """The lists of a column in the given rows, each read when it is used; their lengths are known."""
    column = arrow_column(dataset, name)
    lengths = lengths_of(column)
    return [StoredNumbers(column, row, int(lengths[row])) for row in rows]
