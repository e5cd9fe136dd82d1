"""The typed configuration. YAML holds all values; these classes hold names, types and the checks between fields.

A key that is unknown, missing or of the wrong type fails here, in one line, before any weight is loaded.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tract.errors import ConfigError

ADAPTER_KINDS = ("lora", "qlora", "full")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class RunConfig:
    """What a run is called and where it goes."""

    name: str = MISSING  # with the seed, the run folder's name and the W&B group
    tags: list[str] = MISSING
    overwrite: bool = MISSING  # start anew where a folder holds this very run, finished or not


@dataclass
class PathsConfig:
    """Folders; relative ones start where the command is run."""

    runs: str = MISSING
    cache: str = MISSING


@dataclass
class ModelConfig:
    """The seed LLM."""

    name_or_path: str = MISSING  # hub id, folder or .gguf file; with ``package``, a pattern inside the package
    package: str | None = MISSING
    revision: str | None = MISSING
    tokenizer_name_or_path: str | None = MISSING
    random_init: bool = MISSING
    dtype: str = MISSING
    attn_implementation: str | None = MISSING
    pad_token: str | None = MISSING
    chat_template: str | None = MISSING  # path of a Jinja file; null: the tokenizer's own
    chat_template_kwargs: dict[str, Any] = MISSING
    gradient_checkpointing: bool = MISSING
    trust_remote_code: bool = MISSING


@dataclass
class AdapterConfig:
    """What is trained: low-rank adapters, or all weights."""

    kind: str = MISSING
    rank: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    target_modules: list[str] = MISSING
    exclude_modules: str | None = MISSING  # regular expression


@dataclass
class PromptConfig:
    """Wording of the prompt and the answer cue; see ``tract.prompts.PromptTemplate``."""

    source: str = MISSING
    system: str = MISSING
    blocks: list[str] = MISSING
    cue: str = MISSING
    use_reference: bool = MISSING
    require_cue_in_prompt: bool = MISSING


@dataclass
class GridConfig:
    """The scores that can be given; see ``tract.score_grid.ScoreGrid``."""

    labels: list[str] = MISSING


@dataclass
class DataConfig:
    """The source of judge examples and how they are split, checked and fitted to length."""

    source: dict[str, Any] = MISSING
    path: str | None = MISSING
    on_bad_row: str = MISSING
    group_annotations: bool = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING
    split_seed: int = MISSING
    max_train_items: int | None = MISSING
    max_val_items: int | None = MISSING
    max_length: int = MISSING
    overlong: str = MISSING
    shorten: list[str] = MISSING
    num_workers: int = MISSING


@dataclass
class ObjectiveConfig:
    """Terms and weights; see ``tract.objective.Objective``."""

    ce_weight: float = MISSING
    score_loss_weight: float = MISSING
    ce_on_score: bool = MISSING
    use_cot: bool = MISSING
    normalize: bool = MISSING
    score_loss_scaling: str = MISSING


@dataclass
class SchedulerConfig:
    """Learning-rate schedule, by its name in ``transformers.get_scheduler``; stepped every optimizer step."""

    name: str = MISSING
    warmup_steps: int | None = MISSING
    warmup_fraction: float | None = MISSING
    kwargs: dict[str, Any] = MISSING


@dataclass
class BatchConfig:
    """Sizes in items; an item is one prompt with its annotations."""

    items_per_step: int = MISSING
    micro_batch_size: int = MISSING
    val_micro_batch_size: int = MISSING


@dataclass
class TrainConfig:
    """Length of training, validation and checkpoints; steps are optimizer steps."""

    max_epochs: int = MISSING
    max_steps: int = MISSING
    gradient_clip_norm: float | None = MISSING
    validate_every_steps: int = MISSING
    checkpoint_every_steps: int = MISSING
    monitor: str = MISSING
    monitor_mode: str = MISSING
    export: str = MISSING  # "best" by the monitor, or "last"


@dataclass
class Config:
    """The whole configuration of a training stage."""

    seed: int = MISSING
    stage: str = MISSING
    run: RunConfig = MISSING
    paths: PathsConfig = MISSING
    model: ModelConfig = MISSING
    adapter: AdapterConfig = MISSING
    prompt: PromptConfig = MISSING
    grid: GridConfig = MISSING
    data: DataConfig = MISSING
    objective: ObjectiveConfig = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: SchedulerConfig = MISSING
    batch: BatchConfig = MISSING
    train: TrainConfig = MISSING
    trainer: dict[str, Any] = MISSING
    logger: dict[str, Any] = MISSING


def validate(cfg: DictConfig) -> Config:
    """The composed YAML as typed configuration; all problems are collected and raised as one.

    Raises:
        ConfigError: naming each key, what was found and what is accepted.
    """
    problems = [*_unknown_keys(cfg, Config, ""), *_missing_keys(cfg)]
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), cfg))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or "config"
        raise ConfigError(f"{key}: {_first_sentence(error)}; accepted is {accepted_type(key)}") from error
    assert isinstance(typed, Config)
    problems = _cross_field_problems(typed)
    if problems:
        raise ConfigError("; ".join(problems))
    return typed


def accepted_keys(key: str) -> list[str]:
    """The keys below a dotted key of the typed configuration; empty where anything is accepted."""
    kind = _type_of(key)
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def accepted_type(key: str) -> str:
    """The type of a dotted key, for messages."""
    kind = _type_of(key)
    return getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)


def _type_of(key: str) -> Any:
    kind: Any = Config
    for name in [part for part in key.split(".") if part]:
        if not is_dataclass(kind):
            return Any
        kind = get_type_hints(kind).get(name, Any)
        inner = [arg for arg in get_args(kind) if is_dataclass(arg)]
        kind = inner[0] if inner else kind
    return kind


def _unknown_keys(node: Any, kind: Any, prefix: str) -> list[str]:
    if not is_dataclass(kind) or not isinstance(node, DictConfig):
        return []
    names, problems = [f.name for f in fields(kind)], []
    for name in node:
        key = f"{prefix}{name}"
        if name not in names:
            problems.append(unknown_key_message(key, names))
        elif not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            problems += _unknown_keys(node[name], _type_of(key), f"{key}.")
    return problems


def unknown_key_message(key: str, accepted: list[str]) -> str:
    """One line about a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key.rpartition(".")[2], accepted, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{key}: unknown key{hint}; accepted are {', '.join(accepted)}"


def _missing_keys(cfg: DictConfig) -> list[str]:
    problems = [f"{key}: a value is missing; give {key}=..." for key in sorted(OmegaConf.missing_keys(cfg))]
    have = set(cfg)
    problems += [f"{f.name}: the whole section is missing" for f in fields(Config) if f.name not in have]
    return problems


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _cross_field_problems(cfg: Config) -> list[str]:
    """Checks between fields, and of choices; each problem is one line."""
    problems = []

    def need(ok: bool, message: str) -> None:
        if not ok:
            problems.append(message)

    def one_of(key: str, found: str, accepted: tuple[str, ...]) -> None:
        need(found in accepted, f"{key}: {found!r} is not one of {', '.join(accepted)}")

    one_of("adapter.kind", cfg.adapter.kind, ADAPTER_KINDS)
    one_of("model.dtype", cfg.model.dtype, DTYPES)
    one_of("data.on_bad_row", cfg.data.on_bad_row, ("raise", "skip"))
    one_of("train.export", cfg.train.export, ("best", "last"))
    one_of("train.monitor_mode", cfg.train.monitor_mode, ("min", "max"))
    for key, value in [
        ("batch.items_per_step", cfg.batch.items_per_step),
        ("batch.micro_batch_size", cfg.batch.micro_batch_size),
        ("batch.val_micro_batch_size", cfg.batch.val_micro_batch_size),
        ("train.validate_every_steps", cfg.train.validate_every_steps),
        ("train.checkpoint_every_steps", cfg.train.checkpoint_every_steps),
        ("data.max_length", cfg.data.max_length),
    ]:
        need(value >= 1, f"{key}: {value} is not a number >= 1")
    need(cfg.train.max_steps == -1 or cfg.train.max_steps >= 1, f"train.max_steps: {cfg.train.max_steps} is neither -1 (no limit) nor >= 1")
    need(cfg.train.max_epochs >= 1, f"train.max_epochs: {cfg.train.max_epochs} is not a number >= 1")
    warmups = [cfg.scheduler.warmup_steps, cfg.scheduler.warmup_fraction]
    need(warmups.count(None) == 1, f"scheduler: warmup_steps={warmups[0]} and warmup_fraction={warmups[1]}; set exactly one, the other null")
    need(
        cfg.train.export == "last" or cfg.data.val_fraction > 0,
        "train.export: 'best' needs a validation split; set data.val_fraction above 0 or train.export=last",
    )
    devices = cfg.trainer.get("devices", 1)
    need(devices in (1, "1", [0]) and cfg.trainer.get("num_nodes", 1) == 1, f"trainer.devices: {devices!r} is more than the one device that is supported")
    return problems
