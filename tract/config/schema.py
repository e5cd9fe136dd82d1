"""The typed configuration: names, types, choices and least values of all keys.

YAML holds the values; ``tract.pipeline.validation`` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from omegaconf import MISSING

from tract.config.constraints import AtLeast, OneOf
from tract.config.vocabulary import BACKENDS, DTYPES, MONITORS, SCHEDULERS


@dataclass
class RunConfig:
    """What a run is called and where it goes."""

    name: str = MISSING  # with the seed, the run folder's name and the W&B group
    variant: str | None = MISSING  # what tells a job of a multirun from the others; null: a run by itself
    ablation: str | None = MISSING  # how the run differs from the experiment that it is named after; null: not at all
    tags: list[str] = MISSING
    subprocess_stages: bool | str = MISSING  # heavy stages in processes of their own; "auto": where it matters
    when_locked: Annotated[str, OneOf("wait", "refuse")] = MISSING
    on_code_change: Annotated[str, OneOf("redo", "reuse")] = MISSING
    on_version_change: Annotated[str, OneOf("reuse", "redo")] = MISSING
    rank_timeout_s: float = MISSING  # the longest that a process waits for the others of its stage
    device_memory_gib: float | None = MISSING  # what a dry run plans for; null: ask the device


@dataclass
class PathsConfig:
    """Folders; relative ones start where the command is run."""

    runs: str = MISSING
    cache: str = MISSING


@dataclass
class ModelConfig:
    """The base model."""

    name_or_path: str = MISSING  # hub id, folder or .gguf file; with ``package``, a pattern inside the package
    package: str | None = MISSING
    revision: str | None = MISSING
    tokenizer_name_or_path: str | None = MISSING
    random_init: bool = MISSING
    dtype: Annotated[str, OneOf(*DTYPES)] = MISSING
    attn_implementation: str | None = MISSING  # null: tract.models.tree_attention's
    pad_token: str | None = MISSING
    chat_template: str | None = MISSING  # path of a Jinja file; null: the tokenizer's own
    chat_template_kwargs: dict[str, Any] = MISSING
    template_date: str = MISSING  # the day that chat templates print which ask for today's
    gradient_checkpointing: bool = MISSING
    trust_remote_code: bool = MISSING
    unpacked: str | None = MISSING  # folder for unpacked GGUF files; null: unpack at each start


@dataclass
class AdapterConfig:
    """What is trained: low-rank adapters, or all weights."""

    kind: Annotated[str, OneOf("lora", "qlora", "full")] = MISSING
    rank: Annotated[int, AtLeast(1)] = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    target_modules: list[str] = MISSING
    exclude_modules: str | None = MISSING  # regular expression


@dataclass
class PromptConfig:
    """Wording of the prompt and the answer cue; see ``tract.text.prompts.PromptTemplate``."""

    source: str = MISSING
    system: str = MISSING
    blocks: list[str] = MISSING
    cue: str = MISSING
    use_reference: bool = MISSING
    require_cue_in_prompt: bool = MISSING
    reword_output_format: bool = MISSING
    escape_headings: bool = MISSING


@dataclass
class GridConfig:
    """The scores that can be given; see ``tract.text.score_grid.ScoreGrid``."""

    labels: list[str] = MISSING


@dataclass
class DataConfig:
    """The source of judge examples and how they are split, checked and fitted to length."""

    source: dict[str, Any] = MISSING
    path: str | None = MISSING
    on_bad_row: Annotated[str, OneOf("raise", "skip")] = MISSING
    group_annotations: bool = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING
    split_seed: int = MISSING
    max_train_items: Annotated[int | None, AtLeast(1)] = MISSING
    max_val_items: Annotated[int | None, AtLeast(1)] = MISSING
    max_length: Annotated[int, AtLeast(1)] = MISSING
    truncation: Annotated[str, OneOf("drop", "shorten", "raise")] = MISSING
    shorten: list[str] = MISSING
    num_workers: Annotated[int, AtLeast(0)] = MISSING
    on_score_leak: Annotated[str, OneOf("raise", "warn")] = MISSING


@dataclass
class ObjectiveConfig:
    """Terms and weights; see ``tract.method.objective.Objective``."""

    ce_weight: float = MISSING
    score_loss: Any = MISSING  # an entry of ``tract.method.score_losses.SCORE_LOSSES``, a dotted path, or a mapping with ``_target_``
    score_loss_weight: float = MISSING  # "lambda" in YAML, as in the paper
    ce_on_score: bool = MISSING
    use_cot: bool = MISSING
    train_on_ratings: bool = MISSING
    normalize: bool = MISSING
    score_loss_scaling: str = MISSING


@dataclass
class SchedulerConfig:
    """Learning-rate schedule, by its name in ``transformers.get_scheduler``; stepped every optimizer step."""

    name: Annotated[str, OneOf(*SCHEDULERS)] = MISSING
    warmup_steps: Annotated[int | None, AtLeast(0)] = MISSING
    warmup_fraction: float | None = MISSING
    kwargs: dict[str, Any] = MISSING


@dataclass
class BatchConfig:
    """The optimizer step and how it is cut; an item is one prompt with its annotations."""

    global_batch_size: Annotated[int, AtLeast(1)] = MISSING
    micro_batch_size: Annotated[int | None, AtLeast(1)] = MISSING
    max_tokens_per_micro_batch: Annotated[int | None, AtLeast(1)] = MISSING
    share_prompts: bool = MISSING


@dataclass
class TrainConfig:
    """Length of training, validation and checkpoints; steps are optimizer steps."""

    max_epochs: Annotated[int, AtLeast(1)] = MISSING
    max_steps: int = MISSING
    gradient_clip_norm: float | None = MISSING
    validate_every_steps: Annotated[int, AtLeast(1)] = MISSING
    checkpoint_every_steps: Annotated[int, AtLeast(1)] = MISSING
    monitor: Annotated[str, OneOf(*MONITORS)] = MISSING
    monitor_mode: Annotated[str, OneOf("min", "max")] = MISSING
    keep_weights: Annotated[str, OneOf("best", "last")] = MISSING  # "best": by the monitor
    keep_checkpoints: bool = MISSING
    validate_base_model: bool = MISSING


@dataclass
class FilterConfig:
    """Which self-generated CoTs stage 2 leaves out; see ``tract.data.generated_cots.filter.CotFilter``."""

    drop_truncated: bool = MISSING
    drop_empty: bool = MISSING
    drop_without_cue: bool = MISSING
    keep_closest: Annotated[int | None, AtLeast(1)] = MISSING


@dataclass
class Stage2Config:
    """Where stage 2 starts, on which CoTs it trains, and what differs from the sections of stage 1."""

    init_from: Annotated[str, OneOf("base", "stage1")] = MISSING
    cots: Annotated[str, OneOf("self", "mixed")] = MISSING
    filter: FilterConfig = MISSING
    objective: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    batch: dict[str, Any] = MISSING
    train: dict[str, Any] = MISSING


@dataclass
class VLLMConfig:
    """How vLLM is started, where it runs the judge; see ``tract.inference.engines.vllm``."""

    lora: Annotated[str, OneOf("served", "merged")] = MISSING  # "served" beside the base model's weights, or "merged" into them
    tensor_parallel_size: Annotated[int, AtLeast(1)] = MISSING  # GPUs of one engine; the others of trainer.devices get engines of their own
    gpu_memory_utilization: float = MISSING
    kv_cache_gib: float | None = MISSING
    enforce_eager: bool = MISSING
    engine: dict[str, Any] = MISSING  # further arguments of vLLM's EngineArgs


@dataclass
class ServerConfig:
    """Where the judge is served, if a server runs it; see ``tract.inference.engines.server``."""

    base_url: str | None = MISSING
    model: str | None = MISSING
    api: Annotated[str, OneOf("vllm", "openai")] = MISSING
    api_key_env: str = MISSING
    timeout_s: float = MISSING
    max_retries: Annotated[int, AtLeast(0)] = MISSING


# Sequences that a backend works on at a time where the configuration does not say.
BATCH_SIZES = {"hf": 16, "vllm": 256, "openai_server": 64}


@dataclass
class GenerationConfig:
    """How CoTs are sampled, see ``tract.inference.sampling.Sampling``, and who runs the judge."""

    backend: Annotated[str, OneOf(*BACKENDS)] = MISSING  # "auto" until ``tract.pipeline.backend_choice`` has decided

    n_cot: Annotated[int, AtLeast(1)] = MISSING  # of each training and validation prompt
    temperature: float = MISSING
    top_p: float = MISSING
    repetition_penalty: float = MISSING
    max_cot_tokens: int = MISSING
    batch_size: Annotated[int | None, AtLeast(1)] = MISSING  # sequences; moves speed and memory, no number; None for that of the backend
    shard_size: Annotated[int, AtLeast(1)] = MISSING  # judgements in a file while they are made
    vllm: VLLMConfig = MISSING
    server: ServerConfig = MISSING

    @property
    def sequences(self) -> int:
        """``batch_size``, or what the backend has by itself."""
        return self.batch_size or BATCH_SIZES[self.backend]


@dataclass
class EvaluationConfig:
    """What a judge is evaluated on and how; predictors are those of ``tract.evaluation.predictors``."""

    benchmarks: list[str] = MISSING  # splits of the data, or files and folders
    prompt: Annotated[str, OneOf("own", "finished")] = MISSING  # "own": the judge's; "finished": the benchmark's
    cots: str = MISSING  # "sampled", "annotated", or the folder of a generate stage
    n_cot: Annotated[int, AtLeast(0)] = MISSING
    target: Annotated[str, OneOf("true", "annotated")] = MISSING  # "true": a computed fact where the data has one; "annotated"
    predictors: list[str] = MISSING
    main_predictor: str = MISSING
    perturbations: list[str] = MISSING  # of ``tract.text.perturbations``, or "all"
    failed_score: Annotated[str, OneOf("lowest", "middle", "highest")] = MISSING  # score of a failed draw
    max_items: Annotated[int | None, AtLeast(1)] = MISSING
    resamples: Annotated[int, AtLeast(0)] = MISSING
    confidence: float = MISSING
    bins: Annotated[int, AtLeast(1)] = MISSING


@dataclass
class Config:
    """The whole configuration of a pipeline; ``tract.pipeline.pipeline`` says what each stage takes of it."""

    seed: Annotated[int, AtLeast(0)] = MISSING
    pipeline: list[str] = MISSING  # the stages that make up the experiment
    stages: list[str] | None = MISSING  # those of them to run now; null for all
    from_stage: str | None = MISSING  # "from" in YAML: those before it must be complete
    force: list[str] = MISSING  # made anew even if complete
    dry_run: bool = MISSING  # estimates only
    stage: str = MISSING
    judge: str | None = MISSING
    compare_to: str | None = MISSING
    optimized_metric: str | None = MISSING  # BENCHMARK/METRIC that a run returns to a sweeper
    deterministic: bool = MISSING  # equal bits from equal inputs
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
    stage2: Stage2Config = MISSING
    generation: GenerationConfig = MISSING
    evaluation: EvaluationConfig = MISSING


# Keys whose names in YAML are no names in Python.
YAML_NAMES = {"from_stage": "from", "score_loss_weight": "lambda"}


def types_of_keys(kind: Any) -> dict[str, Any]:
    """The type of each key of a section, without the constraints beside it.

    Args:
        kind: a dataclass of this module.

    Returns:
        The key's name in YAML -> its type, in the order of the fields.
    """
    return {YAML_NAMES.get(name, name): hint for name, hint in get_type_hints(kind).items()}


# Keys that were added after products had been made, each with the value that older products have implicitly: what the code did when
# there was no such key. A key at this value is no part of a stage's identity (``tract.pipeline.identity.keys.key_fields``), so adding it
# retrains nothing, and an older configuration is read as if it had it. For the next key add a line: the key's dotted name in
# YAML, and this value, which stays the same when the default in conf/ changes.
ADDED_KEYS: dict[str, Any] = {
    "objective.score_loss": "squared_error",
    "objective.train_on_ratings": False,
}


def without_added_keys(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration, as plain containers with YAML's names, without the keys of ``ADDED_KEYS`` that have the value of before.

    Args:
        config: the whole, or the section that ``prefix`` names (dotted, with a dot at its end); its keys may be dotted themselves.
    """
    kept: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            kept[name] = without_added_keys(value, f"{key}.")
        elif not (key in ADDED_KEYS and value == ADDED_KEYS[key]):
            kept[name] = value
    return kept


def with_added_keys(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A section of an older configuration with the keys of ``ADDED_KEYS`` that it lacks, at the value of before."""
    added = {key.removeprefix(prefix): value for key, value in ADDED_KEYS.items() if key.startswith(prefix)}
    return {**added, **section}
