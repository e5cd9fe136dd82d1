"""The trained weights of the best validation so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tract.common.durable import write_atomically
from tract.common.errors import DataError
from tract.models.sharding import whole_weights


class BestWeights(Callback):
    """Keeps the trained weights of the validation with the best value of a metric, whole, whatever the strategy.

    Rank 0 writes ``<folder>/best-step=N.safetensors``, whole or not at all.

    Args:
        folder: of the checkpoints. monitor: key of the metric. mode: "min" or "max".
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        self._folder, self._monitor = folder, monitor
        self._sign = 1 if mode == "max" else -1
        self.score: float | None = None
        self.step = 0

    @property
    def path(self) -> Path:
        """The file of the best weights so far."""
        return self._folder / f"best-step={self.step}.safetensors"

    def load(self) -> dict[str, Tensor]:
        """The best weights so far, whole.

        Raises:
            DataError: if their file cannot be read.
        """
        with self._readable():
            return load_file(self.path)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{self.path}: the best weights so far cannot be read ({' '.join(str(error).split())[:200]}); remove the folder "
                f"{self._folder}, then training begins anew"
            ) from error

    def beats(self, value: float | None) -> bool:
        """Whether the kept weights are strictly better than a value of the metric; one that is undefined (None) never wins."""
        return self.score is not None and (value is None or not self._sign * value >= self._sign * self.score)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights if they are the best so far. Every rank takes part in putting them together."""
        module: Any = pl_module
        value = module.validation_metrics.get(self._monitor)
        if trainer.state.fn != TrainerFn.FITTING or trainer.global_step == 0 or value is None or not math.isfinite(value):
            return
        if self.score is not None and self._sign * value <= self._sign * self.score:
            return
        weights = whole_weights(module.model)
        old, self.score, self.step = self.path, value, trainer.global_step
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(self.path) as partial:
                save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)
            if old != self.path:
                old.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint; weights that a later best has replaced are found when that validation is repeated.

        Raises:
            DataError: if the file of the weights cannot be read.
        """
        self.score, self.step = state_dict["score"], int(state_dict["step"])  # a number, since it is part of a file's name
        if not self.path.is_file():
            self.score = None
        elif self.score is not None:
            with self._readable(), safe_open(self.path, framework="pt"):  # now, rather than when the training is done
                pass
