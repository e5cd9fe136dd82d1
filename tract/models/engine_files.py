"""A judge as files that another engine than this process loads; what there is in no such form is written to the cache, once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from tract.common.durable import write_folder_atomically
from tract.config.schema import ModelConfig
from tract.models.adapter_digest import adapter_digest
from tract.models.adapters import lora_config
from tract.models.loading import load_judge
from tract.models.locating import (
    Checkpoint,
    check_weights,
    from_source,
    in_folder,
    load_config,
    locate,
    model_fingerprint,
    stated_context,
    unpacked,
)
from tract.models.saving import save_here
from tract.models.tokenizers import load_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """What another engine than this process loads a judge from.

    Attributes:
        model: hub id, or folder with safetensors and tokenizer. revision: on the hub. tokenizer: hub id or folder.
        adapter: folder of the LoRA adapter that belongs on top, or None. adapter_rank: its rank, 0 without one.
        max_positions: the longest sequence that the model is made for, in tokens; None where it states no limit.
    """

    model: str
    revision: str | None
    tokenizer: str
    adapter: Path | None
    adapter_rank: int
    max_positions: int | None


def serving_files(cfg: ModelConfig, weights: Path | None, *, merge: bool, seed: int, cache: Path) -> ServingFiles:
    """A judge as files; written to the cache, once, where there are none in this form: GGUF, random and merged weights.

    Args:
        cfg, weights, seed: as in ``load_judge``. merge: add an adapter to the weights. cache: folder for what has to be written.

    Raises:
        ConfigError: if the weights cannot be loaded.
    """
    adapter = weights if weights is not None and (weights / "adapter_config.json").is_file() else None
    if adapter is not None and merge:
        with from_source("judge", Checkpoint(str(adapter), None)):
            digest = adapter_digest(adapter)
        cfg, adapter = in_folder(cfg, _written(cfg, adapter, seed, cache / f"merged-{digest[:16]}")), None
    elif weights is not None and adapter is None:
        cfg = in_folder(cfg, weights)
    elif cfg.random_init:
        cfg = in_folder(cfg, _written(cfg, None, seed, cache / "random"))
    source = unpacked(replace(cfg, unpacked=cfg.unpacked or str(cache)), locate(cfg))
    config = load_config(cfg, source)
    check_weights(cfg, source)
    rank = lora_config(adapter).r if adapter else 0
    return ServingFiles(source.location, cfg.revision, cfg.tokenizer_name_or_path or source.location, adapter, rank, stated_context(config))


def _written(cfg: ModelConfig, adapter: Path | None, seed: int, prefix: Path) -> Path:
    """A folder with the whole weights of a judge, in float32 so that an adapter loses nothing."""
    folder = prefix.with_name(f"{prefix.name}-{model_fingerprint(cfg, seed)[:16]}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            log.info("model: writing whole weights into %s, once", folder)
            whole: Any = load_judge(replace(cfg, dtype="float32"), adapter, four_bit=False, seed=seed)
            with write_folder_atomically(folder) as partial:
                save_here(whole, partial)
                load_tokenizer(cfg).save_pretrained(partial)
    return folder
