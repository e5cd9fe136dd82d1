"""Composed configurations for tests, in a tenth of Hydra's time.

Hydra reads and merges some thirty files for each composition, and the tests compose thousands. Here each choice of files is composed
once by Hydra; overrides of values are applied to a copy, by the function that Hydra itself applies them with.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(overrides: Sequence[str] = (), config: str = "train") -> DictConfig:
    """What ``hydra.compose`` returns for a configuration of conf/."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    cfg = copy.deepcopy(_of_files(config, *(str(override.input_line) for override in parsed if _chooses_files(override))))
    ConfigLoaderImpl._apply_overrides_to_config([override for override in parsed if not _chooses_files(override)], cfg)
    return cfg


@cache
def _of_files(config: str, *choices: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(config, list(choices))


def _chooses_files(override: Override) -> bool:
    key = override.key_or_group
    return override.package is not None or key.partition(".")[0].partition("/")[0] == "hydra" or (CONF / key).is_dir()
