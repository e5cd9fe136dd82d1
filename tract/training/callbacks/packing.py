"""A check of the model before training: whether packed sequences are exact."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from tract.inference.hf.paths import measured
from tract.inference.hf.sequences import take_rows
from tract.models.exactness import packing_difference, tolerance
from tract.models.packed_forward import takes_rows
from tract.models.precisions import arithmetic_of


class CheckPacking(Callback):
    """Checks before training, on the weights, that a packed row equals each sequence alone; if not, each sequence becomes a row.

    It must be the first of the callbacks, since others validate in the same hook. All ranks go through the model together.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Runs the check, and takes rows if any rank has found a difference."""
        model: Any = pl_module.model
        if takes_rows(model):
            return
        with trainer.precision_plugin.forward_context():
            packed = measured(lambda: packing_difference(model))
        most = tolerance(model, arithmetic_of(str(trainer.precision)))
        differ = torch.tensor(float(packed[0] > most), device=pl_module.device)
        if bool(trainer.strategy.reduce(differ, reduce_op="sum")):
            take_rows(model, *packed)
