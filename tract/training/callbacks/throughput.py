"""Tokens and examples that were trained: rates, and totals to plot metrics over."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from tract.common.progress import EXAMPLES_AXIS, TOKENS_AXIS
from tract.data.batches import JudgeBatch


class Throughput(Callback):
    """Logs trained tokens and examples: per second since the last log, without the time of validations, and in total.

    Tokens are those of the examples, a shared prompt counted for each, so that rates of different ways to train compare. Totals are
    over all ranks, up to the last step that was logged, and continue in a resumed run; metrics are plotted over them, so they are
    logged with validations too.
    """

    def __init__(self) -> None:
        self._tokens = self._examples = self._steps = 0
        self._begun = self._paused = 0.0
        self._totals = torch.zeros(2, dtype=torch.float64)  # tokens, examples; of all ranks, at the last optimizer step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._steps = trainer.global_step
        self._restart()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restarts the clock."""
        self._begun += time.perf_counter() - self._paused

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: JudgeBatch, batch_idx: int) -> None:
        """Counts the micro-batch."""
        self._tokens += batch.trained_tokens
        self._examples += batch.scores.numel() * (not batch.is_padding)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: JudgeBatch, batch_idx: int) -> None:
        """Logs after every ``log_every_n_steps`` optimizer steps."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = max(time.perf_counter() - self._begun, 1e-9)
            counts = torch.tensor([self._tokens, self._examples], dtype=torch.float64, device=pl_module.device)
            counts = trainer.strategy.reduce(counts, reduce_op="sum").cpu()
            self._totals += counts
            tokens, examples = (counts / seconds).tolist()
            pl_module.log_dict({"train/tokens_per_s": tokens, "train/examples_per_s": examples, **self._axis_values()})
            self._restart()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the totals beside the metrics of the validation."""
        if trainer.state.fn == TrainerFn.FITTING:
            pl_module.log_dict(self._axis_values())

    def _axis_values(self) -> dict[str, float]:
        tokens, examples = self._totals.tolist()
        return {TOKENS_AXIS: tokens, EXAMPLES_AXIS: examples}

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"so_far": self._totals.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._totals = torch.tensor(state_dict["so_far"], dtype=torch.float64)

    def _restart(self) -> None:
        self._tokens = self._examples = 0
        self._begun = time.perf_counter()
