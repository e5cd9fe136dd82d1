"""The whole pipeline in small, for tests of crashes: two or three seconds a stage, and every stage moves the final predictions."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from tract.artifacts.products import Product
from tract.pipeline.pipeline import run_pipeline

ROOT = Path(__file__).resolve().parents[2]
# Dropout and a high learning rate: a step that is lost, done twice or drawn otherwise shows in the predictions.
OVERRIDES = (
    "model=tiny", "logger=csv", "trainer.enable_progress_bar=false", "run.name=tiny",
    "data.source.n_questions=16", "data.source.n_ood_questions=1", "data.max_train_items=16", "data.max_val_items=2",
    "batch.global_batch_size=4", "batch.micro_batch_size=2", "batch.max_tokens_per_micro_batch=null",
    "train.max_epochs=2", "train.max_steps=6", "train.validate_every_steps=3",
    "train.checkpoint_every_steps=1", "optimizer.lr=0.02", "adapter.dropout=0.1", "generation.max_cot_tokens=24",
    "generation.batch_size=4", "evaluation.n_cot=2", "evaluation.resamples=50", "evaluation.benchmarks=[test,ood]",
)  # fmt: skip


def overrides(place: Path, *more: str) -> list[str]:
    """The overrides of a pipeline whose runs and cache are in ``place``."""
    return [*OVERRIDES, f"paths.runs={place}/runs", f"paths.cache={place}/cache", *more]


def run_here(place: Path, *more: str) -> dict[str, Product]:
    """Runs the pipeline in this process."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        resolved = compose("train", overrides(place, *more))
    with _one_thread():
        return run_pipeline(resolved)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the processes of ``start``: another number of threads may round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def start(place: Path, *more: str, output: str = "output.txt", variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts the command, as a user would, in a session of its own; what it says is appended to a file in ``place``."""
    command = [sys.executable, "train.py", *overrides(place, *more)]
    place.mkdir(parents=True, exist_ok=True)
    with (place / output).open("a", encoding="utf-8") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment(), **(variables or {})},
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests themselves run in the background
        )


def environment() -> dict[str, str]:
    """One thread: the machine may be shared, and numbers must not depend on it."""
    own = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # of a worker of xdist: it would fold log lines
    return {**own, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def predictions(place: Path) -> list[dict[str, Any]]:
    """All final predictions, every field, of the one evaluate stage in a place."""
    (path,) = (place / "runs" / "stages").glob("evaluate-*/predictions.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def product(place: Path, stage: str) -> Path:
    """The folder of a stage's one complete product; of the two predict stages, the trained judge's."""
    found = [path for path in (place / "runs" / "stages").glob(f"{stage}-*") if not path.suffix]
    if stage == "predict":
        found = [path for path in found if json.loads((path / "judge.json").read_text())["name"] != "base"]
    assert len(found) == 1, found
    return found[0]


def undisturbed(factory: pytest.TempPathFactory) -> Path:
    """A place where the pipeline ran once, without interruption; made on first use, and only to be read."""
    return _run_once(factory.getbasetemp() / "undisturbed")


@functools.cache
def _run_once(place: Path) -> Path:
    run_here(place)
    assert len(predictions(place)) == 18
    return place


def copy_of(place: Path, to: Path) -> Path:
    """A copy of a place, links included."""
    return shutil.copytree(place, to, symlinks=True)
