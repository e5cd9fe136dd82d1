"""Loggers: W&B's mode without ever a prompt, and every option of the group."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch.loggers
import pytest
from omegaconf import DictConfig

from tract.config import Config
from tract.errors import ConfigError
from tract.stages.loggers import build_loggers, close_loggers, wandb_mode
from tract.validation import validate

Compose = Callable[..., DictConfig]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no W&B variable."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def write_netrc(home: Path, text: str) -> None:
    path = home / ".netrc"
    path.write_text(text)
    path.chmod(0o600)


def test_offline_without_key(home: Path) -> None:
    assert wandb_mode() == "offline"


def test_online_with_a_key_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode() == "online"


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_variable_wins_over_keys(mode: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode() == mode


@pytest.mark.parametrize(
    ("server", "entry", "expected"),
    [
        (None, "machine api.wandb.ai login user password key\n", "online"),
        (None, "machine github.com login user password key\n", "offline"),
        ("https://wandb.example.org:8080", "machine wandb.example.org login user password key\n", "online"),
        ("https://wandb.example.org:8080", "machine api.wandb.ai login user password key\n", "offline"),
        (None, "machine\n", "offline"),  # broken file
    ],
)
def test_netrc(server: str | None, entry: str, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    write_netrc(home, entry)
    assert wandb_mode() == expected


class Recorder:
    """Stands for W&B's logger and keeps what it was built with."""

    def __init__(self, **kwargs: object) -> None:
        self.kwargs = kwargs


def built_with(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, object]:
    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", Recorder)
    cfg = typed(compose, "logger=wandb", *overrides)
    (logger,) = build_loggers(cfg, tmp_path, "0123456789", {"objective": {"_target_": "stays.Text"}})
    assert isinstance(logger, Recorder)
    return logger.kwargs


def typed(compose: Compose, *overrides: str) -> Config:
    return validate(compose("model=tiny", *overrides))


def test_wandb_gets_id_group_tags_and_configuration(
    compose_config: Compose, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = built_with(compose_config, tmp_path, monkeypatch, "run.name=judge", "run.tags=[a,b]", "seed=3")
    assert found == {
        "project": "tract",
        "group": "judge",
        "name": "judge-stage1-s3",
        "tags": ["a", "b"],
        "mode": "offline",
        "log_model": False,
        "id": "judge-s3-stage1-0123456789",
        "resume": "allow",
        "config": {"objective": {"_target_": "stays.Text"}},
        "save_dir": str(tmp_path),
    }


def test_a_given_mode_is_kept(compose_config: Compose, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert built_with(compose_config, tmp_path, monkeypatch)["mode"] == "online"
    assert built_with(compose_config, tmp_path, monkeypatch, "logger.wandb.mode=disabled")["mode"] == "disabled"


def test_no_logger(compose_config: Compose, tmp_path: Path) -> None:
    assert build_loggers(typed(compose_config, "logger=none"), tmp_path, "k", {}) == []


def test_a_logger_that_is_set_to_null_is_left_out(compose_config: Compose, tmp_path: Path) -> None:
    cfg = typed(compose_config, "logger=default", "logger.wandb=null")
    assert [type(logger).__name__ for logger in build_loggers(cfg, tmp_path, "k", {})] == ["CSVLogger"]


def test_csv_logger_writes_below_the_folder(compose_config: Compose, tmp_path: Path) -> None:
    loggers = build_loggers(typed(compose_config, "logger=csv"), tmp_path, "k", {})
    loggers[0].log_metrics({"train/loss": 1.5}, step=1)
    close_loggers(loggers, "success")
    (metrics,) = (tmp_path / "csv").rglob("metrics.csv")
    assert metrics.read_text().split() == ["step,train/loss", "1,1.5"]


def test_a_logger_that_cannot_be_built_is_named(compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: object) -> None:
        raise ValueError("no such\nthing")

    monkeypatch.setattr(lightning.pytorch.loggers, "CSVLogger", refuse)
    with pytest.raises(ConfigError, match=r"logger\.csv: cannot be built: .*no such thing"):
        build_loggers(typed(compose_config, "logger=csv"), tmp_path, "k", {})


@pytest.mark.slow
def test_wandb_offline_writes_a_run_without_network(
    compose_config: Compose, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("W&B asked for something"))
    loggers = build_loggers(typed(compose_config, "logger=wandb"), tmp_path, "k", {"seed": 0})
    loggers[0].log_metrics({"train/loss": 1.5}, step=1)
    close_loggers(loggers, "success")
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = run.glob("run-*.wandb")
    deadline = time.monotonic() + 20  # W&B's own process writes, and may be a moment behind
    while b"train/loss" not in log.read_bytes():
        assert time.monotonic() < deadline, f"no metric in {log}, {log.stat().st_size} bytes"
        time.sleep(0.1)
