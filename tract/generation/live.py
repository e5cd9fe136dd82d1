"""The live KV cache of a batch: who sees which slot, at which position, and what is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tract.modeling import logits_at


class LiveCache:
    """The keys and values of B sequences in S common slots.

    A slot may be empty for a sequence (padding behind its prompt) or disowned (a cue that it wrote itself, and what came
    after): nobody sees it, and positions go on as if it were not there. So cache and a fresh forward pass agree.

    Attributes:
        visible: [B, S] bool, the slots that a sequence sees. positions: [B, S] int64, the position of each slot's token.
        depth: [B] int64, the position of each sequence's next token.
        sampled_from: the first slot behind the prompts.
    """

    def __init__(self, model: nn.Module, cache: DynamicCache, visible: Tensor, positions: Tensor, depth: Tensor, sampled_from: int) -> None:
        self._model = model
        self._cache = cache
        self.visible = visible
        self.positions = positions
        self.depth = depth
        self.sampled_from = sampled_from

    @classmethod
    def prefill(cls, model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[LiveCache, Tensor]:
        """Runs prompts through the model; returns the cache and the logits behind each prompt, [B, V]."""
        lengths = torch.tensor([len(ids) for ids in prompts])
        width = int(lengths.max())
        ids = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in prompts])
        visible = torch.arange(width) < lengths[:, None]
        positions = torch.arange(width).expand(len(prompts), width)
        last = torch.arange(len(prompts)) * width + lengths - 1
        cache = DynamicCache()
        ids, visible, positions, last, depth = (tensor.to(device) for tensor in (ids, visible, positions, last, lengths))
        logits = logits_at(model, ids, positions, visible.long(), last, cache=cache)
        return cls(model, cache, visible, positions, depth, width), logits

    @property
    def slots(self) -> int:
        """S."""
        return self.visible.shape[1]

    def append(self, ids: Tensor, depths: Tensor, within: Tensor, reads: Tensor) -> Tensor:
        """Appends tokens to every sequence and returns logits at some of them.

        Args:
            ids: [B, Q] int64. depths: [Q] int64, 0 for the next position of each sequence.
            within: [Q, Q] bool, which of the new tokens see which. reads: [N] int64, places in Q.

        Returns:
            [B, N, V].
        """
        batch, count = ids.shape
        seen = torch.cat([self.visible[:, None, None, :].expand(batch, 1, count, -1), within.expand(batch, 1, count, count)], dim=-1)
        positions = self.depth[:, None] + depths
        self.visible = torch.cat([self.visible, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)
        self.depth = self.depth + int(depths.max()) + 1
        places = (torch.arange(batch, device=ids.device)[:, None] * count + reads).flatten()
        logits = logits_at(self._model, ids, positions, seen, places, cache=self._cache, key_positions=self.positions)
        return logits.view(batch, len(reads), -1)

    def take(self, rows: Sequence[int]) -> LiveCache:
        """A cache of some of the sequences, also of one several times; this one stays as it is."""
        index = torch.tensor(rows, device=self.visible.device)
        cache = DynamicCache()
        for number, layer in enumerate(self._layers()):
            cache.update(layer.keys[index], layer.values[index], number)
        return LiveCache(self._model, cache, self.visible[index], self.positions[index], self.depth[index], self.sampled_from)

    def disown(self, first: Tensor, depth: Tensor) -> None:
        """Takes the slots from ``first`` ([B] int64) on away; the sequences go on at ``depth`` ([B] int64)."""
        self.visible = self.visible & (torch.arange(self.slots, device=first.device) < first[:, None])
        self.depth = depth

    def peek(self, ids: Tensor, depths: Tensor, within: Tensor, reads: Tensor) -> Tensor:
        """As ``append``, but the cache stays as it was."""
        before = self.visible, self.positions, self.depth
        logits = self.append(ids, depths, within, reads)
        self.visible, self.positions, self.depth = before
        self._cache.crop(-ids.shape[1])
        return logits

    def _layers(self) -> list[Any]:
        return list(self._cache.layers)
