"""Precision plugins that leave batches alone."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import DeepSpeedPrecision, DoublePrecision, HalfPrecision, Precision
from torch import nn

from tract.models.loading import stored_in


class _UnchangedBatches:
    """Leaves batches alone: true scores are float32 whatever the model computes in, and batches are read-only."""

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data


class UnchangedBatchesDeepSpeed(_UnchangedBatches, DeepSpeedPrecision):
    """DeepSpeed's precision, without a conversion of batches."""


class _HalfWeights(_UnchangedBatches, HalfPrecision):
    """Weights in half precision; batches, metrics, the grid's values and rotary frequencies keep their dtype."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """The module with the weights of its model in this precision; the metrics beside it would be rounded too."""
        own: Any = module
        stored_in(own.model, self._desired_input_dtype)
        return module


class _DoubleWeights(_UnchangedBatches, DoublePrecision):
    """Weights in float64; batches keep their dtype."""


def own_precision(precision: str) -> Precision | None:
    """The plugin for a precision whose plugin in Lightning rounds true scores too and refuses read-only batches; None for others.

    Args:
        precision: Lightning's name of it.
    """
    if precision == "64-true":
        return _DoubleWeights()
    return _HalfWeights(precision) if precision in ("bf16-true", "16-true") else None  # type: ignore[arg-type]
