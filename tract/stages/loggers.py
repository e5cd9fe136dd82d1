"""Loggers of a run; W&B never asks for a key: without one it works offline."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger

from tract.config import Config
from tract.errors import ConfigError
from tract.masking import masked

# What W&B shows of its arguments; others, such as its settings, may hold a key that it needs.
_SHOWN = ("project", "entity", "group", "name", "job_type", "notes", "tags")


def build_loggers(cfg: Config, folder: Path, key: str, resolved: dict[str, Any]) -> list[Logger]:
    """The configured loggers, writing below ``folder``; what they are told of the configuration holds no secrets.

    Args:
        cfg: the typed configuration. folder: of the stage. key: of its product. resolved: the configuration, for W&B.

    Raises:
        ConfigError: if one cannot be built.
    """
    loggers: list[Logger] = []
    for name, node in cfg.logger.items():
        if node is None:
            continue
        node = dict(node)
        if node["_target_"].endswith("WandbLogger"):
            if node.get("mode") == "auto":
                node["mode"] = wandb_mode()
            # W&B's own closing words name a folder that is renamed when the stage is complete.
            os.environ.setdefault("WANDB_SILENT", "true")
            # The same run goes on after a resume; its id is that of the run folder.
            node.update({name: masked(node[name]) for name in _SHOWN if name in node})
            node.update(id=f"{cfg.run.name}-s{cfg.seed}-{cfg.stage}-{key}", resume="allow", config=masked(resolved))
        try:
            # The configuration that W&B keeps has targets of its own; they stay text.
            loggers.append(instantiate(node, save_dir=str(folder), _recursive_=False, _convert_="all"))
        except InstantiationException as error:
            raise ConfigError(f"logger.{name}: cannot be built: {' '.join(str(error.__cause__ or error).split())}") from error
    return loggers


def close_loggers(loggers: list[Logger], status: str) -> None:
    """Flushes and ends the loggers, so that their files can be moved."""
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


def wandb_mode() -> str:
    """WANDB_MODE if set; "online" if there is a key for the W&B server; else "offline"."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"
