"""Who hashes products: each file once in a command, by the process that leads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_pipeline import SMALL, Tiny, made, reused

import tract.pipeline.launching.job
from tract.artifacts import judge_loader, judges, products
from tract.artifacts.judges import find_judge
from tract.common.errors import DataError
from tract.models.locating import model_fingerprint
from tract.pipeline.identity.loaded_code import hashes
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]
STAGES = 6  # predict twice, for the judge and what it is compared to
# What a pipeline tells the process of a stage: its code, as this one has it, and no module of a user's.
CODE: dict[str, Any] = {"files": hashes(), "named": {}}
SHIM = """
import hashlib, os
_digest = hashlib.file_digest
def file_digest(stream, *arguments):
    with open(os.environ["HASHED"], "a") as log:
        log.write(f"{os.environ.get('RANK', 'leader')} {stream.name}\\n")
    return _digest(stream, *arguments)
hashlib.file_digest = file_digest
"""


class Hashed(Counter[str]):
    """File of a product, below the store -> how often it was hashed. ``written``: those of products that were being made."""

    def add(self, file: str) -> None:
        stage, _, name = file.rpartition("/stages/")[2].partition("/")
        if name:
            self[f"{stage.removesuffix('.partial')}/{name}"] += 1
            self.written += stage.endswith(".partial")

    written = 0


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    """What is hashed in a process that knows no product yet."""
    found, digest = Hashed(), hashlib.file_digest

    def counted(stream: Any, *arguments: Any) -> Any:
        found.add(stream.name)
        return digest(stream, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(products, "_known", {})
    return found


def files_of(tiny: Tiny) -> set[str]:
    """All files of all complete products."""
    store = tiny.root / "runs" / "stages"
    return {f"{folder}/{name}" for folder in tiny.store for name in products.read_manifest(store / folder)[0]["files"]}


@pytest.mark.kills
def test_each_file_is_hashed_once_in_a_command(hashed: Hashed, tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    _, lines = tiny.run()
    assert len(made(lines)) == STAGES
    assert set(hashed) == files_of(tiny)
    assert set(hashed.values()) == {1}
    assert hashed.written == len(hashed)  # as it was written
    hashed.clear()
    products._known.clear()  # another command, in a process of its own
    _, lines = tiny.run()
    assert len(reused(lines)) == STAGES
    assert set(hashed) == files_of(tiny)
    assert set(hashed.values()) == {1}


def test_a_job_hashes_only_what_it_writes(hashed: Hashed, whole: Any, tmp_path: Path) -> None:
    """The pipeline that started it has checked what it reads."""
    config = whole.tiny.compose("evaluation.max_items=2", "evaluation.benchmarks=[test]", "generation=hf")  # as the pipeline decides
    task = {"stage": "predict", "inputs": {"judge": str(whole.products["stage2"].path)}, "force": True, "code": CODE}
    tract.pipeline.launching.job._run(task, config, tmp_path)
    product = Path((tmp_path / "product.txt").read_text())
    assert set(hashed) == {f"{product.name}/{name}" for name in products.read_manifest(product)[0]["files"]}
    assert hashed.written == len(hashed)
    with pytest.MonkeyPatch.context() as patch:  # behind the job, products are checked again
        patch.setattr(products, "_known", {})
        products.open_product(whole.products["stage2"].path)
    assert any(name.startswith("stage2-") for name in hashed)


def test_a_job_refuses_a_product_of_other_sizes(whole: Any, tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    made_here, _ = tiny.run("pipeline=[stage1,predict,evaluate]", "compare_to=null", "stages=[stage1]")
    folder = made_here["stage1"].path
    (folder / "layout.json").write_text("{}")
    task = {"stage": "predict", "inputs": {"judge": str(folder)}, "force": False, "code": CODE}
    with pytest.raises(DataError, match=r"layout.json: the file has 2 bytes, \d+ were written"):
        tract.pipeline.launching.job._run(task, tiny.compose(), tmp_path)


def test_the_fingerprint_of_a_judge_is_read_when_it_is_asked_for(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def noted(*arguments: Any, **named: Any) -> str:
        read.append(arguments)
        return model_fingerprint(*arguments, **named)

    for module in (judges, judge_loader):
        monkeypatch.setattr(module, "model_fingerprint", noted)
    cfg = validate(whole.tiny.compose())
    for spec in ("base", str(whole.products["stage1"].path)):
        judge = find_judge(spec, cfg)
        assert read == []
        assert judge.fingerprint == find_judge(spec, cfg).fingerprint
        assert len(read) == 2
        assert judge.fingerprint
        assert len(read) == 2
        read.clear()


@pytest.mark.kills  # minutes: two ranks for each stage
def test_of_many_ranks_none_hashes_what_is_read(tmp_path: Path) -> None:
    """Two commands with two ranks each: the second trains on what the first made."""
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(SHIM)
    log = tmp_path / "hashed.txt"
    own = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", "pipeline=[stage1,generate,stage2]"]
    own += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2"]
    small = [override for override in SMALL if not override.startswith("run.subprocess_stages")]
    environment = {**os.environ, "HASHED": str(log), "PYTHONPATH": str(tmp_path / "shim"), "OMP_NUM_THREADS": "1"}

    def hashed_by(*overrides: str) -> dict[str, Hashed]:
        log.write_text("")
        command = [sys.executable, "train.py", *small, *own, *overrides]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        found = {who: Hashed() for who in ("leader", "0", "1")}
        for line in log.read_text().splitlines():
            who, _, file = line.partition(" ")
            found[who].add(file)
        return found

    first = hashed_by("stages=[stage1,generate]")
    assert {name.partition("-")[0] for name in first["0"]} == {"stage1", "generate"}
    assert first["0"].written == first["0"].total()  # nothing is read again
    assert not first["leader"]
    assert not first["1"]
    again = hashed_by()
    assert {name.partition("-")[0] for name in again["leader"]} == {"stage1", "generate"}
    assert set(again["leader"].values()) == {1}
    assert {name.partition("-")[0] for name in again["0"]} == {"stage2"}
    assert again["0"].written == again["0"].total()
    assert not again["1"]
