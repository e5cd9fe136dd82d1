"""CoTs that are being sampled with a Hugging Face model: their tokens on the host, their logits and random numbers on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tract.inference.hf.live import LiveCache
from tract.inference.judgement import Prompt


@dataclass(slots=True)
class CotSequence:
    """A CoT that is being sampled.

    Attributes:
        prompt, sample: which CoT it is. ids: the tokens drawn so far.
        cot_length: tokens of ``ids`` that are the CoT's; None while it goes on. finish: why it ended.
        last: number of tokens at which sampling ends, at the latest. done: whether it has ended.
    """

    prompt: Prompt
    sample: int
    ids: list[int] = field(default_factory=list)
    cot_length: int | None = None
    finish: str = ""
    last: int = 0
    done: bool = False


@dataclass(slots=True)
class CotRows:
    """The B sequences that are being sampled, and what the next draw needs, on the device.

    Attributes:
        logits: [B, V]. seen: [B, V] bool, the tokens used so far.
        uniforms: [B, N] float64, a number for each token that may be drawn. drawn: [B] int64, how many were.
    """

    live: LiveCache
    sequences: list[CotSequence]
    logits: Tensor
    seen: Tensor
    uniforms: Tensor
    drawn: Tensor

    def take(self, rows: list[int]) -> CotRows:
        """Some of them, for themselves."""
        return self._with(self.live.take(rows), rows)

    def keep(self, rows: list[int]) -> CotRows:
        """Some of them; the others' keys are gone."""
        self.live.keep(rows)
        return self._with(self.live, rows)

    def _with(self, live: LiveCache, rows: list[int]) -> CotRows:
        index = torch.tensor(rows, device=self.logits.device)
        tensors = (tensor[index] for tensor in (self.logits, self.seen, self.uniforms, self.drawn))
        return CotRows(live, [self.sequences[row] for row in rows], *tensors)

    def joined(self, new: CotRows) -> CotRows:
        """With sequences that joined the same cache."""
        pairs = ((self.logits, new.logits), (self.seen, new.seen), (self.uniforms, new.uniforms), (self.drawn, new.drawn))
        return CotRows(self.live, [*self.sequences, *new.sequences], *(torch.cat(pair) for pair in pairs))


def seen_tokens(sequences: Sequence[CotSequence], vocabulary: int, device: torch.device) -> Tensor:
    """[B, V] bool: tokens of each sequence's prompt and CoT."""
    used = [[*sequence.prompt.prompt_ids, *sequence.ids[: sequence.cot_length]] for sequence in sequences]
    places = [[row, token] for row, tokens in enumerate(used) for token in tokens]
    rows, tokens = torch.tensor(places, device=device).T
    seen = torch.zeros(len(sequences), vocabulary, dtype=torch.bool, device=device)
    seen[rows, tokens] = True
    return seen
