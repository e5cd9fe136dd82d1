"""``JudgeDataModule``: the training and validation loaders of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tract.data.arrow_columns import arrow_column, list_lengths, numpy_column
from tract.data.batches import MicroBatches
from tract.data.steps import LengthSampler, Limits, StepLoader, StepSampler, ignore_stop_signals
from tract.data.tokens import TokenStore
from tract.text.layout import SequenceLayout
from tract.text.token_tree import TokenKind


class JudgeDataModule(L.LightningDataModule):
    """Loaders over tokenised examples.

    Args:
        tokens: token ids of all examples.
        train_rows, val_rows: rows of ``tokens`` in each split.
        layout: makes the token trees.
        supervised: the kinds of token under cross-entropy.
        share_prompts: whether the continuations of an item share its prompt.
        global_batch_size: items of an optimizer step. limits: of a micro-batch.
        seed: of the order of training items.
        num_workers: loader processes; 0 collates in the training process.
        ratings: whether scores without a CoT are trained on too; validation leaves them out, since it reads scores after CoTs.
        rows: whether each path of a tree is a row of the model's input, so that nothing is shared.
        ranks: processes that share each step and the validation split. rank: which of them this one is.

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
        *,
        share_prompts: bool,
        global_batch_size: int,
        limits: Limits,
        seed: int,
        num_workers: int,
        ratings: bool = True,
        rows: bool = False,
        ranks: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__()
        self.train_set = MicroBatches(tokens.dataset, train_rows, layout, supervised, share_prompts=share_prompts, ratings=ratings)
        self.val_set = MicroBatches(tokens.dataset, val_rows, layout, supervised, share_prompts=share_prompts, ratings=False)
        self.num_workers = num_workers
        sizes, val_sizes = (
            _item_sizes(tokens, layout, supervised, share_prompts=share_prompts, ratings=counted, rows=rows) for counted in (ratings, False)
        )
        self.train_sampler = StepSampler(
            *sizes[:, np.asarray(train_rows, dtype=np.int64)],
            global_batch_size=global_batch_size,
            limits=limits,
            seed=seed,
            ranks=ranks,
            rank=rank,
        )
        self.val_sampler = LengthSampler(*val_sizes[:, np.asarray(val_rows, dtype=np.int64)], limits=limits, ranks=ranks, rank=rank)

    def train_dataloader(self) -> StepLoader:
        """Micro-batches of the training split."""
        return StepLoader(self.train_set, self.train_sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of the validation split."""
        return DataLoader(
            self.val_set,
            batch_size=None,
            sampler=self.val_sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # as in ``StepLoader``: the global one decides dropout
        )


def _item_sizes(
    tokens: TokenStore, layout: SequenceLayout, supervised: frozenset[TokenKind], *, share_prompts: bool, ratings: bool, rows: bool
) -> NDArray[np.int64]:
    """[3, n] int64: tokens, tokens under cross-entropy and examples of each item; read from the columns' offsets, not their content."""
    prompt = list_lengths(tokens.dataset, "prompt_ids")
    ce_tokens, score_tokens = (numpy_column(tokens.dataset, name).astype(np.int64) for name in ("ce_tokens", "score_tokens"))
    n_ratings, rating_scores = _rating_sizes(tokens, layout) if ratings else (np.zeros_like(prompt), np.zeros_like(prompt))
    examples = list_lengths(tokens.dataset, "score_index") + n_ratings
    stems = ce_tokens + n_ratings * (len(layout.cue_ids) + 1)  # of a rating: cue and end of turn
    prompts = np.where(examples > 0, 1, 0) if share_prompts else examples
    lengths = prompt * prompts + stems + score_tokens + rating_scores + layout.branch_tokens * examples
    if rows:  # a row for each branch repeats prompt and CoT
        lengths += layout.branches * (prompt * examples + stems)
    supervised_tokens = ce_tokens * bool(supervised - {TokenKind.SCORE}) + score_tokens * (TokenKind.SCORE in supervised)
    return np.stack([lengths, supervised_tokens, examples])


def _rating_sizes(tokens: TokenStore, layout: SequenceLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([n] int64 ratings of each item, [n] int64 tokens of their scores)."""
    counts = list_lengths(tokens.dataset, "rating_index")
    scores = pc.list_flatten(arrow_column(tokens.dataset, "rating_index")).to_numpy()
    sizes = np.array([len(ids) for ids in layout.score_ids], dtype=np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    return counts, np.bincount(owners, weights=sizes[scores], minlength=len(counts)).astype(np.int64)
