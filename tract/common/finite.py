"""Whether weights and other tensors are finite, and which are not. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Packed weights (4 and 8 bits) hold no such numbers; tensors on the meta device, of which sizes alone are wanted, hold none.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

MOST_NAMED = 64  # examples in an error; the others are counted


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """The largest absolute value of all numbers, NaN if one of them is; so it is finite if and only if all of them are.

    Reads each tensor once and waits for no device.

    Returns:
        [] float32, on the device of the first tensor; 0 without floating-point numbers.
    """
    # Least and largest in one pass: on a CPU several times as fast as any other way that lets NaN through.
    ends = [
        torch.stack(torch.aminmax(t.detach())).abs().amax().float() for t in tensors if t.dtype in _FLOATS and t.numel() and not t.is_meta
    ]
    if not ends:
        return torch.zeros((), device="cpu")  # also where the meta device is the default
    return torch.stack([end.to(ends[0].device) for end in ends]).amax()


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the tensors that hold NaN or infinity; waits for the device once, unless there are some."""
    listed = list(named)
    if bool(torch.isfinite(largest(tensor for _, tensor in listed))):
        return []
    return [name for name, tensor in listed if not bool(torch.isfinite(largest([tensor])))]


def listed(names: Iterable[str], at_most: int = MOST_NAMED) -> str:
    """The names with commas between; those beyond ``at_most`` are counted."""
    given = list(names)
    more = [f"and {len(given) - at_most} more"] if len(given) > at_most else []
    return ", ".join([*given[:at_most], *more])
