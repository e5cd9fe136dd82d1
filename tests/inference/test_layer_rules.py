"""What layers do beside the softmax (windows, chunks, caps, sinks), by both kinds of keys, against attention written out token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tract.inference.hf import live as live_module
from tract.inference.hf import slots
from tract.inference.hf.live import LiveCache
from tract.inference.hf.slots import PromptKeys
from tract.models.tree_attention import LayerRules

CPU = torch.device("cpu")
VOCABULARY, HEADS, KV_HEADS, SIZE, VALUE_SIZE = 50, 6, 2, 8, 5
PROMPTS = ([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [20, 21], [30, 31, 32, 33, 34, 35])
SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0, 4.0, -3.0])
RULES = {
    "plain": LayerRules(0.4),
    "window": LayerRules(0.4, window=4),
    "chunk": LayerRules(0.4, chunk=5),
    "softcap": LayerRules(2.0, softcap=1.5),
    "sinks": LayerRules(0.4, sinks=SINKS),
    "all": LayerRules(2.0, window=7, chunk=9, softcap=3.0, sinks=SINKS),
}
# Two branches behind a common token, as a score block may have; "1" and "10".
BLOCK, DEPTHS = torch.tensor([40, 41, 42, 43]), torch.tensor([0, 1, 2, 1])
WITHIN = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)


class Tokens:
    """Queries, keys and values that belong to a token alone, [V, heads, size] each."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.queries, self.keys, self.values = (
            2 * torch.randn(VOCABULARY, heads, size, generator=generator)
            for heads, size in ((HEADS, SIZE), (KV_HEADS, SIZE), (KV_HEADS, VALUE_SIZE))
        )

    def prompt(self, ids: Sequence[int]) -> PromptKeys:
        return PromptKeys(((self.keys[list(ids)].transpose(0, 1), self.values[list(ids)].transpose(0, 1)),))

    def attended(self, ids: Sequence[int], rules: LayerRules) -> Tensor:
        """[Hq * Dv]: what the last token of a path gets, written out."""
        found = []
        here = len(ids) - 1
        visible = [
            place
            for place in range(len(ids))
            if (rules.window is None or here - place < rules.window)
            and (rules.chunk is None or here // rules.chunk == place // rules.chunk)
        ]
        for head in range(HEADS):
            shared = head // (HEADS // KV_HEADS)
            products = [rules.scaling * float(self.queries[ids[-1], head] @ self.keys[ids[place], shared]) for place in visible]
            if rules.softcap is not None:
                products = [rules.softcap * math.tanh(product / rules.softcap) for product in products]
            sink = 0.0 if rules.sinks is None else math.exp(float(rules.sinks[head]))
            total = sum(map(math.exp, products)) + sink
            weights = torch.tensor([math.exp(product) / total for product in products])
            found.append(weights @ self.values[[ids[place] for place in visible], shared])
        return torch.cat(found)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("padded", [False, True], ids=["shared", "padded"])
def test_every_rule_for_one_token_and_for_several(padded: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of different prompts and ages; two of one prompt. Values have another size than keys."""
    tokens, rules = Tokens(), RULES[name]

    def layer(model: nn.Module, ids: Tensor, positions: Tensor, places: Tensor, *, live: Any) -> Tensor:
        """A model of one layer: the attention itself stands for the logits."""
        q, k, v = (table[ids].transpose(1, 2) for table in (tokens.queries, tokens.keys, tokens.values))
        return live.attend(0, q, k, v, rules).transpose(1, 2).flatten(0, 1).flatten(1)[places]

    monkeypatch.setattr(live_module, "logits_at", layer)
    monkeypatch.setattr(slots, "SPARE_SLOTS", 2)
    cache = LiveCache(nn.Identity(), CPU, padded)
    prompts = [tokens.prompt(ids) for ids in PROMPTS]
    cache.admit([prompts[0], prompts[0], prompts[1]])
    written = [list(PROMPTS[0]), list(PROMPTS[0]), list(PROMPTS[1])]
    for step in range(14):
        if step == 3:
            cache.admit([prompts[2]])
            written.append(list(PROMPTS[2]))
        new = [(5 * row + 3 * step) % VOCABULARY for row in range(len(written))]
        peeked = cache.score_without_append(BLOCK, DEPTHS, WITHIN, torch.tensor([0, 2, 3]))
        for ids, of_row in zip(written, peeked, strict=True):
            for read, found in zip((0, 2, 3), of_row, strict=True):
                behind = [k for k in range(len(BLOCK)) if WITHIN[read, k]]
                path = [*ids, *(int(BLOCK[k]) for k in behind)]
                torch.testing.assert_close(found, tokens.attended(path, rules))
        found = cache.append(torch.tensor(new))
        for row, (ids, token) in enumerate(zip(written, new, strict=True)):
            ids.append(token)
            torch.testing.assert_close(found[row], tokens.attended(ids, rules))
