"""The least change of the configuration with which a training fits the device, found by trying the same estimate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tract.common.errors import ConfigError
from tract.config.devices import ZERO, ZERO_OPTIMIZERS
from tract.config.schema import Config
from tract.pipeline.dry_run.fit_plan import FitPlan, needs, total
from tract.pipeline.dry_run.model_facts import on_gpu, strategy_of

# Numbers of devices that are tried, as machines have them.
_DEVICES = (2, 4, 8, 16, 32, 64)
# Micro-batches are tried down to the longest item, in steps of this factor.
_SMALLER = 0.8

# Overrides, and what they do to a configuration.
Change = tuple[str, Callable[[Config], None]]


@dataclass(frozen=True)
class Advice:
    """Overrides that would fit, as they are typed, and the bytes of a device that they need."""

    overrides: str
    device: float


def advise(plan: FitPlan, room: float) -> Advice | None:
    """The least change with which the stage fits ``room`` bytes of a device; None where nothing that is tried fits."""
    found = (_first_that_fits(plan, series, room) for series in _series(plan))
    return next((advice for advice in found if advice is not None), None)


def _first_that_fits(plan: FitPlan, series: list[Change], room: float) -> Advice | None:
    for overrides, change in series:
        cfg = copy.deepcopy(plan.cfg)
        change(cfg)
        try:
            size = total(needs(plan, cfg)[1])
        except ConfigError:
            continue  # it does not go with this data or model
        if size <= room:
            return Advice(overrides, size)
    return None


def _series(plan: FitPlan) -> Iterator[list[Change]]:
    """Changes of one kind, growing; the kinds from the least to what needs other devices."""
    cfg = plan.cfg
    plain: Change = ("", lambda _: None)
    first = [plain] if cfg.model.gradient_checkpointing else [plain, ("model.gradient_checkpointing=true", _checkpointing)]
    if len(first) > 1:
        yield first[1:]
    for before in first:
        if smaller := [_joined(before, change) for change in _smaller_micro_batches(plan)]:
            yield smaller
    if cfg.adapter.kind == "full":
        yield [_joined(before, ("adapter=lora", _lora)) for before in first]
    if not on_gpu(cfg) or cfg.adapter.kind == "qlora":
        return
    now = strategy_of(cfg)
    more = [number for number in _DEVICES if number > now.devices or (number == now.devices and now.kind != "zero3")]
    if more:
        yield [_joined(before, _zero3(number)) for number in more for before in first]
    yield [_joined(before, _OFFLOAD) for before in first]
    yield [_joined(before, ("adapter=qlora trainer=single", _qlora)) for before in first]


def _smaller_micro_batches(plan: FitPlan) -> Iterator[Change]:
    least = max(int(plan.train.tokens.max()), plan.longest)
    tokens = plan.cfg.batch.max_tokens_per_micro_batch or int(plan.train.tokens.max()) * plan.cfg.batch.global_batch_size
    while (tokens := int(tokens * _SMALLER) // 64 * 64) >= least:
        yield f"batch.max_tokens_per_micro_batch={tokens}", partial(_micro_batch, tokens=tokens)


def _joined(one: Change, other: Change) -> Change:
    def both(cfg: Config) -> None:
        one[1](cfg)
        other[1](cfg)

    return f"{one[0]} {other[0]}".strip(), both


def _checkpointing(cfg: Config) -> None:
    cfg.model.gradient_checkpointing = True


def _micro_batch(cfg: Config, *, tokens: int) -> None:
    cfg.batch.max_tokens_per_micro_batch = tokens


def _lora(cfg: Config) -> None:
    cfg.adapter.kind = "lora"


def _qlora(cfg: Config) -> None:
    cfg.adapter.kind = "qlora"
    cfg.trainer.pop("strategy", None)
    cfg.trainer["devices"] = 1


def _zero3(devices: int) -> Change:
    def change(cfg: Config) -> None:
        cfg.trainer["strategy"] = {"_target_": ZERO, "stage": 3}
        cfg.trainer["devices"] = devices

    return f"trainer=deepspeed_zero3 trainer.devices={devices}", change


def _offload(cfg: Config) -> None:
    cfg.trainer["strategy"] = {"_target_": ZERO, "stage": 3, "offload_optimizer": True, "offload_parameters": True}
    cfg.optimizer = {**cfg.optimizer, "_target_": ZERO_OPTIMIZERS[-1]}


_OFFLOAD: Change = ("trainer=deepspeed_zero3_offload optimizer=cpu_adamw", _offload)
