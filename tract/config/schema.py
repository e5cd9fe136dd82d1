"""The typed configuration: names and types of all keys. YAML holds the values; ``tract.pipeline.validation`` checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class RunConfig:
    """What a run is called and where it goes."""

    name: str = MISSING  # with the seed, the run folder's name and the W&B group
    variant: str | None = MISSING  # what tells a job of a multirun from the others; null: a run by itself
    ablation: str | None = MISSING  # how the run differs from the experiment that it is named after; null: not at all
    tags: list[str] = MISSING
    subprocess_stages: bool | str = MISSING  # heavy stages in processes of their own; "auto": where it matters
    when_locked: str = MISSING  # "wait" or "refuse"
    on_code_change: str = MISSING  # "redo" or "reuse"
    on_version_change: str = MISSING  # "reuse" or "redo"
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
    dtype: str = MISSING
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

    kind: str = MISSING
    rank: int = MISSING
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
    on_bad_row: str = MISSING
    group_annotations: bool = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING
    split_seed: int = MISSING
    max_train_items: int | None = MISSING
    max_val_items: int | None = MISSING
    max_length: int = MISSING
    truncation: str = MISSING
    shorten: list[str] = MISSING
    num_workers: int = MISSING
    on_score_leak: str = MISSING  # "raise" or "warn"


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

    name: str = MISSING
    warmup_steps: int | None = MISSING
    warmup_fraction: float | None = MISSING
    kwargs: dict[str, Any] = MISSING


@dataclass
class BatchConfig:
    """The optimizer step and how it is cut; an item is one prompt with its annotations."""

    global_batch_size: int = MISSING
    micro_batch_size: int | None = MISSING
    max_tokens_per_micro_batch: int | None = MISSING
    share_prompts: bool = MISSING


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
    keep_weights: str = MISSING  # "best" by the monitor, or "last"
    keep_checkpoints: bool = MISSING
    validate_base_model: bool = MISSING


@dataclass
class FilterConfig:
    """Which self-generated CoTs stage 2 leaves out; see ``tract.data.generated_cots.filter.CotFilter``."""

    drop_truncated: bool = MISSING
    drop_empty: bool = MISSING
    drop_without_cue: bool = MISSING
    keep_closest: int | None = MISSING


@dataclass
class Stage2Config:
    """Where stage 2 starts, on which CoTs it trains, and what differs from the sections of stage 1."""

    init_from: str = MISSING
    cots: str = MISSING
    filter: FilterConfig = MISSING
    objective: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    batch: dict[str, Any] = MISSING
    train: dict[str, Any] = MISSING


@dataclass
class VLLMConfig:
    """How vLLM is started, where it runs the judge; see ``tract.inference.engines.vllm``."""

    lora: str = MISSING  # "served" beside the base model's weights, or "merged" into them
    tensor_parallel_size: int = MISSING  # GPUs of one engine; the others of trainer.devices get engines of their own
    gpu_memory_utilization: float = MISSING
    kv_cache_gib: float | None = MISSING
    enforce_eager: bool = MISSING
    engine: dict[str, Any] = MISSING  # further arguments of vLLM's EngineArgs


@dataclass
class ServerConfig:
    """Where the judge is served, if a server runs it; see ``tract.inference.engines.server``."""

    base_url: str | None = MISSING
    model: str | None = MISSING
    api: str = MISSING  # "vllm" or "openai"
    api_key_env: str = MISSING
    timeout_s: float = MISSING
    max_retries: int = MISSING


# Sequences that a backend works on at a time where the configuration does not say.
BATCH_SIZES = {"hf": 16, "vllm": 256, "openai_server": 64}


@dataclass
class GenerationConfig:
    """How CoTs are sampled, see ``tract.inference.sampling.Sampling``, and who runs the judge."""

    backend: str = MISSING  # "hf", "vllm", "openai_server", or "auto" until ``tract.pipeline.backend_choice`` has decided

    n_cot: int = MISSING  # of each training and validation prompt
    temperature: float = MISSING
    top_p: float = MISSING
    repetition_penalty: float = MISSING
    max_cot_tokens: int = MISSING
    batch_size: int | None = MISSING  # sequences; moves speed and memory, no number; None for that of the backend
    shard_size: int = MISSING  # judgements in a file while they are made
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
    prompt: str = MISSING  # "own": the judge's; "finished": the benchmark's
    cots: str = MISSING  # "sampled", "annotated", or the folder of a generate stage
    n_cot: int = MISSING
    target: str = MISSING  # "true": a computed fact where the data has one; "annotated"
    predictors: list[str] = MISSING
    main_predictor: str = MISSING
    perturbations: list[str] = MISSING  # of ``tract.text.perturbations``, or "all"
    failed_score: str = MISSING  # score of a failed draw: "lowest", "middle", "highest"
    max_items: int | None = MISSING
    resamples: int = MISSING
    confidence: float = MISSING
    bins: int = MISSING


@dataclass
class Config:
    """The whole configuration of a pipeline; ``tract.pipeline.pipeline`` says what each stage takes of it."""

    seed: int = MISSING
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
