"""Whole columns of memory-mapped data sets, whatever their format and order of rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from cot_records import cot, dataset

from tract.data.arrow_columns import arrow_column, numpy_column


def test_a_column_is_read_whole_in_the_order_of_the_rows() -> None:
    found = dataset(*(cot(row, 0, f"text {row}") for row in range(3))).with_format("numpy").select([2, 0])
    assert arrow_column(found, "cot").to_pylist() == ["text 2", "text 0"]
    assert arrow_column(found, "cot_ids").type == pa.list_(pa.int32())
    rows = numpy_column(found, "row")
    assert (rows.dtype, rows.tolist()) == (np.int32, [2, 0])
