"""A judge behind a server that speaks the completions protocol, in vLLM's dialect and in plain OpenAI's."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
import torch
from plain_engine import GREEDY, PlainEngine, close, judge_all, served

from tract.common.errors import ConfigError, GenerationError
from tract.inference.engines.judge import EngineJudge
from tract.inference.engines.server import EndpointSettings, ServerEngine, connect
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import DIRECT, Prompt
from tract.inference.sampling import Sampling
from tract.text.layout import SequenceLayout

pytest.importorskip("openai", reason="the package openai is missing: pip install -c constraints.txt openai")


@pytest.fixture
def engine(talking_model: Any, tiny_tokenizer: Any) -> PlainEngine:
    return PlainEngine(talking_model, tiny_tokenizer)


def settings_of(layout: SequenceLayout, address: str, **changed: Any) -> EndpointSettings:
    score_ids = dict(zip(layout.grid.labels, layout.score_ids, strict=True))
    plain = EndpointSettings(address, None, "vllm", "TRACT_TEST_KEY", 30.0, 2, layout.cot_ids, score_ids)
    return dataclasses.replace(plain, **changed)


def judge_at(layout: SequenceLayout, address: str, sampling: Sampling = GREEDY, **changed: Any) -> EngineJudge:
    return EngineJudge(lambda: connect(settings_of(layout, address, **changed)), layout, sampling, 0)


def test_vllms_dialect_gives_the_judgements_of_the_hf_backend(
    talking_model: Any, engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).judge(prompts[:4], 1, rows=8, without_cot=True, free=True)
    with served(engine, dialect="vllm") as (address, requests):
        judge = judge_at(tiny_layout, address)
        for found, wanted in zip(judge_all(judge, prompts[:4], 1), expected, strict=True):
            close(found, wanted)
        judge.close()
    assert all(isinstance(asked["prompt"], list) for asked in requests[1:]), "token ids, never text"
    assert {asked["model"] for asked in requests} == {"judge"}


def test_the_protocol_alone_gives_the_same_scores(
    talking_model: Any, engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    """Log-probabilities come from the echoed prompt; text is encoded anew, so a CoT may be cut into other tokens."""
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).judge(prompts[:3], 1, rows=8, without_cot=True, free=True)
    with served(engine, dialect="openai") as (address, requests):
        found = judge_all(judge_at(tiny_layout, address, api="openai"), prompts[:3], 1)
    for a, b in zip(found, expected, strict=True):
        assert a.cot.startswith(b.cot[:20])
        if a.cot_ids == b.cot_ids:
            torch.testing.assert_close(torch.tensor(a.probabilities), torch.tensor(b.probabilities), rtol=0, atol=1e-5)
            assert a.forced_decode == b.forced_decode
    assert sum(a.cot_ids == b.cot_ids for a, b in zip(found, expected, strict=True) if a.sample == DIRECT) == 3
    known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "echo", "logprobs", "repetition_penalty"}
    assert {name for asked in requests for name in asked} <= known


def test_a_busy_server_is_asked_again(engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    with served(engine, dialect="vllm", fail_first=2) as (address, requests):
        assert len(judge_all(judge_at(tiny_layout, address), prompts[:1], 0)) == 1
    assert len(requests) == 4  # the probe of the tokenizer three times


def test_a_server_that_stays_away_ends_the_judging_in_one_line(
    engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    with served(engine, dialect="vllm", fail_first=99) as (address, _), pytest.raises(GenerationError, match=r"refuses.*503.*busy"):
        judge_all(judge_at(tiny_layout, address, max_retries=0, api="openai"), prompts[:1], 0)
    with pytest.raises(ConfigError, match=r"generation.server.base_url: http://127.0.0.1:9/v1 does not answer"):
        judge_all(judge_at(tiny_layout, "http://127.0.0.1:9/v1", max_retries=0), prompts[:1], 0)


def test_passwords_and_keys_in_the_address_are_not_shown(tiny_layout: SequenceLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACT_TEST_KEY", "c0rrect-h0rse")
    settings = settings_of(tiny_layout, "http://me:b4ttery@127.0.0.1:9/v1?api_key=st4ple", max_retries=0)
    with pytest.raises(
        ConfigError, match=r"generation.server.base_url: http://\*\*\*@127.0.0.1:9/v1\?api_key=\*\*\* does not answer"
    ) as refused:
        asyncio.run(connect(settings))
    assert not any(secret in str(refused.value) for secret in ("b4ttery", "st4ple", "c0rrect"))


@pytest.mark.parametrize("given", ["a-key-of-the-variable", None])
def test_the_key_comes_from_the_named_variable_alone(
    given: str | None, tiny_layout: SequenceLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openai

    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    monkeypatch.delenv("TRACT_TEST_KEY", raising=False)
    if given:
        monkeypatch.setenv("TRACT_TEST_KEY", given)
    keys: list[str] = []

    class Client(openai.AsyncOpenAI):
        def __init__(self, **arguments: Any) -> None:
            keys.append(arguments["api_key"])
            raise ConfigError("far enough")

    monkeypatch.setattr(openai, "AsyncOpenAI", Client)
    with pytest.raises(ConfigError, match="far enough"):
        asyncio.run(connect(settings_of(tiny_layout, "http://127.0.0.1:9/v1")))
    assert keys == [given or "none"]


def test_a_server_that_goes_away_says_how_to_go_on(engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    with served(engine, dialect="vllm") as (address, _):
        judge = judge_at(tiny_layout, address, max_retries=0)
        judge_all(judge, prompts[:1], 0)
    with pytest.raises(GenerationError, match=r"generation: .*: the server at .* does not answer.*goes on where it stopped"):
        judge_all(judge, prompts[:1], 0)


def test_the_key_comes_from_the_environment(
    engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(engine, dialect="vllm", key="secret") as (address, _):
        with pytest.raises(ConfigError, match=r"answers 401.*wrong key.*environment variable TRACT_TEST_KEY"):
            judge_all(judge_at(tiny_layout, address), prompts[:1], 0)
        monkeypatch.setenv("TRACT_TEST_KEY", "secret")
        assert len(judge_all(judge_at(tiny_layout, address), prompts[:1], 0)) == 1


@pytest.mark.parametrize(
    ("changed", "dialect", "message"),
    [
        ({"model": "other"}, "vllm", "generation.server.model: 'other' is not served; accepted are judge"),
        ({"encode": lambda text: [1, 2, 3]}, "vllm", "has another tokenizer than the judge"),
        ({}, "openai", "gives no token ids.*set generation.server.api=openai"),
    ],
)
def test_a_server_that_does_not_fit_is_refused(
    changed: dict[str, Any], dialect: str, message: str, engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    with served(engine, dialect=dialect) as (address, _), pytest.raises((ConfigError, GenerationError), match=message):
        judge_all(judge_at(tiny_layout, address, **changed), prompts[:1], 1)


def test_a_server_without_echo_is_refused(engine: PlainEngine, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    with served(engine, dialect="openai", echoes=False) as (address, _), pytest.raises(GenerationError, match="does not echo"):
        judge_all(judge_at(tiny_layout, address, api="openai"), prompts[:1], 0)


def test_a_score_of_text_is_the_longest_that_it_begins_with() -> None:
    scores = {"1": (18,), "10": (18, 17), "4.5": (21, 9, 22)}
    engine = ServerEngine(EndpointSettings("", None, "openai", "", 1.0, 0, lambda text: [], scores), None, "judge")
    assert [engine._score_ids(text) for text in (" 10 points", "1.", "4.5", "7", "")] == [(18, 17), (18,), (21, 9, 22), (), ()]
