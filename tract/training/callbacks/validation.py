"""Validations that Lightning's own schedule leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from tract.common.distributed import broadcast_from_rank0
from tract.common.durable import write_json


class ValidateAtStartAndEnd(Callback):
    """Validates before the first step, if that is wanted, after the last one, if no validation was due there, and where a run resumes.

    Inside the training, since strategies that spread weights over ranks set up a model only once.

    Args:
        seed_metrics: file of the metrics before the first step, which a resumed run reads; None for no such validation.
    """

    def __init__(self, seed_metrics: Path | None) -> None:
        self._seed_metrics = seed_metrics
        self.seed_values: dict[str, float | None] = {}  # None where one is undefined

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reads the metrics of the base model that an interrupted run has written; a finished training does not start again."""
        path = self._seed_metrics
        if path is not None and broadcast_from_rank0(path.is_file()):
            self.seed_values = json.loads(path.read_text(encoding="utf-8"))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validates the base model; repeats a validation that was interrupted after its step was saved, which Lightning would skip."""
        module: Any = pl_module
        done, every = trainer.global_step * module.accumulate, trainer.val_check_batch
        if done and module.validated_at != trainer.global_step and sum(trainer.num_val_batches) and not done % every:
            trainer.fit_loop.epoch_loop.val_loop.restarting = False
            self._validate(trainer, pl_module)
        if self._seed_metrics is None or self.seed_values:
            return
        self.seed_values = self._validate(trainer, pl_module)
        if trainer.is_global_zero:
            write_json(self._seed_metrics, self.seed_values)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validates after the last step."""
        module: Any = pl_module
        if trainer.global_step == module.total_steps != module.validated_at and sum(trainer.num_val_batches):
            self._validate(trainer, pl_module)

    def _validate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float | None]:
        loop = trainer.fit_loop.epoch_loop.val_loop
        trainer.validating = True  # as the training loop itself does
        loop.run()
        trainer.training = True
        values: dict[str, float | None] = dict(pl_module.validation_metrics)  # type: ignore[arg-type]
        return values
