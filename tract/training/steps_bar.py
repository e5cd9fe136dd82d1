"""How far a training is, in optimizer steps: a bar of one line on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from tract.common.progress import JOB_LOG, Progress

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 60.0  # between two lines of a log file
_LOSS_EVERY_S = 0.5  # reading it waits for the device
_FORMAT = "{desc}: {n_fmt} of {total_fmt} optimizer steps |{bar}| {elapsed}<{remaining}{postfix}"


class StepsBar(ProgressBar):
    """Shows the optimizer steps of a training, of the first rank alone. tqdm keeps the bar to the width of the terminal.

    Args:
        what: is trained, the first word of each line.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._enabled = True
        self._bar: Any = None
        self._lines: Progress | None = None
        self._steps = 0
        self._loss_at, self._loss = 0.0, ""

    def disable(self) -> None:
        """For the other ranks, as Lightning asks it."""
        self._enabled = False

    def enable(self) -> None:
        """Takes it back."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins where the training does, which may be resumed."""
        if not self._enabled:
            return
        total, self._steps = int(pl_module.total_steps), trainer.global_step  # type: ignore[arg-type]
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=self._steps, desc=self._what, bar_format=_FORMAT, dynamic_ncols=True, disable=False, file=sys.stderr,
                leave=JOB_LOG not in os.environ,  # a job of a multirun leaves no line
            )  # fmt: skip
        else:
            self._lines = Progress(self._what, "optimizer steps", total, self._steps, log.info, every_s=_REPORT_EVERY_S)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts a step, when the micro-batch was the last of it."""
        taken, self._steps = trainer.global_step - self._steps, trainer.global_step
        if taken <= 0:
            return
        if self._lines is not None:
            self._lines.advance(taken)
        if self._bar is not None:
            self._show_loss(trainer)
            self._bar.update(taken)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says why the bar stands still."""
        if self._bar is not None:
            self._bar.set_postfix_str("validating")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes it back."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._loss)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ends the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_loss(self, trainer: L.Trainer) -> None:
        now = time.monotonic()
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and now - self._loss_at >= _LOSS_EVERY_S:
            self._loss_at = now
            self._loss = f"loss {float(loss):.3f}"
            self._bar.set_postfix_str(self._loss, refresh=False)
