"""Adapters in the real vLLM engine, and its server, on a CPU: the same judgements as by the Hugging Face backend. Run: make test-vllm."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_judges import GREEDY, assert_agree, driver_of, judge_all, judge_on, settings_of

from tract.common.errors import ConfigError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.inference.engines.judge import EngineJudge
from tract.inference.engines.server import EndpointSettings, connect
from tract.inference.engines.vllm import VLLMEngine
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import DIRECT, Prompt
from tract.models.engine_files import serving_files
from tract.models.loading import load_judge, load_model
from tract.models.saving import save_judge
from tract.text.layout import SequenceLayout

# An engine's start alone takes minutes on a busy machine.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

START_S = 240


# Merged weights are weights as any: that they are the judge's is in test_serving.py.
@pytest.mark.kills
@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_is_served_beside_the_weights_or_merged(
    merge: bool,
    tiny_model_config: ModelConfig,
    tiny_layout: SequenceLayout,
    tiny_tokenizer: Any,
    talking_folder: str,
    prompts: list[Prompt],
    tmp_path: Path,
) -> None:
    base = dataclasses.replace(tiny_model_config, name_or_path=talking_folder, package=None, random_init=False)
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
    files = serving_files(base, tmp_path / "adapter", merge=merge, seed=0, cache=tmp_path)
    assert (files.adapter is None) == merge
    adapter = str(files.adapter) if files.adapter else None
    engine = VLLMEngine(settings_of(files.model, adapter=adapter, adapter_rank=files.adapter_rank))
    driver = driver_of(engine)
    try:
        found = judge_all(judge_on(driver, tiny_layout, GREEDY), prompts, 1)
    finally:
        driver.close()
    assert assert_agree(hf, found, expected, prompts, tiny_layout.grid) <= 1


def test_an_engine_that_cannot_start_says_so_in_one_line(talking_folder: str) -> None:
    with pytest.raises(ConfigError, match="generation.vllm: the engine does not start"):
        VLLMEngine(settings_of(talking_folder, engine={"no_such_argument": 1}))


@pytest.fixture(scope="module")
def address(talking_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The talking model behind vLLM's own server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", talking_folder, "--host", "127.0.0.1", "--port", str(port),
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


# The protocol alone is spoken with a stand-in in test_server_engine.py.
@pytest.mark.parametrize("api", ["vllm", pytest.param("openai", marks=pytest.mark.kills)])
def test_a_served_judge_gives_the_judgements_of_the_hf_backend(
    api: str, address: str, talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    score_ids = dict(zip(tiny_layout.grid.labels, tiny_layout.score_ids, strict=True))
    server = EndpointSettings(address, None, api, "NO_KEY", 120.0, 2, tiny_layout.cot_ids, score_ids)
    judge = EngineJudge(lambda: connect(server), tiny_layout, GREEDY, 0)
    expected = HFJudge(talking_model, tiny_layout, GREEDY, 0, None).judge(prompts, 1, rows=8, without_cot=True, free=True)
    found = judge_all(judge, prompts, 1)
    judge.close()
    if api == "vllm":
        assert assert_agree(talking_model, found, expected, prompts, tiny_layout.grid) <= 1
        return
    # Text is encoded anew, so tokens may be cut otherwise; the readings without a CoT are the same.
    for a, b in zip(found, expected, strict=True):
        if a.sample == DIRECT or a.cot_ids == b.cot_ids:
            torch.testing.assert_close(torch.tensor(a.probabilities), torch.tensor(b.probabilities), rtol=0, atol=1e-4)
    assert sum(a.cot == b.cot for a, b in zip(found, expected, strict=True)) >= len(found) - 2
