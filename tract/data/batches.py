"""From tokenised items to the tensors of a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tract.data.steps import MicroBatch, StepTotals
from tract.text.layout import SequenceLayout
from tract.text.token_tree import SegmentRun, TokenKind, TokenTree


@dataclass(frozen=True)
class JudgeBatch:
    """A micro-batch: T tokens, token trees one after the other, with M (CoT, score) examples of I items. Read-only.

    Attributes:
        input_ids: [1, T] int64, without padding.
        position_ids: [1, T] int64, along each token's own path of its tree.
        runs: which tokens attend to which.
        read_positions: [R] int64, ascending positions in T that the LM head is applied to.
        target_rows: [N] int64, for each supervised token the index in ``read_positions`` that predicts it.
        target_ids: [N] int64, the supervised tokens. target_kinds: [N] int64, their ``TokenKind``.
        score_reads: [M, K] int64, indices into ``read_positions`` of the nodes of the score trie.
        scores: [M] float32, true scores in points. item_index: [M] int64, the item of each example.
        targets: [I] float32, the score in points that the item's mean prediction is compared with.
        item_ids: I ids, for messages.
        totals: of the whole optimizer step. is_padding: whether it adds nothing to loss, gradient and metrics; see ``MicroBatch``.
        trained_tokens: tokens of the examples if each had its own sequence, so that throughput compares whatever is shared.
    """

    input_ids: Tensor
    position_ids: Tensor
    runs: tuple[SegmentRun, ...]
    read_positions: Tensor
    target_rows: Tensor
    target_ids: Tensor
    target_kinds: Tensor
    score_reads: Tensor
    scores: Tensor
    item_index: Tensor
    targets: Tensor
    item_ids: tuple[str, ...]
    totals: StepTotals
    is_padding: bool
    trained_tokens: int

    def to(self, *args: Any, **kwargs: Any) -> JudgeBatch:
        """The batch with its tensors moved as by ``Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> JudgeBatch:
        """The batch with its tensors in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: Any) -> JudgeBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: move(tensor) for name, tensor in tensors.items()})


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """A tokenised training item: one prompt with its continuations, (CoT, score) pairs and ratings.

    Attributes:
        id: the example's id. target: the score in points that predictions are compared with.
        prompt_ids: token ids of the prompt. continuations: (token ids of the CoT, index of the score in the grid).
        ratings: indices in the grid of scores without a CoT, which the squared error alone trains.
    """

    id: str
    prompt_ids: Sequence[int]
    continuations: Sequence[tuple[Sequence[int], int]]
    target: float
    ratings: Sequence[int] = ()


class MicroBatches(Dataset[JudgeBatch]):
    """Batches by ``MicroBatch``: looks the items up and collates them.

    Args:
        tokens: rows of ``TOKEN_FEATURES``. rows: those of this split.
        layout: makes the token trees. supervised: the kinds of token under cross-entropy.
        share_prompts: whether the continuations of an item share its prompt.
        ratings: whether scores without a CoT are continuations too.
    """

    def __init__(
        self,
        tokens: Any,
        rows: Sequence[int],
        layout: SequenceLayout,
        supervised: frozenset[TokenKind],
        *,
        share_prompts: bool,
        ratings: bool,
    ) -> None:
        self._tokens = tokens
        self._rows = np.asarray(rows, dtype=np.int64)
        self._layout = layout
        self._supervised = supervised
        self._share_prompts = share_prompts
        self._ratings = ratings

    def __getitem__(self, micro: MicroBatch) -> JudgeBatch:
        """The tensors of one micro-batch."""
        items = [self.item(i) for i in micro.items]
        batch = collate(items, micro.totals, self._layout, self._supervised, share_prompts=self._share_prompts)
        return replace(batch, is_padding=True, trained_tokens=0) if micro.is_padding else batch

    def item(self, index: int) -> TrainingItem:
        """One tokenised item of this split."""
        record = self._tokens[int(self._rows[index])]
        cots = [np.asarray(cot, dtype=np.int64).tolist() for cot in record["cot_ids"]]
        scores = [int(score) for score in record["score_index"]]
        prompt_ids = np.asarray(record["prompt_ids"], dtype=np.int64).tolist()
        ratings = [int(score) for score in record["rating_index"]] if self._ratings else []
        return TrainingItem(str(record["id"]), prompt_ids, list(zip(cots, scores, strict=True)), float(record["target"]), ratings)


def collate(
    items: Sequence[TrainingItem], totals: StepTotals, layout: SequenceLayout, supervised: frozenset[TokenKind], *, share_prompts: bool
) -> JudgeBatch:
    """The tensors of a micro-batch.

    Args:
        items: tokenised items.
        totals: of the optimizer step that the micro-batch belongs to.
        layout: makes the token trees.
        supervised: the kinds of token under cross-entropy.
        share_prompts: one tree per item, its prompt encoded once; else one per continuation. It changes no number.
    """
    trees: list[TokenTree] = []
    owners: list[int] = []  # of the examples
    for number, item in enumerate(items):
        if share_prompts:
            trees.append(layout.tree(item.prompt_ids, item.continuations, item.ratings))
        else:
            trees += [layout.tree(item.prompt_ids, [continuation]) for continuation in item.continuations]
            trees += [layout.tree(item.prompt_ids, [], [rating]) for rating in item.ratings]
        owners += [number] * (len(item.continuations) + len(item.ratings))
    offsets = list(accumulate((len(tree.input_ids) for tree in trees), initial=0))[:-1]
    placed = list(zip(trees, offsets, strict=True))
    targets = [
        (offset + position, token, kind)
        for tree, offset in placed
        for position, token, kind, owner in zip(
            tree.target_from, tree.target_ids, tree.target_kinds, tree.target_continuations, strict=True
        )
        if kind in supervised and not tree.is_rating[owner]  # else a judge would learn to leave its CoT out
    ]
    reads = [[offset + position for position in nodes] for tree, offset in placed for nodes in tree.score_reads]
    needed = sorted({target[0] for target in targets} | {position for nodes in reads for position in nodes})
    row_of = {position: k for k, position in enumerate(needed)}
    values = layout.grid.values
    return JudgeBatch(
        input_ids=_int64([[token for tree in trees for token in tree.input_ids]]),
        position_ids=_int64([[position for tree in trees for position in tree.position_ids]]),
        runs=tuple(run.shifted(offset) for tree, offset in placed for run in tree.runs),
        read_positions=_int64(needed),
        target_rows=_int64([row_of[position] for position, _, _ in targets]),
        target_ids=_int64([token for _, token, _ in targets]),
        target_kinds=_int64([kind for _, _, kind in targets]),
        score_reads=_int64([[row_of[position] for position in nodes] for nodes in reads]),
        scores=torch.tensor([values[index] for tree in trees for index in tree.score_index], dtype=torch.float32),
        item_index=_int64(owners),
        targets=torch.tensor([item.target for item in items], dtype=torch.float32),
        item_ids=tuple(item.id for item in items),
        totals=totals,
        is_padding=False,
        trained_tokens=sum(_unshared_length(layout, item, cot, score) for item in items for cot, score in _cots_and_scores(item)),
    )


def _cots_and_scores(item: TrainingItem) -> list[tuple[Sequence[int], int]]:
    """(CoT, index of the score) of each continuation, with an empty CoT for a rating."""
    no_cot: Sequence[int] = ()
    return [*item.continuations, *((no_cot, score) for score in item.ratings)]


def _unshared_length(layout: SequenceLayout, item: TrainingItem, cot: Sequence[int], score: int) -> int:
    """Tokens of an example in its own sequence: prompt, CoT, cue, score, end of turn."""
    return len(item.prompt_ids) + len(cot) + len(layout.cue_ids) + len(layout.score_ids[score]) + 1


def _int64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
