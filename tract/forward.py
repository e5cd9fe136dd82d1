"""Calling a causal LM on packed token trees: what is asked of chosen positions only, whatever the model's own forward does.

The model's forward runs as it is, adapters and wrappers included; only its LM head is, for the time of the call, one that looks
at the chosen positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tract.attention import LIVE, RUNS, TREE, LiveKeys, TokenRuns, visible_in
from tract.errors import ConfigError
from tract.head import chosen_log_probs

# Marks a model whose forward changes what the head returns (scales it, caps it).
_OWN_LOGITS = "_tract_changes_logits"


def log_probs_at(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, runs: TokenRuns, positions: Tensor, rows: Tensor, tokens: Tensor
) -> Tensor:
    """Log-probabilities of chosen tokens at chosen positions of a packed row.

    Args:
        model: a causal LM, with or without an adapter.
        input_ids: [1, T] int64. position_ids: [1, T] int64. runs: who sees whom.
        positions: [R] int64, places in T. rows: [N] int64, places in ``positions``. tokens: [N] int64.

    Returns:
        [N] float32, from the full softmax.
    """
    head = _head_of(model)
    if type(head) is nn.Linear and not getattr(model, _OWN_LOGITS, False):
        made: list[Tensor] = []

        def chosen(hidden: Tensor) -> Tensor:
            # A copy: wrappers that gather weights for the backward pass take no view.
            made.append(chosen_log_probs(hidden.flatten(0, 1)[positions], head.weight, head.bias, rows, tokens).view(1, 1, -1).clone())
            return made[0]

        with _replaced_forward(head, chosen):
            found = _call(model, input_ids, position_ids, runs)
        if found is made[0] or _equal(found, made[0]):
            return found.flatten()  # on which such wrappers hang, not on what was made
        setattr(model, _OWN_LOGITS, True)  # the logits that its softmax sees are not those of the head
    logits = logits_at(model, input_ids, position_ids, positions, runs=runs).float()
    return logits[rows, tokens] - torch.logsumexp(logits, dim=-1)[rows]


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, NaN at the same places included: one rank alone must not go through the model once more."""
    return torch.equal(a, b) or (a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def logits_at(
    model: nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    positions: Tensor,
    *,
    runs: TokenRuns | None = None,
    live: LiveKeys | None = None,
) -> Tensor:
    """Logits at chosen positions; the LM head never sees the others.

    Args:
        model: a causal LM, with or without an adapter.
        input_ids: [B, T] int64. position_ids: [B, T] int64.
        positions: [R] int64, places in the flattened [B * T].
        runs: who sees whom in a packed row, B = 1. live: or the cache that the tokens go on from.

    Returns:
        [R, V], in the model's dtype; scaling and soft-capping of the model's own forward included.
    """
    handle = _head_of(model).register_forward_pre_hook(lambda _, args: (args[0].flatten(0, 1)[positions].unsqueeze(0), *args[1:]))
    try:
        return _call(model, input_ids, position_ids, runs, live).squeeze(0)
    finally:
        handle.remove()


def use_tree_attention(model: nn.Module) -> None:
    """Lets a model attend by ``tract.attention``, which a live cache needs."""
    model.set_attn_implementation(TREE)  # type: ignore[operator]


def _head_of(model: nn.Module) -> Any:
    return model.get_output_embeddings()  # type: ignore[operator]


def _call(model: nn.Module, input_ids: Tensor, position_ids: Tensor, runs: TokenRuns | None, live: LiveKeys | None = None) -> Tensor:
    """The model's ``logits``, whatever its head made of them."""
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    extra: dict[str, Any] = {}
    if config._attn_implementation == TREE:
        # A mask of four axes is passed on as it is; the attention looks at runs or cache instead.
        mask = _by_kind_of_layer(config, lambda _: input_ids.new_zeros(1, 1, 1, 1))
        extra = {RUNS: runs} if live is None else {LIVE: live}
    elif runs is not None:
        mask = _by_kind_of_layer(config, _masks(config, runs, position_ids, next(model.parameters()).dtype))
    else:
        raise ConfigError(f"model.attn_implementation: judging needs {TREE}, found {config._attn_implementation}; set it to {TREE} or null")
    logits: Tensor = model(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False, **extra).logits
    if extra.get(RUNS) is not None and not extra[RUNS].used:
        raise ConfigError(
            f"model.attn_implementation: {TREE} does not reach the attention of {type(model).__name__}; set it to sdpa or eager"
        )
    return logits


def _masks(config: Any, runs: TokenRuns, position_ids: Tensor, dtype: torch.dtype) -> Callable[[int | None], Any]:
    """Makes masks of all pairs of tokens from a window: for attention that knows no runs."""
    seen = visible_in(runs.runs, position_ids.shape[1], position_ids.device)
    distance = position_ids[0, :, None] - position_ids[0]  # a window counts along each token's own path

    def mask(window: int | None) -> Any:
        visible = seen if window is None else seen & (distance < window)
        if config._attn_implementation == "flex_attention":
            return _block_mask(visible)
        return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)[None, None]

    return mask


def _block_mask(visible: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    size = visible.shape[0]
    return create_block_mask(lambda b, h, q, k: visible[q, k], None, None, size, size, device=str(visible.device))


def _by_kind_of_layer(config: Any, mask: Callable[[int | None], Any]) -> Any:
    """One mask, or one by the name of each kind of layer for models that mix layers with and without a sliding window."""
    kinds = set(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None)
    if len(kinds) > 1:
        return {"full_attention": mask(None), "sliding_attention": mask(window)}
    return mask(window if "full_attention" not in kinds else None)


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Another forward for a module, hooks kept."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # the class's own comes back
