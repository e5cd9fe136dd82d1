"""Strategies of which one rank fails, for the tests of what the others do then."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from tract.training.strategies.fsdp import FSDP
from tract.training.strategies.zero import ZeRO


class FailsOnRank1(DDPStrategy):
    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        if self.global_rank == 1:
            raise ValueError("rank 1 breaks on purpose")


class HangsOnRank1(DDPStrategy):
    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        if self.global_rank == 1:
            time.sleep(600)


def _poison(strategy: Any) -> None:
    """From the fourth micro-batch on, what rank 1's model computes is not finite."""
    module: nn.Module = strategy.lightning_module.model
    norm = next(inner for name, inner in module.named_modules() if name.endswith("model.norm"))
    calls = [0]

    def plant(_: Any, args: Any, hidden: torch.Tensor) -> torch.Tensor:
        calls[0] += module.training
        return hidden * float("nan") if module.training and calls[0] > 3 else hidden

    if strategy.global_rank == 1:
        norm.register_forward_hook(plant)


class NaNOnRank1(DDPStrategy):
    def setup(self, trainer: Any) -> None:
        _poison(self)
        super().setup(trainer)


class ShardedNaNOnRank1(FSDP):
    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        _poison(self)


class ZeRONaNOnRank1(ZeRO):
    def setup(self, trainer: Any) -> None:
        _poison(self)
        super().setup(trainer)
