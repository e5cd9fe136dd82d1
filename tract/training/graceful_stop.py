"""Where a training is left when a signal asks for its end: behind the optimizer step at hand, with a checkpoint of that very step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from tract.common import signals as interruption
from tract.common.distributed import all_reduce_max, broadcast_from_rank0


class GracefulStop(Callback):
    """Saves a checkpoint and ends the training soon after a signal; all ranks behind the same step, whichever were told.

    A validation is broken off, and made anew by the run that goes on. Only the one behind the last step is waited for: a checkpoint
    before it would be of a training that is over, without its validation.

    Args:
        stage: its name. folder: of the checkpoints.
    """

    def __init__(self, stage: str, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self._steps = 0
        self._loops: dict[str, Any] | None = None  # their state behind the last step, before a validation moves it
        self._saves_loops = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keeps Lightning's handler out: it lets ranks exchange messages from within the handler, and ends between micro-batches."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on the training is left by itself."""
        module: Any = pl_module
        total, self._steps = int(module.total_steps), trainer.global_step
        interruption.at(lambda: _saved(self._stage, self._folder, total))
        interruption.postpone(wanted=True)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Leaves, if the micro-batch was the last of its step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        self._loops = copy.deepcopy(trainer.fit_loop.state_dict())
        self._leave_if_asked(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leaves, with the checkpoint of the step before."""
        self._leave_if_asked(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves behind the last step and its validation; what follows begins anew from there."""
        if number := all_reduce_max(interruption.requested()):
            self._leave(trainer, pl_module, number)
        interruption.postpone(wanted=False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Nothing is left to save."""
        interruption.postpone(wanted=False)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the loops where they were behind the step."""
        if self._saves_loops and self._loops is not None:
            checkpoint["loops"]["fit_loop"] = self._loops

    def _leave_if_asked(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module: Any = pl_module
        number = all_reduce_max(interruption.requested())
        if number and trainer.global_step != module.total_steps:
            self._saves_loops = True
            self._leave(trainer, pl_module, number)

    def _leave(self, trainer: L.Trainer, pl_module: L.LightningModule, number: int) -> None:
        module: Any = pl_module
        interruption.adopt(number)
        path = self._folder / f"last-step={trainer.global_step}.ckpt"
        if not trainer.global_step:
            interruption.at(f"in {self._stage}, before its first optimizer step")
        else:
            if self._loops is not None and not broadcast_from_rank0(path.exists()):
                trainer.save_checkpoint(path)
            interruption.at(f"at optimizer step {trainer.global_step} of {module.total_steps} of {self._stage}, saved")
        interruption.check()


def _saved(stage: str, folder: Path, total: int) -> str:
    steps = [int(path.stem.partition("=")[2]) for path in folder.glob("last-step=*.ckpt")]
    return f"in {stage}, of which optimizer step {max(steps)} of {total} is saved" if steps else f"in {stage}, before its first checkpoint"
