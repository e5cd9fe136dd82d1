"""The real vLLM engine, on a CPU: the same judgements as by the Hugging Face backend. Run: make test-vllm."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from vllm_judges import GREEDY, SAMPLED, assert_agree, driver_of, judge_all, judge_on, settings_of

from tract.common.errors import GenerationError
from tract.inference.engines.driver import EngineDriver
from tract.inference.engines.engine import Ask
from tract.inference.engines.vllm import VLLMEngine
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import CUE, DIRECT, Prompt
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

# An engine's start alone takes minutes on a busy machine.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(talking_folder: str) -> VLLMEngine:
    return VLLMEngine(settings_of(talking_folder))


@pytest.fixture(scope="module")
def driver(engine: VLLMEngine) -> Iterator[EngineDriver]:
    """One for all judges: an engine belongs to the loop in which it was first asked."""
    made = driver_of(engine)
    yield made
    made.close()


def ten(layout: SequenceLayout) -> SequenceLayout:
    labels = ScoreGrid(tuple(str(k) for k in range(1, 11)))
    return SequenceLayout(layout.tokenizer, layout.scaffold, layout.end_id, layout.cue, labels)


@pytest.mark.parametrize("grid", ["five", "ten"])
def test_greedy_cots_and_scores_are_those_of_the_hf_backend(
    grid: str, talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], driver: EngineDriver
) -> None:
    layout = ten(tiny_layout) if grid == "ten" else tiny_layout
    expected = HFJudge(talking_model, layout, GREEDY, 0, None).judge(prompts, 1, rows=8, without_cot=True, free=True)
    found = judge_all(judge_on(driver, layout, GREEDY), prompts, 1)
    ties = assert_agree(talking_model, found, expected, prompts, layout.grid)
    assert ties <= 1
    assert Counter(j.finish for j in found)[CUE] >= 2
    assert [j.raw_output for j in found if j.finish == CUE] == [j.raw_output for j in expected if j.finish == CUE] or ties


def test_given_cots_are_read_as_by_the_hf_backend(
    talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], driver: EngineDriver
) -> None:
    given = [[(DIRECT, ()), (0, tuple(range(60, 90))), (1, ())] for _ in prompts]
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).read(prompts, given)
    pairs = [[(prompt, cots)] for prompt, cots in zip(prompts, given, strict=True)]
    found = [j for some in judge_on(driver, tiny_layout, GREEDY).read_parts(pairs, rows=8, progress=lambda _: None) for j in some]
    ordered = [sorted(some, key=lambda j: (j.row, j.sample)) for some in (found, expected)]
    assert assert_agree(talking_model, *ordered, prompts, tiny_layout.grid) == 0


def test_samples_have_seeds_of_their_own_and_keep_them(
    engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], driver: EngineDriver
) -> None:
    first = judge_all(judge_on(driver, tiny_layout, SAMPLED), prompts, 3, rows=3)
    again = {(j.row, j.sample): j for j in judge_all(judge_on(driver, tiny_layout, SAMPLED), prompts[::-1], 3)}
    same = sum(again[j.row, j.sample].cot_ids == j.cot_ids for j in first)
    assert same >= len(first) - 1  # rounding moves the border between two tokens by a millionth
    sampled = [j for j in first if j.sample != DIRECT]
    assert len({(j.row, j.cot_ids) for j in sampled}) > 2 * len(prompts)
    other = judge_all(judge_on(driver, tiny_layout, SAMPLED, seed=1), prompts, 3)
    assert sum(a.cot_ids != b.cot_ids for a, b in zip(first, other, strict=True) if a.sample != DIRECT) > len(sampled) // 2


def test_prompts_that_no_step_of_the_engine_holds_together_are_sampled(
    engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], driver: EngineDriver
) -> None:
    """A prompt that is cut into chunks, and has a seed, would end the engine on a CPU."""
    many = [Prompt(f"long-{k}", k, tuple(40 + (k + i * i) % 400 for i in range(1900 - k))) for k in range(8)]
    sampling = dataclasses.replace(SAMPLED, max_cot_tokens=4)
    assert len(judge_all(judge_on(driver, tiny_layout, sampling), many, 1)) == 16


def test_first_tokens_are_drawn_from_the_distribution_of_the_hf_backend(
    talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], driver: EngineDriver
) -> None:
    """Temperature, nucleus and penalty mean the same: 400 draws each, told apart by their total variation."""
    sampling = dataclasses.replace(SAMPLED, max_cot_tokens=1, temperature=1.3, top_p=0.8)
    drawn = []
    for judgements in (
        judge_all(judge_on(driver, tiny_layout, sampling), prompts[:1], 400),
        HFJudge(talking_model, tiny_layout, sampling, 0, None).judge(prompts[:1], 400, rows=400, without_cot=False, free=False),
    ):
        counts = Counter(j.cot_ids[:1] for j in judgements if j.sample != DIRECT)
        drawn.append({token: number / counts.total() for token, number in counts.items()})
    assert len(drawn[0]) >= 3
    distance = sum(abs(drawn[0].get(token, 0) - drawn[1].get(token, 0)) for token in {*drawn[0], *drawn[1]}) / 2
    assert distance < 0.15


def test_the_cots_of_a_prompt_and_the_readings_behind_them_share_its_cache(
    engine: VLLMEngine, prompts: list[Prompt], driver: EngineDriver
) -> None:
    ids = list(prompts[0].prompt_ids) * 3

    async def cached(behind: list[int]) -> tuple[int, int]:
        ask = Ask((*ids, *behind), 1, GREEDY, 0)
        output: Any = None
        async for so_far in engine._engine.generate({"prompt_token_ids": list(ask.ids)}, engine._sampling(ask), f"cached-{len(behind)}"):
            output = so_far
        return output.num_cached_tokens or 0, len(ask.ids)

    driver.run(cached, [])
    hits, length = driver.run(cached, [40, 41, 42])
    assert hits > length // 2


def test_a_prompt_that_is_too_long_is_named(engine: VLLMEngine, tiny_layout: SequenceLayout, driver: EngineDriver) -> None:
    long = Prompt("far-too-long", 0, tuple([50] * 2100))
    with pytest.raises(GenerationError, match=r"generation: far-too-long: vLLM refuses a request of 2\d+ tokens"):
        judge_all(judge_on(driver, tiny_layout, GREEDY), [long], 1)
