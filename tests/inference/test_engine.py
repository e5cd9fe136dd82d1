"""Judging by an engine: the same judgements as with the model in this process, whatever order requests come back in."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from plain_engine import GREEDY, PlainEngine, close, judge_all

from tract.common.errors import GenerationError
from tract.inference.engines.engine import Ask, Reply
from tract.inference.engines.judge import EngineJudge
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import CUE, DIRECT, END, LENGTH, NONE, Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.inference.stopping import CueFinder
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

SAMPLED = dataclasses.replace(GREEDY, temperature=1.0)


class OutOfOrder(PlainEngine):
    """Lets later requests overtake earlier ones."""

    async def complete(self, ask: Ask) -> Reply:
        await asyncio.sleep(0.001 * (len(self.asks) * 7 % 5))
        return await super().complete(ask)


def engine_judge(engine: Any, layout: SequenceLayout, sampling: Sampling, seed: int = 0) -> EngineJudge:
    async def start() -> Any:
        return engine

    return EngineJudge(start, layout, sampling, seed)


@pytest.fixture
def engine(talking_model: Any, tiny_tokenizer: Any) -> PlainEngine:
    return OutOfOrder(talking_model, tiny_tokenizer)


@pytest.fixture(params=["five", "ten"])
def layout(request: pytest.FixtureRequest, tiny_layout: SequenceLayout) -> SequenceLayout:
    """Also a grid with a score of two tokens, one of which begins with another score."""
    if request.param == "five":
        return tiny_layout
    labels = tuple(str(k) for k in range(1, 11))
    return SequenceLayout(tiny_layout.tokenizer, tiny_layout.scaffold, tiny_layout.end_id, tiny_layout.cue, ScoreGrid(labels))


@pytest.mark.parametrize("free", [True, False])
def test_greedy_judgements_are_those_of_the_hf_backend(
    free: bool, talking_model: Any, engine: PlainEngine, layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    expected = HFJudge(talking_model, layout, GREEDY, 0, None).judge(prompts, 2, rows=8, without_cot=True, free=free)
    found = judge_all(engine_judge(engine, layout, GREEDY), prompts, 2, free=free)
    assert len(found) == len(expected) == 3 * len(prompts)
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    finishes = Counter(j.finish for j in found)
    assert finishes[CUE] >= 4
    assert finishes[NONE] == len(prompts)


def test_given_cots_are_read_as_by_the_hf_backend(
    talking_model: Any, engine: PlainEngine, layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    given = [[(DIRECT, ()), (0, tuple(range(60, 70))), (1, ())] for _ in prompts]
    expected = HFJudge(talking_model, layout, GREEDY, 0, None).read(prompts, given)
    judge = engine_judge(engine, layout, GREEDY)
    pairs = [[(prompt, cots)] for prompt, cots in zip(prompts, given, strict=True)]
    found = [j for some in judge.read_parts(pairs, rows=3, progress=lambda _: None) for j in some]
    key = {(j.row, j.sample): j for j in found}
    assert len(key) == len(found) == len(expected)
    for judgement in expected:
        close(key[judgement.row, judgement.sample], judgement)


@pytest.mark.kills
def test_each_sample_has_draws_of_its_own_and_keeps_them(engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    first = judge_all(engine_judge(engine, tiny_layout, SAMPLED), prompts[:4], 3, rows=2)
    again = judge_all(engine_judge(engine, tiny_layout, SAMPLED), prompts[3::-1], 2, rows=16)
    by_key = {(j.row, j.sample): j for j in first}
    for judgement in again:
        close(judgement, by_key[judgement.row, judgement.sample])
    assert len({j.cot_ids for j in first if j.row == 0 and j.sample != DIRECT}) == 3
    other = judge_all(engine_judge(engine, tiny_layout, SAMPLED, seed=1), prompts[:4], 3)
    assert sum(a.cot_ids != b.cot_ids for a, b in zip(first, other, strict=True) if a.sample != DIRECT) > 6


def test_every_end_of_a_cot(tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    """By hand: cue, end of turn, limit, cue behind the limit, cue cut otherwise than by the layout and with text behind it."""
    cot, cue, score = tiny_layout.cot_ids("Good."), list(tiny_layout.cue_ids), list(tiny_layout.score_ids[2])
    finder = CueFinder(tiny_layout)
    letters = [token for letter in tiny_layout.cue for token in tiny_layout.cot_ids(letter)]
    assert letters != cue
    limit = len(cot) + 2
    cases: list[tuple[list[int], bool, str, int, int]] = [
        ([*cot, *cue], False, CUE, len(cot), limit),
        ([*cot, *cue, *score, *cot], False, CUE, len(cot), limit),
        ([*cot, *letters, *score], False, CUE, len(cot), 60),
        (cot, True, END, len(cot), limit),
        ([*cot, *cot, *cot][:limit], True, END, limit, limit),
        ([*cot, *cot, *cot, *cue], False, LENGTH, limit, limit),
    ]
    for drawn, ended, finish, length, most in cases:

        class Scripted:
            async def complete(self, ask: Ask, drawn: list[int] = drawn, ended: bool = ended) -> Reply:
                if not ask.end_ids:
                    return Reply(tuple(score), False, dict.fromkeys(ask.logprob_ids, -2.0))
                return Reply(tuple(drawn[: ask.max_tokens]) if len(ask.ids) == len(prompts[0].prompt_ids) else (), ended, {})

            async def close(self) -> None: ...

        judge = engine_judge(Scripted(), tiny_layout, dataclasses.replace(GREEDY, max_cot_tokens=most))
        judgement = judge_all(judge, prompts[:1], 1)[1]
        assert (judgement.finish, len(judgement.cot_ids)) == (finish, length), drawn
        assert judgement.forced_decode == 2
        assert judgement.raw_output is not None
        assert judgement.raw_output.startswith(finder.text(judgement.cot_ids))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply((40,), False, {}), "gave no log-probability of the score tokens"),
        (Reply((40,), False, dict.fromkeys(range(512), float("nan"))), "log-probabilities are not finite"),
        (GenerationError("refused"), "generation: .*: refused"),
    ],
)
def test_what_an_engine_does_not_give_ends_the_judging(
    reply: Reply | GenerationError, message: str, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    class Broken:
        async def complete(self, ask: Ask) -> Reply:
            if isinstance(reply, GenerationError):
                raise reply
            return reply

        async def close(self) -> None: ...

    with pytest.raises(GenerationError, match=message):
        judge_all(engine_judge(Broken(), tiny_layout, GREEDY), prompts, 0)


def test_the_engine_starts_with_the_first_work_and_is_closed(
    engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    started = []

    async def start() -> PlainEngine:
        started.append(True)
        return engine

    judge = EngineJudge(start, tiny_layout, GREEDY, 0)
    assert judge_all(judge, [], 2) == []
    assert not started
    judge_all(judge, prompts[:1], 1)
    judge_all(judge, prompts[:1], 1)
    assert len(started) == 1
    judge.close()
    assert engine.closed


def test_judgements_come_as_they_end_and_what_nobody_waits_for_is_dropped(
    engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tract.inference.engines.judge._KEPT_AT_ONCE", 3)
    judge = engine_judge(engine, tiny_layout, GREEDY)
    told: list[int] = []
    found: Iterator[list[Judgement]] = judge.judge_parts([prompts], 2, rows=4, without_cot=False, free=False, progress=told.append)
    first = next(found)
    assert 3 <= len(first) < 2 * len(prompts)
    assert sum(told) == len(first)
    found.close()  # type: ignore[attr-defined]
    asked = len(engine.asks)
    assert asked < 4 * len(prompts)
    assert len(judge_all(judge, prompts[:1], 1)) == 2


class Planted(PlainEngine):
    """Answers with one log-probability changed."""

    def __init__(self, model: Any, tokenizer: Any, value: Any) -> None:
        super().__init__(model, tokenizer)
        self.value = value

    def answer(self, ask: Ask) -> Reply:
        reply = super().answer(ask)
        if not ask.logprob_ids:
            return reply
        return dataclasses.replace(reply, logprobs={**reply.logprobs, ask.logprob_ids[0]: self.value})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "log-probabilities are not finite, \\[nan"),
        (float("-inf"), "log-probabilities are not finite, \\[-inf"),
        (float("inf"), "log-probabilities are not finite, \\[inf"),
        (None, "gave no log-probability of the score tokens"),
        (0.5, "log-probabilities \\[0.5, .* are those of more than 1"),
        (800.0, "are those of more than 1"),
    ],
)
def test_log_probabilities_that_are_none_stop_and_name_the_example(
    value: Any, said: str, talking_model: Any, tiny_tokenizer: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    judge = engine_judge(Planted(talking_model, tiny_tokenizer, value), tiny_layout, GREEDY)
    with pytest.raises(GenerationError, match=f"generation: {prompts[2].id}: .*{said}"):
        judge_all(judge, prompts[2:3], 0)


def test_probabilities_of_several_tokens_that_sum_to_more_than_one_stop(
    talking_model: Any, tiny_tokenizer: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    """Each is one for itself; together they are no distribution."""

    class Doubled(PlainEngine):
        def answer(self, ask: Ask) -> Reply:
            return dataclasses.replace(super().answer(ask), logprobs=dict.fromkeys(ask.logprob_ids, -0.5))

    with pytest.raises(GenerationError, match="are those of more than 1"):
        judge_all(engine_judge(Doubled(talking_model, tiny_tokenizer), tiny_layout, GREEDY), prompts[:1], 0)
