"""Log-probabilities without whole logits: values and gradients of the plain softmax, and no array of its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tract.models.log_probs import chosen_log_probs

R, H, V, N = 12, 8, 101, 30


def _inputs(
    *, trained: bool = True, bias: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(R, H, generator=generator) * 3).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_(trained)
    offset = torch.randn(V, generator=generator).to(dtype).requires_grad_(trained) if bias else None
    rows, tokens = torch.randint(0, R, (N,), generator=generator), torch.randint(0, V, (N,), generator=generator)
    return hidden, weight, offset, rows, tokens


def _plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, tokens: Tensor) -> Tensor:
    return torch.log_softmax(torch.nn.functional.linear(hidden, weight, bias).float(), dim=-1)[rows, tokens]


@pytest.mark.parametrize("chunk_elements", [1, 12 * 10, 12 * 40, 10**6], ids=["one_column", "small", "large", "whole"])
@pytest.mark.parametrize(("trained", "bias"), [(True, False), (True, True), (False, False), (False, True)])
def test_values_and_gradients_are_those_of_the_plain_softmax(trained: bool, bias: bool, chunk_elements: int) -> None:
    inputs = _inputs(trained=trained, bias=bias)
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    weights = torch.randn(N, generator=torch.Generator().manual_seed(1))
    found = chosen_log_probs(*inputs, chunk_elements=chunk_elements)
    expected = _plain(*inputs)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((weights * log_probs).sum(), wanted) for log_probs in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
def test_half_precision_is_as_near_to_the_truth_as_the_plain_way(trained: bool) -> None:
    inputs = _inputs(trained=trained, dtype=torch.bfloat16)
    exact = _plain(*(tensor.detach().double() if tensor is not None and tensor.is_floating_point() else tensor for tensor in inputs))  # type: ignore[arg-type, union-attr]
    found = chosen_log_probs(*inputs, chunk_elements=300)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= 1.5 * (_plain(*inputs) - exact).abs().max()
    found.sum().backward()
    assert inputs[0].grad is not None
    assert inputs[0].grad.dtype == torch.bfloat16


def test_autocast_decides_the_dtype_of_the_products() -> None:
    hidden, weight, bias, rows, tokens = _inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = chosen_log_probs(hidden, weight, bias, rows, tokens)
    whole = chosen_log_probs(hidden, weight, bias, rows, tokens)
    assert 1e-4 < (half - whole).abs().max() < 0.5
    half.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_without_a_gradient_none_is_prepared() -> None:
    hidden, weight, bias, rows, tokens = _inputs(trained=False)
    with torch.no_grad():
        assert not chosen_log_probs(hidden, weight, bias, rows, tokens).requires_grad


class _Largest(TorchDispatchMode):
    """Notes the size of the largest array that any operation makes anew."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and not tensor._is_view():
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("vocabulary", [1_000, 16_000])
def test_no_array_grows_with_positions_times_vocabulary(vocabulary: int) -> None:
    rows, chunk = 64, 4096
    hidden = torch.randn(rows, H, requires_grad=True)
    weight = torch.randn(vocabulary, H)
    with _Largest() as largest:
        chosen_log_probs(hidden, weight, None, torch.arange(rows), torch.arange(rows), chunk_elements=chunk).sum().backward()
    assert 0 < largest.elements <= chunk
    with _Largest() as plain:
        _plain(hidden, weight, None, torch.arange(rows), torch.arange(rows)).sum().backward()
    assert plain.elements == rows * vocabulary
