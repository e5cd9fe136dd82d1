"""Batches of prompts that are about equally long. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tract.inference.judgement import Prompt


def batches_by_length(prompts: Sequence[Prompt], sequences: int, n_cot: int) -> list[list[Prompt]]:
    """The prompts in batches, longest first, so that the most memory is needed at once and the time left is never underrated.

    Args:
        prompts: in any order. sequences: the most sequences of a batch; a prompt with its CoTs always stays in one batch.
        n_cot: CoTs of each prompt.
    """
    per_batch = max(1, sequences // max(1, n_cot))
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.prompt_ids), prompt.id))
    return [ordered[first : first + per_batch] for first in range(0, len(ordered), per_batch)]
