"""What the typed configuration must fulfil beyond types: choices, ranges, contradictions between fields, classes that exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, get_type_hints

from tract.common.containers import not_finite_in
from tract.common.errors import ConfigError
from tract.config.constraints import OneOf
from tract.config.devices import device_problems
from tract.config.schema import YAML_NAMES, Config, GenerationConfig
from tract.config.vocabulary import ACCELERATORS, AUTO, EVALUATED_SPLITS, PATHS, PRECISIONS, STAGES
from tract.evaluation.predictors import PREDICTORS, predictor_of
from tract.pipeline.target_rules import target_problems
from tract.text.perturbations import ALL, PERTURBATIONS
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

# Here and inside functions what imports torch: a key that does not exist, or a value of the wrong type, is told without it.
if TYPE_CHECKING:
    from tract.inference.sampling import Sampling

# Folders beside those of runs.
_RESERVED_NAMES = {"stages": "the stages' products", "wandb": "W&B's files"}
# Folders beside those of a run's variants.
_RESERVED_VARIANTS = re.compile(r"multirun|comparison|records|seed\d+")
# A folder, and part of W&B's run id, which takes none of /\\#?%:
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=,-]*")


def problems_of(cfg: Config) -> list[str]:
    """One line for each rule that is broken."""
    return [*field_problems(cfg), *_built_problems(cfg), *target_problems(cfg)]


def field_problems(cfg: Config) -> Iterator[str]:
    """Choices, ranges and contradictions between fields; one line each."""
    yield from _blank_problems(cfg)
    yield from _value_problems(cfg)
    yield from _choice_problems(cfg)
    yield from _finite_problems(cfg)
    yield from _name_problems(cfg)
    yield from _date_problems(cfg)
    yield from _training_problems(cfg)
    yield from _pipeline_problems(cfg)
    yield from _evaluation_problems(cfg)
    yield from _optimized_problems(cfg)
    yield from device_problems(cfg)


def _blank_problems(cfg: Config) -> Iterator[str]:
    """Paths and names without a character, as a shell makes them of a variable that is not set."""
    accepted = {
        "judge": "give a run folder, a Hugging Face model (id or folder), or base for the base model itself",
        "compare_to": "give base, stage1, a run folder, a Hugging Face model, or null for none",
    }
    for key in PATHS:
        value: Any = asdict(cfg)
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                yield f"{key}: {text!r} is empty, as a shell variable is that is not set; {accepted.get(key, 'give a path or a name')}"


def _value_problems(section: Any, prefix: str = "") -> Iterator[str]:
    """Choices and least values, which the schema gives beside the type of a key."""
    for name, hint in get_type_hints(type(section), include_extras=True).items():
        value, key = getattr(section, name), f"{prefix}{YAML_NAMES.get(name, name)}"
        if is_dataclass(value):
            yield from _value_problems(value, f"{key}.")
        for constraint in getattr(hint, "__metadata__", ()):
            if problem := constraint.problem(value):
                yield f"{key}: {problem}"


def _choice_problems(cfg: Config) -> Iterator[str]:
    """Choices that depend on other keys, and those of keys that the schema does not type as text."""
    named = [name for name in cfg.evaluation.predictors if "." in name]
    for key, found, choice in [
        ("run.subprocess_stages", str(cfg.run.subprocess_stages).lower(), OneOf(AUTO, "true", "false")),
        ("evaluation.main_predictor", cfg.evaluation.main_predictor, OneOf(*PREDICTORS, *named)),
        ("trainer.accelerator", str(cfg.trainer.get("accelerator", "auto")), OneOf(*ACCELERATORS)),
        ("trainer.precision", str(cfg.trainer.get("precision", PRECISIONS[0])), OneOf(*PRECISIONS)),
    ]:
        if problem := choice.problem(found):
            yield f"{key}: {problem}"


def _finite_problems(cfg: Config) -> Iterator[str]:
    """Numbers that are none: they would move weights or limits to nowhere, and no manifest can hold them."""
    for key, number in not_finite_in(asdict(cfg)):
        yield f"{key}: {number} is no finite number"


def _name_problems(cfg: Config) -> Iterator[str]:
    for key, text in (("run.name", cfg.run.name), ("stage", cfg.stage)):
        if not _FOLDER_NAME.fullmatch(text):
            yield f"{key}: {text!r} names no folder; letters, digits and _ . + = , - are accepted"
    if cfg.run.device_memory_gib is not None and not cfg.run.device_memory_gib > 0:
        yield f"run.device_memory_gib: {cfg.run.device_memory_gib} is not a number > 0; null asks the device that is here"
    if "trust_remote_code" in cfg.generation.vllm.engine:
        yield "generation.vllm.engine.trust_remote_code: whether code that comes with a model runs is said by model.trust_remote_code alone"
    variant = cfg.run.variant
    if variant is not None and (not _FOLDER_NAME.fullmatch(variant) or _RESERVED_VARIANTS.fullmatch(variant)):
        yield (
            f"run.variant: {variant!r} names no folder of a variant; letters, digits and _ . + = , - are accepted, but not multirun, "
            "comparison, records or seedN"
        )
    if cfg.run.name in _RESERVED_NAMES:
        yield f"run.name: {cfg.run.name!r} is the folder of {_RESERVED_NAMES[cfg.run.name]}; choose another name"


def _date_problems(cfg: Config) -> Iterator[str]:
    text = cfg.model.template_date
    try:
        fine = date.fromisoformat(text).isoformat() == text
    except ValueError:
        fine = False
    if not fine:
        yield f"model.template_date: {text!r} is no day; a date as YYYY-MM-DD is accepted, e.g. 2024-07-26"


def _training_problems(cfg: Config) -> Iterator[str]:
    batch, train, schedule = cfg.batch, cfg.train, cfg.scheduler
    if batch.global_batch_size >= 1 and (batch.micro_batch_size or 0) >= 1 and batch.global_batch_size % (batch.micro_batch_size or 1):
        yield (
            f"batch.global_batch_size: {batch.global_batch_size} is not a multiple of batch.micro_batch_size={batch.micro_batch_size}; "
            "change one of them"
        )
    if cfg.objective.score_loss_scaling == "micro_batch" and (
        batch.micro_batch_size is None or batch.max_tokens_per_micro_batch is not None
    ):
        yield (
            "objective.score_loss_scaling: 'micro_batch' divides by the items of a micro-batch, which must be fixed; set "
            "batch.micro_batch_size, and batch.max_tokens_per_micro_batch=null"
        )
    if train.max_steps != -1 and train.max_steps < 1:
        yield f"train.max_steps: {train.max_steps} is neither -1 (no limit) nor >= 1"
    if train.gradient_clip_norm is not None and not train.gradient_clip_norm > 0:
        yield f"train.gradient_clip_norm: {train.gradient_clip_norm} is not a number > 0; null turns clipping off"
    if train.keep_weights == "best" and cfg.data.val_fraction == 0:
        yield "train.keep_weights: 'best' needs a validation split; set data.val_fraction above 0 or train.keep_weights=last"
    if train.monitor == "val/ce" and cfg.objective.ce_weight == 0:
        yield "train.monitor: 'val/ce' is not computed with objective.ce_weight=0; choose another, e.g. val/rmse"
    warmups = [schedule.warmup_steps, schedule.warmup_fraction]
    if warmups.count(None) != 1:
        yield f"scheduler: warmup_steps={warmups[0]} and warmup_fraction={warmups[1]}; set exactly one, the other null"
    elif schedule.warmup_fraction is not None and not 0 <= schedule.warmup_fraction <= 1:
        yield f"scheduler.warmup_fraction: {schedule.warmup_fraction} is outside [0, 1]"
    elif schedule.warmup_steps is not None and 1 <= train.max_steps < schedule.warmup_steps:
        yield f"scheduler.warmup_steps: {schedule.warmup_steps} steps of warm-up are more than train.max_steps={train.max_steps}; lower it"
    if cfg.adapter.kind == "qlora" and cfg.model.random_init:
        yield "adapter.kind: qlora quantises trained weights, but model.random_init is true; set adapter=lora or another model"
    if not 0 <= cfg.adapter.dropout < 1:
        yield f"adapter.dropout: {cfg.adapter.dropout} is outside [0, 1)"


def _pipeline_problems(cfg: Config) -> Iterator[str]:
    if unknown := [name for name in cfg.pipeline if name not in STAGES]:
        yield f"pipeline: {unknown} are no stages; accepted are {', '.join(STAGES)}"
    elif not cfg.pipeline or cfg.pipeline != [name for name in STAGES if name in cfg.pipeline]:
        yield f"pipeline: {cfg.pipeline} is not a list of stages in their order: {', '.join(STAGES)}"
    else:
        needs = {"generate": "stage1", "stage2": "generate", "evaluate": "predict"}
        for stage in cfg.pipeline:
            if stage in needs and needs[stage] not in cfg.pipeline and cfg.judge is None:
                yield f"pipeline: {stage} needs {needs[stage]}, which is not in {cfg.pipeline}"
    if not cfg.objective.use_cot and (writing := [name for name in cfg.pipeline if name in ("generate", "stage2")]):
        yield f"objective.use_cot: false trains a judge that writes no CoT, which {writing} need; set pipeline=[stage1,predict,evaluate]"
    # A judge that is given needs no stage before it.
    known = STAGES if cfg.judge is not None else tuple(cfg.pipeline)
    steering = [("stages", cfg.stages or [], known), ("from", [cfg.from_stage] if cfg.from_stage else [], known)]
    for key, names, accepted in (*steering, ("force", cfg.force, (*known, "all"))):
        for name in names:
            if name not in accepted:
                yield f"{key}: {name!r} is no stage of this pipeline; accepted are {', '.join(accepted)}"
    if cfg.stages is not None and cfg.from_stage is not None:
        yield f"from: {cfg.from_stage!r} goes not with stages={cfg.stages}; give one of them"


def _evaluation_problems(cfg: Config) -> Iterator[str]:
    evaluation = cfg.evaluation
    if not evaluation.benchmarks:
        yield "evaluation.benchmarks: the list is empty; give splits of the data (val, test, ood) or paths of benchmark files"
    if not 0 < evaluation.confidence < 1:
        yield f"evaluation.confidence: {evaluation.confidence} is outside (0, 1)"
    for name in evaluation.predictors:
        try:
            predictor_of(name)
        except ConfigError as error:
            yield str(error)
    if evaluation.main_predictor not in evaluation.predictors:
        yield f"evaluation.main_predictor: {evaluation.main_predictor!r} is not among evaluation.predictors={evaluation.predictors}"
    if evaluation.n_cot == 0 and evaluation.predictors != ["no_cot"]:
        yield "evaluation.n_cot: 0 leaves no_cot as the only predictor; set evaluation.predictors=[no_cot], or n_cot above 0"
    if unknown := [name for name in evaluation.perturbations if name not in (*PERTURBATIONS, ALL)]:
        yield f"evaluation.perturbations: {unknown} are unknown; accepted are {ALL}, {', '.join(PERTURBATIONS)}"
    if cfg.evaluation.cots != "sampled" and "decode_free" in evaluation.predictors:
        yield f"evaluation.predictors: decode_free needs sampled CoTs, but evaluation.cots is {cfg.evaluation.cots!r}; leave it out"


def _optimized_problems(cfg: Config) -> Iterator[str]:
    if cfg.optimized_metric is None:
        return
    from tract.evaluation.metrics import METRICS

    benchmark, _, metric = cfg.optimized_metric.rpartition("/")
    if not benchmark or metric not in METRICS:
        yield f"optimized_metric: {cfg.optimized_metric!r} is not BENCHMARK/METRIC with a metric of {', '.join(METRICS)}, e.g. val/rmse"
    elif benchmark in EVALUATED_SPLITS and benchmark not in cfg.evaluation.benchmarks:
        yield f"optimized_metric: {benchmark!r} is not among evaluation.benchmarks={cfg.evaluation.benchmarks}"
    if "evaluate" not in cfg.pipeline:
        yield f"optimized_metric: is measured by the stage evaluate, which is not in pipeline={cfg.pipeline}"


def _built_problems(cfg: Config) -> Iterator[str]:
    """What the classes that take a whole section refuse."""
    from tract.method.objective import Objective
    from tract.method.score_losses import score_loss_of

    builders: list[Callable[[], Any]] = [
        lambda: score_loss_of(cfg.objective.score_loss),
        lambda: Objective(**vars(cfg.objective)),
        lambda: ScoreGrid(tuple(cfg.grid.labels)),
        lambda: PromptTemplate(**{**vars(cfg.prompt), "blocks": tuple(cfg.prompt.blocks)}),
        lambda: sampling_of(cfg.generation),
    ]
    for build in builders:
        try:
            build()
        except ConfigError as error:
            yield str(error)


def sampling_of(cfg: GenerationConfig) -> Sampling:
    """The sampling settings of a configuration.

    Raises:
        ConfigError: if one is out of range.
    """
    from tract.inference.sampling import Sampling

    return Sampling(cfg.temperature, cfg.top_p, cfg.repetition_penalty, cfg.max_cot_tokens)
