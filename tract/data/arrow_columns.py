"""Columns of memory-mapped data sets, for work on a whole column at once."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray


def arrow_column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow; memory-mapped, not copied."""
    return dataset.with_format("arrow")[name][:]


def numpy_column(dataset: Dataset, name: str) -> NDArray[Any]:
    """A column of numbers."""
    values: NDArray[Any] = arrow_column(dataset, name).to_numpy()
    return values
