"""Strategies of which one rank fails, for the tests of what the others do then."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch.strategies import DDPStrategy


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
