"""Drawing tokens: temperature, nucleus, repetition penalty, and random numbers that belong to (run, example, sample). Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract.common.errors import ConfigError

# Most nuclei lie within so many tokens; finding them there spares sorting the whole vocabulary.
_NUCLEUS_GUESS = 256


@dataclass(frozen=True)
class Sampling:
    """How CoTs are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token (greedy).
        top_p: share of the probability from which is drawn, the most likely tokens first.
        repetition_penalty: divides positive logits, and multiplies negative ones, of tokens that prompt or CoT hold already.
        max_cot_tokens: a CoT that is longer is cut there ("length").
    """

    temperature: float
    top_p: float
    repetition_penalty: float
    max_cot_tokens: int

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"generation.temperature: {self.temperature} is not a finite number >= 0; 0 takes the most likely token")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"generation.top_p: {self.top_p} is outside (0, 1]; 1 turns it off")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ConfigError(f"generation.repetition_penalty: {self.repetition_penalty} is not a finite number > 0; 1 turns it off")
        if self.max_cot_tokens < 1:
            raise ConfigError(f"generation.max_cot_tokens: {self.max_cot_tokens} is not a number >= 1")


def uniforms(seed: int, example_id: str, sample: int, purpose: str, count: int) -> NDArray[np.float64]:
    """[count] random numbers in [0, 1) that depend on these arguments alone: not on batch, order, shard or machine."""
    return np.random.Generator(np.random.Philox(key=draw_key(seed, example_id, sample, purpose))).random(count)


def draw_key(seed: int, example_id: str, sample: int, purpose: str, bits: int = 128) -> int:
    """A number in [0, 2**bits) that belongs to these arguments alone: the key of all that is drawn for one sample.

    Args:
        seed: of the run. example_id, sample: whose draw it is. purpose: "cot", "score" or "free". bits: a multiple of 8.
    """
    text = f"{seed}\n{example_id}\n{sample}\n{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=bits // 8).digest(), "little")


def draw_tokens(logits: Tensor, seen: Tensor, uniform: Tensor, sampling: Sampling, *, guess: bool = True) -> Tensor:
    """One token per row.

    The token is where the running sum of the probabilities, in the order of the vocabulary, passes the uniform number. That
    order never changes, so rounding that differs between batches moves the borders by a millionth and no token otherwise.

    Args:
        logits: [R, V], any float dtype.
        seen: [R, V] bool, True for tokens that the row's prompt or CoT hold.
        uniform: [R] float64 in [0, 1).
        sampling: how to draw.
        guess: whether the nuclei are looked for among the most likely tokens first. That spares sorting the vocabulary, which a CPU
            is slow at, and waits for the device to learn whether they were there; the tokens are the same.

    Returns:
        [R] int64.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p == 1:
        return _where_passed(probabilities, uniform)
    drawn = _drawn_among_likely(probabilities, uniform, sampling.top_p) if guess else None
    if drawn is not None:
        return drawn
    floor = nucleus_floor(probabilities, sampling.top_p)[:, None]
    return _where_passed(torch.where(probabilities >= floor, probabilities, 0.0), uniform)


def _drawn_among_likely(probabilities: Tensor, uniform: Tensor, top_p: float) -> Tensor | None:
    """[R] int64, drawn from the nuclei if all of them end among the few most likely tokens; None if one goes on beyond, or may."""
    likely, tokens = probabilities.topk(min(_NUCLEUS_GUESS, probabilities.shape[-1]), dim=-1)
    floor, mass_before_last = _floor_among(likely, top_p)
    if not bool(((mass_before_last >= top_p) & (likely[:, -1:] < floor)).all()):
        return None
    # In the order of the vocabulary again.
    tokens, order = tokens.sort(dim=-1)
    likely = likely.gather(-1, order)
    place = _where_passed(torch.where(likely >= floor, likely, 0.0), uniform)
    return tokens.gather(-1, place[:, None]).squeeze(-1)


def _where_passed(weights: Tensor, uniform: Tensor) -> Tensor:
    """[R] int64, where the running sum of the weights, [R, K], passes the uniform number times their whole sum."""
    running = weights.double().cumsum(dim=-1)
    chosen = torch.searchsorted(running, (uniform.to(running) * running[:, -1])[:, None], right=True).squeeze(-1)
    # A product that rounds up to the whole sum would point behind the last token.
    last = weights.shape[-1] - 1 - weights.flip(-1).ne(0).to(torch.int8).argmax(dim=-1)
    return torch.minimum(chosen, last)


def nucleus_floor(probabilities: Tensor, top_p: float) -> Tensor:
    """The least probability in the nucleus: the smallest set of most likely tokens that holds ``top_p`` of the mass.

    Args:
        probabilities: [R, V] float32. top_p: in (0, 1).

    Returns:
        [R] float32; tokens that are as likely as the last one of the nucleus belong to it.
    """
    return _floor_among(probabilities.sort(dim=-1, descending=True).values, top_p)[0].squeeze(-1)


def _floor_among(top: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """From [R, K] descending: ([R, 1] the least probability in the nucleus, [R, 1] the mass before the last of these tokens)."""
    before = top.cumsum(dim=-1) - top
    # The first token is always inside; so is each one with less than top_p before it.
    last = (before < top_p).sum(dim=-1, keepdim=True).clamp_min(1) - 1
    return top.gather(-1, last), before[:, -1:]
