"""The least change of the configuration with which a training fits the device, found by trying the same estimate."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tract.common.errors import ConfigError
from tract.config.devices import ZERO, ZERO_OPTIMIZERS
from tract.config.schema import Config
from tract.pipeline.dry_run.memory import total
from tract.pipeline.dry_run.plan import FitPlan, needs
from tract.pipeline.dry_run.training_setup import on_gpu, strategy_of

# Numbers of devices that are tried, as machines have them.
_DEVICES = (2, 4, 8, 16, 32, 64)
# Micro-batches are tried down to the longest item, in steps of this factor.
_SMALLER = 0.8

# Overrides as they are typed, and the values that they give to keys of the configuration (as far as the estimate depends on them).
Change = tuple[str, dict[str, Any]]

_CHECKPOINTING: Change = ("model.gradient_checkpointing=true", {"model.gradient_checkpointing": True})
_LORA: Change = ("adapter=lora", {"adapter.kind": "lora"})
_QLORA: Change = ("adapter=qlora trainer=single", {"adapter.kind": "qlora", "trainer.strategy": None, "trainer.devices": 1})
_OFFLOAD: Change = (
    "trainer=deepspeed_zero3_offload optimizer=cpu_adamw",
    {
        "trainer.strategy": {"_target_": ZERO, "stage": 3, "offload_optimizer": True, "offload_parameters": True},
        "optimizer._target_": ZERO_OPTIMIZERS[-1],
    },
)


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
    for overrides, values in series:
        try:
            size = total(needs(plan, _changed(plan.cfg, values))[1])
        except ConfigError:
            continue  # it does not go with this data or model
        if size <= room:
            return Advice(overrides, size)
    return None


def _changed(cfg: Config, values: dict[str, Any]) -> Config:
    """A copy of the configuration with other values of dotted keys, each of a group and a name."""
    changed = copy.deepcopy(cfg)
    for key, value in values.items():
        group, name = key.split(".")
        node = getattr(changed, group)
        if isinstance(node, dict):
            node[name] = value
        else:
            setattr(node, name, value)
    return changed


def _series(plan: FitPlan) -> Iterator[list[Change]]:
    """Changes of one kind, growing; the kinds from the least to what needs other devices. Each without and with checkpointing."""
    cfg, now = plan.cfg, strategy_of(plan.cfg)
    first: list[Change] = [("", {})]
    if not cfg.model.gradient_checkpointing:
        first.append(_CHECKPOINTING)
        yield [_CHECKPOINTING]
    for before in first:
        if smaller := [_joined(before, change) for change in _smaller_micro_batches(plan)]:
            yield smaller
    if cfg.adapter.kind == "full":
        yield [_joined(before, _LORA) for before in first]
    if not on_gpu(cfg) or cfg.adapter.kind == "qlora":
        return
    more = [number for number in _DEVICES if number > now.devices or (number == now.devices and now.kind != "zero3")]
    if more:
        yield [_joined(before, _zero3(number)) for number in more for before in first]
    yield [_joined(before, _OFFLOAD) for before in first]
    yield [_joined(before, _QLORA) for before in first]


def _smaller_micro_batches(plan: FitPlan) -> Iterator[Change]:
    longest = int(plan.train.tokens.max())
    tokens = plan.cfg.batch.max_tokens_per_micro_batch or longest * plan.cfg.batch.global_batch_size
    while (tokens := int(tokens * _SMALLER) // 64 * 64) >= max(longest, plan.longest):
        yield f"batch.max_tokens_per_micro_batch={tokens}", {"batch.max_tokens_per_micro_batch": tokens}


def _zero3(devices: int) -> Change:
    values = {"trainer.strategy": {"_target_": ZERO, "stage": 3}, "trainer.devices": devices}
    return f"trainer=deepspeed_zero3 trainer.devices={devices}", values


def _joined(one: Change, other: Change) -> Change:
    return f"{one[0]} {other[0]}".strip(), {**one[1], **other[1]}
