"""Loggers that Lightning has classes for, and every option of the group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch.loggers
import pytest
from omegaconf import DictConfig

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.pipeline.tracking.loggers import build_loggers, close_loggers
from tract.pipeline.validation import validate

Compose = Callable[..., DictConfig]


def typed(compose: Compose, *overrides: str) -> Config:
    return validate(compose("model=tiny", *overrides))


@pytest.mark.parametrize(
    ("option", "classes"),
    [("none", []), ("csv", ["CSVLogger"]), ("wandb", []), ("default", ["CSVLogger"]), ("all", ["CSVLogger", "TensorBoardLogger"])],
)
def test_every_option(option: str, classes: list[str], compose_config: Compose, tmp_path: Path) -> None:
    """W&B is no logger of Lightning: each stage has a run of its own."""
    cfg = typed(compose_config, f"logger={option}")
    assert [type(logger).__name__ for logger in build_loggers(cfg, tmp_path)] == classes
    assert ("wandb" in cfg.logger) == (option in ("wandb", "default", "all"))


def test_a_logger_that_is_set_to_null_is_left_out(compose_config: Compose, tmp_path: Path) -> None:
    cfg = typed(compose_config, "logger=all", "logger.wandb=null", "logger.tensorboard=null")
    assert [type(logger).__name__ for logger in build_loggers(cfg, tmp_path)] == ["CSVLogger"]


def test_csv_and_tensorboard_write_below_the_folder(compose_config: Compose, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = build_loggers(typed(compose_config, "logger=all"), tmp_path)
    for logger in loggers:
        logger.log_metrics({"train/loss": 1.5}, step=1)
    close_loggers(loggers, "success")
    (metrics,) = (tmp_path / "csv").rglob("metrics.csv")
    assert metrics.read_text().split() == ["step,train/loss", "1,1.5"]
    (events,) = (tmp_path / "tensorboard").rglob("events.*")
    read = EventAccumulator(str(events))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 1.5)]


def test_a_logger_that_cannot_be_built_is_named(compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: object) -> None:
        raise ValueError("no such\nthing")

    monkeypatch.setattr(lightning.pytorch.loggers, "CSVLogger", refuse)
    with pytest.raises(ConfigError, match=r"logger\.csv: cannot be built: .*no such thing"):
        build_loggers(typed(compose_config, "logger=csv"), tmp_path)
