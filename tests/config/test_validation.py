"""The typed configuration: what is refused, and what the message says."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from transformers.trainer_utils import SchedulerType

from tract.common.errors import ConfigError
from tract.config.schema import YAML_NAMES, Config
from tract.config.vocabulary import ACCELERATORS, MONITORS, PRECISIONS, SCHEDULERS
from tract.method.metrics import SPLIT_METRICS
from tract.pipeline.unknown_keys import unknown_key_message
from tract.pipeline.validation import accepted_keys, typed, validate

Compose = Callable[..., DictConfig]

# Overrides, and pieces that the message must hold: the key, what was found, what is accepted.
REFUSED = {
    "not a whole number": (["seed=abc"], ["seed: found 'abc'; a whole number is accepted"]),
    "half a number": (["batch.global_batch_size=2.5"], ["batch.global_batch_size: found 2.5; a whole number is accepted"]),
    "no metric": (["optimized_metric=rmse"], ["optimized_metric: 'rmse' is not BENCHMARK/METRIC with a metric of pearson_r, "]),
    "metric of a split that is not evaluated": (
        ["optimized_metric=val/rmse"],
        ["optimized_metric: 'val' is not among evaluation.benchmarks=['test']"],
    ),
    "list for a number": (["objective.lambda=[1]"], ["objective.lambda: found [1]; a number is accepted"]),
    "null for a number": (["seed=null"], ["seed: found None; a whole number is accepted"]),
    "number for a switch": (["objective.use_cot=often"], ["objective.use_cot: found 'often'; true or false is accepted"]),
    "text for a list": (["run.tags=x"], ["run.tags: found 'x'; a list of text"]),
    "text for an optional number": (["data.max_val_items=x"], ["data.max_val_items: found 'x'; a whole number or null is accepted"]),
    "number for a mapping": (["scheduler.kwargs=3"], ["scheduler.kwargs: found 3; a mapping is accepted"]),
    "value for a section": (
        ["run=5"],
        [
            "run: found 5; a section with the keys name, variant, ablation, tags, subprocess_stages, when_locked, on_code_change, "
            "on_version_change, rank_timeout_s, device_memory_gib is accepted"
        ],
    ),
    "missing value": (["data=feedback_jsonl"], ["data.path: a value is missing; give data.path=..."]),
    "missing section": (["~data"], ["data: the whole section is missing"]),
    "missing key": (["~train.keep_weights"], ["train.keep_weights: the key is missing; give +train.keep_weights=..."]),
    "unknown section": (["+foo=1"], ["foo: unknown key; accepted are seed, pipeline, stages, from, force"]),
    "unknown key": (
        ["+objective.score_loss_weight=2"],
        ["objective.score_loss_weight: unknown key (did you mean lambda?); accepted are ce_weight"],
    ),
    "interpolation": (["seed=${nope}"], ["seed: Interpolation key 'nope' not found"]),
    "adapter": (["adapter.kind=full_rank"], ["adapter.kind: 'full_rank' is not one of lora, qlora, full"]),
    "dtype": (["model.dtype=float8"], ["model.dtype: 'float8' is not one of float32, bfloat16, float16"]),
    "on_bad_row": (["data.on_bad_row=ignore"], ["data.on_bad_row: 'ignore' is not one of raise, skip"]),
    "overlong": (["data.truncation=cut"], ["data.truncation: 'cut' is not one of drop, shorten, raise"]),
    "export": (["train.keep_weights=first"], ["train.keep_weights: 'first' is not one of best, last"]),
    "monitor": (["train.monitor=val/pearson"], ["train.monitor: 'val/pearson' is not one of", "val/pearson_r"]),
    "monitor mode": (["train.monitor_mode=lowest"], ["train.monitor_mode: 'lowest' is not one of min, max"]),
    "scheduler": (["scheduler.name=cosin"], ["scheduler.name: 'cosin' is not one of", "cosine_with_restarts"]),
    "precision": (["trainer.precision=8"], ["trainer.precision: '8' is not one of 32-true, bf16-mixed"]),
    "accelerator": (["trainer.accelerator=quantum"], ["trainer.accelerator: 'quantum' is not one of cpu, gpu"]),
    "devices": (["trainer.devices=0"], ["trainer.devices: 0 is no number of devices; a number > 0"]),
    "chosen devices": (
        ["trainer.devices=[0,2]"],
        ["trainer.devices: [0, 2] chooses some; set CUDA_VISIBLE_DEVICES=0,2 and trainer.devices=2 instead"],
    ),
    "ZeRO with another optimizer": (
        ["trainer=deepspeed_zero2", "optimizer._target_=torch.optim.Adamax"],
        ["optimizer._target_: torch.optim.Adamax is not supported by ZeRO", "accepted are torch.optim.AdamW", "e.g. optimizer=adamw"],
    ),
    "offload with an optimizer on the GPU": (
        ["trainer=deepspeed_zero3_offload"],
        ["optimizer._target_: torch.optim.AdamW does not go with trainer.strategy.offload_optimizer=true; set optimizer=cpu_adamw"],
    ),
    "ZeRO with scaled losses": (
        ["trainer=deepspeed_zero2", "trainer.precision=16-mixed"],
        ["trainer.precision: ZeRO with 16-mixed", "set bf16"],
    ),
    "packed weights cannot be spread": (
        ["trainer=fsdp", "adapter=qlora", "model.random_init=false"],
        ["adapter.kind: qlora's packed weights cannot be spread by FSDP; set trainer=ddp or adapter=lora"],
    ),
    "training with scaled losses": (
        ["trainer.precision=16-mixed"],
        ["trainer.precision: 16-mixed scales losses and leaves out the steps", "set bf16-mixed, or 32-true"],
    ),
    "infinite learning rate": (["optimizer.lr=inf"], ["optimizer.lr: inf is no finite number"]),
    "no number": (["optimizer.weight_decay=nan"], ["optimizer.weight_decay: nan is no finite number"]),
    "no clipping by infinity": (["train.gradient_clip_norm=inf"], ["train.gradient_clip_norm: inf is no finite number"]),
    "equal bits from a server": (
        ["deterministic=true", "generation=openai_server", "generation.server.base_url=http://localhost/v1", "judge=x", "compare_to=null"],
        ["deterministic: true does not bind generation.backend=openai_server", "set generation=hf, or deterministic=false"],
    ),
    "equal bits in training alone": (
        ["trainer.deterministic=true"],
        ["trainer.deterministic: True binds training alone; set deterministic=true instead"],
    ),
    "equal bits but not in training": (
        ["deterministic=true", "trainer.deterministic=false"],
        ["trainer.deterministic: False contradicts deterministic=true; leave it out"],
    ),
    "equal bits by the clock": (
        ["deterministic=true", "trainer.benchmark=true"],
        ["trainer.benchmark: true lets cuDNN choose by the clock"],
    ),
    "strategy by name": (["+trainer.strategy=deepspeed"], ["trainer.strategy: found 'deepspeed'; choose one with trainer=ddp"]),
    "unknown perturbation": (
        ["evaluation.perturbations=[beg,flattery]"],
        ["evaluation.perturbations: ['flattery'] are unknown; accepted are all, beg, authority"],
    ),
    "escaping": (["prompt.escape_headings=maybe"], ["prompt.escape_headings: found 'maybe'; true or false is accepted"]),
    "seed below 0": (["seed=-1"], ["seed: -1 is not a number >= 0"]),
    "nothing to quantise": (["adapter=qlora"], ["adapter.kind: qlora quantises trained weights, but model.random_init is true"]),
    "rank": (["adapter.rank=0"], ["adapter.rank: 0 is not a number >= 1"]),
    "dropout": (["adapter.dropout=1"], ["adapter.dropout: 1.0 is outside [0, 1)"]),
    "micro-batch": (["batch.micro_batch_size=0"], ["batch.micro_batch_size: 0 is not a number >= 1"]),
    "micro-batch of no tokens": (["batch.max_tokens_per_micro_batch=0"], ["batch.max_tokens_per_micro_batch: 0 is not a number >= 1"]),
    "official scaling without a size": (
        ["objective=tract_official_scaling"],
        ["objective.score_loss_scaling: 'micro_batch' divides by the items"],
    ),
    "not a multiple": (
        ["batch.global_batch_size=6", "batch.micro_batch_size=4"],
        ["batch.global_batch_size: 6 is not a multiple of batch.micro_batch_size=4"],
    ),
    "max_steps": (["train.max_steps=0"], ["train.max_steps: 0 is neither -1 (no limit) nor >= 1"]),
    "max_items": (["data.max_train_items=0"], ["data.max_train_items: 0 is not a number >= 1"]),
    "clipping": (["train.gradient_clip_norm=0"], ["train.gradient_clip_norm: 0.0 is not a number > 0; null turns clipping off"]),
    "no validation": (["data.val_fraction=0"], ["train.keep_weights: 'best' needs a validation split"]),
    "no cross-entropy": (
        ["train.monitor=val/ce", "objective=regression_only", "pipeline=[stage1]"],
        ["train.monitor: 'val/ce' is not computed with objective.ce_weight=0; choose another"],
    ),
    "both warm-ups": (["scheduler.warmup_steps=5"], ["scheduler: warmup_steps=5 and warmup_fraction=0.1; set exactly one"]),
    "no warm-up": (["scheduler.warmup_fraction=null"], ["scheduler: warmup_steps=None and warmup_fraction=None; set exactly one"]),
    "warm-up fraction": (["scheduler.warmup_fraction=1.5"], ["scheduler.warmup_fraction: 1.5 is outside [0, 1]"]),
    "warm-up": (
        ["scheduler.warmup_steps=9", "scheduler.warmup_fraction=null", "train.max_steps=8"],
        ["scheduler.warmup_steps: 9 steps of warm-up are more than train.max_steps=8"],
    ),
    "name": (["run.name=a/b"], ["run.name: 'a/b' names no folder"]),
    "variant": (["run.variant=a/b"], ["run.variant: 'a/b' names no folder of a variant; letters"]),
    "variant of a seed": (["run.variant=seed1"], ["run.variant: 'seed1' names no folder of a variant; letters"]),
    "variant of the multirun": (["run.variant=multirun"], ["run.variant: 'multirun' names no folder of a variant; letters"]),
    "name of the store": (["run.name=stages"], ["run.name: 'stages' is the folder of the stages' products; choose another name"]),
    "no memory": (["run.device_memory_gib=0"], ["run.device_memory_gib: 0.0 is not a number > 0; null asks the device that is here"]),
    "when locked": (["run.when_locked=steal"], ["run.when_locked: 'steal' is not one of wait, refuse"]),
    "on version change": (["run.on_version_change=ask"], ["run.on_version_change: 'ask' is not one of reuse, redo"]),
    "on code change": (["run.on_code_change=ignore"], ["run.on_code_change: 'ignore' is not one of redo, reuse"]),
    "no stage": (
        ["pipeline=[stage1,train]"],
        ["pipeline: ['train'] are no stages; accepted are stage1, generate, stage2, predict, evaluate"],
    ),
    "stages out of order": (
        ["pipeline=[generate,stage1]"],
        ["pipeline: ['generate', 'stage1'] is not a list of stages in their order: stage1, generate, stage2"],
    ),
    "stage twice": (["pipeline=[stage1,stage1]"], ["pipeline: ['stage1', 'stage1'] is not a list of stages in their order"]),
    "empty pipeline": (["pipeline=[]"], ["pipeline: [] is not a list of stages in their order"]),
    "no judge that generates": (["pipeline=[generate]"], ["pipeline: generate needs stage1, which is not in ['generate']"]),
    "no CoTs for stage 2": (["pipeline=[stage1,stage2]"], ["pipeline: stage2 needs generate, which is not in ['stage1', 'stage2']"]),
    "nothing to evaluate": (["pipeline=[stage1,evaluate]"], ["pipeline: evaluate needs predict, which is not in ['stage1', 'evaluate']"]),
    "a judge that writes no CoT": (
        ["objective=regression_only"],
        [
            "objective.use_cot: false trains a judge that writes no CoT, which ['generate', 'stage2'] need",
            "set pipeline=[stage1,predict,evaluate]",
        ],
    ),
    "unknown stage to run": (["stages=[stage3]"], ["stages: 'stage3' is no stage of this pipeline; accepted are stage1, generate,"]),
    "stage to run of another pipeline": (
        ["pipeline=[stage1]", "stages=[stage2]"],
        ["stages: 'stage2' is no stage of this pipeline; accepted are stage1"],
    ),
    "unknown stage to begin with": (["from=stage3"], ["from: 'stage3' is no stage of this pipeline; accepted are stage1, generate,"]),
    "unknown stage to force": (["force=[train]"], ["force: 'train' is no stage of this pipeline", "evaluate, all"]),
    "from and stages": (["from=stage2", "stages=[stage2]"], ["from: 'stage2' goes not with stages=['stage2']; give one of them"]),
    "start of stage 2": (["stage2.init_from=scratch"], ["stage2.init_from: 'scratch' is not one of base, stage1"]),
    "CoTs of stage 2": (["stage2.cots=annotated"], ["stage2.cots: 'annotated' is not one of self, mixed"]),
    "closest CoTs": (["stage2.filter.keep_closest=0"], ["stage2.filter.keep_closest: 0 is not a number >= 1"]),
    "unknown filter": (["+stage2.filter.drop_long=true"], ["stage2.filter.drop_long: unknown key", "drop_truncated"]),
    "CoTs to generate": (["generation.n_cot=0"], ["generation.n_cot: 0 is not a number >= 1"]),
    "temperature": (["generation.temperature=-1"], ["generation.temperature: -1.0 is not a finite number >= 0"]),
    "top_p": (["generation.top_p=0"], ["generation.top_p: 0.0 is outside (0, 1]; 1 turns it off"]),
    "repetition penalty": (
        ["generation.repetition_penalty=0"],
        ["generation.repetition_penalty: 0.0 is not a finite number > 0; 1 turns it off"],
    ),
    "tokens of a CoT": (["generation.max_cot_tokens=0"], ["generation.max_cot_tokens: 0 is not a number >= 1"]),
    "sequences together": (["generation.batch_size=0"], ["generation.batch_size: 0 is not a number >= 1"]),
    "shard": (["generation.shard_size=0"], ["generation.shard_size: 0 is not a number >= 1"]),
    "no benchmark": (["evaluation.benchmarks=[]"], ["evaluation.benchmarks: the list is empty; give splits of the data (val, test, ood)"]),
    "prompt of the evaluation": (["evaluation.prompt=mine"], ["evaluation.prompt: 'mine' is not one of own, finished"]),
    "target": (["evaluation.target=human"], ["evaluation.target: 'human' is not one of true, annotated"]),
    "fallback": (["evaluation.failed_score=0"], ["evaluation.failed_score: '0' is not one of lowest, middle, highest"]),
    "predictor": (
        ["evaluation.predictors=[rail,mean]"],
        ["evaluation.predictors: 'mean' is unknown (did you mean median?); accepted are rail, rail_normalized,"],
    ),
    "main predictor": (["evaluation.main_predictor=mean"], ["evaluation.main_predictor: 'mean' is not one of rail, rail_normalized"]),
    "main predictor that is not computed": (
        ["evaluation.predictors=[argmax]"],
        ["evaluation.main_predictor: 'rail' is not among evaluation.predictors=['argmax']"],
    ),
    "CoTs to evaluate": (
        ["evaluation.n_cot=-1"],
        ["evaluation.n_cot: -1 is not a number >= 0"],
    ),
    "predictors without a CoT": (
        ["evaluation.n_cot=0"],
        ["evaluation.n_cot: 0 leaves no_cot as the only predictor; set evaluation.predictors=[no_cot], or n_cot above 0"],
    ),
    "given CoTs and free decoding": (
        ["evaluation.cots=annotated"],
        ["evaluation.predictors: decode_free needs sampled CoTs, but evaluation.cots is 'annotated'; leave it out"],
    ),
    "items to evaluate": (["evaluation.max_items=0"], ["evaluation.max_items: 0 is not a number >= 1"]),
    "resamples": (["evaluation.resamples=-1"], ["evaluation.resamples: -1 is not a number >= 0"]),
    "bins": (["evaluation.bins=0"], ["evaluation.bins: 0 is not a number >= 1"]),
    "confidence": (["evaluation.confidence=1"], ["evaluation.confidence: 1.0 is outside (0, 1)"]),
    "objective": (["objective.lambda=-1"], ["objective.lambda: -1.0 is not a finite weight >= 0"]),
    "nothing trained": (
        ["objective.lambda=0", "objective.ce_weight=0"],
        ["objective: ce_weight and lambda are both 0"],
    ),
    "grid": (["grid.labels=[1,2,two]"], ["grid.labels: 'two' is not a number"]),
    "prompt": (["prompt.blocks=['{answer} {response}']"], ["prompt.blocks[0]: unknown placeholder {answer}"]),
    "optimizer class": (["optimizer._target_=torch.optim.Foo"], ["optimizer._target_: 'torch.optim.Foo' cannot be imported"]),
    "optimizer module": (
        ["optimizer._target_=nowhere.Foo"],
        ["optimizer._target_: 'nowhere.Foo' cannot be imported", "no module 'nowhere'"],
    ),
    "optimizer argument": (["+optimizer.learning_rate=1"], ["optimizer.learning_rate: unknown key", "accepted are params, lr, betas"]),
    "optimizer value": (["optimizer.lr=-1"], ["optimizer: torch.optim.AdamW does not accept", "Invalid learning rate: -1"]),
    "optimizer type": (["optimizer.lr=fast"], ["optimizer.lr: found 'fast'; a number is accepted"]),
    "no optimizer class": (["~optimizer._target_"], ["optimizer: found {", "a mapping with the key _target_"]),
    "trainer argument": (["+trainer.acelerator=cpu"], ["trainer.acelerator: unknown key (did you mean accelerator?)"]),
    "trainer argument elsewhere": (["+trainer.max_steps=4"], ["trainer.max_steps: is set by the stage; use train.max_steps instead"]),
    "source argument": (["+data.source.n=3"], ["data.source.n: unknown key", "n_questions"]),
    "logger argument": (["+logger.csv.folder=x"], ["logger.csv.folder: unknown key", "save_dir"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_naming_key_found_and_accepted(case: str, compose_config: Compose) -> None:
    overrides, pieces = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        validate(compose_config("model=tiny", *overrides))
    message = str(caught.value)
    assert all(piece in message for piece in pieces), message
    assert "\n" not in message
    assert message.count("; ") < 3, f"one fault, several problems: {message}"


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["seed=abc", "batch.micro_batch_size=x", "+foo=1", "~data"], ["seed:", "batch.micro_batch_size:", "foo:", "data:"]),
        (
            [
                "batch.global_batch_size=0",
                "train.monitor=x",
                "trainer.precision=8",
                "objective.ce_weight=-1",
                "+optimizer.l=1",
                "grid.labels=[1]",
            ],
            ["batch.global_batch_size:", "train.monitor:", "trainer.precision:", "objective.ce_weight:", "optimizer.l:", "grid.labels:"],
        ),
    ],
)
def test_several_problems_are_reported_at_once(overrides: list[str], keys: list[str], compose_config: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose_config(*overrides))
    assert [key for key in keys if key not in str(caught.value)] == []


def test_types_are_converted_where_nothing_is_lost(compose_config: Compose) -> None:
    cfg = validate(compose_config("model=tiny", "objective.lambda=2", "grid.labels=[1,2,3,4,5]", "run.name=7"))
    assert isinstance(cfg.objective.score_loss_weight, float)
    assert cfg.grid.labels == ["1", "2", "3", "4", "5"]
    assert cfg.run.name == "7"


def test_validation_leaves_the_composed_configuration_as_it_is(compose_config: Compose) -> None:
    cfg = compose_config("model=tiny")
    before = OmegaConf.to_yaml(cfg)
    validate(cfg)
    assert OmegaConf.to_yaml(cfg) == before


def test_no_field_has_a_default_of_its_own() -> None:
    """YAML is the one place for defaults: what is left out there must fail, not get a value from Python."""

    def missing(kind: Any) -> list[str]:
        own = [f.name for f in fields(kind) if f.default != "???"]
        return own + [name for hint in get_type_hints(kind).values() if is_dataclass(hint) for name in missing(hint)]

    assert missing(Config) == []


def sections_below(prefix: str, kind: Any) -> list[tuple[str, Any]]:
    """(dotted name, dataclass) of a section and of all sections inside."""
    inner = [(f"{prefix}.{name}".lstrip("."), hint) for name, hint in get_type_hints(kind).items() if is_dataclass(hint)]
    return [(prefix, kind), *(found for name, hint in inner for found in sections_below(name, hint))]


def test_any_field_that_is_left_out_fails(compose_config: Compose) -> None:
    whole = compose_config("model=tiny")
    for section, kind in sections_below("", Config):
        cfg = whole.copy()
        with open_dict(cfg):
            for name in accepted_keys(section):
                del (OmegaConf.select(cfg, section) if section else cfg)[name]
        with pytest.raises(ConfigError) as caught:
            validate(cfg)
        for name in accepted_keys(section):
            key = f"{section}.{name}".lstrip(".")
            assert re.search(f"(^|; ){key}: the (key|whole section) is missing", str(caught.value)), key
        assert accepted_keys(section) == [YAML_NAMES.get(f.name, f.name) for f in fields(kind)]


def test_the_nearest_key_is_suggested() -> None:
    assert "did you mean max_steps?" in unknown_key_message("train.max_step", accepted_keys("train"))
    assert "did you mean" not in unknown_key_message("train.zzz", accepted_keys("train"))


def test_choices_exist_in_the_libraries() -> None:
    assert set(SCHEDULERS) <= {kind.value for kind in SchedulerType}
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

    for precision in PRECISIONS:
        if not precision.startswith("16"):  # float16 needs a GPU
            _AcceleratorConnector(accelerator="cpu", devices=1, precision=precision)
    assert set(AcceleratorRegistry.available_accelerators()) & set(ACCELERATORS) >= {"cpu", "cuda", "mps"}


def test_a_strategy_without_its_package(compose_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "deepspeed" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"trainer.strategy: ZeRO needs the package deepspeed; run `pip install .* deepspeed`"):
        validate(compose_config("model=tiny", "trainer=deepspeed_zero3"))


def test_monitors_are_the_metrics_of_the_module() -> None:
    from tract.method.split_metrics import SplitMetrics

    metrics = SplitMetrics("val")
    computed = {f"val/{name}" for name in metrics.means} | {f"val/{name}" for name in SPLIT_METRICS}
    assert set(MONITORS) == computed - {"val/rmse_constant"}  # a property of the data, not of the model


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_accepted_schedule_can_be_built(name: str) -> None:
    from tract.config.schema import SchedulerConfig
    from tract.training.schedule import build_scheduler

    kwargs: dict[str, Any] = {
        "cosine_with_min_lr": {"min_lr": 1e-6},
        "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
        "warmup_stable_decay": {"num_decay_steps": 2},
    }.get(name, {})
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = build_scheduler(optimizer, 10, SchedulerConfig(name=name, warmup_steps=2, warmup_fraction=None, kwargs=kwargs))
    assert scheduler.get_last_lr()[0] <= 1e-3


VLLM = ("model=tiny", "generation=vllm")
SERVER = ("model=tiny", "generation=openai_server")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("+generation.vllm.engine.trust_remote_code=true",),
            "generation.vllm.engine.trust_remote_code: whether code that comes with a model runs is said by model.trust_remote_code",
        ),
        ((*VLLM, "generation.vllm.tensor_parallel_size=2"), "size: 2 does not divide trainer.devices=1; each engine takes as many"),
        ((*VLLM, "generation.vllm.gpu_memory_utilization=1.5"), "generation.vllm.gpu_memory_utilization: 1.5 is outside"),
        ((*VLLM, "generation.vllm.kv_cache_gib=0"), "generation.vllm.kv_cache_gib: 0.0 is not a number > 0"),
        ((*VLLM, "generation.vllm.lora=beside"), "generation.vllm.lora: 'beside' is not one of served, merged"),
        ((*VLLM, "adapter=qlora", "model.random_init=false"), "vllm does not serve judges on 4-bit weights"),
        ((*VLLM, "trainer.precision=64-true"), "vllm does not compute in 64-true"),
        (("model=tiny", "generation.backend=tgi"), "generation.backend: 'tgi' is not one of auto, hf, vllm, openai_server"),
        (SERVER, "generation.server.base_url: openai_server needs the server's address"),
        (SERVER, "judge: openai_server takes a judge that is served already"),
        (SERVER, "compare_to: 'base' would be answered by the same server; set compare_to=null"),
        ((*SERVER, "generation.server.base_url=localhost:8000"), "'localhost:8000' is no address; give it as in http"),
        ((*SERVER, "generation.server.timeout_s=0"), "generation.server.timeout_s: 0.0 is not a number > 0"),
    ],
)
@pytest.mark.usefixtures("vllm_counts_as_installed")
def test_a_backend_that_does_not_go_with_the_rest(
    overrides: tuple[str, ...], message: str, compose_config: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(compose_config(*overrides))
    assert message in str(raised.value)


def test_a_served_judge_that_only_samples_is_compared_to_none(compose_config: Callable[..., DictConfig]) -> None:
    """``generate_cot.py`` composes ``compare_to`` as ``train.py`` does, and does not use it."""
    served = (*SERVER, "generation.server.base_url=http://localhost:8000/v1", "judge=base")
    assert validate(compose_config(*served, "stages=[generate]")).compare_to == "base"
    with pytest.raises(ConfigError, match="compare_to: 'base' would be answered by the same server"):
        validate(compose_config(*served, "stages=[predict]"))


@pytest.mark.parametrize(
    ("absent", "overrides", "message"),
    [
        ("vllm", ("generation=vllm",), r"generation.backend: vllm needs the package vllm; run `make setup-vllm`, or set generation=hf"),
        ("vllm", ("generation=vllm", "trainer=single"), r"run `pip install -c constraints.txt -e '.\[vllm\]'`, or set generation=hf"),
        ("openai", ("generation=openai_server",), r"needs the package openai; run `pip install -c constraints.txt -e '.\[server\]'`"),
    ],
)
def test_a_backend_without_its_package_says_how_to_get_it(
    absent: str, overrides: tuple[str, ...], message: str, compose_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == absent else found(name, *rest))
    with pytest.raises(ConfigError, match=message):
        validate(compose_config("model=tiny", *overrides))


def test_a_configuration_that_is_typed_again_shares_nothing_with_the_first_and_a_changed_one_is_seen(compose_config: Compose) -> None:
    cfg = compose_config("model=tiny")
    first, again = typed(cfg), typed(cfg)
    assert first == again
    assert first.data is not again.data
    first.seed = 7
    cfg.seed = 8
    assert typed(cfg).seed == 8
    assert again.seed == typed(compose_config("model=tiny")).seed == 0
