"""Run folders: what the key depends on, and that a folder is complete or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tract.errors import ConfigError
from tract.stages import run_folder
from tract.stages.run_folder import MANIFEST, StageFolder, provenance, stage_folder, write_json
from tract.validation import validate

ROOT = Path(__file__).resolve().parents[2]
Compose = Callable[..., DictConfig]


def folder_of(compose: Compose, *overrides: str, data: str = "fingerprint") -> StageFolder:
    cfg = compose("model=tiny", *overrides)
    return stage_folder(validate(cfg), cfg, data)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "run" / "seed0" / "stage1-abc", "abc")


@pytest.mark.parametrize(
    "override",
    [
        "run.name=other",
        "run.tags=[x]",
        "run.overwrite=true",
        "paths.runs=elsewhere",
        "paths.cache=elsewhere",
        "logger=none",
        "logger=wandb",
        "data.num_workers=3",
        "data.path=elsewhere.jsonl",
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=7",
        "data.source.n_questions=3",  # the data's fingerprint stands for the source
        "objective.score_loss_weight=1",
        "optimizer.weight_decay=0",
        "grid.labels=[1,2,3,4,5]",  # the same values, written otherwise
    ],
)
def test_key_ignores_what_moves_no_number(override: str, compose_config: Compose) -> None:
    assert folder_of(compose_config, override).key == folder_of(compose_config).key


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "stage=stage2",
        "objective=ce_only",
        "objective.score_loss_weight=2",
        "optimizer.lr=2e-5",
        "model.dtype=bfloat16",
        "train.max_steps=3",
        "batch.items_per_step=4",
        "batch.micro_batch_size=2",
        "data.max_length=100",
        "data.val_fraction=0.2",
        "grid=one_to_ten",
        "prompt.cue=' Score: '",
        "adapter.rank=4",
        "scheduler=linear",
        "trainer.precision=bf16-mixed",
    ],
)
def test_key_depends_on_what_moves_a_number(override: str, compose_config: Compose) -> None:
    assert folder_of(compose_config, override).key != folder_of(compose_config).key


def test_key_depends_on_the_content_of_the_data(compose_config: Compose) -> None:
    assert folder_of(compose_config, data="one").key != folder_of(compose_config, data="two").key


def test_key_stays_the_same_between_processes_and_leaves_the_configuration_alone(compose_config: Compose) -> None:
    cfg = compose_config("model=tiny")
    before = cfg.copy()
    assert stage_folder(validate(cfg), cfg, "x").key == stage_folder(validate(cfg), cfg, "x").key
    assert cfg == before


def test_path_names_run_seed_stage_and_key(compose_config: Compose, tmp_path: Path) -> None:
    folder = folder_of(compose_config, "run.name=judge", "seed=3")
    assert folder.path == tmp_path / "runs" / "judge" / "seed3" / f"stage1-{folder.key}"
    assert folder.working.name == f"stage1-{folder.key}.partial"


def test_folder_is_absent_until_it_is_complete(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    (folder.working / "weights").write_text("w")
    assert not folder.path.exists()
    assert not folder.is_complete
    folder.finish({"key": "abc"})
    assert folder.is_complete
    assert not folder.working.exists()
    assert (folder.path / "weights").read_text() == "w"
    assert json.loads((folder.path / MANIFEST).read_text()) == {"key": "abc"}


def test_crash_before_the_rename_leaves_the_partial_folder(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.begin(overwrite=False)
    replace = os.replace

    def crash(source: Any, target: Any) -> None:
        if Path(target) == folder.path:
            raise OSError("power cut")
        replace(source, target)

    monkeypatch.setattr(run_folder.os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        folder.finish({})
    assert not folder.path.exists()
    assert folder.working.is_dir()
    monkeypatch.undo()
    folder.begin(overwrite=False)  # the next try goes on there
    folder.finish({})
    assert folder.is_complete


def test_begin_keeps_what_an_earlier_try_left(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    (folder.working / "checkpoint").write_text("c")
    folder.begin(overwrite=False)
    assert (folder.working / "checkpoint").read_text() == "c"


def test_overwrite_removes_partial_and_complete_folder(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    folder.finish({})
    folder.begin(overwrite=False)
    (folder.working / "checkpoint").write_text("c")
    folder.begin(overwrite=True)
    assert not folder.path.exists()
    assert list(folder.working.iterdir()) == []


def test_a_folder_without_manifest_in_the_place_of_the_product_is_refused(folder: StageFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"run: .*stage1-abc holds no manifest.json.*run.overwrite=true"):
        folder.begin(overwrite=False)
    assert (folder.path / "notes.txt").exists()


def test_lock_refuses_a_second_process_and_is_given_back(folder: StageFolder) -> None:
    program = (
        "import sys; from pathlib import Path; from tract.stages.run_folder import StageFolder; from tract.errors import ConfigError\n"
        "try:\n    with StageFolder(Path(sys.argv[1]), 'abc').locked(): print('free')\n"
        "except ConfigError as error: print(error)"
    )

    def other_process() -> str:
        run = subprocess.run([sys.executable, "-c", program, str(folder.path)], cwd=ROOT, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    with folder.locked():
        message = other_process()
    assert message == f"run: another process is working on {folder.working}; wait for it, or change run.name or seed"
    assert other_process() == "free"


def test_lock_is_given_back_after_an_error(folder: StageFolder) -> None:
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    with folder.locked():
        pass


def test_json_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"a": "long text" * 9999, "b": object()})  # fails half-way
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é"}


def test_provenance_names_commit_versions_and_machine() -> None:
    found = provenance()
    assert {"python", "torch", "lightning", "transformers", "peft", "hydra-core"} <= set(found["versions"])
    assert all(isinstance(version, str) and version for version in found["versions"].values())
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40
    assert found["machine"]["cpus"] == os.cpu_count()
    json.dumps(found)
