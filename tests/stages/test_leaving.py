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

from tract import interruption
from tract.config import Config
from tract.interruption import Interrupted
from tract.lit_module import TractLitModule
from tract.stages.fit import fit

TinyConfig = Callable[..., tuple[Config, Any]]
# Two micro-batches a step, dropout, no checkpoint but the last.
TRAINING = (
    "train.max_steps=5",
    "train.validate_every_steps=2",
    "train.checkpoint_every_steps=50",
    "adapter.dropout=0.1",
    "optimizer.lr=0.01",
)


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_state", interruption._State())


@pytest.fixture(scope="module")
def whole() -> dict[str, Path]:
    """The folder of the undisturbed training, once it was made."""
    return {}


def run(tiny_config: TinyConfig, place: Path, *more: str) -> Path:
    return fit(*tiny_config(*TRAINING, f"paths.runs={place}", *more))


def result(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    facts = json.loads((folder / "manifest.json").read_text())["training"]
    return load_file(folder / "adapter_model.safetensors"), {key: facts[key] for key in ("exported", "final_metrics", "optimizer_steps")}


@pytest.mark.parametrize(
    ("hook", "call", "steps", "line"),
    [
        ("training_step", 3, [2], "at optimizer step 2 of 5 of stage1, saved"),
        ("training_step", 4, [2], "at optimizer step 2 of 5 of stage1, saved"),
        ("validation_step", 1, [2], "at optimizer step 2 of 5 of stage1, saved"),
        ("training_step", 9, [5], "in stage1, of which optimizer step 5 of 5 is saved"),
    ],
    ids=["first half of a step", "second half", "validation", "last step"],
)
def test_the_step_at_hand_is_saved_and_gone_on_from(
    hook: str, call: int, steps: list[int], line: str, tiny_config: TinyConfig, tmp_path: Path, whole: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not whole:
        whole["folder"] = run(tiny_config, tmp_path_factory.mktemp("whole"))
    calls = 0
    original = getattr(TractLitModule, hook)

    def told(module: TractLitModule, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            assert interruption._state.postponed, "a signal would end the training here"
            interruption.adopt(signal.SIGTERM)
        return original(module, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TractLitModule, hook, told)
        with pytest.raises(Interrupted) as ended:
            run(tiny_config, tmp_path)
    assert ended.value.code == 143
    assert interruption.where() == line
    assert not interruption._state.postponed
    saved = [int(path.stem.partition("=")[2]) for path in tmp_path.glob("stages/stage1-*.partial/checkpoints/last-*.ckpt")]
    assert saved == steps
    interruption._state.number = 0
    (weights, facts), (expected, expected_facts) = result(run(tiny_config, tmp_path)), result(whole["folder"])
    assert facts == expected_facts
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name


def test_before_the_first_step_nothing_is_saved(tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(module: TractLitModule, *arguments: Any) -> None:
        interruption.adopt(signal.SIGINT)

    monkeypatch.setattr(TractLitModule, "validation_step", told)
    monkeypatch.setattr(TractLitModule, "on_validation_epoch_end", lambda module: pytest.fail("the validation was not broken off"))
    with pytest.raises(Interrupted):
        run(tiny_config, tmp_path, "train.validate_seed_model=true", "batch.micro_batch_size=1")
    assert interruption.where() == "in stage1, before its first optimizer step"
    assert not list(tmp_path.glob("stages/*/checkpoints/*.ckpt"))
