"""Checks that generated CoTs belong to the data: to these examples, scores and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from tract.common.errors import DataError
from tract.data.arrow_columns import arrow_column, first_true, numpy_column
from tract.data.generated_cots.file import COTS_FILE
from tract.data.tokens import TokenStore
from tract.text.score_grid import ScoreGrid


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
        moved = pc.equal(splits, split).to_numpy() & ~np.isin(rows, np.asarray(rows_by_split.get(split, ()), dtype=np.int64))
        if (place := first_true(moved)) is not None:
            now = [name for name, members in rows_by_split.items() if rows[place] in members]
            raise _moved(cots, place, f"is in {now[0]!r} now" if now else "is in no split now")


def check_training(cots: Dataset, train_rows: Sequence[int] | NDArray[np.integer[Any]]) -> None:
    """Checks that the CoTs of the training rows, and no others, were generated as training data.

    Args:
        cots: generated CoTs.
        train_rows: all rows of the training split, before any limit.

    Raises:
        DataError: if a CoT was generated for the training split and its example is not in it now, or the reverse.
    """
    labelled = pc.equal(arrow_column(cots, "split"), "train").to_numpy()
    moved = labelled != np.isin(numpy_column(cots, "row"), np.asarray(train_rows, dtype=np.int64))
    if (place := first_true(moved)) is not None:
        raise _moved(cots, place, "is not in 'train' now" if labelled[place] else "is in 'train' now")


def _moved(cots: Dataset, place: int, now: str) -> DataError:
    cot = cot_at(cots, place)
    return DataError(
        f"{COTS_FILE}: the CoTs of example {cot['id']} were generated for {cot['split']!r}, but it {now}; set data.split_seed, the "
        "fractions and the data as they were, or generate the CoTs anew"
    )


def check_examples(cots: Dataset, tokens: TokenStore) -> None:
    """Checks that the row of each CoT holds the example that it was generated for.

    Raises:
        DataError: if it holds another one, or there is no such row.
    """
    rows = numpy_column(cots, "row")
    exists = rows < len(tokens.dataset)
    ids = arrow_column(tokens.dataset, "id").combine_chunks()
    found = ids.take(pa.array(np.where(exists, rows, 0)))
    same = pc.equal(found, arrow_column(cots, "id").combine_chunks()).to_numpy(zero_copy_only=False)
    if (place := first_true(~(exists & same))) is not None:
        row = int(rows[place])
        now = f"is example {ids[row]}" if exists[place] else f"is beyond the {len(ids)} examples"
        raise DataError(
            f"{COTS_FILE}: row {row} is example {cot_at(cots, place)['id']}, but {now} in the data now; set data.source and "
            "data.group_annotations as they were, or generate the CoTs anew"
        )


def check_scores(cots: Dataset, grid: ScoreGrid) -> None:
    """Checks that the score of each CoT has the place in the grid that was stored with it.

    Raises:
        DataError: if the grid has another score there.
    """
    index, scores = numpy_column(cots, "score_index"), numpy_column(cots, "score")
    values = np.asarray(grid.values, dtype=np.float32)
    exists = (index >= 0) & (index < len(values))
    same = exists & (values[np.where(exists, index, 0)] == scores)
    if (place := first_true(~same)) is not None:
        raise DataError(
            f"{COTS_FILE}: the score {scores[place]:g} of example {cot_at(cots, place)['id']} is not at place {index[place]} of "
            f"grid.labels ({', '.join(grid.labels)}); set the grid as it was, or generate the CoTs anew"
        )


def cot_at(cots: Dataset, place: int) -> dict[str, Any]:
    """The id, split, sample and text of the CoT at a place."""
    found: dict[str, Any] = cots.select_columns(["id", "split", "sample", "cot"]).with_format(None)[place]
    return found
