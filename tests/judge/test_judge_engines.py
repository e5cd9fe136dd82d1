"""The same grades by an engine as by the model in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from plain_engine import PlainEngine, served
from talking import TALKING

from tract import Grade, GradeRequest, Judge
from tract.artifacts.chat_models import chat_settings
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError, GenerationError
from tract.inference.engines.engine import Ask, Reply
from tract.inference.engines.worker import EngineWorker

GREEDY = {**TALKING, "temperature": 0.0, "n_cot": 2}


def close(found: Grade, expected: Grade) -> None:
    assert (found.status, found.feedbacks, found.id) == (expected.status, expected.feedbacks, expected.id)
    assert found.distribution == pytest.approx(expected.distribution, abs=1e-5)
    assert found.score == pytest.approx(expected.score, abs=1e-4)


@pytest.fixture(scope="module")
def expected(talking_folder: str, requests: Sequence[GradeRequest]) -> list[Grade]:
    with Judge.from_pretrained(talking_folder, **GREEDY) as judge:
        return judge.grade_batch(requests, progress=False)


@pytest.mark.parametrize("dialect", ["vllm", "openai"])
def test_a_server_gives_the_same_grades(
    dialect: str, talking_folder: str, talking_model: Any, tiny_tokenizer: Any, requests: Sequence[GradeRequest], expected: Sequence[Grade]
) -> None:
    count = 3 if dialect == "openai" else len(requests)  # a pass for each score
    with (
        served(PlainEngine(talking_model, tiny_tokenizer), dialect=dialect) as (url, _),
        Judge.from_pretrained(talking_folder, "openai", base_url=url, api=dialect, **GREEDY) as judge,
    ):
        found = judge.grade_batch(requests[:count], progress=False)
    for one, other in zip(found, expected, strict=False):
        close(one, other)


class Failing(PlainEngine):
    """Fails for a prompt that holds a token."""

    poison: int | None = None

    async def complete(self, ask: Ask) -> Reply:
        await asyncio.sleep(0)
        if self.poison in ask.ids:
            raise GenerationError("refused")
        return await super().complete(ask)


def worker_of(engine: PlainEngine, rows: int = 4) -> EngineWorker:
    async def start() -> Any:
        return engine

    return EngineWorker(start, seed=0, rows=rows)


def test_an_engine_that_fails_for_one_goes_on_for_others(
    talking_folder: str, talking_model: Any, tiny_tokenizer: Any, requests: Sequence[GradeRequest], expected: Sequence[Grade]
) -> None:
    engine = Failing(talking_model, tiny_tokenizer)
    files = open_judge_files(talking_folder, **GREEDY)
    mark = files.layout.cot_ids("\x07")
    assert len(mark) == 1
    engine.poison = mark[0]
    with Judge(files, worker_of(engine), batch_size=4, calibrated=False) as judge:
        found = judge.grade_batch([requests[0], GradeRequest("a", "b\x07"), requests[1]], progress=False)
    close(found[0], expected[0])
    close(found[2], expected[1])
    assert (found[1].status, found[1].score) == ("error", None)
    assert str(found[1].error).endswith("refused")
    assert engine.closed


def test_an_engine_that_does_not_start_is_told() -> None:
    async def start() -> Any:
        raise ConfigError("no engine here")

    with pytest.raises(ConfigError, match="no engine here"):
        EngineWorker(start, seed=0, rows=4)


def test_a_closed_engine_judge_gives_up_what_is_going_on(talking_folder: str, talking_model: Any, tiny_tokenizer: Any) -> None:
    class Stuck(PlainEngine):
        async def complete(self, ask: Ask) -> Reply:
            await asyncio.sleep(600)
            raise AssertionError

    engine = Stuck(talking_model, tiny_tokenizer)
    judge = Judge(open_judge_files(talking_folder, **GREEDY), worker_of(engine), batch_size=4, calibrated=False)
    future = judge.submit(GradeRequest("a", "b"))
    judge.close()
    assert future.cancelled()
    assert engine.closed
    with pytest.raises(GenerationError, match="the judge is closed"):
        judge.grade("a", "b")


def test_a_judge_that_is_closed_by_a_callback_of_its_own_ends_all_the_same(
    talking_folder: str, talking_model: Any, tiny_tokenizer: Any, requests: Sequence[GradeRequest]
) -> None:
    engine = PlainEngine(talking_model, tiny_tokenizer)
    worker = worker_of(engine)
    judge = Judge(open_judge_files(talking_folder, **GREEDY), worker, batch_size=4, calibrated=False)
    future = judge.submit(requests[0])
    future.add_done_callback(lambda _: judge.close())  # mostly called in the engine's own thread
    future.result()
    worker._driver._thread.join(20)
    assert not worker._driver._thread.is_alive()
    assert engine.closed


@pytest.mark.parametrize(("backend", "module", "extra"), [("openai", "openai", "server"), ("vllm", "vllm", "vllm")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    backend: str, module: str, extra: str, talking_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"the package {module} is missing; run `pip install -c constraints.txt -e '.\[{extra}\]'`"):
        Judge.from_pretrained(talking_folder, backend, base_url="http://127.0.0.1:1/v1", **GREEDY)


def test_vllm_is_started_for_the_longest_sequence_of_the_judge(talking_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(settings: Any) -> None:
        raise ConfigError(f"started for {settings.max_length} tokens")

    monkeypatch.setattr("tract.inference.engines.vllm.start_vllm", start)
    with pytest.raises(ConfigError, match="started for 1234 tokens"):
        Judge.from_pretrained(talking_folder, "vllm", **{**GREEDY, "max_length": 1234})
    # A model that states no limit, as one with ALiBi, and no limit of the user's.
    monkeypatch.setattr("tract.models.engine_files.stated_context", lambda config: None)
    monkeypatch.setattr("tract.artifacts.judge_options.context_of", lambda model: None)
    monkeypatch.setattr(
        "tract.artifacts.standalone_judges.chat_settings", lambda base: dataclasses.replace(chat_settings(base), max_length=None)
    )
    with pytest.raises(ConfigError, match="max_length: vllm needs one, and .* states none; give max_length=4096"):
        Judge.from_pretrained(talking_folder, "vllm", **{**GREEDY, "max_length": None})
