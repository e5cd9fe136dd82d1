"""Old names of the configuration where Hydra reads them: on the command line, in files of a user's own, among what a sweep varies."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from tract.common.errors import ConfigError
from tract.config.comments import read
from tract.config.renames import RENAMED_KEYS, upgraded, upgraded_overrides

log = logging.getLogger(__name__)


def upgrade_command_line() -> None:
    """Gives the arguments of this process their current names, before Hydra composes; one warning for each old one.

    Raises:
        ConfigError: if a key is given by both of its names.
    """
    sys.argv[1:], lines = upgraded_overrides(sys.argv[1:])
    _warn(lines)


def upgrade_sweep(config: DictConfig) -> None:
    """Gives what the file of a sweep varies its current names; changes ``hydra.sweeper.params`` in place."""
    params = OmegaConf.select(config, "hydra.sweeper.params")
    content: Any = OmegaConf.to_container(params) if isinstance(params, DictConfig) else {}
    words, lines = upgraded_overrides(f"{key}={value}" for key, value in content.items())
    if not lines:
        return
    _warn(lines)
    with open_dict(config):
        config.hydra.sweeper.params = dict(word.split("=", 1) for word in words)


def upgraded_job(cfg: DictConfig) -> DictConfig:
    """The composed configuration of a run with current names; one warning for each old one. The command line wins over files.

    Raises:
        ConfigError: if a file gives a key by both of its names.
    """
    content = OmegaConf.to_container(cfg)
    assert isinstance(content, dict)
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)  # as given: reading an entry would resolve it
    given = [word.partition("=")[0].lstrip("+~") for word in overrides]
    current, lines = upgraded({str(key): value for key, value in content.items()}, given)
    if not lines:
        return cfg
    _refuse_files_with_both()
    _warn(lines)
    result = OmegaConf.create(current)
    OmegaConf.set_struct(result, True)
    return result


def _refuse_files_with_both() -> None:
    runtime = HydraConfig.get().runtime
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    for group, option in runtime.choices.items():
        for file in (folder / str(group) / f"{option}.yaml" for folder in folders):
            if not file.is_file():
                continue
            prefix = "" if "@package _global_" in file.read_text(encoding="utf-8") else f"{group}.".replace("/", ".")
            keys = {f"{prefix}{key}" for key in read(file).values}
            if both := next(((old, new) for old, new in RENAMED_KEYS.items() if {old, new} <= keys), None):
                raise ConfigError(f"{both[0]}: {file} gives it together with {both[1]}, its new name; leave {both[0]} out")


def _warn(lines: Iterable[str]) -> None:
    for line in dict.fromkeys(lines):
        log.warning("%s", line)
