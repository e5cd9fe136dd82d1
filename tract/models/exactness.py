"""Does a packed row give each sequence what it gives alone? Asked of the model itself, with a short forward pass.

Two prompts with two continuations each run through the model packed behind each other, and each of the four sequences alone, as
transformers calls it. Layers that mix tokens other than by attention (state-space, recurrent, convolution), and position biases, see
neither runs nor positions: there a packed row is not exact, and each path becomes a row of its own
(``tract.models.packed_forward.use_rows``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from tract.models.packed_forward import log_probs_at, own_attention, plain_logits
from tract.models.small_model import WINDOW, WINDOWS
from tract.models.tree_attention import PackedSegments
from tract.text.token_tree import SegmentRun

# Largest difference of a token's log-probability, in nats, that rounding makes of the same arithmetic in another order. A bfloat16 logit
# between 16 and 32, as trained models have, is known to 0.125.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
# The same between small copies: where packing is exact they differ by less than 1e-5, where it is not by more than 0.02.
SMALL_TOLERANCE = 2e-4
# Tokens of the prompts, and of the continuations of each: longer than a window, of different lengths.
_PROMPTS = (2 * WINDOW + 5, WINDOW + 3)
_CONTINUATIONS = ((5, 13), (9, 6))


@dataclass(frozen=True)
class Sequences:
    """The sequences of the check.

    Attributes:
        prompts: token ids. continuations: of each prompt, token ids.
    """

    prompts: list[list[int]]
    continuations: list[list[list[int]]]

    @property
    def whole(self) -> list[list[int]]:
        """Each prompt with each of its continuations."""
        return [prompt + own for prompt, all_own in zip(self.prompts, self.continuations, strict=True) for own in all_own]


def tolerance(model: nn.Module, autocast: torch.dtype | None = None) -> float:
    """The largest difference of a log-probability that is rounding, in nats, by the coarsest dtype of weights and arithmetic."""
    of_quantised = {getattr(module, "compute_dtype", None) for module in model.modules()}
    dtypes = {p.dtype for p in model.parameters()} | of_quantised | {autocast}
    return max(_TOLERANCES.get(dtype, 0.0) for dtype in dtypes if dtype is not None)


def check_sequences(model: nn.Module, draw: int = 0) -> Sequences:
    """Token ids at random, the same ones for the same draw, without those that stand for something else than text."""
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    special = _special_ids(model.config) | _special_ids(config)
    allowed = torch.tensor([token for token in range(min(config.vocab_size, 4096)) if token not in special])
    generator = torch.Generator().manual_seed(draw)
    lengths = [*_PROMPTS, *(length for lengths in _CONTINUATIONS for length in lengths)]
    ids = allowed[torch.randint(len(allowed), (sum(lengths),), generator=generator)].tolist()
    parts = [ids[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]
    rest = iter(parts[len(_PROMPTS) :])
    return Sequences(parts[: len(_PROMPTS)], [[next(rest) for _ in own] for own in _CONTINUATIONS])


def _special_ids(config: Any) -> set[int]:
    values = [value for name, value in config.to_dict().items() if name.endswith(("_token_id", "_token_index"))]
    return {token for value in values for token in (value if isinstance(value, list) else [value]) if isinstance(token, int)}


@contextmanager
def short_windows(model: nn.Module) -> Iterator[None]:
    """Lets windows and chunks hold few tokens, so that a short sequence is longer than they are."""
    config: Any = model.config
    holders = [*{id(each): each for each in (config, config.get_text_config())}.values(), *model.modules()]
    held = [
        (holder, name, value)
        for holder in holders
        for name in WINDOWS
        if isinstance(value := vars(holder).get(name), int) and not isinstance(value, bool) and value > WINDOW
    ]
    try:
        for holder, name, _ in held:
            setattr(holder, name, WINDOW)
        yield
    finally:
        for holder, name, value in held:
            setattr(holder, name, value)


@torch.no_grad()
def packing_difference(model: nn.Module, expected: Sequence[Tensor] | None = None, *, draw: int = 0) -> float:
    """The largest difference of a log-probability between sequences of a packed row and each alone, in nats; NaN counts as infinite.

    Args:
        model: a causal LM with or without an adapter; called as it is configured to be, in evaluation mode, and left as it was.
        expected: ``alone_logits`` of the same model as transformers loads it; None for those of this one.
        draw: of the token ids.

    Raises:
        Exception: whatever a model raises that cannot be called so.
    """
    sequences, expected = check_sequences(model, draw), alone_logits(model, draw) if expected is None else expected
    device = next(model.parameters()).device
    with evaluating(model), short_windows(model):
        packed = _packed_log_probs(model, sequences, device)
    alone = [next_log_probs(logits[:-1], ids[1:]) for logits, ids in zip(expected, sequences.whole, strict=True)]
    return largest([found - expected for found, expected in zip(packed, alone, strict=True)])


@torch.no_grad()
def alone_logits(model: nn.Module, draw: int = 0) -> list[Tensor]:
    """For each whole sequence of the check [L, V], of each alone, with transformers' own attention."""
    device = next(model.parameters()).device
    with evaluating(model), short_windows(model), own_attention(model):
        return [plain_logits(model, torch.tensor([ids], device=device))[0] for ids in check_sequences(model, draw).whole]


def next_log_probs(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """[N, V] and N token ids -> [N] float32."""
    index = torch.tensor(tokens, device=logits.device)[:, None]
    return torch.log_softmax(logits.float(), dim=-1).gather(1, index).squeeze(1)


def largest(differences: Sequence[Tensor]) -> float:
    """The largest absolute value of some tensors; NaN counts as infinite."""
    return max(float(torch.nan_to_num(each, nan=torch.inf).abs().max()) for each in differences)


@torch.no_grad()
def looks_ahead(model: nn.Module) -> float:
    """The largest difference, in nats, that later tokens make to the log-probabilities of earlier ones: nearly 0 in a causal model.

    Raises:
        Exception: whatever a model raises that cannot be called so.
    """
    ids = check_sequences(model).whole[0]
    device = next(model.parameters()).device
    with evaluating(model), own_attention(model):
        whole, part = (plain_logits(model, torch.tensor([tokens], device=device))[0] for tokens in (ids, ids[:WINDOW]))
    return largest([torch.log_softmax(whole[:WINDOW].float(), -1) - torch.log_softmax(part.float(), -1)])


def _packed_log_probs(model: nn.Module, sequences: Sequences, device: torch.device) -> list[Tensor]:
    """For each whole sequence the log-probabilities of its tokens but the first."""
    runs: list[SegmentRun] = []
    ids: list[int] = []
    positions: list[int] = []
    places: list[list[int]] = []  # of the tokens of each whole sequence
    for prompt, continuations in zip(sequences.prompts, sequences.continuations, strict=True):
        above = (len(ids), len(ids) + len(prompt))
        ids += prompt
        positions += range(len(prompt))
        for number, own in enumerate(continuations):
            start = len(ids)
            runs.append(SegmentRun(above[0], start + len(own), ()) if number == 0 else SegmentRun(start, start + len(own), (above,)))
            places.append([*range(*above), *range(start, start + len(own))])
            ids += own
            positions += range(len(prompt), len(prompt) + len(own))
    flat = torch.tensor(ids, device=device)
    pairs = [(path[k], path[k + 1]) for path in places for k in range(len(path) - 1)]
    found = log_probs_at(
        model,
        flat[None],
        torch.tensor([positions], device=device),
        PackedSegments(runs),
        torch.arange(len(ids), device=device),
        torch.tensor([before for before, _ in pairs], device=device),
        flat[torch.tensor([place for _, place in pairs], device=device)],
    )
    return list(torch.split(found.float(), [len(path) - 1 for path in places]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: no dropout."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
