"""``deterministic=true``: equal bits in other folders, processes and with other numbers of threads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import Tiny

from tract.common.errors import ConfigError
from tract.pipeline.validation import typed
from tract.training.determinism import determinism

ROOT = Path(__file__).resolve().parents[2]
# Wide enough that torch shares sums among threads.
FIT = ("pipeline=[stage1]", "train.keep_weights=last", "adapter.dropout=0.1", "train.checkpoint_every_steps=1")


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def tensors_of(stage: Path) -> dict[str, Any]:
    """Digests of the exported weights, and of all tensors of the newest checkpoint."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in stage.glob("*.safetensors")}
    for path in stage.glob("checkpoints/last-*.ckpt"):
        content = torch.load(path, weights_only=True)
        for name, tensor in _leaves({key: content[key] for key in ("state_dict", "optimizer_states", "random_states")}):
            found[f"{path.name} {name}"] = hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return found


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(node, torch.Tensor):
        yield name, node.reshape(-1)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}")
    elif isinstance(node, (list, tuple)):
        for place, value in enumerate(node):
            yield from _leaves(value, f"{name}[{place}]")


@pytest.mark.kills
def test_a_fit_stage_gives_equal_bits_with_any_number_of_threads(tmp_path: Path, threads: int) -> None:
    digests = []
    for number in (1, 3):
        torch.set_num_threads(number)
        products, _ = Tiny(tmp_path / str(number)).run(*FIT, "deterministic=true")
        assert torch.get_num_threads() == number, "the flag binds the stage, not who called it"
        assert not torch.are_deterministic_algorithms_enabled()
        digests.append(tensors_of(products["stage1"].path))
    assert digests[0] == digests[1]
    assert any(name.endswith(".safetensors") for name in digests[0])
    assert sum("exp_avg" in name for name in digests[0]) > 10


def test_inside_one_thread_and_deterministic_algorithms_are_set_and_given_back(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.backends.cudnn.deterministic
    assert torch.get_num_threads() == 3
    assert not torch.are_deterministic_algorithms_enabled()
    with determinism(False):
        assert torch.get_num_threads() == 3


def test_an_operation_without_a_deterministic_implementation_is_named() -> None:
    said = "deterministic: true, but put_ has no deterministic implementation .* set deterministic=false"
    with pytest.raises(ConfigError, match=said), determinism(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.raises(RuntimeError, match="another"), determinism(True):
        raise RuntimeError("another error")
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_trainer_follows_and_the_keys_of_stages_differ(tmp_path: Path) -> None:
    """What was made without the promise is not reused under it."""
    tiny = Tiny(tmp_path)
    assert typed(tiny.compose("deterministic=true")).trainer["deterministic"] is True
    assert typed(tiny.compose()).trainer["deterministic"] is False


@pytest.mark.kills
@pytest.mark.timeout(900)
def test_two_pipelines_in_other_folders_and_processes_give_equal_bytes(tmp_path: Path) -> None:
    """All stages; other OMP_NUM_THREADS and other hashes of strings: weights, checkpoints, CoTs, judgements and metrics."""
    products = []
    for name, number, seed in (("a", "1", "1"), ("elsewhere/b", "2", "2")):
        root = tmp_path / name
        root.mkdir(parents=True)
        command = [sys.executable, str(ROOT / "train.py"), *_small(root), "deterministic=true", "run.subprocess_stages=true"]
        more = {"OMP_NUM_THREADS": number, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=root, env={**os.environ, **more}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        products.append({path.name: path for path in (root / "runs" / "stages").iterdir() if path.is_dir()})
    first, second = products
    assert first.keys() == second.keys()
    for name, path in first.items():
        assert tensors_of(path) == tensors_of(second[name]), name
        files = json.loads((path / "manifest.json").read_text())["files"]
        again = json.loads((second[name] / "manifest.json").read_text())["files"]
        assert {file: digest for file, digest in files.items() if _compared(file)} == {
            file: digest for file, digest in again.items() if _compared(file)
        }, name
    assert sum(path.name.startswith("predict") for path in first.values()) == 2


def _compared(file: str) -> bool:
    """All that stages read of each other, and the predictions; reports and metrics name folders."""
    return file.endswith((".safetensors", ".parquet", ".jsonl", "layout.json", "adapter_config.json"))


def _small(root: Path) -> list[str]:
    from tiny_pipeline import SMALL

    return [*SMALL, f"paths.runs={root}/runs", f"paths.cache={root}/cache"]
