"""The weights of an export: whole ones, with an adapter merged in float32, or the adapter alone, as PEFT loads it."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_settings import BaseModel
from tract.common.errors import ConfigError
from tract.inference.sampling import Sampling
from tract.models.adapters import lora_config
from tract.models.loading import check_finite, load_judge, stored_in
from tract.models.locating import from_source, in_folder, load_config, locate
from tract.models.saving import save_here
from tract.text.layout import SequenceLayout

log = logging.getLogger(__name__)

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What an adapter's shapes and a judge's layout depend on.
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")


def write_whole(run: JudgeFiles, dtype: str | None, folder: Path) -> str:
    """Writes whole weights as safetensors with their configuration; returns their dtype.

    Args:
        dtype: None for float32 where an adapter is merged, so that nothing of it is lost, else the weights' own.

    Raises:
        ConfigError: if they cannot be loaded, or do not fit the dtype.
    """
    own = "float32" if run.settings.adapter else run.model.dtype
    _warn_of_four_bit(run)
    # Of a judge with an adapter this merges it.
    model: Any = load_judge(replace(run.model, dtype=own), run.weights, four_bit=False, seed=run.seed)
    if (wanted := dtype or own) != own:
        model = stored_in(model, getattr(torch, wanted))
        _check_dtype_holds(model, wanted)
    model.generation_config = generation_config(run.layout, run.settings.sampling, model.generation_config)
    model.config.use_cache = True  # training turned it off, and users generate
    save_here(model, folder)
    return wanted


def _warn_of_four_bit(run: JudgeFiles) -> None:
    if run.four_bit:
        log.warning("%s: trained on a quantised base model (QLoRA); on the whole one its scores may differ a little", run.settings.name)


def _check_dtype_holds(model: Any, dtype: str) -> None:
    try:
        check_finite(model)
    except ConfigError as error:
        raise ConfigError(f"--dtype: the weights do not fit {dtype}; use float32 or bfloat16 ({error})") from error


def write_adapter(run: JudgeFiles, base: str | None, folder: Path) -> BaseModel:
    """Writes the adapter with the base model that it names; returns that.

    Args:
        base: hub id or folder of the base model; None for the run's.

    Raises:
        ConfigError: if the judge has no adapter, or PEFT could not load the base model by its name.
    """
    if not run.settings.adapter:
        raise ConfigError("--adapter: all weights of this judge were trained, there is no adapter; leave --adapter out")
    named = _base_model_for_peft(run, base)
    lora_config(run.stage.path)
    _warn_of_four_bit(run)
    for name in ADAPTER_FILES:
        shutil.copyfile(run.stage.path / name, folder / name)
    path = folder / ADAPTER_FILES[0]
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"base_model_name_or_path": named.name_or_path, "revision": named.revision, "inference_mode": True}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    generation_config(run.layout, run.settings.sampling, None).save_pretrained(folder)
    return named


def _base_model_for_peft(run: JudgeFiles, base: str | None) -> BaseModel:
    """The base model as ``from_pretrained`` takes it."""
    model = run.model
    if base is None:
        remedy = "leave --adapter out, or give --base with a hub id or folder that holds the same weights"
        if model.package is not None or model.name_or_path.endswith(".gguf"):
            where = f"the Python package {model.package}" if model.package else "a GGUF file"
            raise ConfigError(f"--adapter: the base model {model.name_or_path!r} lies in {where}, where PEFT cannot load it; {remedy}")
        if model.random_init:
            raise ConfigError(f"--adapter: the base model {model.name_or_path!r} was made at random and lies nowhere; {remedy}")
        folder = Path(model.name_or_path)
        return BaseModel(str(folder.resolve()) if folder.is_dir() else model.name_or_path, None, model.revision)
    folder = Path(base)
    if not folder.is_dir() and base.startswith((".", "/", "~")):
        raise ConfigError(f"--base: there is no folder {base!r}; give a hub id, or a folder with the base model")
    name = str(folder.resolve()) if folder.is_dir() else base
    other = in_folder(model, name)
    with from_source("--base", locate(other)):
        found, own = load_config(other, locate(other)), load_config(model, locate(model))
    for key in _SHAPE:
        pair = (getattr(config.get_text_config(), key, None) for config in (found, own))
        there, here = pair
        if there != here:
            raise ConfigError(f"--base: {base!r} has {key} {there}, the base model of the run {here}; give one with the same weights")
    return BaseModel(name, None, None)


def generation_config(layout: SequenceLayout, sampling: Sampling, own: GenerationConfig | None) -> Any:
    """What ``generate`` takes where it is told nothing: CoTs as the judge draws them, up to the end of its turn.

    Args:
        own: of the base model, whose tokens stay; None for none.
    """
    tokenizer = layout.tokenizer
    ends = own.eos_token_id if own is not None else tokenizer.eos_token_id
    also = ends if isinstance(ends, list) else [] if ends is None else [ends]
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(dict.fromkeys([layout.end_id, *also])),
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=sampling.max_cot_tokens + layout.max_tail_tokens,
        **(drawn if sampling.temperature else {"do_sample": False}),
    )
