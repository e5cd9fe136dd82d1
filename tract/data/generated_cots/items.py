"""Training items whose continuations are CoTs that a judge generated, with the true scores attached to them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from tract.common.errors import ConfigError
from tract.data.arrow_columns import lengths_of, numpy_column
from tract.data.generated_cots.checks import check_examples, check_scores, check_training
from tract.data.tokens import OVERLONG, TOKEN_FEATURES, WITHOUT_GENERATED_COT, TokenStore, cached_tokens
from tract.text.layout import SequenceLayout

COTS_VERSION = 2  # raise it when ``with_cots`` makes different items: cached token ids are then rebuilt
BATCH_ITEMS = 256  # items held in memory while token ids are put together
MODES = ("self", "mixed")


def with_cots(
    tokens: TokenStore,
    cots: Dataset,
    keep: NDArray[np.bool_],
    mode: str,
    layout: SequenceLayout,
    cache_dir: Path,
    fingerprint: str,
    train_rows: Sequence[int] | NDArray[np.integer[Any]],
    *,
    max_length: int,
) -> TokenStore:
    """The token store with generated CoTs, and the true scores attached to them, as the continuations of its items.

    Rows and order stay. Scores without a CoT are no continuations here: the generate stage attached them to CoTs, as often as
    the others. Three statuses are added, all with no continuation: "without_generated_cot" (no CoT was generated for
    the example), "dropped_no_cot" (none was kept) and "dropped_overlong" (too long with these CoTs). In mode "mixed" an
    example that has annotated CoTs is never without. Rows that were dropped before stay so.

    Args:
        tokens: token ids with the annotated CoTs.
        cots: generated CoTs, ascending by (row, sample), as ``read_cots`` gives them.
        keep: [N] bool, which of them are used.
        mode: "self": generated CoTs alone; "mixed": the annotated ones first, then the generated ones.
        layout: made the tokens.
        cache_dir: the result is kept there.
        fingerprint: of the content of ``cots``.
        train_rows: all rows of the training split, before any limit.
        max_length: the most tokens of a sequence; a longer one is left out of training.

    Raises:
        ConfigError: if the mode is unknown.
        DataError: if the CoTs belong to other examples, scores or splits than these.
    """
    if mode not in MODES:
        raise ConfigError(f"stage2.cots: {mode!r} is not one of {', '.join(MODES)}")
    if keep.shape != (len(cots),):
        raise ValueError(f"keep has the shape {keep.shape}; one value for each of the {len(cots)} CoTs is needed")
    check_examples(cots, tokens)
    check_scores(cots, layout.grid)
    check_training(cots, train_rows)
    kept = hashlib.sha256(np.packbits(keep).tobytes()).hexdigest()
    key_parts = ["cots", COTS_VERSION, tokens.fingerprint, fingerprint, mode, kept, max_length]
    joiner = _ContinuationJoiner(cots, keep, layout, mixed=mode == "mixed", max_length=max_length)
    rows = tokens.dataset.with_format("arrow")
    return cached_tokens(rows, joiner, key_parts, cache_dir, desc="Joining CoTs", batched=True, batch_size=BATCH_ITEMS)


class _ContinuationJoiner:
    """Gives a batch of items their continuations."""

    def __init__(self, cots: Dataset, keep: NDArray[np.bool_], layout: SequenceLayout, *, mixed: bool, max_length: int) -> None:
        self.cots = cots.select_columns(["cot_ids", "score_index"]).with_format("arrow")
        self.rows = numpy_column(cots, "row")
        self.keep = keep
        self.mixed = mixed
        self.max_length = max_length
        self.tail = layout.max_tail_tokens
        self.fixed_tokens = len(layout.cue_ids) + 1  # of each continuation, beside CoT and score: cue and end of turn
        self.score_tokens = np.array([len(ids) for ids in layout.score_ids])

    def __call__(self, items: pa.Table, indices: list[int]) -> pa.Table:
        """The items of consecutive rows, as ``TOKEN_FEATURES``."""
        n, first_row = len(items), indices[0]
        first, last = np.searchsorted(self.rows, [first_row, first_row + n])
        generated = np.bincount(self.rows[first:last] - first_row, minlength=n) > 0
        owners, cot_ids, scores = self._continuations(items, first_row, int(first), int(last))
        prompt_tokens = pc.list_value_length(items["prompt_ids"]).to_numpy()
        length = prompt_tokens + _longest_cots(owners, cot_ids, n) + self.tail
        status = _status_of(items, np.bincount(owners, minlength=n), generated, length > self.max_length)

        alive = ~np.char.startswith(status.astype(str), "dropped")[owners]
        owners, cot_ids, scores = owners[alive], cot_ids.filter(pa.array(alive)), scores[alive]
        counts = np.bincount(owners, minlength=n)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        cot_tokens = np.bincount(owners, weights=lengths_of(cot_ids), minlength=n).astype(np.int64)
        made = {
            "cot_ids": pa.ListArray.from_arrays(offsets, cot_ids),
            "score_index": pa.ListArray.from_arrays(offsets, pa.array(scores, pa.int32())),
            "rating_index": pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.int32())),  # attached to the CoTs
            "length": pa.array(prompt_tokens + _longest_cots(owners, cot_ids, n) + self.tail, pa.int32()),
            "ce_tokens": pa.array(cot_tokens + counts * self.fixed_tokens, pa.int32()),
            "score_tokens": pa.array(np.bincount(owners, weights=self.score_tokens[scores], minlength=n).astype(np.int64), pa.int32()),
            "status": pa.array(status.tolist(), pa.string()),
        }
        schema = TOKEN_FEATURES.arrow_schema
        return pa.table([made.get(name, items[name]) for name in schema.names], schema=schema)

    def _continuations(
        self, items: pa.Table, first_row: int, first: int, last: int
    ) -> tuple[NDArray[np.intp], pa.ListArray, NDArray[np.int64]]:
        """The item, token ids and place of the score of each continuation, in the order of the items."""
        keep = self.keep[first:last]
        own = self.cots[first:last].filter(pa.array(keep))
        owners = self.rows[first:last][keep] - first_row
        cot_ids = own["cot_ids"].combine_chunks()
        scores = own["score_index"].to_numpy()
        if self.mixed:
            annotated = items["cot_ids"].combine_chunks()
            owners = np.concatenate([np.repeat(np.arange(len(items)), lengths_of(annotated)), owners])
            cot_ids = pa.concat_arrays([annotated.flatten(), cot_ids])
            scores = np.concatenate([items["score_index"].combine_chunks().flatten().to_numpy(), scores])
        order = np.argsort(owners, kind="stable")  # stable: annotated ones stay before generated ones
        return owners[order].astype(np.intp), cot_ids.take(pa.array(order)), scores[order].astype(np.int64)


def _longest_cots(owners: NDArray[np.intp], cot_ids: pa.ListArray, n: int) -> NDArray[np.int64]:
    """[n] tokens of the longest CoT of each item; 0 without any."""
    longest = np.zeros(n, dtype=np.int64)
    np.maximum.at(longest, owners, lengths_of(cot_ids))
    return longest


def _status_of(items: pa.Table, counts: NDArray[np.intp], generated: NDArray[np.bool_], overlong: NDArray[np.bool_]) -> NDArray[np.object_]:
    """[n] the status of each item with its new continuations; one that was dropped before keeps its own."""
    before = np.array(items["status"].to_pylist(), dtype=object)
    usable = ~np.char.startswith(before.astype(str), "dropped")
    without = usable & (counts == 0)
    status = np.where(without, np.where(generated, "dropped_no_cot", WITHOUT_GENERATED_COT).astype(object), before)
    return np.where(usable & ~without & overlong, OVERLONG, status)
