"""The live KV cache: prompts once through the model for all of their CoTs, and what each sequence has sampled since.

Prompts of any length and sequences of any age go through the model together, one token each. Where their keys lie is another matter
for a CPU (``SharedKeys``) than for a GPU (``PaddedKeys``); both compute the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tract.inference.hf.padded_keys import PaddedKeys
from tract.inference.hf.shared_keys import SharedKeys
from tract.inference.hf.slots import DecodeStep, PromptKeys
from tract.models.packed_forward import logits_at
from tract.models.tree_attention import LayerRules, PackedSegments
from tract.text.token_tree import SegmentRun

# Tokens of prompts that go through the model at once.
PREFILL_TOKENS = 8192


def prefill(model: nn.Module, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[list[PromptKeys], Tensor]:
    """Runs prompts through the model, packed behind each other; returns their keys and the logits behind each, [B, V]."""
    made: list[PromptKeys] = []
    logits: list[Tensor] = []
    for group in _groups([len(ids) for ids in prompts], PREFILL_TOKENS):
        packed = [prompts[k] for k in group]
        ends = list(itertools.accumulate(len(ids) for ids in packed))
        starts = [0, *ends[:-1]]
        runs = PackedSegments([SegmentRun(start, end, ()) for start, end in zip(starts, ends, strict=True)], keep=True)
        ids = torch.tensor([[token for prompt in packed for token in prompt]], device=device)
        positions = torch.tensor([[position for prompt in packed for position in range(len(prompt))]], device=device)
        logits.append(logits_at(model, ids, positions, torch.tensor(ends, device=device) - 1, runs=runs))
        assert runs.kept is not None
        kept = [runs.kept[layer] for layer in sorted(runs.kept)]
        for start, end in zip(starts, ends, strict=True):
            made.append(PromptKeys(tuple((_own(k, start, end, v.dtype), _own(v, start, end, v.dtype)) for k, v in kept)))
    return made, torch.cat(logits)


def _own(tensor: Tensor, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """[1, H, T, D] -> [H, end - start, D] in memory of its own; under autocast rotated keys are float32 and their products are not."""
    return tensor[0, :, start:end].to(dtype, copy=True, memory_format=torch.contiguous_format)


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
    """The keys and values of B sequences.

    Args:
        padded: whether all keys of a layer lie in one padded buffer, for which a step issues the same number of kernels whatever B is and
            never waits for the device; or the prompts' keys once for all of their CoTs. None for what suits the device.
    """

    def __init__(self, model: nn.Module, device: torch.device, padded: bool | None = None) -> None:
        self._model = model
        self._device = device
        self._keys: PaddedKeys | SharedKeys = PaddedKeys() if (device.type != "cpu" if padded is None else padded) else SharedKeys()
        # Lengths on the host, so that none is asked of the device, and on the device, so that none is sent there.
        self._prompt_tokens: list[int] = []
        self._own: list[int] = []
        self._prompt_tokens_there, self._own_there = self._sent([[], []])
        self._next = torch.zeros(1, dtype=torch.long, device=device)  # the depth of a single token
        self._itself = torch.ones(1, 1, dtype=torch.bool, device=device)
        self._layers = 0
        self._layers_seen = 0

    def __len__(self) -> int:
        """B."""
        return len(self._own)

    @property
    def own(self) -> tuple[int, ...]:
        """Tokens of each sequence behind its prompt."""
        return tuple(self._own)

    def forget(self, own: Sequence[int]) -> None:
        """Leaves each sequence so many tokens behind its prompt: the last ones are forgotten."""
        assert all(0 <= kept <= held for kept, held in zip(own, self._own, strict=True)), f"{own} of {self._own} tokens"
        self._own = list(own)
        self._note_lengths()

    def admit(self, prompts: Sequence[PromptKeys]) -> None:
        """Adds sequences without tokens of their own; the same prompt several times for several CoTs."""
        self._keys.admit(prompts)
        self._prompt_tokens += [prompt.tokens for prompt in prompts]
        self._own += [0] * len(prompts)
        self._layers = len(prompts[0].layers)
        self._note_lengths()

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all sequences but some, and the memory of the others."""
        self._choose(self, rows)
        self._keys.keep(rows, self._sent(rows), self._longest, max(self._own))

    def take(self, rows: Sequence[int]) -> LiveCache:
        """A cache of some of the sequences, in their order; this one stays as it is."""
        taken = LiveCache(self._model, self._device)
        taken._choose(self, rows)
        taken._keys = self._keys.copy_of(rows, self._sent(rows), taken._longest, max(taken._own))
        return taken

    def append(self, tokens: Tensor) -> Tensor:
        """Appends one token to each sequence, [B] int64; returns the logits behind it, [B, V]."""
        logits = self._run(tokens[:, None], self._next, self._itself, torch.arange(len(self), device=self._device))
        self._own = [tokens + 1 for tokens in self._own]
        self._own_there = self._own_there + 1
        return logits

    def score_without_append(self, ids: Tensor, depths: Tensor, within: Tensor, reads: Tensor) -> Tensor:
        """Logits at some of Q tokens behind each sequence; the sequences stay as they are.

        Args:
            ids: [Q] int64. depths: [Q] int64, 0 for the next position of each sequence; none is Q or more.
            within: [Q, Q] bool, which of the tokens see which. reads: [N] int64, places in Q.

        Returns:
            [B, N, V].
        """
        places = (torch.arange(len(self), device=self._device)[:, None] * len(ids) + reads).flatten()
        return self._run(ids.expand(len(self), -1), depths, within, places).view(len(self), len(reads), -1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules) -> Tensor:
        """What a layer of the model asks for: the new tokens' attention to prompt, own tokens and each other.

        Args:
            query: [B, Hq, Q, D]. key: [B, Hkv, Q, D]. value: [B, Hkv, Q, Dv]. rules: of the layer.

        Returns:
            [B, Hq, Q, Dv], in the dtype of ``value``.
        """
        self._layers_seen += 1
        return self._keys.attend(layer, query, key, value, rules)

    def begin(self, depths: Tensor, within: Tensor) -> Tensor:
        """Makes room for Q tokens behind each sequence, which ``attend`` then gets layer by layer; returns their positions, [B, Q]."""
        positions = (self._prompt_tokens_there + self._own_there)[:, None] + depths
        self._keys.begin(DecodeStep(self._prompt_tokens_there, self._own_there, self._longest, max(self._own), depths, within, positions))
        self._layers_seen = 0
        return positions

    def _run(self, ids: Tensor, depths: Tensor, within: Tensor, places: Tensor) -> Tensor:
        logits = logits_at(self._model, ids, self.begin(depths, within), places, live=self)
        assert self._layers_seen == self._layers, f"{self._layers_seen} of {self._layers} layers attended to the live cache"
        return logits

    @property
    def _longest(self) -> int:
        return max(map(sum, zip(self._prompt_tokens, self._own, strict=True)))

    def _choose(self, of: LiveCache, rows: Sequence[int]) -> None:
        self._prompt_tokens = [of._prompt_tokens[row] for row in rows]
        self._own = [of._own[row] for row in rows]
        self._layers = of._layers
        self._note_lengths()

    def _note_lengths(self) -> None:
        """Sends the lengths to the device again."""
        self._prompt_tokens_there, self._own_there = self._sent([self._prompt_tokens, self._own])

    def _sent(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)
