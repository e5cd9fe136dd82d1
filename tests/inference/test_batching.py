"""Batches by length: every prompt once, longest first, no more sequences than asked for."""

from __future__ import annotations

import random

import pytest

from tract.inference.batching import batches_by_length
from tract.inference.judgement import Prompt

PROMPTS = [Prompt(f"e{row}", row, tuple(range(length))) for row, length in enumerate([5, 9, 1, 9, 30, 2, 5])]


@pytest.mark.parametrize(
    ("sequences", "n_cot", "sizes"),
    [(4, 1, [4, 3]), (4, 2, [2, 2, 2, 1]), (5, 2, [2, 2, 2, 1]), (1, 1, [1] * 7), (1, 8, [1] * 7), (3, 0, [3, 3, 1]), (100, 1, [7])],
)
def test_sizes(sequences: int, n_cot: int, sizes: list[int]) -> None:
    batches = batches_by_length(PROMPTS, sequences, n_cot)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(prompt.row for batch in batches for prompt in batch) == list(range(7))
    lengths = [len(prompt.prompt_ids) for batch in batches for prompt in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_the_order_of_the_prompts_plays_no_part() -> None:
    shuffled = random.Random(3).sample(PROMPTS, len(PROMPTS))
    assert shuffled != PROMPTS
    assert batches_by_length(shuffled, 3, 1) == batches_by_length(PROMPTS, 3, 1)


def test_nothing_gives_nothing() -> None:
    assert batches_by_length([], 4, 1) == []
