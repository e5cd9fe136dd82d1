"""Packed linear layers compute what they computed before."""

from __future__ import annotations

import platform

import pytest
import torch
from small_models import FAMILIES, family_model

from tract.inference.hf.packed_linear import PRIVATE_OPERATORS, TESTED_WITH, pack_linears


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="weights are packed on x86 alone")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_gives_the_same_logits(family: str) -> None:
    plain, packed = family_model(family), family_model(family)
    assert pack_linears(packed) == 0, "weights that are trained stay as they are"
    packed.requires_grad_(False)
    linears = [module for module in packed.modules() if type(module) is torch.nn.Linear]
    assert pack_linears(packed) == len(linears) > 0
    for rows, length in ((1, 1), (3, 1), (2, 70)):
        ids = torch.randint(10, 500, (rows, length), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            torch.testing.assert_close(packed(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="weights are packed on x86 alone")
def test_torch_has_the_private_operators() -> None:
    missing = [name for name in PRIVATE_OPERATORS if not hasattr(torch.ops.mkldnn, name)]
    assert not missing, f"torch {torch.__version__} has no torch.ops.mkldnn.{missing}; packed_linear was tested with torch {TESTED_WITH}"


def test_other_dtypes_and_layers_with_adapters_are_left_alone() -> None:
    half = torch.nn.Sequential(torch.nn.Linear(4, 4)).requires_grad_(False).bfloat16()
    assert pack_linears(half) == 0

    class Own(torch.nn.Linear):
        """A layer with a forward of its own."""

    assert pack_linears(torch.nn.Sequential(Own(4, 4)).requires_grad_(False)) == 0


def test_bias_is_kept() -> None:
    layer = torch.nn.Linear(8, 5).requires_grad_(False)
    states = torch.randn(2, 3, 8)
    expected = layer(states)
    pack_linears(torch.nn.Sequential(layer))
    torch.testing.assert_close(layer(states), expected)
