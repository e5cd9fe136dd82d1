"""``generation=auto``: who is chosen and why, that stages see the choice alone, and that a run goes on as it was begun."""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig
from tiny_pipeline import Tiny, captured, made, reused

from tract.common.errors import ConfigError
from tract.config.schema import BATCH_SIZES
from tract.config.vocabulary import BACKENDS
from tract.judge import backends as judge_backends
from tract.pipeline import backend_choice
from tract.pipeline.backend_choice import decided
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.validation import typed, validate

GPU = ("trainer.accelerator=gpu",)
ALL = ("stage1", "generate", "stage2", "predict", "evaluate")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, vllm_counts_as_installed: None) -> None:
    """A CUDA device and vLLM count as there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


def choice(resolved: DictConfig, stages: tuple[str, ...] = ALL) -> tuple[str, int, list[str]]:
    """(backend, sequences at a time, what was said)."""
    with captured() as lines:
        found = typed(decided(resolved, stages)).generation
    return found.backend, found.sequences, lines


def test_the_default_is_auto(tiny: Tiny) -> None:
    for config in ("train", "generate_cot", "evaluate"):
        assert tiny.compose(config=config).generation.backend == "auto"
    assert BACKENDS[1:] == tuple(BATCH_SIZES)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ((), "trainer.accelerator=cpu"),
        ((*GPU, "deterministic=true"), "deterministic=true binds no other"),
        ((*GPU, "trainer.precision=64-true"), "vLLM does not compute in trainer.precision=64-true"),
        ((*GPU, "adapter=qlora"), r"vLLM does not serve judges on 4-bit weights \(adapter=qlora\)"),
    ],
)
@pytest.mark.usefixtures("cuda")
def test_hf_where_vllm_does_not_serve_the_run(overrides: tuple[str, ...], why: str, tiny: Tiny) -> None:
    backend, _, (line,) = choice(tiny.compose(*overrides))
    assert backend == "hf"
    assert line.startswith("generation=auto: hf, since ")
    assert re.search(why, line)


def test_hf_where_something_is_missing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, vllm_counts_as_installed: None) -> None:
    assert choice(tiny.compose(*GPU))[2] == ["generation=auto: hf, since torch finds no CUDA device"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choice(tiny.compose(*GPU))[0] == "vllm"
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert choice(tiny.compose(*GPU))[2] == ["generation=auto: hf, since the package vllm is not installed"]


@pytest.mark.usefixtures("cuda")
def test_vllm_on_a_gpu_with_its_own_batch_size_unless_one_is_given(tiny: Tiny) -> None:
    free = tiny.compose(*GPU, "generation.batch_size=null")
    assert choice(free) == ("vllm", 256, ["generation=auto: vllm, since a CUDA device and the package vllm are here"])
    assert choice(tiny.compose("generation.batch_size=null"))[:2] == ("hf", 16)
    assert choice(tiny.compose(*GPU, "generation.batch_size=7"))[:2] == ("vllm", 7)
    # A line is for stages that sample.
    assert choice(free, ("stage1",)) == ("vllm", 256, [])
    # What is said outright stays, and nothing is said of it.
    assert choice(tiny.compose(*GPU, "generation=hf")) == ("hf", 16, [])


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("key", ["judge", "compare_to"])
def test_a_judge_on_4_bit_weights_is_served_by_hf(key: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_choice, "find_judge", lambda spec, cfg: SimpleNamespace(four_bit=spec == "runs/packed"))
    backend, _, (line,) = choice(tiny.compose(*GPU, f"{key}=runs/packed"))
    assert (backend, line) == ("hf", f"generation=auto: hf, since vLLM does not serve {key}=runs/packed, a judge on 4-bit weights")
    assert choice(tiny.compose(*GPU, f"{key}=runs/other"))[0] == "vllm"


def test_the_rules_of_vllm_hold_before_it_is_chosen(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"generation.vllm.tensor_parallel_size: 2 does not divide trainer.devices=1"):
        validate(tiny.compose("generation.vllm.tensor_parallel_size=2"))
    validate(tiny.compose("deterministic=true"))


def test_a_product_says_who_made_it_and_has_the_key_of_that_backend(tiny: Tiny) -> None:
    small = ("pipeline=[predict]", "judge=base", "compare_to=null", "evaluation.benchmarks=[test]", "evaluation.n_cot=1")
    products, lines = tiny.run(*small)
    assert "generation=auto: hf, since trainer.accelerator=cpu" in lines
    config = yaml.safe_load((products["predict"].path / "config.yaml").read_text(encoding="utf-8"))
    assert config["generation"]["backend"] == "hf"
    assert config["generation"]["batch_size"] == 16
    (record,) = (tiny.root / "runs" / "tiny" / "seed0" / "records").glob("*.json")
    assert yaml.safe_load(record.read_text(encoding="utf-8"))["config"]["generation"]["backend"] == "hf"
    again = tiny.run(*small, "generation=hf")[1]
    assert (made(again), reused(again)) == ([], ["predict"])
    assert not any("generation=auto" in line for line in again)


def begin(tiny: Tiny, backend: str, folder: str, *, name: str = "tiny", seed: int = 0) -> Path:
    """A folder of a stage that a backend has sampled for, as far as its configuration tells."""
    path = tiny.root / "runs" / folder
    path.mkdir(parents=True)
    content = {"run": {"name": name}, "seed": seed, "generation": {"backend": backend}}
    (path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_run_goes_on_with_what_it_was_begun_with(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, vllm_counts_as_installed: None) -> None:
    resolved = tiny.compose("generation.batch_size=null")
    # Of another run or seed, of no sampling of its own, or of a server: they decide nothing.
    begin(tiny, "vllm", "stages/generate-0000000000.partial", name="other")
    begin(tiny, "vllm", "stages/generate-1111111111.partial", seed=1)
    begin(tiny, "openai_server", "tiny/seed0/predict-2222222222")
    (tiny.root / "runs/tiny/seed0/generate-damaged").mkdir()
    (tiny.root / "runs/tiny/seed0/generate-damaged/config.yaml").write_bytes(b"\xff: [")
    assert choice(resolved)[:2] == ("hf", 16)
    # One that was killed, or looked at on a machine without a GPU.
    killed = begin(tiny, "vllm", "stages/generate-3333333333.partial")
    why = "with which generate-3333333333.partial of this run was begun; generation=hf or generation=vllm sets another"
    assert choice(resolved) == ("vllm", 256, [f"generation=auto: vllm, {why}"])
    # The CoTs decide before predictions do.
    begin(tiny, "hf", "tiny/seed0/predict-4444444444")
    assert choice(resolved)[0] == "vllm"
    shutil.rmtree(killed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choice(tiny.compose(*GPU))[0] == "hf"


def test_sampling_that_vllm_began_is_not_begun_anew_by_another(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without vLLM: refused in one line, not sampled again by hf under another key."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vllm" else found(name, *rest))
    begin(tiny, "vllm", "stages/predict-3333333333.partial")
    with captured() as lines, pytest.raises(ConfigError) as refused:
        run_pipeline(tiny.compose("pipeline=[predict]", "judge=base", "compare_to=null", "evaluation.benchmarks=[test]"))
    assert made(lines) == []
    assert str(refused.value) == (
        "generation.backend: auto goes on with vllm, with which this run was begun, but the package vllm is not installed; make predict "
        "where it is, or set generation=hf to sample anew in this process"
    )


@pytest.mark.usefixtures("cuda")
def test_the_judge_api_chooses_alike(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(judge_backends, "_spec", lambda backend, files, options: backend)
    monkeypatch.setattr(judge_backends, "live_worker", lambda spec, starting: spec)
    options: Any = SimpleNamespace(batch_size=1)
    with caplog.at_level(logging.INFO, "tract"):
        assert judge_backends.start_worker("auto", SimpleNamespace(four_bit=False), options) == "vllm"  # type: ignore[arg-type, comparison-overlap]
        assert judge_backends.start_worker("auto", SimpleNamespace(four_bit=True), options) == "hf"  # type: ignore[arg-type, comparison-overlap]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert judge_backends.start_worker("auto", SimpleNamespace(four_bit=False), options) == "hf"  # type: ignore[arg-type, comparison-overlap]
    assert caplog.messages == [
        "backend=auto: vllm, since a CUDA device and the package vllm are here",
        "backend=auto: hf, since vLLM does not serve judges on 4-bit weights",
        "backend=auto: hf, since torch finds no CUDA device",
    ]
