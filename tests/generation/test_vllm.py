"""The real vLLM engine and its server, on a CPU: the same judgements as by the Hugging Face backend. Run: make test-vllm."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tract.config import AdapterConfig, ModelConfig
from tract.errors import ConfigError, GenerationError
from tract.generation.engine import Ask, EngineJudge
from tract.generation.hf import HFJudge
from tract.generation.judgement import CUE, NO_COT, Judgement, Prompt
from tract.generation.sampling import Sampling
from tract.generation.server_engine import ServerSettings, connect
from tract.generation.vllm_engine import VLLMEngine, VLLMSettings
from tract.layout import SequenceLayout
from tract.modeling import load_judge, load_model, save_judge
from tract.score_grid import ScoreGrid
from tract.serving import serving_files

pytestmark = pytest.mark.vllm

GREEDY = Sampling(temperature=0.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=60)
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0)
# Two tokens whose logits are nearer to each other than this are a tie: rounding decides which is the greedy one.
TIE = 1e-4
START_S = 240


def settings_of(model: str, **changed: Any) -> VLLMSettings:
    plain = VLLMSettings(
        model=model, revision=None, tokenizer=model, adapter=None, adapter_rank=0, dtype="float32", max_length=2048, seed=0,
        sequences=8, cpu=True, devices=(0,), shared_cores=True, trust_remote_code=False, gpu_memory_utilization=0.9,
        kv_cache_gib=0.5, enforce_eager=True, engine={},
    )  # fmt: skip
    return dataclasses.replace(plain, **changed)


@pytest.fixture(scope="module")
def folder(talking_model: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The talking model as files."""
    path = tmp_path_factory.mktemp("talking")
    model = talking_model.merge_and_unload() if hasattr(talking_model, "merge_and_unload") else talking_model
    save_judge(model, tiny_tokenizer, path)
    return str(path)


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[VLLMEngine]:
    made = VLLMEngine(settings_of(folder))
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all judges: an engine belongs to the loop in which it was first asked."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def judge_on(engine: Any, layout: SequenceLayout, sampling: Sampling, loop: asyncio.AbstractEventLoop, seed: int = 0) -> EngineJudge:
    async def start() -> Any:
        return engine

    judge = EngineJudge(start, layout, sampling, seed)
    judge._loop = loop
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
        assert (a.cot, a.finish, a.forced) == (b.cot, b.finish, b.forced)
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


def ten(layout: SequenceLayout) -> SequenceLayout:
    labels = ScoreGrid(tuple(str(k) for k in range(1, 11)))
    return SequenceLayout(layout.tokenizer, layout.scaffold, layout.end_id, layout.cue, labels)


@pytest.mark.parametrize("grid", ["five", "ten"])
def test_greedy_cots_and_scores_are_those_of_the_hf_backend(
    grid: str, talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    layout = ten(tiny_layout) if grid == "ten" else tiny_layout
    expected = HFJudge(talking_model, layout, GREEDY, 0, None).judge(prompts, 1, rows=8, without_cot=True, free=True)
    found = judge_all(judge_on(engine, layout, GREEDY, loop), prompts, 1)
    ties = assert_agree(talking_model, found, expected, prompts, layout.grid)
    assert ties <= 1
    assert Counter(j.finish for j in found)[CUE] >= 2
    assert [j.free_text for j in found if j.finish == CUE] == [j.free_text for j in expected if j.finish == CUE] or ties


def test_given_cots_are_read_as_by_the_hf_backend(
    talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    given = [[(NO_COT, ()), (0, tuple(range(60, 90))), (1, ())] for _ in prompts]
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).read(prompts, given)
    pairs = [[(prompt, cots)] for prompt, cots in zip(prompts, given, strict=True)]
    found = [j for some in judge_on(engine, tiny_layout, GREEDY, loop).read_parts(pairs, rows=8, progress=lambda _: None) for j in some]
    ordered = [sorted(some, key=lambda j: (j.row, j.sample)) for some in (found, expected)]
    assert assert_agree(talking_model, *ordered, prompts, tiny_layout.grid) == 0


def test_samples_have_seeds_of_their_own_and_keep_them(
    engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    first = judge_all(judge_on(engine, tiny_layout, SAMPLED, loop), prompts, 3, rows=3)
    again = {(j.row, j.sample): j for j in judge_all(judge_on(engine, tiny_layout, SAMPLED, loop), prompts[::-1], 3)}
    same = sum(again[j.row, j.sample].cot_ids == j.cot_ids for j in first)
    assert same >= len(first) - 1  # rounding moves the border between two tokens by a millionth
    sampled = [j for j in first if j.sample != NO_COT]
    assert len({(j.row, j.cot_ids) for j in sampled}) > 2 * len(prompts)
    other = judge_all(judge_on(engine, tiny_layout, SAMPLED, loop, seed=1), prompts, 3)
    assert sum(a.cot_ids != b.cot_ids for a, b in zip(first, other, strict=True) if a.sample != NO_COT) > len(sampled) // 2


def test_prompts_that_no_step_of_the_engine_holds_together_are_sampled(
    engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    """A prompt that is cut into chunks, and has a seed, would end the engine on a CPU."""
    many = [Prompt(f"long-{k}", k, tuple(40 + (k + i * i) % 400 for i in range(1900 - k))) for k in range(8)]
    sampling = dataclasses.replace(SAMPLED, max_cot_tokens=4)
    assert len(judge_all(judge_on(engine, tiny_layout, sampling, loop), many, 1)) == 16


def test_first_tokens_are_drawn_from_the_distribution_of_the_hf_backend(
    talking_model: Any, engine: VLLMEngine, tiny_layout: SequenceLayout, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    """Temperature, nucleus and penalty mean the same: 400 draws each, told apart by their total variation."""
    sampling = dataclasses.replace(SAMPLED, max_cot_tokens=1, temperature=1.3, top_p=0.8)
    drawn = []
    for judgements in (
        judge_all(judge_on(engine, tiny_layout, sampling, loop), prompts[:1], 400),
        HFJudge(talking_model, tiny_layout, sampling, 0, None).judge(prompts[:1], 400, rows=400, without_cot=False, free=False),
    ):
        counts = Counter(j.cot_ids[:1] for j in judgements if j.sample != NO_COT)
        drawn.append({token: number / counts.total() for token, number in counts.items()})
    assert len(drawn[0]) >= 3
    distance = sum(abs(drawn[0].get(token, 0) - drawn[1].get(token, 0)) for token in {*drawn[0], *drawn[1]}) / 2
    assert distance < 0.15


def test_the_cots_of_a_prompt_and_the_readings_behind_them_share_its_cache(
    engine: VLLMEngine, prompts: list[Prompt], loop: asyncio.AbstractEventLoop
) -> None:
    ids = list(prompts[0].prompt_ids) * 3

    async def cached(behind: list[int]) -> tuple[int, int]:
        ask = Ask((*ids, *behind), 1, GREEDY, 0)
        output: Any = None
        async for so_far in engine._engine.generate({"prompt_token_ids": list(ask.ids)}, engine._sampling(ask), f"cached-{len(behind)}"):
            output = so_far
        return output.num_cached_tokens or 0, len(ask.ids)

    loop.run_until_complete(cached([]))
    hits, length = loop.run_until_complete(cached([40, 41, 42]))
    assert hits > length // 2


def test_a_prompt_that_is_too_long_is_named(engine: VLLMEngine, tiny_layout: SequenceLayout, loop: asyncio.AbstractEventLoop) -> None:
    long = Prompt("far-too-long", 0, tuple([50] * 2100))
    with pytest.raises(GenerationError, match=r"generation: far-too-long: vLLM refuses a request of 2\d+ tokens"):
        judge_all(judge_on(engine, tiny_layout, GREEDY, loop), [long], 1)


def test_an_adapter_is_served_beside_the_weights_or_merged(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, tiny_tokenizer: Any, folder: str, prompts: list[Prompt], tmp_path: Path
) -> None:
    base = dataclasses.replace(tiny_model_config, name_or_path=folder, package=None, random_init=False)
    lora = AdapterConfig("lora", 4, 16.0, 0.0, ["all-linear"], None)
    model = load_model(base, lora, seed=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05)
    save_judge(model, tiny_tokenizer, tmp_path / "adapter")
    hf = load_judge(base, tmp_path / "adapter", four_bit=False, seed=0)
    expected = HFJudge(hf, tiny_layout, GREEDY, 0, None).judge(prompts, 1, rows=8, without_cot=True, free=True)
    plain = HFJudge(load_judge(base, None, four_bit=False, seed=0), tiny_layout, GREEDY, 0, None)
    assert any(a.cot_ids != b.cot_ids for a, b in zip(expected, plain.judge(prompts, 1, rows=8, without_cot=True, free=True), strict=True))
    for merge in (False, True):
        files = serving_files(base, tmp_path / "adapter", merge=merge, seed=0, cache=tmp_path)
        assert (files.adapter is None) == merge
        adapter = str(files.adapter) if files.adapter else None
        engine = VLLMEngine(settings_of(files.model, adapter=adapter, adapter_rank=files.adapter_rank))
        loop = asyncio.new_event_loop()
        try:
            found = judge_all(judge_on(engine, tiny_layout, GREEDY, loop), prompts, 1)
        finally:
            loop.run_until_complete(engine.close())
            loop.close()
        assert assert_agree(hf, found, expected, prompts, tiny_layout.grid) <= 1


def test_an_engine_that_cannot_start_says_so_in_one_line(folder: str) -> None:
    with pytest.raises(ConfigError, match="generation.vllm: the engine does not start"):
        VLLMEngine(settings_of(folder, engine={"no_such_argument": 1}))


@pytest.fixture(scope="module")
def address(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The talking model behind vLLM's own server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager",
        "--served-model-name", "talking", "--generation-config", "vllm",
    ]  # fmt: skip
    environment = {
        **os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("api", ["vllm", "openai"])
def test_a_served_judge_gives_the_judgements_of_the_hf_backend(
    api: str, address: str, talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    score_ids = dict(zip(tiny_layout.grid.labels, tiny_layout.score_ids, strict=True))
    server = ServerSettings(address, None, api, "NO_KEY", 120.0, 2, tiny_layout.cot_ids, score_ids)
    judge = EngineJudge(lambda: connect(server), tiny_layout, GREEDY, 0)
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).judge(prompts, 1, rows=8, without_cot=True, free=True)
    found = judge_all(judge, prompts, 1)
    judge.close()
    if api == "vllm":
        assert assert_agree(talking_model, found, expected, prompts, tiny_layout.grid) <= 1
        return
    # Text is encoded anew, so tokens may be cut otherwise; the readings without a CoT are the same.
    for a, b in zip(found, expected, strict=True):
        if a.sample == NO_COT or a.cot_ids == b.cot_ids:
            torch.testing.assert_close(torch.tensor(a.probabilities), torch.tensor(b.probabilities), rtol=0, atol=1e-4)
    assert sum(a.cot == b.cot for a, b in zip(found, expected, strict=True)) >= len(found) - 2
