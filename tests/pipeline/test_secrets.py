"""No secret of a configuration stands in a file of a run, with W&B, or in the log; what runs has the real values."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_pipeline import SMALL, Tiny, reused

from tract.artifacts.products import open_product, write_config
from tract.pipeline.launching import launch
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]
# Each begins alike, so that one search finds all of them.
SECRET = "c0rrect-h0rse"


def secrets(number: int = 1) -> list[str]:
    """Overrides with a secret in every kind of place."""
    return [
        f"+generation.vllm.engine.hf_token={SECRET}-engine-{number}",
        f"generation.server.base_url='http://me:{SECRET}-user-{number}@localhost:1/v1?api_key={SECRET}-parameter-{number}'",
        f"+model.chat_template_kwargs.api_key={SECRET}-model-{number}",
        "+model.chat_template_kwargs.note='${oc.env:SOME_SERVICE_TOKEN}'",
        f"run.tags=[a,'http://host/?token={SECRET}-tag-{number}']",
    ]


def leaks(*folders: Path) -> list[str]:
    """Files that hold a secret, and how many files there are."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [str(path) for path in files if SECRET.encode() in path.read_bytes() or SECRET in str(path)]


def test_files_and_log_of_a_run_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", f"{SECRET}-variable-1")
    tiny = Tiny(tmp_path)
    one_step = ["stages=[stage1]", "train.max_steps=1", "logger=csv"]
    products, _ = tiny.run(*one_step, *secrets())
    folder = products["stage1"].path
    assert leaks(tmp_path) == []
    shown: Any = OmegaConf.load(folder / "config.yaml")
    assert shown.generation.vllm.engine.hf_token == "***"
    assert shown.generation.server.base_url == "http://***@localhost:1/v1?api_key=***"
    assert shown.model.chat_template_kwargs == {"api_key": "***", "note": "***"}
    assert shown.model.pad_token is None
    assert shown.run.tags == ["a", "http://host/?token=***"]
    assert shown.generation.server.api_key_env == "OPENAI_API_KEY"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"]["config"]["model"]["chat_template_kwargs"] == {"api_key": "***", "note": "***"}
    # What runs has the values.
    cfg = validate(tiny.compose(*one_step, *secrets()))
    assert cfg.model.chat_template_kwargs == {"api_key": f"{SECRET}-model-1", "note": f"{SECRET}-variable-1"}
    # Another token makes no other product.
    monkeypatch.setenv("SOME_SERVICE_TOKEN", f"{SECRET}-variable-2")
    assert reused(tiny.run(*one_step, *secrets(2))[1]) == ["stage1"]
    assert open_product(folder).path == folder


def test_a_configuration_without_secrets_is_written_as_it_is(tmp_path: Path) -> None:
    resolved = Tiny(tmp_path).compose("run.tags=['007','1e3','yes']")
    write_config(tmp_path, resolved)
    assert (tmp_path / "config.yaml").read_text() == OmegaConf.to_yaml(resolved, resolve=True)


def test_the_message_to_a_stage_of_its_own_has_real_values_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setenv("SOME_SERVICE_TOKEN", f"{SECRET}-variable-1")

    def look(folder: Path, environment: Any) -> int:
        seen["mode"] = stat.S_IMODE(folder.stat().st_mode)
        seen["text"] = (folder / "config.yaml").read_text()
        (folder / "product.txt").write_text("made")
        seen["folder"] = folder
        return 0

    monkeypatch.setattr(launch, "_run_one", look)
    launch.run_job({"stage": "stage1"}, Tiny(tmp_path).compose(*secrets()), 1, "product.txt")
    assert seen["mode"] == 0o700
    assert f"{SECRET}-model-1" in seen["text"]
    assert not seen["folder"].exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("isolate", ["false", pytest.param("true", marks=pytest.mark.kills)])
def test_wandb_and_the_terminal_get_no_secret(isolate: str, tmp_path: Path) -> None:
    """The whole command, as users give it."""
    small = [override for override in SMALL if not override.startswith(("logger=", "run.subprocess_stages="))]
    overrides = [
        *small, f"run.subprocess_stages={isolate}", "logger=default", "stages=[stage1]", "train.max_steps=1",
        f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache",
        f"+logger.wandb.notes='http://me:{SECRET}-notes@host'", f"+logger.wandb.settings.api_key={SECRET}-of-the-logger-0123456789abcdef01",
    ]  # fmt: skip
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "HF_TOKEN": f"hf_{SECRET}",
        "SOME_SERVICE_TOKEN": f"{SECRET}-variable-1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides, *secrets()],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stage1: finished" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    (run,) = tmp_path.glob("runs/wandb/offline-run-*/run-*.wandb")
    assert b"chat_template_kwargs" in run.read_bytes()
    assert leaks(tmp_path) == []
