"""Loading a base model to train it with an adapter, and a judge to sample and read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from tract.common.errors import ConfigError
from tract.common.finite import listed, not_finite
from tract.common.model_name import model_name
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.adapters import (
    CHECKPOINTING,
    four_bit_config,
    keep_four_bit_layout,
    lora_config,
    merged_in_float32,
    new_lora_config,
    prepare_four_bit,
    with_new_lora,
    with_trained_lora,
)
from tract.models.locating import check_weights, dequantized, from_source, in_folder, load_config, locate, unpacked
from tract.models.packed_forward import exact_attention, use_rows
from tract.models.saving import without_progress_bars
from tract.models.tree_attention import TREE

_NAMED = 3  # the most weights that an error names


def load_model(
    cfg: ModelConfig,
    adapter: AdapterConfig,
    *,
    seed: int,
    init_from: Path | None = None,
    empty: bool = False,
    float32_adapter: bool = True,
    rows: bool = False,
) -> nn.Module:
    """The base model with its adapter; only what is trained requires gradients.

    Args:
        cfg: the base model. adapter: what is trained. seed: of the adapter's first weights.
        init_from: folder of a trained judge, from whose adapter or full weights training continues.
        empty: read no weights; the surrounding context decides how parameters are created, e.g. without memory.
        float32_adapter: keep adapters in float32 beside frozen weights of another dtype.
        rows: each sequence is a row of its own, since packing is not exact for this model (``tract.models.packed_forward.use_rows``).

    Raises:
        ConfigError: if the weights cannot be loaded or are not finite, or QLoRA lacks bitsandbytes.
    """
    full_start = init_from is not None and adapter.kind == "full"
    model = _base_model(in_folder(cfg, init_from) if full_start and init_from else cfg, adapter, seed, empty=empty, rows=rows)
    # What adapter and model card name as their base: never a path of this machine's Python environment.
    model.name_or_path = model.config._name_or_path = model_name(cfg.name_or_path, cfg.package) if cfg.package else cfg.name_or_path
    if adapter.kind == "full":
        _train_text_weights(model)
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
    if adapter.kind == "qlora":
        model = prepare_four_bit(model, checkpointing=cfg.gradient_checkpointing)
    if adapter.kind in ("lora", "qlora"):
        if init_from is None:
            model = with_new_lora(model, new_lora_config(model, adapter), seed, float32=float32_adapter)
        elif empty:
            model = with_new_lora(model, lora_config(init_from), seed, float32=float32_adapter)
        else:
            model = with_trained_lora(model, init_from, trainable=True)
    if not empty:
        check_finite(model, init_from)
    if rows:
        use_rows(model)
    model.config.use_cache = False
    # Loading leaves the model in evaluation mode, in which gradient checkpointing and dropout do nothing.
    return model.train()


def load_judge(
    cfg: ModelConfig, weights: Path | None, *, four_bit: bool, seed: int, merge_half: bool = False, rows: bool = False
) -> nn.Module:
    """A judge to sample and read from, in evaluation mode.

    Args:
        cfg: the base model. seed: of randomly made weights.
        weights: folder with a trained adapter or full weights; None for the base model itself.
        four_bit: whether the base model's weights are quantized, as they were in training (QLoRA). They are created on torch's
            default device; if none is set, on the first GPU where there is one.
        merge_half: whether an adapter is added to weights in half precision too, as it is to those in float32. Their sum is rounded: in
            bfloat16 by up to a 512th of each weight, which may be more than the adapter adds to it (``generation.vllm.lora=merged``
            does the same). Never to quantized ones.
        rows: as in ``load_model``.

    Raises:
        ConfigError: if the weights cannot be loaded, or are not finite.
    """
    plain = AdapterConfig(kind="qlora" if four_bit else "full", rank=1, alpha=1.0, dropout=0.0, target_modules=[], exclude_modules=None)
    adapted = weights is not None and (weights / "adapter_config.json").is_file()
    model = _base_model(cfg if weights is None or adapted else in_folder(cfg, weights), plain, seed, rows=rows)
    if four_bit:
        model = prepare_four_bit(model, checkpointing=False)
    if weights is not None and adapted:
        model = with_trained_lora(model, weights, trainable=False)
        # A third of the products for each sampled token.
        if cfg.dtype == "float32" and not four_bit:
            model = model.merge_and_unload()
        elif merge_half and not four_bit:
            model = merged_in_float32(model)
    if rows:
        use_rows(model)
    check_finite(model, weights)
    model.requires_grad_(False)
    return model.eval()


def _base_model(cfg: ModelConfig, adapter: AdapterConfig, seed: int, *, empty: bool = False, rows: bool = False) -> Any:
    """The base model without an adapter, in one of three ways: random weights, no weights, or those of its files."""
    source = locate(cfg)
    attention: str | None = cfg.attn_implementation or TREE
    if rows and attention == TREE:
        attention = exact_attention(load_config(cfg, unpacked(cfg, source)))
    kwargs: dict[str, Any] = {"dtype": getattr(torch, cfg.dtype), "attn_implementation": attention}
    if cfg.random_init and not empty:
        config = load_config(cfg, source)
        check_weights(cfg, source)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=cfg.trust_remote_code, **kwargs)
    if empty:
        config = load_config(cfg, unpacked(cfg, source))
        with no_init_weights():
            return AutoModelForCausalLM.from_config(config, trust_remote_code=cfg.trust_remote_code, **kwargs)
    four_bit = {"quantization_config": four_bit_config(cfg)} if adapter.kind == "qlora" else {}
    source = unpacked(cfg, source)
    check_weights(cfg, source)
    of_file = dequantized(source) if source.gguf_file else four_bit
    with from_source("model.name_or_path", source), without_progress_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs, **kwargs, **of_file
        )
        if four_bit and source.gguf_file:  # transformers does not quantise what a GGUF file holds
            model = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict(), **kwargs, **four_bit)
    return keep_four_bit_layout(model) if four_bit else model


def _train_text_weights(model: Any) -> None:
    """Lets all weights be trained that a text goes through; the vision part of a multimodal model stays as it is."""
    if model.config.get_text_config() is model.config:
        model.requires_grad_(True)
        return
    model.requires_grad_(False)
    for part in (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()):
        part.requires_grad_(True)


def stored_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its weights in another dtype; non-persistent buffers, such as rotary frequencies, keep theirs.

    ``Module.to`` would round those too, and a frequency that is off by a 500th turns the angle of token 1,000 by radians.
    """
    computed = [(module, name, module._buffers[name]) for module in model.modules() for name in module._non_persistent_buffers_set]
    model = model.to(dtype)
    for module, name, buffer in computed:
        module._buffers[name] = buffer
    return model


def check_finite(model: nn.Module, folder: Path | None = None, *, dtype: torch.dtype | None = None) -> None:
    """Refuses weights with NaN or infinity, which would give meaningless judgements or gradients.

    Args:
        folder: of the trained adapter or weights; None for the base model. dtype: what they were converted to, if they were.

    Raises:
        ConfigError: naming the weights.
    """
    names = not_finite([*model.named_parameters(), *model.named_buffers()])
    if not names:
        return
    key = "judge" if folder is not None else "model.name_or_path"
    source = str(folder) if folder is not None else str(getattr(model, "name_or_path", ""))
    found = f"{key}: {source!r} has {len(names)} weights that are not finite, e.g. {listed(sorted(names), _NAMED)}"
    if dtype is not None:
        kind = str(dtype).removeprefix("torch.")
        raise ConfigError(
            f"{found}, in {kind}; they are in the files, so they do not fit {kind}: set trainer.precision=32-true or bf16-true"
        )
    raise ConfigError(f"{found}; load or train it anew, or set model.dtype=float32 if they do not fit {next(model.parameters()).dtype}")
