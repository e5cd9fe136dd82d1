"""Score predictors (TRACT, arXiv 2503.04381: RAIL): from next-token logits to a score in points. Pure functions in float32."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tract.text.score_grid import ScoreTrie


def log_normalizer(logits: Tensor) -> Tensor:
    """Log of the sum of exponentials over the whole vocabulary, in float32.

    Args:
        logits: [R, V], any float dtype.

    Returns:
        [R] float32; ``logits - log_normalizer`` are log-probabilities.
    """
    return torch.logsumexp(logits.float(), dim=-1)


@lru_cache(maxsize=32)
@torch.inference_mode(mode=False)  # made while sampling, these are kept for training, which cannot use inference tensors
def _trie_tensors(trie: ScoreTrie, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The trie as index tensors: the (node, token) pairs [P, 2] split in two [P], steps [Y, D] and stops [Y, E] into the pairs.

    Pair P is "certain" (log-probability 0) and pair P + 1 "impossible"; they fill up the rows of steps and stops.
    """
    pairs = sorted({pair for steps in trie.steps for pair in steps} | {(stop[0], t) for stop in trie.stops if stop for t in stop[1]})
    place = {pair: k for k, pair in enumerate(pairs)}
    certain, impossible = len(pairs), len(pairs) + 1
    depth = max(len(steps) for steps in trie.steps)
    steps = [[place[pair] for pair in s] + [certain] * (depth - len(s)) for s in trie.steps]
    width = max((len(stop[1]) for stop in trie.stops if stop), default=0)
    stops = [
        [place[stop[0], t] for t in stop[1]] + [impossible] * (width - len(stop[1])) if stop else [impossible] * width
        for stop in trie.stops
    ]
    nodes, tokens = (torch.tensor(column, device=device) for column in zip(*pairs, strict=True))
    stop_pairs = torch.tensor(stops, device=device, dtype=torch.long).reshape(len(stops), width)
    return nodes, tokens, torch.tensor(steps, device=device), stop_pairs


def score_pairs(trie: ScoreTrie, device: torch.device) -> tuple[Tensor, Tensor]:
    """What has to be known of the model to tell the scores apart: (node of the trie, token that follows it), each [P] int64."""
    nodes, tokens, _, _ = _trie_tensors(trie, device)
    return nodes, tokens


def score_probabilities(logits: Tensor, log_z: Tensor, score_reads: Tensor, trie: ScoreTrie) -> Tensor:
    """``probabilities_of_pairs`` from whole distributions.

    Args:
        logits: [R, V], any float dtype; the distribution at R positions.
        log_z: [R] float32, ``log_normalizer(logits)``.
        score_reads: [M, K] int64; for each of M continuations and K nodes of the trie, the row of ``logits`` to read.
        trie: the decisions between the scores.

    Returns:
        [M, Y] float32.
    """
    nodes, tokens = score_pairs(trie, logits.device)
    rows = score_reads[:, nodes]  # [M, K] -> [M, P]
    return probabilities_of_pairs(logits[rows, tokens].float() - log_z[rows], trie)


def probabilities_of_pairs(log_probs: Tensor, trie: ScoreTrie) -> Tensor:
    """Probability of each score of the grid, from the full softmax (TRACT section 3, p(str(y) | x, c)).

    A score's probability is the product over its tokens along the trie up to where it is decided; a score on which
    another one goes on ("1" beside "10") gets what the other leaves over. A row sums to at most one.

    Args:
        log_probs: [M, P] float32, for each of M continuations the log-probabilities of ``score_pairs(trie)``.
        trie: the decisions between the scores.

    Returns:
        [M, Y] float32.
    """
    _, _, steps, stops = _trie_tensors(trie, log_probs.device)
    certain = torch.zeros_like(log_probs[:, :1])
    padded = torch.cat([log_probs, certain, certain - torch.inf], dim=1)  # [M, P + 2]
    passed = padded[:, steps].sum(dim=-1).exp()  # [M, Y, D] -> [M, Y]
    if stops.shape[1] == 0:
        return passed
    goes_on = padded[:, stops].exp().sum(dim=-1)  # [M, Y, E] -> [M, Y]
    return passed * (1.0 - goes_on).clamp_min(0.0)


def expected_score(probabilities: Tensor, values: Tensor, *, normalize: bool) -> Tensor:
    """Mean score under the score distribution (RAIL predictor, y_hat(x, c); TRACT section 3.1).

    Args:
        probabilities: [M, Y] float32, from ``score_probabilities``.
        values: [Y] float32, the scores in points.
        normalize: whether to divide by the score mass; the paper does not.

    Returns:
        [M] float32, in points. Without ``normalize`` mass outside the grid counts as zero points.

    Raises:
        ValueError: if ``probabilities`` and ``values`` differ in length.
    """
    if probabilities.shape[-1] != values.shape[-1]:
        raise ValueError(f"{probabilities.shape[-1]} probabilities for {values.shape[-1]} scores")
    return ((normalized(probabilities) if normalize else probabilities) * values).sum(dim=-1)


def normalized(probabilities: Tensor) -> Tensor:
    """The probabilities divided by their sum, the score mass; [M, Y] float32 -> [M, Y]."""
    # The smallest normal float32 keeps a vanished mass from dividing by zero.
    return probabilities / probabilities.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
