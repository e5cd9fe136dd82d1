"""Whether tensors are finite: every kind of number that is none, wherever it is, and which tensor holds it."""

from __future__ import annotations

import math

import pytest
import torch

from tract.common.finite import largest, listed, not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_number_in_a_thousand_is_found(value: float, place: int, dtype: torch.dtype) -> None:
    tensors = [("a", torch.ones(3)), ("b", torch.zeros(1000, dtype=dtype)), ("c", torch.zeros(0)), ("d", torch.tensor([7]))]
    assert not_finite(tensors) == []
    tensors[1][1][place] = value
    assert not bool(torch.isfinite(largest(tensor for _, tensor in tensors)))
    assert not_finite(tensors) == ["b"]


def test_the_largest_is_by_absolute_value_and_large_numbers_are_finite() -> None:
    assert largest([torch.tensor([1.0, -5.0]), torch.tensor([2.0], dtype=torch.bfloat16)]).item() == 5.0
    assert largest([torch.tensor([3])]).item() == 0.0
    assert (
        not_finite([("half", torch.full((9,), 65504.0, dtype=torch.float16)), ("bf16", torch.tensor([3e38], dtype=torch.bfloat16))]) == []
    )


def test_names_beyond_a_number_are_counted() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed("abcde", 2) == "a, b, and 3 more"
