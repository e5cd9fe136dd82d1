"""Calling a causal LM on packed token trees: what is asked of chosen positions only, whatever the model's own forward does.

The model's forward runs as it is, adapters and wrappers included; only its LM head is, for the time of the call, one that looks
at the chosen positions. A model in which a packed row is not exact (``use_rows``) is given each path of the trees as a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tract.common.errors import ConfigError
from tract.models.log_probs import chosen_log_probs
from tract.models.tree_attention import LIVE, RUNS, TREE, LiveKeys, PackedSegments, visible_in
from tract.text.token_tree import PathRows

# Marks a model whose forward changes what the head returns (scales it, caps it).
_OWN_LOGITS = "_tract_changes_logits"
# Marks a model that is given each path as a row.
_ROWS = "_tract_takes_rows"


def log_probs_at(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, runs: PackedSegments, positions: Tensor, rows: Tensor, tokens: Tensor
) -> Tensor:
    """Log-probabilities of chosen tokens at chosen positions of a packed row.

    Args:
        model: a causal LM, with or without an adapter.
        input_ids: [1, T] int64. position_ids: [1, T] int64. runs: who sees whom.
        positions: [R] int64, places in T. rows: [N] int64, places in ``positions``. tokens: [N] int64.

    Returns:
        [N] float32, from the full softmax.
    """
    if takes_rows(model):
        input_ids, positions = _as_rows(input_ids, positions, runs)
        return _log_probs(model, input_ids, None, None, positions, rows, tokens)
    return _log_probs(model, input_ids, position_ids, runs, positions, rows, tokens)


def _log_probs(
    model: nn.Module,
    input_ids: Tensor,
    position_ids: Tensor | None,
    runs: PackedSegments | None,
    positions: Tensor,
    rows: Tensor,
    tokens: Tensor,
) -> Tensor:
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
    logits = _logits(model, input_ids, position_ids, positions, runs, None).float()
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
    runs: PackedSegments | None = None,
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
    if runs is not None and takes_rows(model):
        input_ids, positions = _as_rows(input_ids, positions, runs)
        return _logits(model, input_ids, None, positions, None, None)
    return _logits(model, input_ids, position_ids, positions, runs, live)


def plain_logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """[B, T] int64 -> [B, T, V], by transformers alone: each row from its start on, tokens behind its end without a trace in it."""
    logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    return logits


def _logits(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor | None, positions: Tensor, runs: PackedSegments | None, live: LiveKeys | None
) -> Tensor:
    handle = _head_of(model).register_forward_pre_hook(lambda _, args: (args[0].flatten(0, 1)[positions].unsqueeze(0), *args[1:]))
    try:
        return _call(model, input_ids, position_ids, runs, live).squeeze(0)
    finally:
        handle.remove()


def use_tree_attention(model: nn.Module) -> None:
    """Lets a model attend by ``tract.models.tree_attention``, which a live cache needs."""
    model.set_attn_implementation(TREE)  # type: ignore[operator]


def use_rows(model: nn.Module) -> None:
    """Lets a model be called as transformers calls it: each path as a row, attention as transformers chooses it."""
    if _config_of(model)._attn_implementation == TREE:
        _attend_by(model, own_attention_name(model))
    setattr(model, _ROWS, True)


def takes_rows(model: nn.Module) -> bool:
    """Whether each path is a row of its own."""
    return bool(getattr(model, _ROWS, False))


def own_attention_name(model: nn.Module) -> str:
    """The attention that transformers would choose by itself, and "eager" where that is the only one that caps products."""
    return exact_attention(_config_of(model)) or ("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")


def exact_attention(config: Any) -> str | None:
    """What to load a model with that attends as it was trained: None, transformers' choice, unless that passes over capped products."""
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


@contextmanager
def own_attention(model: nn.Module) -> Iterator[None]:
    """Lets a model that attends by ``tract.models.tree_attention`` attend as transformers alone does."""
    before = _config_of(model)._attn_implementation
    if before != TREE:
        yield
        return
    _attend_by(model, own_attention_name(model))
    try:
        yield
    finally:
        _attend_by(model, before)


def _attend_by(model: nn.Module, name: str) -> None:
    model.set_attn_implementation(name)  # type: ignore[operator]
    for config in (model.config, _config_of(model)):  # a model of only one attention ignores the call, but makes its masks by the name
        if config._attn_implementation != name:  # type: ignore[union-attr]
            config._attn_implementation = name  # type: ignore[union-attr]


def _as_rows(input_ids: Tensor, positions: Tensor, runs: PackedSegments) -> tuple[Tensor, Tensor]:
    """([R, L], [N]): each path of a packed row, [1, T], as a row, and the places of its positions, [N], in R * L.

    Shorter paths are filled up behind their end, which no causal model sees.
    """
    paths = PathRows.of(runs.runs)
    longest = max(map(len, paths.places))
    places = torch.tensor([path + [path[-1]] * (longest - len(path)) for path in paths.places], device=input_ids.device)
    found = torch.tensor([row * longest + column for row, column in paths.found], device=input_ids.device)
    return input_ids[0][places], found[positions]


def _config_of(model: nn.Module) -> Any:
    return model.config.get_text_config()  # type: ignore[operator, union-attr]


def _head_of(model: nn.Module) -> Any:
    return model.get_output_embeddings()  # type: ignore[operator]


def _call(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor | None, runs: PackedSegments | None, live: LiveKeys | None = None
) -> Tensor:
    """The model's ``logits``, whatever its head made of them; without positions, rows as they are."""
    if position_ids is None:
        return plain_logits(model, input_ids)
    config = _config_of(model)
    extra: dict[str, Any] = {}
    if config._attn_implementation == TREE:
        # A mask of four axes is passed on as it is; the attention looks at runs or cache instead.
        mask = _by_kind_of_layer(config, lambda *_: input_ids.new_zeros(1, 1, 1, 1))
        extra = {RUNS: runs} if live is None else {LIVE: live}
    elif runs is not None:
        mask = _by_kind_of_layer(config, _masks(config, runs, position_ids, next(model.parameters()).dtype))
    else:
        raise ConfigError(f"model.attn_implementation: judging needs {TREE}, found {config._attn_implementation}; set it to {TREE} or null")
    logits: Tensor = model(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False, **extra).logits
    if extra.get(RUNS) is not None and not extra[RUNS].used:
        raise ConfigError(f"model.attn_implementation: {TREE} does not reach the attention of {type(model).__name__}")
    return logits


def _masks(config: Any, runs: PackedSegments, position_ids: Tensor, dtype: torch.dtype) -> Callable[[int | None, int | None], Any]:
    """Makes masks of all pairs of tokens from a window and a chunk: for attention that knows no runs."""
    seen = visible_in(runs.runs, position_ids.shape[1], position_ids.device)
    own, other = position_ids[0, :, None], position_ids[0]  # both count along each token's own path

    def mask(window: int | None, chunk: int | None) -> Any:
        visible = seen if window is None else seen & (own - other < window)
        visible = visible if chunk is None else visible & (own // chunk == other // chunk)
        if config._attn_implementation == "flex_attention":
            return _block_mask(visible)
        return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)[None, None]

    return mask


def _block_mask(visible: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    size = visible.shape[0]
    return create_block_mask(lambda b, h, q, k: visible[q, k], None, None, size, size, device=str(visible.device))


def _by_kind_of_layer(config: Any, mask: Callable[[int | None, int | None], Any]) -> Any:
    """One mask, or one by the name of each kind of layer for models that mix kinds of attention."""
    kinds = set(getattr(config, "layer_types", None) or [])
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    if len(kinds) > 1:
        limits = {"sliding_attention": (window, None), "chunked_attention": (None, chunk)}
        return {kind: mask(*limits.get(kind, (None, None))) for kind in kinds}
    return mask(window if "full_attention" not in kinds else None, None)


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Another forward for a module, hooks kept."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # the class's own comes back
