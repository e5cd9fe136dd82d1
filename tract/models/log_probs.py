"""Log-probabilities of chosen tokens from hidden states, without the logits of the whole vocabulary at all positions at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits held at a time; 2 ** 22 of them are 16 MiB in float32.
CHUNK_ELEMENTS = 2**22


def chosen_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, tokens: Tensor, *, chunk_elements: int = CHUNK_ELEMENTS
) -> Tensor:
    """Log-probability of token ``tokens[n]`` at position ``rows[n]`` under the softmax of a linear LM head.

    The vocabulary goes by in chunks, so that memory grows neither with it nor with the number of positions. The gradient of
    the log of the normaliser by the hidden states is softmax * weight. With a frozen head that product is made on the way, while
    the logits are there; a trained head makes the chunks once more.

    Args:
        hidden: [R, H], any float dtype; under autocast the products are made in autocast's dtype.
        weight: [V, H]. bias: [V] or None.
        rows: [N] int64, places in ``hidden``. tokens: [N] int64.
        chunk_elements: the most logits that are held at a time; at least one column of R.

    Returns:
        [N] float32.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    chunk = max(1, chunk_elements // max(1, hidden.shape[0]))
    with torch.autocast(kind, enabled=False):
        result: Tensor = _ChosenLogProbs.apply(hidden, weight, bias, rows, tokens, dtype, chunk)
    return result


class _ChosenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, tokens: Tensor, dtype: torch.dtype, chunk: int
    ) -> Tensor:
        """An online softmax over chunks of the vocabulary."""
        states = hidden.to(dtype)
        frozen = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        expected = torch.zeros_like(states, dtype=torch.float32) if frozen and ctx.needs_input_grad[0] else None
        top = torch.full_like(states[:, 0], -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(top)
        chosen = torch.zeros_like(tokens, dtype=torch.float32)
        for start in range(0, weight.shape[0], chunk):
            part = weight[start : start + chunk].to(dtype)
            logits = _logits(states, part, bias, start)
            place = tokens - start
            inside = (place >= 0) & (place < part.shape[0])
            chosen = torch.where(inside, logits[rows, place.clamp(0, part.shape[0] - 1)], chosen)
            higher = torch.maximum(top, logits.amax(dim=1))
            shrink = (top - higher).exp_()
            likely = logits.sub_(higher[:, None]).exp_()
            total = total * shrink + likely.sum(dim=1)
            if expected is not None:
                expected.mul_(shrink[:, None]).add_(likely.to(dtype) @ part)
            top = higher
        log_z = top + total.log()
        mean_weight = None if expected is None else expected.div_(total[:, None])
        ctx.save_for_backward(hidden, weight, bias, rows, tokens, log_z, mean_weight)
        ctx.dtype, ctx.chunk = dtype, chunk
        return chosen - log_z[rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """From [N] float32: d log p = d chosen logit - d log z, and d log z / d logits is the softmax."""
        hidden, weight, bias, rows, tokens, log_z, mean_weight = ctx.saved_tensors
        of_chosen = gradients[0].float()
        of_log_z = torch.zeros_like(log_z).index_add_(0, rows, -of_chosen)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias else None
        if mean_weight is not None:
            to_hidden = mean_weight * of_log_z[:, None]
        else:
            to_hidden = _through_softmax(ctx, hidden, weight, bias, log_z, of_log_z, to_weight, to_bias)
        if needs_hidden:
            to_hidden.index_add_(0, rows, of_chosen[:, None] * weight[tokens].float())
        if to_weight is not None:
            to_weight.index_add_(0, tokens, of_chosen[:, None] * hidden[rows].float())
        if to_bias is not None:
            to_bias.index_add_(0, tokens, of_chosen)
        return (
            to_hidden.to(hidden.dtype) if needs_hidden else None,
            None if to_weight is None else to_weight.to(weight.dtype),
            None if to_bias is None else to_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
        )


def _logits(states: Tensor, part: Tensor, bias: Tensor | None, start: int) -> Tensor:
    """[R, C] float32 of one chunk of the vocabulary."""
    logits = (states @ part.T).float()
    return logits if bias is None else logits + bias[start : start + part.shape[0]].float()


def _through_softmax(
    ctx: Any,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    log_z: Tensor,
    of_log_z: Tensor,
    to_weight: Tensor | None,
    to_bias: Tensor | None,
) -> Tensor:
    """The gradient by the hidden states, [R, H] float32; those by weight and bias are added where they are wanted."""
    states = hidden.to(ctx.dtype)
    to_hidden = torch.zeros_like(states, dtype=torch.float32)
    for start in range(0, weight.shape[0], ctx.chunk):
        part = weight[start : start + ctx.chunk].to(ctx.dtype)
        of_logits = _logits(states, part, bias, start).sub_(log_z[:, None]).exp_().mul_(of_log_z[:, None])
        if to_bias is not None:
            to_bias[start : start + ctx.chunk] += of_logits.sum(dim=0)
        of_logits = of_logits.to(ctx.dtype)
        to_hidden += of_logits @ part
        if to_weight is not None:
            to_weight[start : start + ctx.chunk] += of_logits.T @ states
    return to_hidden
