"""Rules of what works on which devices: training strategies, and who runs a judge."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from tract.common.command_line import install_command
from tract.config.schema import Config
from tract.config.vllm import vllm_problems, vllm_setting_problems

# Arguments of lightning.Trainer that the stage sets, and the key to set instead.
_TRAINER_ARGUMENTS_ELSEWHERE = {
    "accumulate_grad_batches": "batch.global_batch_size and batch.max_tokens_per_micro_batch",
    "callbacks": "train",
    "check_val_every_n_epoch": "train.validate_every_steps",
    "default_root_dir": "paths.runs",
    "gradient_clip_val": "train.gradient_clip_norm",
    "logger": "logger",
    "max_epochs": "train.max_epochs",
    "max_steps": "train.max_steps",
    "val_check_interval": "train.validate_every_steps",
}
ZERO = "tract.training.strategies.ZeRO"
# Those that treat each number by itself; the last one works in the machine's memory.
ZERO_OPTIMIZERS = (
    "torch.optim.AdamW",
    "torch.optim.Adam",
    "torch.optim.SGD",
    "torch.optim.Adagrad",
    "torch.optim.RMSprop",
    "deepspeed.ops.adam.DeepSpeedCPUAdam",
)


def device_problems(cfg: Config) -> Iterator[str]:
    """One line for each rule that is broken."""
    yield from _backend_problems(cfg)
    yield from _trainer_problems(cfg)
    yield from _precision_problems(cfg)
    yield from _determinism_problems(cfg)


def _trainer_problems(cfg: Config) -> Iterator[str]:
    for name in cfg.trainer:
        if name in _TRAINER_ARGUMENTS_ELSEWHERE:
            yield f"trainer.{name}: is set by the stage; use {_TRAINER_ARGUMENTS_ELSEWHERE[name]} instead"
    devices: Any = cfg.trainer.get("devices", 1)
    if isinstance(devices, list) and len(devices) != 1:
        chosen = ",".join(map(str, devices))
        yield f"trainer.devices: {devices!r} chooses some; set CUDA_VISIBLE_DEVICES={chosen} and trainer.devices={len(devices)} instead"
    elif not isinstance(devices, list) and str(devices) not in ("auto", "-1") and not (str(devices).isdecimal() and int(devices) > 0):
        yield f"trainer.devices: {devices!r} is no number of devices; a number > 0 or auto is accepted"
    yield from _strategy_problems(cfg)


def _precision_problems(cfg: Config) -> Iterator[str]:
    run = set(cfg.pipeline if cfg.stages is None else cfg.stages)
    strategy = cfg.trainer.get("strategy")
    if isinstance(strategy, Mapping) and strategy.get("_target_") == ZERO:
        return  # it has a rule of its own
    if cfg.trainer.get("precision") == "16-mixed" and {"stage1", "stage2"} & run:
        yield (
            "trainer.precision: 16-mixed scales losses and leaves out the steps whose scaled gradient overflows, so their examples would "
            "be lost, and on a CPU it computes in bfloat16 instead; set bf16-mixed, or 32-true"
        )


def _determinism_problems(cfg: Config) -> Iterator[str]:
    """What the promise of equal bits cannot bind."""
    if not cfg.deterministic:
        if cfg.trainer.get("deterministic") not in (None, False):
            yield f"trainer.deterministic: {cfg.trainer['deterministic']} binds training alone; set deterministic=true instead"
        return
    if cfg.trainer.get("deterministic") is not True:
        yield f"trainer.deterministic: {cfg.trainer.get('deterministic')} contradicts deterministic=true; leave it out"
    if cfg.trainer.get("benchmark"):
        yield "trainer.benchmark: true lets cuDNN choose by the clock, which deterministic=true forbids; set one of them to false"
    run = set(cfg.pipeline if cfg.stages is None else cfg.stages)
    if cfg.generation.backend not in ("hf", "auto") and {"generate", "predict"} & run:
        yield (
            f"deterministic: true does not bind generation.backend={cfg.generation.backend}, which batches requests as they come; "
            "set generation=hf, or deterministic=false"
        )


def spreads_weights(cfg: Config) -> bool:
    """Whether the training strategy is one of those that spread weights, gradients or the optimizer over ranks."""
    strategy = cfg.trainer.get("strategy")
    return isinstance(strategy, Mapping) and str(strategy.get("_target_")).startswith("tract.training.strategies.")


def _strategy_problems(cfg: Config) -> Iterator[str]:
    """What a strategy needs that is not there, and what it does not go with."""
    strategy = cfg.trainer.get("strategy")
    if strategy is None or not isinstance(strategy, Mapping):
        if strategy is not None:
            yield f"trainer.strategy: found {strategy!r}; choose one with trainer=ddp, deepspeed_zero2, deepspeed_zero3 or fsdp"
        return
    target = str(strategy.get("_target_"))
    if spreads_weights(cfg) and cfg.adapter.kind == "qlora":
        yield f"adapter.kind: qlora's packed weights cannot be spread by {target.rpartition('.')[2]}; set trainer=ddp or adapter=lora"
    if target != ZERO:
        return
    if importlib.util.find_spec("deepspeed") is None:
        yield f"trainer.strategy: ZeRO needs the package deepspeed; run `{install_command('', 'deepspeed')}`, or set trainer=fsdp"
    optimizer = str(cfg.optimizer.get("_target_"))
    if optimizer not in ZERO_OPTIMIZERS:
        yield (
            f"optimizer._target_: {optimizer} is not supported by ZeRO, which joins weights to flat pieces; accepted are "
            f"{', '.join(ZERO_OPTIMIZERS)}, e.g. optimizer=adamw"
        )
    elif strategy.get("offload_optimizer") and optimizer != ZERO_OPTIMIZERS[-1]:
        yield f"optimizer._target_: {optimizer} does not go with trainer.strategy.offload_optimizer=true; set optimizer=cpu_adamw"
    if cfg.model.dtype == "float16" or cfg.trainer.get("precision") == "16-mixed":
        yield "trainer.precision: ZeRO with 16-mixed scales losses and skips steps, which would not be exact; set bf16-mixed or 32-true"


def _backend_problems(cfg: Config) -> Iterator[str]:
    """What the backend of generation needs that is not there, and what it does not go with."""
    if cfg.generation.backend == "auto":
        yield from vllm_setting_problems(cfg)
    elif cfg.generation.backend == "vllm":
        yield from vllm_problems(cfg)
    elif cfg.generation.backend == "openai_server":
        yield from _server_problems(cfg)


def _server_problems(cfg: Config) -> Iterator[str]:
    if importlib.util.find_spec("openai") is None:
        yield f"generation.backend: openai_server needs the package openai; run `{install_command('server')}`"
    server = cfg.generation.server
    if server.base_url is None:
        yield "generation.server.base_url: openai_server needs the server's address; give it up to and including /v1"
    elif not server.base_url.startswith(("http://", "https://")):
        yield f"generation.server.base_url: {server.base_url!r} is no address; give it as in http://localhost:8000/v1"
    if not server.timeout_s > 0:
        yield f"generation.server.timeout_s: {server.timeout_s} is not a number > 0"
    if cfg.judge is None:
        yield "judge: openai_server takes a judge that is served already; say which one, for its prompt, cue and grid: judge=..."
    judges_both = cfg.stages is None or {"predict", "evaluate"} & set(cfg.stages)
    if judges_both and cfg.compare_to is not None:
        yield (
            f"compare_to: {cfg.compare_to!r} would be answered by the same server; set compare_to=null, and evaluate the other judge in a "
            "run of its own"
        )
