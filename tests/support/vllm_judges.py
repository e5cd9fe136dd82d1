"""Judges on a vLLM engine, and what it means that two judges agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tract.inference.engines.driver import EngineDriver
from tract.inference.engines.judge import EngineJudge
from tract.inference.engines.vllm import VLLMSettings
from tract.inference.judgement import Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

GREEDY = Sampling(temperature=0.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=60)
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0)
# Two tokens whose logits are nearer to each other than this are a tie: rounding decides which is the greedy one.
TIE = 1e-4


def settings_of(model: str, **changed: Any) -> VLLMSettings:
    plain = VLLMSettings(
        model=model, revision=None, tokenizer=model, adapter=None, adapter_rank=0, dtype="float32", max_length=2048, seed=0,
        sequences=8, cpu=True, devices=(0,), shared_cores=True, trust_remote_code=False, gpu_memory_utilization=0.9,
        kv_cache_gib=0.5, enforce_eager=True, engine={},
    )  # fmt: skip
    return dataclasses.replace(plain, **changed)


async def _never() -> Any:
    raise AssertionError("it is started already")


def driver_of(engine: Any) -> EngineDriver:
    """One for all judges: an engine belongs to the loop in which it was first asked."""

    async def start() -> Any:
        return engine

    return EngineDriver(start)


def judge_on(driver: EngineDriver, layout: SequenceLayout, sampling: Sampling, seed: int = 0) -> EngineJudge:
    judge = EngineJudge(_never, layout, sampling, seed)
    judge._driver = driver
    return judge


def judge_all(judge: EngineJudge, prompts: Sequence[Prompt], n_cot: int, *, rows: int = 8) -> list[Judgement]:
    found = judge.judge_parts([[p] for p in prompts], n_cot, rows=rows, without_cot=True, free=True, progress=lambda _: None)
    return sorted((j for some in found for j in some), key=lambda j: (j.row, j.sample))


def assert_agree(model: Any, found: Sequence[Judgement], expected: Sequence[Judgement], prompts: Sequence[Prompt], grid: ScoreGrid) -> int:
    """Equal CoTs but for ties, which are proved, and RAIL within 1e-3; returns the number of ties."""
    values = torch.tensor(grid.values)
    ties = 0
    by_row = {prompt.row: prompt for prompt in prompts}
    assert [(j.row, j.sample) for j in found] == [(j.row, j.sample) for j in expected]
    for a, b in zip(found, expected, strict=True):
        if a.cot_ids != b.cot_ids:
            ties += 1
            assert_tie(model, by_row[a.row].prompt_ids, a.cot_ids, b.cot_ids)
            continue
        assert (a.cot, a.finish, a.forced_decode) == (b.cot, b.finish, b.forced_decode)
        rail = [float((torch.tensor(j.probabilities) * values).sum()) for j in (a, b)]
        assert rail[0] == pytest.approx(rail[1], abs=1e-3)
        torch.testing.assert_close(torch.tensor(a.probabilities), torch.tensor(b.probabilities), rtol=0, atol=1e-4)
    return ties


def assert_tie(model: Any, prompt: Sequence[int], a: Sequence[int], b: Sequence[int]) -> None:
    shared = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    ids = torch.tensor([[*prompt, *a[:shared]]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[ids[0]] = True
    logits = torch.where(seen, torch.where(logits > 0, logits / 1.03, logits * 1.03), logits)
    top = logits.topk(2).values
    assert float(top[0] - top[1]) < TIE, f"token {shared} differs without a tie: {a[shared : shared + 3]} and {b[shared : shared + 3]}"
