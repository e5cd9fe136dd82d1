"""The precisions that options for large models have (bfloat16 weights that are frozen, float32 LoRA, bf16-mixed) on two processes beside
one, and a model with a vision part under DDP. CPUs compute in bfloat16 too.

What bfloat16 rounds differs with the cut into batches, and ZeRO casts the adapters too. Relative distances of two processes from one:

| | ddp | fsdp | deepspeed_zero2 | deepspeed_zero3 | one process, float32 arithmetic |
|---|---|---|---|---|---|
| gradient of the first step | .0021 | .0021 | .0026 | .0049 | .0018 |
| weights after five steps | .0073 | .0073 | .0058 | .0129 | .0063 |

A gradient that is twice or half of what it should be would be off by 1 or .5.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import gemma_with_vision, overrides_of
from torchrun import TORCHRUN, WORKER, environment, relative

from tract.config.schema import ModelConfig

GRADIENT, WEIGHTS = 0.01, 0.03
SHIPPED = ("trainer.precision=bf16-mixed", "model.dtype=bfloat16")
pytestmark = pytest.mark.timeout(600)


def trained(folder: Path, trainer: str, processes: int, *overrides: str, adapter: str = "lora") -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    torchrun = [*TORCHRUN, f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *torchrun, str(WORKER), str(folder), trainer, adapter, "null", *overrides]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded: dict[str, Any] = torch.load(folder / f"{trainer}-{adapter}-{processes}-null.pt")
    return loaded


def in_float32(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in values.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("alone"), "cpu", 1, *SHIPPED)


@pytest.mark.kills
@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"])
def test_two_processes_in_bfloat16_give_the_gradient_and_weights_of_one(strategy: str, alone: dict[str, Any], tmp_path: Path) -> None:
    two = trained(tmp_path, strategy, 2, *SHIPPED)
    expected, found = in_float32(alone["gradient"]), in_float32(two["gradient"])
    assert {value.dtype for value in alone["weights"].values()} == {torch.float32}
    assert relative(found, expected) <= GRADIENT
    assert relative(in_float32(two["weights"]), alone["weights"]) <= WEIGHTS
    assert two["logged"]["train/grad_norm"] == pytest.approx(alone["logged"]["train/grad_norm"], rel=0.02)
    # What the tolerance tells from it: a factor of the number of ranks, either way.
    for factor in (0.5, 2.0):
        assert relative({name: factor * value for name, value in found.items()}, expected) > 40 * GRADIENT


@pytest.mark.kills
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed_zero3"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_model_with_a_vision_part_trains_on_two_processes(
    strategy: str, adapter: str, tiny_model_config: ModelConfig, tmp_path: Path
) -> None:
    """No weight that is trained goes unused: DDP would stop at the second step."""
    chosen = overrides_of(Path(gemma_with_vision(tiny_model_config, tmp_path / "gemma").name_or_path))
    one, two = (trained(tmp_path / name, name, size, *chosen, adapter=adapter) for name, size in (("cpu", 1), (strategy, 2)))
    assert not [name for name in one["weights"] if "vision" in name or "multi_modal" in name]
    assert relative(two["gradient"], one["gradient"]) <= 1e-5
    assert relative(two["weights"], one["weights"]) <= 1e-4
