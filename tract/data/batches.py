"""From tokenised items to the tensors of a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tract.data.steps import MicroBatch
from tract.layout import SequenceLayout, TokenKind, TokenTree
from tract.objective import StepTotals


@dataclass(frozen=True)
class JudgeBatch:
    """A micro-batch: B rows of T tokens with M (CoT, score) examples of I items. Read-only.

    Attributes:
        input_ids: [B, T] int64, padded on the right.
        position_ids: [B, T] int64, along each token's own path of the token tree.
        attention_mask: [B, T] int64, 1 for tokens, where rows are chains; else [B, 1, T, T] bool, True where a query
            (third axis) sees a key (fourth axis).
        read_positions: [R] int64, ascending places in the flattened [B * T] whose logits are needed; no others are computed.
        target_rows: [N] int64, for each supervised token the place in ``read_positions`` that predicts it.
        target_ids: [N] int64, the supervised tokens. target_kinds: [N] int64, their ``TokenKind``.
        score_reads: [M, K] int64, places in ``read_positions`` of the nodes of the score trie.
        scores: [M] float32, true scores in points. item_index: [M] int64, the item of each example.
        targets: [I] float32, the score in points that the item's mean prediction is compared with.
        item_ids: I ids, for messages.
        totals: counts of the whole optimizer step. tokens: real tokens in this micro-batch.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
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
    tokens: int

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
class Item:
    """A tokenised training item: one prompt with its (CoT, score) continuations.

    Attributes:
        id: the example's id. target: the score in points that predictions are compared with.
        prompt_ids: token ids of the prompt. continuations: (token ids of the CoT, place of the score in the grid).
    """

    id: str
    prompt_ids: Sequence[int]
    continuations: Sequence[tuple[Sequence[int], int]]
    target: float


class MicroBatches(Dataset[JudgeBatch]):
    """Batches by ``MicroBatch``: looks the items up and collates them."""

    def __init__(self, tokens: Any, rows: Sequence[int], layout: SequenceLayout, supervised: frozenset[TokenKind], pad_id: int) -> None:
        self._tokens = tokens
        self._rows = np.asarray(rows, dtype=np.int64)
        self._layout = layout
        self._supervised = supervised
        self._pad_id = pad_id

    def __getitem__(self, micro: MicroBatch) -> JudgeBatch:
        """The tensors of one micro-batch."""
        items = [self.item(i) for i in micro.items]
        return collate(items, micro.totals, self._layout, self._supervised, self._pad_id)

    def item(self, index: int) -> Item:
        """One tokenised item of this split."""
        record = self._tokens[int(self._rows[index])]
        cots = [np.asarray(cot, dtype=np.int64).tolist() for cot in record["cot_ids"]]
        scores = [int(score) for score in record["score_index"]]
        prompt_ids = np.asarray(record["prompt_ids"], dtype=np.int64).tolist()
        return Item(str(record["id"]), prompt_ids, list(zip(cots, scores, strict=True)), float(record["target"]))


def collate(items: Sequence[Item], totals: StepTotals, layout: SequenceLayout, supervised: frozenset[TokenKind], pad_id: int) -> JudgeBatch:
    """The tensors of a micro-batch, one row per continuation.

    Args:
        items: tokenised items.
        totals: counts of the optimizer step that the micro-batch belongs to.
        layout: makes the token trees.
        supervised: the kinds of token under cross-entropy.
        pad_id: fills short rows; its value moves no number.
    """
    trees = [layout.tree(item.prompt_ids, [continuation]) for item in items for continuation in item.continuations]
    owners = [number for number, item in enumerate(items) for _ in item.continuations]
    width = max(len(tree.input_ids) for tree in trees)
    targets = [
        (row * width + position, token, kind)
        for row, tree in enumerate(trees)
        for position, token, kind in zip(tree.target_from, tree.target_ids, tree.target_kinds, strict=True)
        if kind in supervised
    ]
    reads = [[row * width + position for position in nodes] for row, tree in enumerate(trees) for nodes in tree.score_reads]
    needed = sorted({target[0] for target in targets} | {position for nodes in reads for position in nodes})
    row_of = {position: k for k, position in enumerate(needed)}
    values = layout.grid.values
    return JudgeBatch(
        input_ids=_padded([tree.input_ids for tree in trees], width, pad_id),
        position_ids=_padded([tree.position_ids for tree in trees], width, 0),
        attention_mask=attention_mask(trees, width),
        read_positions=_int64(needed),
        target_rows=_int64([row_of[position] for position, _, _ in targets]),
        target_ids=_int64([token for _, token, _ in targets]),
        target_kinds=_int64([kind for _, _, kind in targets]),
        score_reads=_int64([[row_of[position] for position in nodes] for nodes in reads]),
        scores=torch.tensor([values[index] for tree in trees for index in tree.score_index], dtype=torch.float32),
        item_index=_int64([owner for owner, tree in zip(owners, trees, strict=True) for _ in tree.score_index]),
        targets=torch.tensor([item.target for item in items], dtype=torch.float32),
        item_ids=tuple(item.id for item in items),
        totals=totals,
        tokens=sum(len(tree.input_ids) for tree in trees),
    )


def attention_mask(trees: Sequence[TokenTree], width: int) -> Tensor:
    """Who sees whom: [B, T] int64 for chains; [B, 1, T, T] bool if any row is a branching tree."""
    lengths = _int64([len(tree.input_ids) for tree in trees])
    if all(tree.is_chain for tree in trees):
        return (torch.arange(width) < lengths[:, None]).long()
    mask = torch.zeros(len(trees), 1, width, width, dtype=torch.bool)
    for row, tree in enumerate(trees):
        n = len(tree.input_ids)
        mask[row, 0, :n, :n] = visible_tokens(tree)
    # A padded query sees itself: a row of the softmax with nothing in it would be NaN.
    mask.diagonal(dim1=2, dim2=3).fill_(True)
    return mask


def visible_tokens(tree: TokenTree) -> Tensor:
    """[T, T] bool, True where a token of the tree (first axis) sees another one: those before it on its own path, and itself."""
    above = torch.zeros(len(tree.parents), len(tree.parents), dtype=torch.bool)
    for segment, parent in enumerate(tree.parents):
        if parent >= 0:
            above[segment] = above[parent]
        above[segment, segment] = True
    segments = _int64(tree.segment_ids)
    return above[segments][:, segments].tril()


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    return _int64([[*row, *[fill] * (width - len(row))] for row in rows])


def _int64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
