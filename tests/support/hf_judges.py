"""Judges of the Hugging Face backend around a model in memory: shared by several test files."""

from __future__ import annotations

from typing import Any

from tract.inference.hf.judge import HFJudge
from tract.inference.sampling import Sampling
from tract.text.layout import SequenceLayout

SAMPLING = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=60)


def make_judge(model: Any, layout: SequenceLayout, sampling: Sampling = SAMPLING, seed: int = 0, *, padded: bool | None = None) -> HFJudge:
    """A judge in this process."""
    return HFJudge(model, layout, sampling=sampling, seed=seed, autocast=None, padded=padded)
