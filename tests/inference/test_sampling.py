"""Drawing tokens: against plain implementations, and by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from tract.common.errors import ConfigError
from tract.inference.sampling import Sampling, draw_tokens, nucleus_floor, uniforms


def sampling(temperature: float = 1.0, top_p: float = 1.0, repetition_penalty: float = 1.0) -> Sampling:
    return Sampling(temperature, top_p, repetition_penalty, max_cot_tokens=10)


def logits_of(rows: int, vocabulary: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows))


def test_uniforms_depend_on_all_arguments_and_nothing_else() -> None:
    first = uniforms(0, "a", 0, "cot", 5)
    np.random.default_rng(1).random(3)
    assert np.array_equal(first, uniforms(0, "a", 0, "cot", 5))
    assert np.array_equal(first, uniforms(0, "a", 0, "cot", 9)[:5])
    others = [uniforms(1, "a", 0, "cot", 5), uniforms(0, "b", 0, "cot", 5), uniforms(0, "a", 1, "cot", 5), uniforms(0, "a", 0, "score", 5)]
    assert all(not np.array_equal(first, other) for other in others)
    assert 0.45 < uniforms(3, "x", 2, "cot", 10_000).mean() < 0.55


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize(("vocabulary", "scale"), [(50, 3.0), (2000, 3.0), (2000, 0.1)])
def test_the_nucleus_is_that_of_transformers(top_p: float, vocabulary: int, scale: float) -> None:
    """With a flat distribution the nucleus is larger than what is looked at first."""
    logits = logits_of(4, vocabulary, scale)
    probabilities = torch.softmax(logits, dim=-1)
    kept = probabilities >= nucleus_floor(probabilities, top_p)[:, None]
    assert torch.equal(kept, torch.isfinite(TopPLogitsWarper(top_p)(torch.zeros(4, 1), logits)))


def test_shares_of_drawn_tokens_are_the_probabilities() -> None:
    logits = logits_of(1, 6, 1.0)
    count = 20_000
    uniform = torch.tensor(np.random.default_rng(0).random(count))
    drawn = draw_tokens(logits.expand(count, -1), torch.zeros(count, 6, dtype=torch.bool), uniform, sampling(temperature=0.7))
    shares = torch.bincount(drawn, minlength=6) / count
    torch.testing.assert_close(shares, torch.softmax(logits[0] / 0.7, dim=-1), rtol=0, atol=0.015)


def test_the_penalty_is_that_of_transformers() -> None:
    logits, ids = logits_of(3, 40), torch.tensor([[1, 2, 2], [5, 9, 7], [0, 39, 3]])
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter_(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(1.5)(ids, logits.clone()).argmax(dim=-1)
    found = draw_tokens(logits, seen, torch.zeros(3), sampling(temperature=0, repetition_penalty=1.5))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_only_tokens_of_the_nucleus_are_drawn(uniform: float) -> None:
    logits = torch.tensor([[-50.0, 2.0, 1.9, -50.0, -50.0]])
    drawn = draw_tokens(logits, torch.zeros(1, 5, dtype=torch.bool), torch.tensor([uniform], dtype=torch.float64), sampling(top_p=0.9))
    assert int(drawn) in (1, 2)


@pytest.mark.parametrize("top_p", [0.05, 0.9, 0.999, 1 - 1e-7])
@pytest.mark.parametrize("vocabulary", [3, 256, 257, 3000])
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 60.0])
def test_looking_among_likely_tokens_first_moves_no_token(scale: float, vocabulary: int, top_p: float) -> None:
    """Flat, peaked and equal logits, with a penalty; nuclei of one token, and of all."""
    logits = logits_of(40, vocabulary, scale)
    uniform = torch.tensor(np.random.default_rng(2).random(40))
    seen = torch.rand(40, vocabulary, generator=torch.Generator().manual_seed(1)) < 0.1
    settings = sampling(temperature=0.8, top_p=top_p, repetition_penalty=1.03)
    drawn = [draw_tokens(logits, seen, uniform, settings, guess=guess) for guess in (True, False)]
    assert torch.equal(*drawn)


def test_rounding_moves_no_token() -> None:
    logits = logits_of(200, 500)
    uniform = torch.tensor(np.random.default_rng(1).random(200))
    seen = torch.zeros(200, 500, dtype=torch.bool)
    noise = 1e-6 * torch.randn(200, 500, generator=torch.Generator().manual_seed(5))
    settings = sampling(top_p=0.9)
    assert torch.equal(draw_tokens(logits, seen, uniform, settings), draw_tokens(logits + noise, seen, uniform, settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "generation.temperature: -1.0 is not a finite number >= 0"),
        ({"top_p": 0.0}, r"generation.top_p: 0.0 is outside \(0, 1\]"),
        ({"repetition_penalty": 0.0}, "generation.repetition_penalty: 0.0 is not a finite number > 0"),
        ({"max_cot_tokens": 0}, "generation.max_cot_tokens: 0 is not a number >= 1"),
    ],
)
def test_what_is_out_of_range_is_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**{**vars(sampling()), **changes})  # type: ignore[arg-type]
