"""Functions of the user's that a configuration names by dotted paths: trained with, part of the key, found by a stage's own process."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from tiny_pipeline import SMALL

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.pipeline.identity.keys import key_fields, named_code
from tract.pipeline.stage_tasks import stage_config
from tract.pipeline.stages.fit import fit
from tract.pipeline.validation import typed, validate

ROOT = Path(__file__).resolve().parents[2]
LOSS = """
def absolute_error(probabilities, grid_values, scores):
    return (scores - (probabilities * grid_values).sum(dim=-1)).abs()
"""


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


def test_a_loss_is_added_by_configuration_alone(
    tiny_config: Callable[..., tuple[Config, DictConfig]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what is trained and what the preview names; the squared error is logged beside it as a metric."""
    (tmp_path / "losses_for_this_test.py").write_text(LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    own = "objective.score_loss=losses_for_this_test.absolute_error"
    folder = fit(*tiny_config("train.max_steps=2", "objective.lambda=0.5", "batch.micro_batch_size=1", "batch.global_batch_size=1", own))
    first, *_ = rows_of(folder)
    # One example a step, so the absolute error is the root of the squared one.
    assert float(first["train/score_loss"]) == pytest.approx(0.5 * float(first["train/squared_error"]) ** 0.5, rel=1e-5)
    assert float(first["train/loss"]) == pytest.approx(float(first["train/ce_loss"]) + float(first["train/score_loss"]), rel=1e-5)
    preview = (folder / "preview.txt").read_text()
    assert "| score | losses_for_this_test.absolute_error\n" in preview
    assert "squared error" not in preview
    identity = json.loads((folder / "manifest.json").read_text())["identity"]
    assert "losses_for_this_test" in identity["code"]
    assert identity["config"]["objective"]["score_loss"] == "losses_for_this_test.absolute_error"
    paper = fit(*tiny_config("train.max_steps=2", "objective.lambda=0.5", "batch.micro_batch_size=1", "batch.global_batch_size=1"))
    assert paper != folder
    assert rows_of(paper)[1]["train/loss"] != rows_of(folder)[1]["train/loss"]


PINBALL = (
    LOSS
    + """
class Pinball:
    def __init__(self, q):
        self.q = q

    def __call__(self, probabilities, grid_values, scores):
        return self.q * absolute_error(probabilities, grid_values, scores)
"""
)


def test_arguments_of_a_loss_are_part_of_the_configuration(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapping is typed, swept by its keys, compared with the products of before, and given to stage 2 alone."""
    (tmp_path / "losses_with_arguments.py").write_text(PINBALL)
    monkeypatch.syspath_prepend(tmp_path)
    given = "objective.score_loss={_target_:losses_with_arguments.Pinball,q:0.3}"
    resolved = compose_config("model=tiny", given, "objective.score_loss.q=0.7")
    cfg = validate(resolved)
    assert cfg.objective.score_loss == {"_target_": "losses_with_arguments.Pinball", "q": 0.7}
    found = [key_fields(each, ["objective"], [])["objective"] for each in (resolved, compose_config("model=tiny", given))]
    assert [each["score_loss"]["q"] for each in found] == [0.7, 0.3]
    assert "score_loss" not in key_fields(compose_config("model=tiny"), ["objective"], [])["objective"]
    assert set(named_code({"objective": found[0]})) == {"losses_with_arguments"}
    alone = compose_config("model=tiny", f"+stage2.{given}")
    validate(alone)
    assert typed(stage_config(alone, "stage1")).objective.score_loss == "squared_error"
    assert typed(stage_config(alone, "stage2")).objective.score_loss["q"] == 0.3
    with pytest.raises(ConfigError, match=r"objective.score_loss: losses_with_arguments.Pinball\(delta=1\) cannot be made"):
        validate(compose_config("model=tiny", "objective.score_loss={_target_:losses_with_arguments.Pinball,delta:1}"))
    with pytest.raises(ConfigError, match=r"objective.score_loss: found 3; squared_error or"):
        validate(compose_config("model=tiny", "objective.score_loss=3"))
    with pytest.raises(ConfigError, match=r"did you mean squared_error\?"):
        validate(compose_config("model=tiny", "objective.score_loss=squared_eror"))


def test_a_loss_with_arguments_is_trained_and_named(
    tiny_config: Callable[..., tuple[Config, DictConfig]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losses_with_arguments.py").write_text(PINBALL)
    monkeypatch.syspath_prepend(tmp_path)
    own = "objective.score_loss={_target_:losses_with_arguments.Pinball,q:0.25}"
    folder = fit(*tiny_config("train.max_steps=2", "batch.micro_batch_size=1", "batch.global_batch_size=1", own))
    first, *_ = rows_of(folder)
    assert float(first["train/score_loss"]) == pytest.approx(0.25 * float(first["train/squared_error"]) ** 0.5, rel=1e-5)
    assert "| score | losses_with_arguments.Pinball(q=0.25)\n" in (folder / "preview.txt").read_text()
    identity = json.loads((folder / "manifest.json").read_text())["identity"]
    assert "losses_with_arguments" in identity["code"]
    assert identity["config"]["objective"]["score_loss"] == {"_target_": "losses_with_arguments.Pinball", "q": 0.25}


@pytest.mark.slow
def test_a_stages_own_process_finds_a_module_of_the_working_directory(tmp_path: Path) -> None:
    """As the script does, which looks there last."""
    for name in ("tract", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "losses.py").write_text(LOSS)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    small = [override for override in SMALL if not override.startswith("run.subprocess_stages")]
    command = [
        sys.executable,
        str(tmp_path / "train.py"),
        *small,
        "run.subprocess_stages=true",
        "stages=[stage1]",
        "objective.score_loss=mine.losses.absolute_error",
    ]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mine.losses.absolute_error" in next(tmp_path.glob("runs/stages/stage1-*/preview.txt")).read_text()
