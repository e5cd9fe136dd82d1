"""How the sequences of a configured model go through it, known before its weights or the data are read."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from tract.config.schema import Config, ModelConfig
from tract.inference.hf.exactness import live_difference
from tract.inference.hf.paths import SequencePath, because, examine, generates, measured, not_by_rows, not_causal
from tract.inference.hf.rows import without_cache
from tract.models.exactness import alone_logits, looks_ahead, packing_difference, tolerance
from tract.models.loading import load_judge
from tract.models.locating import load_config, locate, unpacked
from tract.models.packed_forward import takes_rows, use_rows, use_tree_attention

log = logging.getLogger(__name__)

_FOUND: dict[str, SequencePath | None] = {}
# Classes of models that were warned of in this process: its stages load the same model again and again.
_WARNED: set[str] = set()


def path_of(model: ModelConfig) -> SequencePath | None:
    """The path of a model's sequences, found once in a process; None where only the weights can tell.

    Raises:
        ConfigError: if its configuration cannot be loaded, or it cannot be trained or sampled from.
    """
    config = load_config(model, unpacked(model, locate(model)))
    key = json.dumps([config.to_dict(), model.attn_implementation, model.trust_remote_code], default=str, sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = examine(config, model.attn_implementation, trust_remote_code=model.trust_remote_code)
    return _FOUND[key]


def packs(model: ModelConfig) -> bool:
    """Whether sequences of a model are packed, as far as its architecture tells."""
    path = path_of(model)
    return path is None or path.packed


def shares_prompts(cfg: Config) -> bool:
    """Whether the continuations of an item share its prompt in training."""
    return cfg.batch.share_prompts and packs(cfg.model)


def judges_by_rows(model: ModelConfig) -> bool:
    """Whether a judge's sequences are rows, as far as the architecture tells."""
    path = path_of(model)
    return path is not None and not path.judges_packed


def warn_of_rows(model: ModelConfig) -> None:
    """Says once in a process that a model is trained, or sampled from, more slowly than others, and why."""
    path = path_of(model)
    if path is not None and not path.judges_packed:
        _warn(path.kind, str(path))


def _warn(kind: str, text: str) -> None:
    if kind not in _WARNED:
        _WARNED.add(kind)
        log.warning("model: %s; slower than packed", text)


def load_on(device: torch.device, model: ModelConfig, weights: Path | None, *, four_bit: bool, seed: int) -> nn.Module:
    """A judge on a device; arguments as those of ``load_judge``. What is done to its weights is done before ``apply_sequence_path``."""
    warn_of_rows(model)
    with device if four_bit else nullcontext():  # quantised weights are put on their device when they are loaded
        loaded = load_judge(
            model,
            weights,
            four_bit=four_bit,
            seed=seed,
            # On a GPU a step is bound by the number of its kernels, of which an adapter beside the weights makes many more.
            merge_half=device.type == "cuda",
            rows=judges_by_rows(model),
        )
    return loaded.to(device)


def apply_sequence_path(model: nn.Module, path: SequencePath | None, *, autocast: torch.dtype | None = None) -> nn.Module:
    """A loaded judge as its sequences go through it, after a look at its weights; each becomes a row where packing is not exact.

    Args:
        model: in evaluation mode on its device. path: what its architecture told. autocast: dtype of the arithmetic where it is not
            the weights' own.

    Raises:
        ConfigError: if it cannot be sampled from, or tokens see later ones.
    """
    device, most = next(model.parameters()).device, tolerance(model, autocast)
    if path is not None and takes_rows(model):
        if not path.cached:
            without_cache(model)
        return model
    with torch.autocast(device.type, autocast, enabled=autocast is not None):
        if path is None and (ahead := measured(lambda: looks_ahead(model)))[0] > most:
            raise not_causal(type(model).__name__, *ahead)
        packed, live = measured(lambda: packing_difference(model)), measured(lambda: _live_difference(model))
        if max(packed, live)[0] > most:
            take_rows(model, *(packed if packed[0] > most else (*live, "in the live cache")))
            rows = measured(lambda: packing_difference(model))
            if rows[0] > most:
                raise not_by_rows(type(model).__name__, *rows)
            generates(model, alone_logits(model), most)
    return model


def _live_difference(model: nn.Module) -> float:
    use_tree_attention(model)
    return live_difference(model)


def take_rows(model: nn.Module, difference: float, trouble: str, where: str = "packed") -> None:
    """Makes each sequence a row of its own, and says so; arguments as those of ``because``."""
    use_rows(model)
    kind = type(model).__name__
    _warn(kind, f"{kind}: each sequence is a row of its own ({because(difference, trouble, where)})")
