"""What the entry scripts share: composing the configuration, one line for each error, logging. Imports nothing heavy."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tract.errors import TractError

CONFIG_DIR = Path(__file__).resolve().parents[1] / "conf"


def launch(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Runs ``task`` on the composed configuration; an error of the user's ends as one line and exit status 2."""
    # Hydra prints errors over several lines and without the accepted keys; with this it raises them instead.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")


    @functools.wraps(task)
    def guarded(cfg: DictConfig) -> None:
        # Caught here, inside Hydra's job: outside, Hydra has printed lines of its own before.
        try:
            task(cfg)
        except TractError as error:
            _fail(str(error))

    try:
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error))


def explain(error: Exception) -> str:
    """One line for an error of Hydra or OmegaConf, with the accepted keys where a key is unknown."""
    from tract.config import accepted_keys, unknown_key_message

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unknown = re.search(r"Key '([^']+)' is not in struct", str(error))
    place = re.search(r"full_key: (\S+)", str(error))
    if unknown and place:
        key = place[1]
        accepted = accepted_keys(key.rpartition(".")[0])
        if accepted:
            return unknown_key_message(key, accepted)
    keep = [line for line in lines if not line.startswith(("full_key", "object_type", "reference_type", "Set the environment", "Config search path", "To append"))]
    return "; ".join(keep)[:600]


def _fail(message: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(2)
