"""Commands on a GPU: the quickstart, resuming, equal bits, strategies, the memory that was estimated, and who samples by default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from tract.pipeline.backend_choice import decided
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]
# On a CPU the same bodies take a minute or two: with `make test-kills`.
on_each_device = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.kills), pytest.param("cuda", marks=pytest.mark.gpu)]
)
pytestmark = pytest.mark.timeout(600)
TRAINERS = {"cpu": ("trainer=cpu",), "cuda": ("trainer=single", "trainer.precision=32-true")}
STAGE1 = (
    "model=tiny", "stages=[stage1]", "run.subprocess_stages=false", "logger=none", "trainer.enable_progress_bar=false",
    "adapter.dropout=0.1", "data.source.n_questions=24", "data.source.n_ood_questions=0", "batch.global_batch_size=4",
    "batch.max_tokens_per_micro_batch=2048",
    "train.max_epochs=8", "train.max_steps=24", "train.checkpoint_every_steps=2", "train.validate_every_steps=50",
    "train.validate_base_model=false", "train.keep_weights=last",
)  # fmt: skip


def environment() -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # DeepSpeed compiles with ninja
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": programs, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


def command(runs: Path, *overrides: str) -> list[str]:
    cache = [] if any(each.startswith("paths.cache=") for each in overrides) else [f"paths.cache={runs}/cache"]
    return [sys.executable, "train.py", *overrides, f"paths.runs={runs}", *cache]


def train(runs: Path, *overrides: str) -> str:
    """What a run says."""
    done = subprocess.run(command(runs, *overrides), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def weights(runs: Path) -> dict[str, torch.Tensor]:
    (folder,) = runs.glob("train/seed0/stage1-*/")
    return load_file(folder / "adapter_model.safetensors")


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - value).norm()) ** 2 for name, value in expected.items())
    return float((difference / sum(float(value.norm()) ** 2 for value in expected.values())) ** 0.5)


@on_each_device
def test_a_quickstart_runs_to_its_report(device: str, tmp_path: Path) -> None:
    """Two steps of each stage; on a GPU with the packaged LLM, in the precision of trainer=single."""
    chosen = ("trainer=cpu", "model=tiny") if device == "cpu" else ("trainer=single",)
    cache = [f"paths.cache={os.environ['TRACT_CACHE']}"] if "TRACT_CACHE" in os.environ else []
    said = train(tmp_path, "experiment=tract_quickstart", "debug=fdr", "logger=none", *chosen, *cache)
    (metrics,) = tmp_path.glob("*/seed0/evaluate-*/metrics.json")
    assert json.loads(metrics.read_text(encoding="utf-8"))
    assert (metrics.parent / "report.html").is_file()
    assert "generation=auto: " in said


@on_each_device
def test_a_killed_training_ends_with_the_weights_of_a_whole_one(device: str, tmp_path: Path) -> None:
    """Dropout draws on the device, so its random numbers go on too: equal bits on a CPU, and up to the order of sums on a GPU."""
    given = (*STAGE1, *TRAINERS[device])
    train(tmp_path / "whole", *given)
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(cut, *given), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any(cut.glob("stages/stage1-*.partial/checkpoints/last-step=*.ckpt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert "resuming from" in train(cut, *given)
    assert relative(weights(cut), weights(tmp_path / "whole")) <= (0.0 if device == "cpu" else 1e-5)


@on_each_device
def test_deterministic_runs_have_equal_bits(device: str, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        train(tmp_path / name, *STAGE1, *TRAINERS[device], "deterministic=true", "train.max_steps=6")
        found.append(weights(tmp_path / name))
    assert relative(*found) == 0.0


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"])
def test_a_strategy_on_one_gpu_trains_the_same_weights(strategy: str, tmp_path: Path) -> None:
    given = (*STAGE1, "adapter.dropout=0", "train.max_steps=6", "run.subprocess_stages=true", "trainer.precision=32-true")
    given = tuple(each for each in given if each not in ("adapter.dropout=0.1", "train.max_steps=24", "run.subprocess_stages=false"))
    train(tmp_path / "single", *given, "trainer=single")
    train(tmp_path / strategy, *given, f"trainer={strategy}", "trainer.devices=1")
    assert relative(weights(tmp_path / strategy), weights(tmp_path / "single")) <= 1e-4


@pytest.mark.gpu
def test_the_estimate_of_memory_is_near_the_peak() -> None:
    """Eight layers of Mistral-7B, LoRA, bf16-mixed: what a dry run says, without what the process holds, and torch's highest allocation."""
    part = [sys.executable, "benchmarks/gpu.py", "--part", "strategy/single"]
    done = subprocess.run(part, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert 0.8 <= found["estimate_mib"] / found["peak_mib"] <= 1.4


@pytest.mark.gpu
def test_who_samples_by_default(compose_config: Callable[..., DictConfig]) -> None:
    """With the device that is really here: vLLM if the package is."""
    import importlib.util

    resolved = compose_config("model=tiny", "trainer=single")
    validate(resolved)
    installed = importlib.util.find_spec("vllm") is not None
    assert decided(resolved, ("generate",)).generation.backend == ("vllm" if installed else "hf")
    assert decided(compose_config("model=tiny", "trainer=cpu"), ("generate",)).generation.backend == "hf"


def test_the_benchmark_knows_these_strategies() -> None:
    assert gpu.STRATEGIES[1:] == ("ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp")
