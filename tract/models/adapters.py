"""LoRA adapters, new and trained, and the 4-bit base weights of QLoRA."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from tract.common import library_logs  # noqa: F401 - before PEFT is imported

# isort: split
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from tract.common.errors import ConfigError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.locating import Checkpoint, from_source
from tract.models.saving import without_progress_bars

# Of checkpointing: the other way of torch's loses gradients where nothing that goes into a layer needs one.
CHECKPOINTING = {"use_reentrant": False}
# Families in which PEFT puts no adapter on these matrices of Mamba's layers, since their kernels read the weights themselves.
_MAMBA_TYPES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_MAMBA_MODULES = r".*\.(?:out_proj|conv1d)"


def new_lora_config(model: nn.Module, adapter: AdapterConfig) -> LoraConfig:
    """PEFT's configuration of an untrained adapter.

    Args:
        model: the base model. adapter: rank, alpha, dropout and the modules to adapt.
    """
    targets = adapter.target_modules
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets[0] if len(targets) == 1 and targets[0] == "all-linear" else list(targets),
        exclude_modules=_excluded_modules(model, adapter),
        task_type="CAUSAL_LM",
    )


def with_new_lora(model: nn.Module, config: LoraConfig, seed: int, *, float32: bool) -> nn.Module:
    """The model with an untrained adapter; its first weights depend on the seed alone, not on what drew random numbers before.

    Args:
        model: the base model. config: of the adapter. seed: of its first weights.
        float32: keep the adapter in float32 beside weights of another dtype.

    Raises:
        ConfigError: if the target modules do not fit the model.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = [config.target_modules] if isinstance(config.target_modules, str) else sorted(config.target_modules or [])
        try:
            return get_peft_model(model, config, autocast_adapter_dtype=float32)
        except ValueError as error:
            reason = str(error).splitlines()[0][:300]
            raise ConfigError(f"adapter.target_modules: {given} do not fit {type(model).__name__}: {reason}") from error


def _excluded_modules(model: nn.Module, adapter: AdapterConfig) -> str | None:
    """The pattern of modules that get no adapter, None if the model has none of them; PEFT warns of a pattern without a match."""
    names = [name for name, _ in model.named_modules()]
    patterns = [adapter.exclude_modules] if adapter.exclude_modules else []
    if getattr(model.config, "model_type", None) in _MAMBA_TYPES and adapter.target_modules == ["all-linear"]:
        patterns.append(_MAMBA_MODULES)
    matching = [pattern for pattern in patterns if any(re.fullmatch(pattern, name) for name in names)]
    return "|".join(f"(?:{pattern})" for pattern in matching) if len(matching) > 1 else next(iter(matching), None)


def lora_config(folder: Path) -> LoraConfig:
    """The configuration of a trained adapter. The base model that it names is never loaded: that is the configured base model.

    Raises:
        ConfigError: if it cannot be read, is of another kind of PEFT, or makes PEFT import something.
    """
    with from_source("judge", Checkpoint(str(folder), None)):
        config: Any = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig) or config.megatron_config:
        kind = "LoRA of Megatron" if isinstance(config, LoraConfig) else config.peft_type
        raise ConfigError(f"judge: {folder / 'adapter_config.json'} is of the kind {kind}; a LoRA adapter is accepted")
    return config


def with_trained_lora(model: nn.Module, folder: Path, *, trainable: bool) -> Any:
    """The model with the adapter of a judge's folder.

    Args:
        model: the base model. folder: of the judge. trainable: whether the adapter's weights require gradients.

    Raises:
        ConfigError: if the adapter cannot be loaded.
    """
    lora_config(folder)
    with from_source("judge", Checkpoint(str(folder), None)), without_progress_bars():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def merged_in_float32(model: Any) -> Any:
    """The model with its adapter added to the weights: in float32, then back in their dtype, one layer at a time."""
    for layer in model.modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base = layer.get_base_layer()
        stored = {name: weight.dtype for name, weight in base.named_parameters(recurse=False)}
        for parameter in layer.parameters():
            parameter.data = parameter.data.float()
        layer.merge()
        for name, dtype in stored.items():
            weight = getattr(base, name)
            weight.data = weight.data.to(dtype)
    return model.unload()


def four_bit_config(cfg: ModelConfig) -> Any:
    """How bitsandbytes quantizes the base weights (QLoRA): NF4 with double quantization, products in the model's dtype.

    Raises:
        ConfigError: if bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind: qlora needs the package bitsandbytes; run `pip install bitsandbytes`, or set adapter=lora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=getattr(torch, cfg.dtype)
    )


def keep_four_bit_layout(model: Any) -> Any:
    """Keeps bitsandbytes from repacking matrices when they are first used in evaluation mode, on CPUs that compute in bfloat16.

    Repacking rounds their scales once more, so that the judge is not the model that was trained, and a repacked matrix has no
    gradient: training after a validation would silently lose the gradient of all layers below.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def prepare_four_bit(model: Any, *, checkpointing: bool) -> Any:
    """The model as QLoRA trains it: frozen, with all that is not quantized in float32; a judge must be loaded in the same way."""
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs=CHECKPOINTING)
