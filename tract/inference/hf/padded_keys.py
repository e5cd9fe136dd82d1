"""Keys of prompts and CoTs in one padded buffer for each layer: few kernels, however many sequences there are. For GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tract.inference.hf.slots import DecodeStep, PromptKeys, Slots, capped, neighbours, sinks_of
from tract.models.tree_attention import LayerRules


class PaddedKeys:
    """The keys of B sequences; a token at position p of its sequence lies in slot p.

    A layer attends with one call over all sequences, and issues as many kernels for sixteen of them as for one. A GPU's step of a few
    tokens is bound by these. For it each CoT holds a copy of its prompt's keys, padded to the longest sequence: as much memory as any
    engine needs for B prompts of their own, whatever ``n_cot`` is.
    """

    def __init__(self) -> None:
        self._slots = Slots()
        self._rows = 0
        self._masks: dict[tuple[int | None, int | None], Tensor] = {}

    def admit(self, prompts: Sequence[PromptKeys]) -> None:
        """Adds a row for each."""
        self._slots.add(prompts[0], len(prompts), max(prompt.tokens for prompt in prompts))
        for first, last in neighbours(prompts):
            self._slots.fill(slice(self._rows + first, self._rows + last), prompts[first])
        self._rows += len(prompts)

    def keep(self, rows: Sequence[int], index: Tensor, longest: int, longest_own: int) -> None:
        """Drops all other rows; ``index`` is ``rows`` on the device."""
        self._slots.keep(index, longest)
        self._rows = len(rows)

    def copy_of(self, rows: Sequence[int], index: Tensor, longest: int, longest_own: int) -> PaddedKeys:
        """These rows for themselves."""
        copy = PaddedKeys()
        copy._slots, copy._rows = self._slots.copy_of(index, longest), len(rows)
        return copy

    def begin(self, step: DecodeStep) -> None:
        """What goes through the model next."""
        self._slots.begin(step, step.prompt_tokens + step.own, step.longest, 0)
        self._masks.clear()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules) -> Tensor:
        """See ``LiveKeys``."""
        keys, values = self._slots.write(layer, key, value)
        batch, heads, count, size = query.shape
        kv_heads = keys.shape[1]
        # The heads that share keys stand behind each other as so many queries: the fused kernels take a mask, or grouped heads, not both.
        queries = query.to(keys.dtype).reshape(batch, kv_heads, heads // kv_heads * count, size)
        mask = self._mask(rules, heads // kv_heads, keys.dtype)
        if rules.softcap is None and rules.sinks is None:
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=rules.scaling)
        else:
            mixed = _explicit(queries, keys, values, mask, rules, count)
        return mixed.reshape(batch, heads, count, -1)

    def _mask(self, rules: LayerRules, groups: int, dtype: torch.dtype) -> Tensor:
        """[B, 1, G * Q, S], added to the products; made once for all layers of a kind."""
        kind = (rules.window, rules.chunk)
        if kind not in self._masks:
            hidden = self._slots.hidden(rules)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self._masks[kind] = mask.repeat(1, groups, 1)[:, None]
        return self._masks[kind]


def _explicit(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rules: LayerRules, count: int) -> Tensor:
    """[B, Hkv, G * Q, Dv]: with a cap on the products, and with sinks, which no fused kernel knows."""
    products = capped((queries @ keys.transpose(2, 3)) * rules.scaling, rules) + mask
    if (sinks := sinks_of(rules, keys.shape[1], count)) is None:
        weights = torch.softmax(products, dim=-1)
    else:
        weights = torch.softmax(torch.cat([products, sinks.expand(len(products), -1, -1, -1)], dim=-1), dim=-1)[..., :-1]
    return weights.to(values.dtype) @ values
