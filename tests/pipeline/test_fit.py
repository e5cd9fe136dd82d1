"""The fit stage: what it writes, when it does nothing, and that a killed run ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.pipeline.stages.fit import build, fit, trainer_factory
from tract.pipeline.stages.prepare import prepare
from tract.text.layout import SequenceLayout
from tract.training.trainer import build_trainer

ROOT = Path(__file__).resolve().parents[2]
TinyConfig = Callable[..., tuple[Config, Any]]
RESUMABLE = [
    "model=tiny", "logger=csv", "trainer.enable_progress_bar=false", "data.source.n_questions=40", "data.source.n_ood_questions=1",
    "batch.global_batch_size=4", "batch.micro_batch_size=2", "batch.max_tokens_per_micro_batch=null",
    "train.max_epochs=3", "train.validate_every_steps=5",
    "train.checkpoint_every_steps=3", "train.keep_weights=last", "adapter.dropout=0.1", "optimizer.lr=0.01",
]  # fmt: skip


def test_a_finished_run_folder_is_complete(tiny_config: TinyConfig) -> None:
    cfg, resolved = tiny_config("train.max_steps=5")
    folder = fit(cfg, resolved)
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml",
        "manifest.json",
        "layout.json",
        "preview.txt",
        "adapter_model.safetensors",
        "tokenizer.json",
        "checkpoints",
    } <= names
    manifest = json.loads((folder / "manifest.json").read_text())
    counts = manifest["data"]["counts"]
    assert counts["rows_read"] == 26
    assert counts["rows_rejected"] == 0
    assert counts["examples_by_status"] == {"ok": 26}
    assert sum(counts["items_by_split"].values()) == 26
    assert manifest["training"]["optimizer_steps"] == 5
    assert manifest["seed"] == 0
    assert manifest["parents"] == {}
    assert manifest["versions"]["torch"] == version("torch")
    assert OmegaConf.load(folder / "config.yaml").model.name_or_path == "assets/tiny"
    assert not list(folder.parent.glob("*.partial"))
    link = Path(cfg.paths.runs) / "train" / "seed0" / folder.name
    assert link.is_symlink()
    assert link.resolve() == folder.resolve()
    assert list(folder.glob("checkpoints/last-step=*.ckpt"))


def test_what_an_optimizer_keeps_of_the_configuration_is_plain(tiny_config: TinyConfig) -> None:
    """It goes into checkpoints, of which nothing is loaded but numbers and plain containers (as by DeepSpeed's CPU Adam)."""
    cfg, _ = tiny_config()
    module, _ = build(cfg, prepare(cfg))
    (group,) = module._build_optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert type(group["betas"]) in (list, tuple)
    assert tuple(group["betas"]) == (0.9, 0.999)


def test_the_layout_can_be_read_back_from_the_run_folder(tiny_config: TinyConfig) -> None:
    folder = fit(*tiny_config("train.max_steps=1"))
    saved = json.loads((folder / "layout.json").read_text())
    layout = SequenceLayout.from_dict(AutoTokenizer.from_pretrained(folder), saved)
    assert layout.cue == saved["prompt"]["cue"]
    assert [list(ids) for ids in layout.score_ids] == saved["score_ids"]


def test_every_metric_reaches_the_csv_log(tiny_config: TinyConfig) -> None:
    folder = fit(*tiny_config())
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    filled = {key for row in rows for key, value in row.items() if value}
    assert {
        "train/loss", "train/ce", "train/ce_loss", "train/squared_error", "train/score_loss", "train/score_mass", "train/grad_norm",
        "train/lr", "train/tokens_per_s", "train/examples_per_s", "val/pearson_r", "val/spearman_rho", "val/kendall_tau", "val/rmse",
        "val/rmse_constant",
        "val/squared_error", "val/score_mass", "val/ce",
    } <= filled  # fmt: skip
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2", "3"]


def test_the_same_command_again_does_nothing_and_another_configuration_gets_its_own_folder(tiny_config: TinyConfig) -> None:
    first = fit(*tiny_config("train.max_steps=1"))
    stamp = (first / "manifest.json").stat().st_mtime_ns
    assert fit(*tiny_config("train.max_steps=1")) == first
    assert (first / "manifest.json").stat().st_mtime_ns == stamp
    assert fit(*tiny_config("train.max_steps=2")) != first
    again = fit(*tiny_config("train.max_steps=1", "force=[stage1]"))
    assert again == first
    assert (first / "manifest.json").stat().st_mtime_ns > stamp


@pytest.mark.parametrize(("export", "mode"), [("last", "min"), ("best", "min"), ("best", "max")])
def test_what_is_exported_is_what_the_manifest_says(tiny_config: TinyConfig, export: str, mode: str) -> None:
    """With mode=max on the RMSE the worst checkpoint is "best": that is the first or last one, never another's weights."""
    folder = fit(
        *tiny_config(
            f"train.keep_weights={export}", f"train.monitor_mode={mode}", "optimizer.lr=0.05", "train.max_steps=6", "train.max_epochs=2"
        )
    )
    manifest = json.loads((folder / "manifest.json").read_text())["training"]
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rmse = {int(row["step"]) + 1: float(row["val/rmse"]) for row in csv.DictReader(file) if row["val/rmse"]}
    exported = manifest["exported"]
    if export == "last":
        assert exported["step"] == 6
    else:
        expected = (min if mode == "min" else max)(rmse.values())
        assert exported["val/rmse"] == pytest.approx(expected)
    weights = load_file(folder / "adapter_model.safetensors")
    if exported["weights"] == "best":
        saved = load_file(folder / "checkpoints" / f"best-step={exported['step']}.safetensors")
    else:
        checkpoint = torch.load(folder / "checkpoints" / "last-step=6.ckpt", weights_only=True)
        saved = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    name = next(name for name in weights if "lora_B" in name)
    torch.testing.assert_close(weights[name], saved[name.replace("lora_B.weight", "lora_B.default.weight")], rtol=0, atol=0)


def test_without_a_validation_split_it_trains_and_exports_the_last_weights(tiny_config: TinyConfig) -> None:
    folder = fit(*tiny_config("data.val_fraction=0", "train.keep_weights=last", "train.max_steps=1"))
    assert json.loads((folder / "manifest.json").read_text())["training"]["exported"]["weights"] == "last"


def test_weights_in_half_precision_train_and_their_metrics_are_float32(tiny_config: TinyConfig) -> None:
    """Lightning's own plugin refused our batches, which are read-only, and would have rounded scores and metrics."""
    folder = fit(*tiny_config("trainer.precision=bf16-true", "train.max_steps=2"))
    training = json.loads((folder / "manifest.json").read_text())["training"]
    rmse = torch.tensor(training["final_metrics"]["val/rmse"])
    assert training["optimizer_steps"] == 2
    assert rmse != rmse.bfloat16()
    assert {value.dtype for value in load_file(folder / "adapter_model.safetensors").values()} == {torch.bfloat16}


def test_a_monitor_that_is_no_metric_is_named(tiny_config: TinyConfig) -> None:
    with pytest.raises(ConfigError, match=r"train.monitor: 'val/nothing'.*val/rmse"):
        fit(*tiny_config("train.monitor=val/nothing", "train.max_steps=1"))


def test_a_warm_up_longer_than_the_training_is_named(tiny_config: TinyConfig) -> None:
    """One epoch has 5 steps; known before the weights are loaded."""
    with pytest.raises(ConfigError, match=r"scheduler.warmup_steps: 11 .* 5 steps of training"):
        fit(*tiny_config("train.max_steps=-1", "scheduler.warmup_steps=11", "scheduler.warmup_fraction=null"))


def test_one_process_is_one_whatever_slurm_says(tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch script without srun, in a job of four tasks."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    cfg, _ = tiny_config()
    trainer = build_trainer(cfg, trainer_factory(cfg), [], [], tmp_path, 1, validates=False)
    assert trainer.world_size == 1
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)


UNDEFINED = {"val/pearson_r", "val/spearman_rho", "val/kendall_tau"}


@pytest.mark.parametrize("monitor", ["val/pearson_r", "val/rmse"])
def test_correlations_of_one_validation_item_are_undefined_and_nothing_warns(
    monitor: str, tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """They are null in the manifest and absent from what is logged; a monitored one is explained in one line."""
    chosen = ["data.max_val_items=1", "train.max_steps=2", "train.validate_every_steps=1", "train.keep_weights=best", "logger=csv"]
    mode = "max" if monitor == "val/pearson_r" else "min"
    with caplog.at_level(logging.INFO, logger="tract"):
        folder = fit(*tiny_config(*chosen, f"train.monitor={monitor}", f"train.monitor_mode={mode}", "train.validate_base_model=true"))
    training = json.loads((folder / "manifest.json").read_text())["training"]
    for metrics in (training["seed_metrics"], training["final_metrics"]):
        assert {name for name, value in metrics.items() if value is None} == UNDEFINED
    (table,) = folder.glob("csv/**/metrics.csv")
    with table.open(newline="") as file:
        logged = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert "val/rmse" in logged
    assert logged & UNDEFINED == set()
    lines = [message for message in caplog.messages if message.startswith("  val/")]
    assert "  val/pearson_r      undefined -> undefined (1 item)" in lines
    assert not [line for line in caplog.messages if "nan" in line]
    assert not [warning for warning in recwarn if "torchmetrics" in warning.filename or "correlation" in str(warning.message)]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and "tract" in record.name]
    if monitor == "val/rmse":
        assert said == []
        assert training["exported"]["val/rmse"] is not None
    else:
        assert len(said) == 1
        assert said[0].startswith("train.monitor: val/pearson_r was undefined in every validation (1 item), so no weights are the best")
        assert training["exported"] == {"weights": "last", "step": 2, "val/pearson_r": None}


def test_real_feedback_trains(tiny_config: TinyConfig, shared_data: Path) -> None:
    """GPT-4's feedback on Vicuna Bench: 960 annotations of 320 responses, split by question."""
    data = [f"data.path={shared_data}/vicuna_feedback.jsonl", "data.max_length=6000", "data.max_val_items=4"]
    folder = fit(*tiny_config("data=feedback_jsonl", *data))
    manifest = json.loads((folder / "manifest.json").read_text())
    counts = manifest["data"]["counts"]
    assert counts["rows_read"] == 960
    assert counts["examples"] == 320
    assert manifest["training"]["optimizer_steps"] == 4
    assert "The" in (folder / "preview.txt").read_text()


def _command(runs: Path) -> list[str]:
    return [
        sys.executable,
        "train.py",
        "stages=[stage1]",
        "run.subprocess_stages=false",
        *RESUMABLE,
        f"paths.runs={runs}",
        f"paths.cache={runs}/cache",
    ]


def _product(runs: Path) -> dict[str, torch.Tensor]:
    (folder,) = runs.glob("train/seed0/stage1-*/")
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.kills  # test_kills.py kills whole pipelines in .ci/run
def test_kill_9_and_the_same_command_end_with_the_same_weights(tmp_path: Path) -> None:
    """Two kills, in the middle of different epochs, with dropout and accumulation: bitwise the uninterrupted weights."""
    subprocess.run(_command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    cut = tmp_path / "cut"
    for step in (6, 24):
        process = subprocess.Popen(_command(cut), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not _reached(cut, step):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not list(cut.glob("stages/stage1-??????????"))
        assert not list(cut.glob("train/seed0/stage1-*"))
    last = subprocess.run(_command(cut), cwd=ROOT, check=True, capture_output=True, text=True)
    assert "resuming from" in last.stdout
    whole, resumed = _product(tmp_path / "whole"), _product(cut)
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def _reached(runs: Path, step: int) -> bool:
    return any(int(path.stem.partition("=")[2]) >= step for path in runs.glob("stages/stage1-*.partial/checkpoints/last-step=*.ckpt"))


def test_loaders_draw_no_global_random_numbers(tiny_config: TinyConfig) -> None:
    """Else a validation more or less, as in a resumed run, would shift dropout."""
    cfg, _ = tiny_config()
    _, loaders = build(cfg, prepare(cfg))
    before = torch.get_rng_state()
    for loader in (loaders.train_dataloader(), loaders.val_dataloader()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)
