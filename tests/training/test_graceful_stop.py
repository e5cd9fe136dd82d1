"""A training that a signal asks to end: it leaves behind the very step, and the run that goes on ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tract.common import signals
from tract.common.signals import Interrupted
from tract.config.schema import Config
from tract.method.lit_module import TractLitModule
from tract.pipeline.stages.fit import fit

TinyConfig = Callable[..., tuple[Config, Any]]
# Two micro-batches a step, two of a validation, dropout, and no checkpoint but the last.
TRAINING = (
    "train.max_steps=3", "train.validate_every_steps=2", "train.checkpoint_every_steps=50", "train.validate_base_model=true",
    "adapter.dropout=0.1", "optimizer.lr=0.01", "batch.global_batch_size=2", "batch.micro_batch_size=1", "data.max_val_items=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_state", signals._State())


def run(tiny_config: TinyConfig, place: Path) -> Path:
    return fit(*tiny_config(*TRAINING, f"paths.runs={place}"))


def result(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    facts = json.loads((folder / "manifest.json").read_text())["training"]
    kept = ("exported", "seed_metrics", "final_metrics", "optimizer_steps")
    return load_file(folder / "adapter_model.safetensors"), {key: facts[key] for key in kept}


def interrupt(patch: pytest.MonkeyPatch, hook: str, call: int) -> None:
    """The signal comes in the given call of a hook of the module."""
    calls = 0
    original = getattr(TractLitModule, hook)

    def told(module: TractLitModule, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            assert signals._state.postponed, "a signal would end the training here"
            signals.adopt(signal.SIGTERM)
        return original(module, *arguments)

    patch.setattr(TractLitModule, hook, told)


@pytest.mark.slow
def test_each_time_the_step_at_hand_is_saved_and_gone_on_from(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the base model's validation, the first half of a step, the validation behind a step and the last step, one after the other."""
    cut = tmp_path / "cut"
    for hook, call, steps, line in (
        ("validation_step", 1, [], "in stage1, before its first optimizer step"),
        ("training_step", 1, [1], "at optimizer step 1 of 3 of stage1, saved"),
        ("validation_step", 1, [1, 2], "at optimizer step 2 of 3 of stage1, saved"),
        ("training_step", 2, [2, 3], "at optimizer step 3 of 3 of stage1, saved"),
    ):
        with monkeypatch.context() as patch:
            interrupt(patch, hook, call)
            with pytest.raises(Interrupted) as ended:
                run(tiny_config, cut)
        assert ended.value.code == 143
        assert signals.status() == line
        assert not signals._state.postponed
        saved = sorted(int(path.stem.partition("=")[2]) for path in cut.glob("stages/stage1-*.partial/checkpoints/last-*.ckpt"))
        assert saved == steps
        signals._state.number = 0
    (weights, facts), (expected, expected_facts) = (result(run(tiny_config, place)) for place in (cut, tmp_path / "whole"))
    assert facts == expected_facts
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name
