"""Does sampling see each sequence as it is alone? Asked of the model itself, like ``tract.exactness`` for a packed row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tract.exactness import alone_logits, check_sequences, evaluating, largest, short_windows
from tract.generation.live import LiveCache, prefill
from tract.generation.rows import generate_steps

# Tokens that are appended one by one before others are looked at; no continuation of the check is as short.
_APPENDED = 2
_PEEKED = 2


@torch.no_grad()
def live_difference(model: nn.Module, expected: Sequence[Tensor] | None = None) -> float:
    """The largest difference of a log-probability between sequences in the live cache and each alone, in nats.

    Args:
        model: a causal LM that attends by ``tract.attention``. expected: see ``tract.exactness.packing_difference``.

    Raises:
        Exception: whatever a model raises that cannot be called so.
    """
    sequences, expected = check_sequences(model), alone_logits(model) if expected is None else expected
    device = next(model.parameters()).device
    lengths = [len(prompt) for prompt, own in zip(sequences.prompts, sequences.continuations, strict=True) for _ in own]
    owners = [number for number, own in enumerate(sequences.continuations) for _ in own]
    tokens = torch.tensor([own[: _APPENDED + _PEEKED] for all_own in sequences.continuations for own in all_own], device=device)
    found: list[Tensor] = []  # of each step [B, V]
    with evaluating(model), short_windows(model):
        keys, logits = prefill(model, sequences.prompts, device)
        found.append(logits[owners])
        live = LiveCache(model, device)
        live.admit([keys[owner] for owner in owners])
        found += [live.append(tokens[:, step]) for step in range(_APPENDED)]
        # The same tokens behind each: what is read there is compared for the sequence that they belong to.
        steps = torch.arange(_PEEKED, device=device)
        within = torch.ones(_PEEKED, _PEEKED, dtype=torch.bool, device=device).tril()
        peeked = [live.peek(own[_APPENDED:], steps, within, steps)[row] for row, own in enumerate(tokens)]
    differences = [
        _log_probs(step[row]) - _log_probs(expected[row][length - 1 + number])
        for number, step in enumerate(found)
        for row, length in enumerate(lengths)
    ]
    behind = [length + _APPENDED for length in lengths]
    differences += [_log_probs(own) - _log_probs(expected[row][behind[row] : behind[row] + _PEEKED]) for row, own in enumerate(peeked)]
    return largest(differences)


@torch.no_grad()
def generate_difference(model: nn.Module, expected: Sequence[Tensor] | None = None) -> float:
    """The same of transformers' ``generate``, with the model's own cache; of the continuations of one prompt."""
    sequences, expected = check_sequences(model), alone_logits(model) if expected is None else expected
    device = next(model.parameters()).device
    prompt, count = sequences.prompts[0], len(sequences.continuations[0])
    tokens = torch.tensor([own[: _APPENDED + _PEEKED] for own in sequences.continuations[0]], device=device)
    found: list[Tensor] = []

    def choose(logits: Tensor) -> Tensor:
        found.append(logits)
        return tokens[:, len(found) - 1]

    with evaluating(model), short_windows(model):
        ids = torch.tensor([prompt] * count, device=device)
        generate_steps(model, ids, choose, lambda: [False] * count, tokens.shape[1])
    return largest(
        [
            _log_probs(step[row]) - _log_probs(expected[row][len(prompt) - 1 + number])
            for number, step in enumerate(found)
            for row in range(count)
        ]
    )


def _log_probs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1)
