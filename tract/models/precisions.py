"""The dtypes behind Lightning's names of precisions."""

from __future__ import annotations

import torch

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
STORED = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def arithmetic_of(precision: str) -> torch.dtype | None:
    """The dtype of the arithmetic by Lightning's name of a precision; None where it is that of the weights."""
    return AUTOCAST.get(precision) or STORED.get(precision)
