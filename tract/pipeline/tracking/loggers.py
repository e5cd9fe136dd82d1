"""The loggers of a training that Lightning has classes for: CSV files, TensorBoard; W&B is ``tract.pipeline.tracking.tracker``."""

from __future__ import annotations

from pathlib import Path

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.pipeline.tracking.tracker import NODE


def build_loggers(cfg: Config, folder: Path) -> list[Logger]:
    """The configured loggers but W&B, writing below ``folder``.

    Raises:
        ConfigError: if one cannot be built.
    """
    loggers: list[Logger] = []
    for name, node in cfg.logger.items():
        if node is None or name == NODE:
            continue
        try:
            loggers.append(instantiate(node, save_dir=str(folder), _convert_="all"))
        except InstantiationException as error:
            raise ConfigError(f"logger.{name}: cannot be built: {' '.join(str(error.__cause__ or error).split())}") from error
    return loggers


def close_loggers(loggers: list[Logger], status: str) -> None:
    """Flushes and ends the loggers, so that their files can be moved."""
    for logger in loggers:
        logger.finalize(status)
