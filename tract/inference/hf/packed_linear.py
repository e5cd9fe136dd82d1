"""Linear layers whose weights lie as a CPU's kernels read them: for judges that sample a few tokens at a time.

The operators are private to torch (``PRIVATE_OPERATORS``). The public ways do something else: ``torch.utils.mkldnn.to_mkldnn`` converts
the activations at each layer, and ``torch.compile`` with frozen weights compiles again for each number of tokens. Where an operator is
missing, the layers stay as they are; a test fails with its name.
"""

from __future__ import annotations

import platform
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Of ``torch.ops.mkldnn``, and the version of torch that they were tested with.
PRIVATE_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise")
TESTED_WITH = "2.13.0"
# Rows that the kernels are chosen for; others work as well.
_ROWS = 16


def pack_linears(model: nn.Module) -> int:
    """Lets the frozen float32 linear layers of a model on an x86 CPU work on weights packed by oneDNN; returns how many.

    The plain product lays a weight out anew at each call, which costs as much as the product where a few tokens go through the
    model. The packed weights take as much memory again; the model's own stay, and so do its names. Elsewhere nothing is done.
    """
    packs = torch.ops.mkldnn
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return 0
    if not all(hasattr(packs, name) for name in PRIVATE_OPERATORS):
        return 0
    packed = 0
    for module in model.modules():
        if type(module) is not nn.Linear:  # those with a forward of their own are left alone
            continue
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.requires_grad:
            module.forward = partial(_linear, packs._reorder_linear_weight(weight.data, _ROWS), module.bias)  # type: ignore[method-assign]
            packed += 1
    return packed


def _linear(packed: Any, bias: Tensor | None, states: Tensor) -> Tensor:
    """[..., in] -> [..., out]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(states, packed, bias, "none", [], "")
    return out
