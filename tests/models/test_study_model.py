"""The base model of the study: the script makes what the experiment loads, once, and of other questions than the study's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tract.pipeline.stages.fit import build
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.kills  # it trains for half a minute


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "model"
    make(folder)
    return folder


def make(folder: Path) -> str:
    command = [sys.executable, "scripts/make_study_model.py", "--out", str(folder), "--steps", "2"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stderr


def test_the_experiment_loads_it(model: Path, compose_config: Callable[..., DictConfig]) -> None:
    cfg = validate(compose_config("experiment=study", f"model.name_or_path={model}", "data.source.n_questions=48", "logger=none"))
    data = prepare(cfg)
    assert data.counts["examples_by_status"] == {"ok": 48}
    module, datamodule = build(cfg, data)
    module.configure_model()
    assert module.training_step(next(iter(datamodule.train_dataloader())), 0).isfinite()


def test_it_is_made_once(model: Path) -> None:
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert "is there" in make(model)
    assert (model / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in model.parent.iterdir()] == ["model"]
