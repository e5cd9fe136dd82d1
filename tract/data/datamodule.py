"""``JudgeDataModule``: the training and validation loaders of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np

from tract.data.batches import MicroBatches
from tract.data.steps import StepLoader, StepSampler
from tract.data.tokens import TokenStore
from tract.layout import SequenceLayout, TokenKind


class JudgeDataModule(L.LightningDataModule):
    """Loaders over tokenised examples.

    Args:
        tokens: token ids of all examples.
        train_rows, val_rows: rows of ``tokens`` in each split.
        layout: makes the token trees.
        supervised: the kinds of token under cross-entropy.
        pad_id: fills short rows.
        items_per_step, micro_batch_size, val_micro_batch_size: in items.
        seed: of the order of training items.
        num_workers: loader processes; 0 collates in the training process.

    Raises:
        ConfigError: if the training split is smaller than one step.
    """

    def __init__(
        self,
        tokens: TokenStore,
        train_rows: Sequence[int],
        val_rows: Sequence[int],
        layout: SequenceLayout,
        supervised: frozenset[TokenKind],
        pad_id: int,
        *,
        items_per_step: int,
        micro_batch_size: int,
        val_micro_batch_size: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.train_set = MicroBatches(tokens.dataset, train_rows, layout, supervised, pad_id)
        self.val_set = MicroBatches(tokens.dataset, val_rows, layout, supervised, pad_id)
        self.num_workers = num_workers
        counts = _Counts(tokens, with_score_tokens=TokenKind.SCORE in supervised)
        self.train_sampler = StepSampler(
            *counts.of(train_rows), items_per_step=items_per_step, micro_batch_size=micro_batch_size, seed=seed, shuffle=True
        )
        self.val_sampler = StepSampler(
            *counts.of(val_rows), items_per_step=val_micro_batch_size, micro_batch_size=val_micro_batch_size, seed=seed, shuffle=False
        )

    def train_dataloader(self) -> StepLoader:
        """Micro-batches of the training split."""
        return StepLoader(self.train_set, self.train_sampler, self.num_workers)

    def val_dataloader(self) -> StepLoader:
        """Micro-batches of the validation split, in its own order."""
        return StepLoader(self.val_set, self.val_sampler, self.num_workers)


class _Counts:
    """Tokens under cross-entropy and examples of each item."""

    def __init__(self, tokens: TokenStore, *, with_score_tokens: bool) -> None:
        columns: Any = tokens.dataset
        self._ce = np.asarray(columns["ce_tokens"], dtype=np.int64)
        if with_score_tokens:
            self._ce = self._ce + np.asarray(columns["score_tokens"], dtype=np.int64)
        self._examples = np.asarray([len(scores) for scores in columns["score_index"]], dtype=np.int64)

    def of(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """(tokens, examples) of the given rows."""
        index = np.asarray(rows, dtype=np.int64)
        return self._ce[index].tolist(), self._examples[index].tolist()
