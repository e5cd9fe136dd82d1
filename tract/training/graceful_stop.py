"""Where a training stops when a signal requests its end: after the current optimizer step, with a checkpoint of that very step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from tract.common import signals
from tract.common.distributed import all_reduce_max, broadcast_from_rank0


class GracefulStop(Callback):
    """Saves a checkpoint and ends the training soon after a signal; all ranks after the same step, whichever of them got it.

    A validation is broken off, and repeated by the run that resumes. Only the one after the last step is waited for: a checkpoint
    before it would be of a training that is over, without its validation.

    Lightning's own ways do not serve: ``trainer.should_stop`` runs a validation first and ends as a training does that is complete, and
    its handler of SIGTERM raises between micro-batches and knows no Ctrl-C.

    Args:
        stage: its name. folder: of the checkpoints.
    """

    def __init__(self, stage: str, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self._steps = 0
        self._loops: dict[str, Any] | None = None  # their state after the last step, before a validation moves it
        self._saves_loops = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keeps Lightning's handler out: it lets ranks exchange messages from within the handler, and ends between micro-batches."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on the training ends by itself, after a step."""
        module: Any = pl_module
        total, self._steps = int(module.total_steps), trainer.global_step
        signals.set_status(lambda: _saved_steps(self._stage, self._folder, total))
        signals.postpone(wanted=True)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops, if the micro-batch was the last of its step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        self._loops = copy.deepcopy(trainer.fit_loop.state_dict())
        self._stop_if_requested(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stops, with the checkpoint of the step before."""
        self._stop_if_requested(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops after the last step and its validation; what follows is repeated from there."""
        if number := all_reduce_max(signals.requested()):
            self._stop(trainer, pl_module, number)
        signals.postpone(wanted=False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Nothing is left to save."""
        signals.postpone(wanted=False)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the loops where they were after the step."""
        if self._saves_loops and self._loops is not None:
            checkpoint["loops"]["fit_loop"] = self._loops

    def _stop_if_requested(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module: Any = pl_module
        number = all_reduce_max(signals.requested())
        if number and trainer.global_step != module.total_steps:
            self._saves_loops = True
            self._stop(trainer, pl_module, number)

    def _stop(self, trainer: L.Trainer, pl_module: L.LightningModule, number: int) -> None:
        module: Any = pl_module
        signals.adopt(number)
        path = self._folder / f"last-step={trainer.global_step}.ckpt"
        if not trainer.global_step:
            signals.set_status(f"in {self._stage}, before its first optimizer step")
        else:
            if self._loops is not None and not broadcast_from_rank0(path.exists()):
                trainer.save_checkpoint(path)
            signals.set_status(f"at optimizer step {trainer.global_step} of {module.total_steps} of {self._stage}, saved")
        signals.check()


def _saved_steps(stage: str, folder: Path, total: int) -> str:
    steps = [int(path.stem.partition("=")[2]) for path in folder.glob("last-step=*.ckpt")]
    return f"in {stage}, of which optimizer step {max(steps)} of {total} is saved" if steps else f"in {stage}, before its first checkpoint"
