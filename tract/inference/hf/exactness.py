"""Does sampling see each sequence as it is alone? Asked of the model itself, like ``tract.models.exactness`` for a packed row.

As there, log-probabilities of the tokens that follow are compared: of the whole vocabulary, half precision knows some logits badly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tract.inference.hf.live import LiveCache, prefill
from tract.inference.hf.rows import generate_steps
from tract.models.exactness import alone_logits, check_sequences, evaluating, largest, next_log_probs, short_windows

# Tokens behind each prompt whose log-probabilities are compared, no more than the shortest continuation has; of those before the last
# one so many are appended one by one, and the others looked at together.
_COMPARED, _APPENDED = 5, 2


@torch.no_grad()
def live_difference(model: nn.Module, expected: Sequence[Tensor] | None = None) -> float:
    """The largest difference of a log-probability between sequences in the live cache and each alone, in nats.

    Args:
        model: a causal LM that attends by ``tract.models.tree_attention``. expected: see ``tract.models.exactness.packing_difference``.

    Raises:
        Exception: whatever a model raises that cannot be called so.
    """
    sequences, expected = check_sequences(model), alone_logits(model) if expected is None else expected
    device = next(model.parameters()).device
    lengths = [len(prompt) for prompt, own in zip(sequences.prompts, sequences.continuations, strict=True) for _ in own]
    owners = [number for number, own in enumerate(sequences.continuations) for _ in own]
    tokens = torch.tensor([own[:_COMPARED] for all_own in sequences.continuations for own in all_own], device=device)
    with evaluating(model), short_windows(model):
        keys, logits = prefill(model, sequences.prompts, device)
        found = [logits[owners]]  # of each step [B, V]
        live = LiveCache(model, device)
        live.admit([keys[owner] for owner in owners])
        found += [live.append(tokens[:, step]) for step in range(_APPENDED)]
        # The same tokens behind each: what is read there is compared for the sequence that they belong to.
        count = _COMPARED - 1 - _APPENDED
        depths = torch.arange(count, device=device)
        within = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        peeked = [live.score_without_append(own[_APPENDED:-1], depths, within, depths)[row] for row, own in enumerate(tokens)]
    return _largest_of(
        [torch.cat([torch.stack([step[row] for step in found]), peeked[row]]) for row in range(len(tokens))], expected, lengths, tokens
    )


@torch.no_grad()
def generate_difference(model: nn.Module, expected: Sequence[Tensor] | None = None) -> float:
    """The same of transformers' ``generate``, with the model's own cache; of the continuations of one prompt."""
    sequences, expected = check_sequences(model), alone_logits(model) if expected is None else expected
    device = next(model.parameters()).device
    prompt, count = sequences.prompts[0], len(sequences.continuations[0])
    tokens = torch.tensor([own[:_COMPARED] for own in sequences.continuations[0]], device=device)
    found: list[Tensor] = []  # of each step [B, V]

    def choose(logits: Tensor) -> Tensor:
        found.append(logits)
        return tokens[:, len(found) - 1]

    with evaluating(model), short_windows(model):
        ids = torch.tensor([prompt] * count, device=device)
        generate_steps(model, ids, choose, lambda: [False] * count, _COMPARED)
    return _largest_of([torch.stack([step[row] for step in found]) for row in range(count)], expected, [len(prompt)] * count, tokens)


def _largest_of(found: Sequence[Tensor], expected: Sequence[Tensor], lengths: Sequence[int], tokens: Tensor) -> float:
    """The largest difference of the log-probabilities of [B, N] tokens behind prompts of some lengths, from logits [N, V] of each."""
    differences = []
    for own, alone, length, following in zip(found, expected, lengths, tokens.tolist(), strict=False):
        behind = alone[length - 1 : length - 1 + len(following)]
        differences.append(next_log_probs(own, following) - next_log_probs(behind, following))
    return largest(differences)
