"""The live KV cache: prompts once, for all of their CoTs, and what each sequence has sampled since.

A sequence attends to its prompt's keys, which it shares with the other CoTs of that prompt, and to its own. Nothing is repeated
or padded: prompts of any length and sequences of any age go through the model together, one token each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tract.attention import LayerRules, TokenRuns
from tract.forward import logits_at
from tract.layout import Run

# Tokens of prompts that go through the model at once.
PREFILL_TOKENS = 8192
# Slots for own tokens are made in steps of this factor.
_GROWTH = 1.5
_FIRST_SLOTS = 32


@dataclass(frozen=True, slots=True)
class PromptKeys:
    """A prompt that went through the model: for each layer its keys and values, [Hkv, P, D] each."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        """P."""
        return int(self.layers[0][0].shape[1])


def prefill(model: nn.Module, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[list[PromptKeys], Tensor]:
    """Runs prompts through the model, packed behind each other; returns their keys and the logits behind each, [B, V]."""
    made: list[PromptKeys] = []
    logits: list[Tensor] = []
    for group in _groups([len(ids) for ids in prompts], PREFILL_TOKENS):
        packed = [prompts[k] for k in group]
        ends = list(itertools.accumulate(len(ids) for ids in packed))
        starts = [0, *ends[:-1]]
        runs = TokenRuns([Run(start, end, ()) for start, end in zip(starts, ends, strict=True)], keep=True)
        ids = torch.tensor([[token for prompt in packed for token in prompt]], device=device)
        positions = torch.tensor([[position for prompt in packed for position in range(len(prompt))]], device=device)
        logits.append(logits_at(model, ids, positions, torch.tensor(ends, device=device) - 1, runs=runs))
        assert runs.kept is not None
        kept = [runs.kept[layer] for layer in sorted(runs.kept)]
        for start, end in zip(starts, ends, strict=True):
            made.append(PromptKeys(tuple((k[0, :, start:end].contiguous(), v[0, :, start:end].contiguous()) for k, v in kept)))
    return made, torch.cat(logits)


def _groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Neighbours whose lengths add up to no more than ``most``; one that is longer is alone."""
    groups: list[list[int]] = []
    held = 0
    for number, length in enumerate(lengths):
        if groups and held + length <= most:
            groups[-1].append(number)
            held += length
        else:
            groups.append([number])
            held = length
    return groups


class LiveCache:
    """The keys and values of B sequences; sequences of one prompt stand beside each other.

    Attributes:
        own: [B] int64, tokens of each sequence behind its prompt. Setting it lower forgets the last ones.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._prompts: list[PromptKeys] = []  # of each sequence
        self._keys: list[Tensor] = []  # for each layer [B, Hkv, slots, D]
        self._values: list[Tensor] = []
        self.own = torch.zeros(0, dtype=torch.long, device=device)
        self._stretches: list[tuple[int, int]] = []  # sequences of one prompt
        self._new: _New

    def __len__(self) -> int:
        """B."""
        return len(self._prompts)

    def admit(self, prompts: Sequence[PromptKeys]) -> None:
        """Adds sequences without tokens of their own; the same prompt several times for several CoTs."""
        count = len(prompts)
        self._prompts += prompts
        self.own = torch.cat([self.own, torch.zeros(count, dtype=torch.long, device=self._device)])
        if not self._keys:
            self._make_slots(prompts[0])
        for tensors in (self._keys, self._values):
            tensors[:] = [torch.cat([t, t.new_zeros(count, *t.shape[1:])]) for t in tensors]
        self._note_stretches()

    def _make_slots(self, prompt: PromptKeys) -> None:
        shapes = [(0, keys.shape[0], _FIRST_SLOTS, keys.shape[2]) for keys, _ in prompt.layers]
        self._keys = [keys.new_zeros(shape) for (keys, _), shape in zip(prompt.layers, shapes, strict=True)]
        self._values = [values.new_zeros((*shape[:3], values.shape[2])) for (_, values), shape in zip(prompt.layers, shapes, strict=True)]

    def take(self, rows: Sequence[int]) -> LiveCache:
        """A cache of some of the sequences, in their order; this one stays as it is."""
        index = torch.tensor(rows, dtype=torch.long, device=self._device)
        taken = LiveCache(self._model, self._device)
        taken._prompts = [self._prompts[row] for row in rows]
        taken._keys, taken._values = ([t[index] for t in tensors] for tensors in (self._keys, self._values))
        taken.own = self.own[index]
        taken._note_stretches()
        return taken

    def _note_stretches(self) -> None:
        """Which neighbours share a prompt."""
        self._stretches = []
        for row, prompt in enumerate(self._prompts):
            if row and prompt is self._prompts[row - 1]:
                self._stretches[-1] = (self._stretches[-1][0], row + 1)
            else:
                self._stretches.append((row, row + 1))

    def append(self, tokens: Tensor) -> Tensor:
        """Appends one token to each sequence, [B] int64; returns the logits behind it, [B, V]."""
        if self._keys[0].shape[2] <= int(self.own.max()):
            self._grow()
        here = torch.zeros(1, dtype=torch.long, device=self._device)
        logits = self._run(tokens[:, None], here, None, torch.arange(len(self), device=self._device))
        self.own = self.own + 1
        return logits

    def peek(self, ids: Tensor, depths: Tensor, within: Tensor, reads: Tensor) -> Tensor:
        """Logits at some of Q tokens behind each sequence; the cache stays as it is.

        Args:
            ids: [Q] int64. depths: [Q] int64, 0 for the next position of each sequence.
            within: [Q, Q] bool, which of the tokens see which. reads: [N] int64, places in Q.

        Returns:
            [B, N, V].
        """
        places = (torch.arange(len(self), device=self._device)[:, None] * len(ids) + reads).flatten()
        return self._run(ids.expand(len(self), -1), depths, within, places).view(len(self), len(reads), -1)

    def _run(self, ids: Tensor, depths: Tensor, within: Tensor | None, places: Tensor) -> Tensor:
        prompt_tokens = torch.tensor([prompt.tokens for prompt in self._prompts], device=self._device)
        self._new = _New(self.own, prompt_tokens, depths, within)
        logits = logits_at(self._model, ids, self._new.positions, places, live=self)
        assert self._new.layers_seen == len(self._keys), f"{self._new.layers_seen} of {len(self._keys)} layers attended to the live cache"
        return logits

    def _grow(self) -> None:
        more = int(self._keys[0].shape[2] * (_GROWTH - 1)) + 1
        for tensors in (self._keys, self._values):
            tensors[:] = [torch.cat([t, t.new_zeros(*t.shape[:2], more, t.shape[3])], dim=2) for t in tensors]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules) -> Tensor:
        """What a layer of the model asks for: the new tokens' attention to prompt, own tokens and each other.

        Args:
            query: [B, Hq, Q, D]. key, value: [B, Hkv, Q, D]. rules: of the layer.

        Returns:
            [B, Hq, Q, D], in the dtype of ``value``.
        """
        new = self._new
        new.layers_seen += 1
        batch, heads, count, size = query.shape
        kv_heads = key.shape[1]
        # The queries of the heads that share keys stand behind each other, so that one product serves them: [B, Hkv, G * Q, D].
        window = rules.window
        grouped = (query * rules.scaling).reshape(batch, kv_heads, heads // kv_heads * count, size)
        keys, values = self._with_new(layer, key, value)
        own = _Part.of(grouped @ keys.transpose(2, 3), values, new.hidden_own(keys.shape[2], window))
        mixed = torch.cat([self._with_prompt(layer, stretch, grouped, own, window) for stretch in self._stretches])
        return mixed.to(value.dtype).view(batch, heads, count, -1)

    def _with_new(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values behind the prompts, [B, Hkv, K, D]; an appended token's are written down."""
        if self._new.within is None:
            rows = torch.arange(len(self), device=self._device)
            self._keys[layer][rows, :, self.own] = key[:, :, 0]
            self._values[layer][rows, :, self.own] = value[:, :, 0]
            return self._keys[layer][:, :, : self._new.used + 1], self._values[layer][:, :, : self._new.used + 1]
        own_keys, own_values = self._keys[layer][:, :, : self._new.used], self._values[layer][:, :, : self._new.used]
        return torch.cat([own_keys, key], dim=2), torch.cat([own_values, value], dim=2)

    def _with_prompt(self, layer: int, stretch: tuple[int, int], grouped: Tensor, own: _Part, window: int | None) -> Tensor:
        """[n, Hkv, G * Q, D] float32: the attention of the n sequences of a prompt to it and to their own tokens."""
        first, last = stretch
        keys, values = self._prompts[first].layers[layer]
        queries = grouped[first:last]
        n, kv_heads, rows, size = queries.shape
        together = queries.transpose(0, 1).reshape(kv_heads, n * rows, size)
        scores = (together @ keys.transpose(1, 2)).view(kv_heads, n, rows, -1).transpose(0, 1)  # [n, Hkv, G * Q, P]
        hidden = self._new.hidden_prompt(first, last, window)
        top, weights, total = _softmax_parts(scores, hidden)
        weights = weights.to(values.dtype).transpose(0, 1).reshape(kv_heads, n * rows, -1)
        mixed = (weights @ values).view(kv_heads, n, rows, -1).transpose(0, 1).float()
        return _Part(top, total, mixed).joined(own.rows(first, last))


class _New:
    """The tokens that go through the model now, and what they do not see.

    Args:
        own: [B], tokens of the sequences behind their prompts. prompt_tokens: [B]. depths: [Q], of the new tokens behind those.
        within: [Q, Q], which of the new tokens see which; None for a single token that is appended.
    """

    def __init__(self, own: Tensor, prompt_tokens: Tensor, depths: Tensor, within: Tensor | None) -> None:
        self.own = own
        self.prompt_tokens = prompt_tokens
        self.within = within
        self.depths = depths
        self.positions = (prompt_tokens + own)[:, None] + depths  # [B, Q]
        self.used = int(own.max())
        self.layers_seen = 0
        self._lengths = prompt_tokens.tolist()
        self._farthest = int(self.positions.max())
        self._hidden: dict[tuple[int | None, int], Tensor] = {}

    def hidden_own(self, keys: int, window: int | None) -> Tensor:
        """[B, 1, Q, K] bool, which of the keys behind the prompts are not seen; the same for all layers of a kind."""
        kind = (window, keys)
        if kind not in self._hidden:
            slots = torch.arange(self.used, device=self.own.device)
            seen = (slots < self.own[:, None])[:, None].expand(-1, len(self.depths), -1)
            places = slots.expand(len(self.own), -1)
            if self.within is None:
                seen = (torch.arange(keys, device=self.own.device) <= self.own[:, None])[:, None]
                places = torch.arange(keys, device=self.own.device).expand(len(self.own), -1)
            else:
                seen = torch.cat([seen, self.within.expand(len(self.own), -1, -1)], dim=2)
                places = torch.cat([places, self.own[:, None] + self.depths], dim=1)
            if window is not None:
                seen = seen & ((self.own[:, None] + self.depths)[:, :, None] - places[:, None] < window)
            self._hidden[kind] = ~seen[:, None]
        return self._hidden[kind]

    def hidden_prompt(self, first: int, last: int, window: int | None) -> Tensor | None:
        """[n, 1, Q, P] bool, which of a prompt's tokens are out of the window; None if none is."""
        if window is None or self._farthest < window:
            return None
        places = torch.arange(self._lengths[first], device=self.own.device)
        return (self.positions[first:last, :, None] - places >= window)[:, None]


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
    def of(cls, scores: Tensor, values: Tensor, hidden: Tensor | None) -> _Part:
        """From products [B, H, G * Q, K] and values [B, H, K, D]."""
        top, weights, total = _softmax_parts(scores, hidden)
        return cls(top, total, (weights.to(values.dtype) @ values).float())

    def rows(self, first: int, last: int) -> _Part:
        """Some of the sequences."""
        return _Part(self.top[first:last], self.total[first:last], self.mixed[first:last])

    def joined(self, other: _Part) -> Tensor:
        """[B, H, Q, D] float32: the attention to the keys of both."""
        top = torch.maximum(self.top, other.top)
        a, b = (self.top - top).exp_(), (other.top - top).exp_()
        return (self.mixed * a + other.mixed * b) / (self.total * a + other.total * b)


def _softmax_parts(scores: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(highest product, exp(product - highest), their sum) along the last axis, float32; ``hidden`` has Q rows for G * Q of ``scores``."""
    scores = scores.float()
    if hidden is not None:
        batch, heads, rows, keys = scores.shape
        by_head = scores.reshape(batch, heads, rows // hidden.shape[2], hidden.shape[2], keys)
        # Finite: a part of which nothing is seen counts exp(lowest - top) = 0 when it is joined.
        scores = by_head.masked_fill(hidden[:, :, None], torch.finfo(torch.float32).min).view(batch, heads, rows, keys)
    top = (
        scores.amax(dim=-1, keepdim=True) if scores.shape[-1] else scores.new_full((*scores.shape[:-1], 1), torch.finfo(torch.float32).min)
    )
    weights = (scores - top).exp_()
    return top, weights, weights.sum(dim=-1, keepdim=True)
