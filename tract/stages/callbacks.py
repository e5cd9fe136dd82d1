"""Callbacks of the fit stage: throughput and checkpoints."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.optim import Optimizer

from tract.config import TrainConfig
from tract.data.batches import JudgeBatch


class Throughput(Callback):
    """Logs real (not padded) tokens and examples per second since the last log; validation time is left out."""

    def __init__(self) -> None:
        self._tokens = self._examples = 0
        self._begun = self._paused = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._restart()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lets the clock go on."""
        self._begun += time.perf_counter() - self._paused

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: JudgeBatch, batch_idx: int) -> None:
        """Counts."""
        self._tokens += batch.tokens
        self._examples += batch.scores.numel()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Logs, when this step is logged."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = max(time.perf_counter() - self._begun, 1e-9)
            pl_module.log_dict({"train/tokens_per_s": self._tokens / seconds, "train/examples_per_s": self._examples / seconds})
            self._restart()

    def _restart(self) -> None:
        self._tokens = self._examples = 0
        self._begun = time.perf_counter()


def checkpoints(cfg: TrainConfig, folder: Path, *, validates: bool) -> tuple[ModelCheckpoint, ModelCheckpoint | None]:
    """(the newest state, to resume from; the best weights by the monitored metric, if there is validation)."""
    newest = ModelCheckpoint(
        dirpath=folder,
        filename="last-{step}",
        every_n_train_steps=cfg.checkpoint_every_steps,
        monitor="step",
        mode="max",
        save_top_k=1,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    if not validates:
        return newest, None
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best-{step}",
        monitor=cfg.monitor,
        mode=cfg.monitor_mode,
        save_top_k=1,
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return newest, best


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, if there is one."""
    found = sorted(folder.glob("last-step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    return found[-1] if found else None
