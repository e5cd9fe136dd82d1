"""Keys of prompts held once for all of their CoTs, and those of each CoT's own tokens: nothing repeated, no prompt padded. For CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tract.inference.hf.slots import DecodeStep, PromptKeys, Slots, capped, neighbours, outside_of, sinks_of
from tract.models.tree_attention import LayerRules


class SharedKeys:
    """The keys of B sequences; sequences of one prompt stand beside each other.

    A sequence attends to its prompt's keys, together with the other CoTs of that prompt in one product, and to its own; the two
    softmaxes are joined. The least arithmetic and memory, and some 20 operations for each layer and prompt, which a CPU does not mind.
    """

    def __init__(self) -> None:
        self._prompts: list[PromptKeys] = []  # of each sequence
        self._own = Slots()
        self._prompt_groups: list[tuple[int, int]] = []
        self._step: DecodeStep

    def admit(self, prompts: Sequence[PromptKeys]) -> None:
        """Adds a row for each; the same prompt several times for several CoTs."""
        self._own.add(prompts[0], len(prompts), 0)
        self._prompts += prompts
        self._prompt_groups = neighbours(self._prompts)

    def keep(self, rows: Sequence[int], index: Tensor, longest: int, longest_own: int) -> None:
        """Drops all other rows; ``index`` is ``rows`` on the device."""
        self._own.keep(index, longest_own)
        self._prompts = [self._prompts[row] for row in rows]
        self._prompt_groups = neighbours(self._prompts)

    def copy_of(self, rows: Sequence[int], index: Tensor, longest: int, longest_own: int) -> SharedKeys:
        """These rows for themselves; the prompts stay shared."""
        copy = SharedKeys()
        copy._own = self._own.copy_of(index, longest_own)
        copy._prompts = [self._prompts[row] for row in rows]
        copy._prompt_groups = neighbours(copy._prompts)
        return copy

    def begin(self, step: DecodeStep) -> None:
        """What goes through the model next."""
        self._step = step
        self._own.begin(step, step.own, step.longest_own, step.prompt_tokens)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules) -> Tensor:
        """See ``LiveKeys``."""
        keys, values = self._own.write(layer, key, value)
        batch, heads, count, size = query.shape
        kv_heads = keys.shape[1]
        # The queries of the heads that share keys stand behind each other, so that one product serves them: [B, Hkv, G * Q, D].
        grouped = (query * rules.scaling).to(keys.dtype).reshape(batch, kv_heads, heads // kv_heads * count, size)
        own = _Part.of(capped(grouped @ keys.transpose(2, 3), rules), values, self._own.hidden(rules)[:, None])
        if (sinks := sinks_of(rules, kv_heads, count)) is not None:
            own = own.with_sinks(sinks)
        mixed = torch.cat([self._with_prompt(layer, group, grouped, own, rules) for group in self._prompt_groups])
        return mixed.to(value.dtype).view(batch, heads, count, -1)

    def _with_prompt(self, layer: int, group: tuple[int, int], grouped: Tensor, own: _Part, rules: LayerRules) -> Tensor:
        """[n, Hkv, G * Q, Dv] float32: the attention of the n sequences of a prompt to it and to their own tokens."""
        first, last = group
        keys, values = self._prompts[first].layers[layer]
        queries = grouped[first:last]
        n, kv_heads, rows, size = queries.shape
        together = queries.transpose(0, 1).reshape(kv_heads, n * rows, size)
        products = (together @ keys.transpose(1, 2)).view(kv_heads, n, rows, -1).transpose(0, 1)  # [n, Hkv, G * Q, P]
        top, weights, total = _softmax_parts(capped(products, rules), self._hidden_prompt(group, rules))
        weights = weights.to(values.dtype).transpose(0, 1).reshape(kv_heads, n * rows, -1)
        mixed = (weights @ values).view(kv_heads, n, rows, -1).transpose(0, 1).float()
        return _Part(top, total, mixed).joined(own.rows(first, last))

    def _hidden_prompt(self, group: tuple[int, int], rules: LayerRules) -> Tensor | None:
        """[n, 1, Q, P] bool, which of a prompt's tokens are outside of the window or chunk; None if none is."""
        step, (first, last) = self._step, group
        farthest = step.longest + len(step.depths) - 1  # no new token is deeper
        if farthest < min(rules.window or farthest + 1, rules.chunk or farthest + 1):
            return None
        places = torch.arange(self._prompts[first].tokens, device=step.own.device)
        hidden = outside_of(step.positions[first:last, :, None], places, rules)
        return None if hidden is None else hidden[:, None]


@dataclass(frozen=True, slots=True)
class _Part:
    """Attention to some of the keys, to be joined with that to the others.

    Attributes:
        top: [B, H, Q, 1], the highest product. total: [B, H, Q, 1], the sum of exp(product - top).
        mixed: [B, H, Q, D], the values weighted by exp(product - top); all float32.
    """

    top: Tensor
    total: Tensor
    mixed: Tensor

    @classmethod
    def of(cls, products: Tensor, values: Tensor, hidden: Tensor) -> _Part:
        """From products [B, H, G * Q, K] and values [B, H, K, D]."""
        top, weights, total = _softmax_parts(products, hidden)
        return cls(top, total, (weights.to(values.dtype) @ values).float())

    def with_sinks(self, sinks: Tensor) -> _Part:
        """With one more product for each query, [1, H, G * Q, 1], whose share goes to no value."""
        top = torch.maximum(self.top, sinks)
        shrink = (self.top - top).exp_()
        return _Part(top, self.total * shrink + (sinks - top).exp_(), self.mixed * shrink)

    def rows(self, first: int, last: int) -> _Part:
        """Some of the sequences."""
        return _Part(self.top[first:last], self.total[first:last], self.mixed[first:last])

    def joined(self, other: _Part) -> Tensor:
        """[B, H, Q, D] float32: the attention to the keys of both."""
        top = torch.maximum(self.top, other.top)
        a, b = (self.top - top).exp_(), (other.top - top).exp_()
        return (self.mixed * a + other.mixed * b) / (self.total * a + other.total * b)


def _softmax_parts(products: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(highest product, exp(product - highest), their sum) along the last axis, float32; ``hidden`` has Q rows for G * Q of products."""
    if hidden is not None:
        batch, heads, rows, keys = products.shape
        by_head = products.reshape(batch, heads, rows // hidden.shape[2], hidden.shape[2], keys)
        # Finite: a part of which nothing is seen counts exp(lowest - top) = 0 when it is joined.
        products = by_head.masked_fill(hidden[:, :, None], torch.finfo(torch.float32).min).view(batch, heads, rows, keys)
    top = products.amax(dim=-1, keepdim=True)
    weights = (products - top).exp_()
    return top, weights, weights.sum(dim=-1, keepdim=True)
