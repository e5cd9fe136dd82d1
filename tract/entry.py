"""What the entry scripts share: composing the configuration, one line for each error, logging. Imports nothing heavy."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tract.errors import TractError

CONFIG_DIR = Path(__file__).resolve().parents[1] / "conf"
# Sections whose keys are the arguments of a class, so that any that it takes can be added.
_OPEN_SECTIONS = ("trainer", "optimizer", "logger", "data.source", "scheduler.kwargs", "model.chat_template_kwargs")
# What Hydra and OmegaConf add to the first line of a message: no help to whom the configuration is all that is known.
_NOISE = ("full_key", "object_type", "reference_type", "Set the environment", "Config search path", "To append", "provider=", "See https")


def launch(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Runs ``task`` on the composed configuration; an error of the user's ends as one line and exit status 2."""
    # Hydra prints errors over several lines and without the accepted keys; with this it raises them instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    if not sys.stderr.isatty():
        # Bars of libraries fill a log file with lines; Lightning's own bar is a key, trainer.enable_progress_bar.
        os.environ.setdefault("TQDM_DISABLE", "1")
    began = False

    @functools.wraps(task)
    def guarded(cfg: DictConfig) -> None:
        nonlocal began
        began = True
        # Caught here, inside Hydra's job: outside, Hydra has printed lines of its own before.
        try:
            task(cfg)
        except TractError as error:
            _fail(str(error))

    try:
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if began:  # the configuration was composed and checked, so this is a fault of ours
            raise
        _fail(explain(error))


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or YAML, with what is accepted where that is known."""
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        reason = "; ".join(line for line in _lines(error) if not line.startswith("Error parsing override") and line.strip("^"))
        return (
            f"override {error.override!r}: cannot be read ({reason}); write KEY=VALUE, and text with < {{ [ ( or commas as KEY='\"TEXT\"'"
        )
    if isinstance(error, yaml.YAMLError):
        return f"YAML: {' '.join(str(error).split())}"
    if key := re.search(r"Could not override '([^']+)'", str(error)):
        return _not_overridden(key[1], error)
    return "; ".join(_lines(error))[:600]


def _missing_config(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    group, _, option = name.rpartition("/")
    options = [option for option in error.options or () if not option.startswith("_")]
    if not options:
        return f"{name}: there is no such configuration file or group in conf; `--help` lists the groups"
    return f"{group}: there is no option {option!r}; accepted are {', '.join(options)}"


def _not_overridden(key: str, error: Exception) -> str:
    from tract.config_rules import unknown_key_message
    from tract.validation import accepted_keys

    if section := next((name for name in _OPEN_SECTIONS if f"{key}.".startswith(f"{name}.")), None):
        return f"{key}: unknown key of {section}; keys of it that the configuration does not hold yet are added with a plus, +{key}=..."
    parent = key
    while parent:  # the innermost section that exists is where the path went wrong
        parent, _, name = parent.rpartition(".")
        accepted = accepted_keys(parent)
        if accepted and name not in accepted:
            return unknown_key_message(f"{parent}.{name}".lstrip("."), accepted)
    return f"{key}: cannot be set ({'; '.join(_lines(error.__cause__ or error))})"


def _lines(error: BaseException) -> list[str]:
    """The lines of a message that say something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith(_NOISE)]


def not_in_this_version(script: str, what: str) -> NoReturn:
    """Ends a script whose stage is not there yet."""
    _fail(f"{script}: {what} is not part of this version; train.py fine-tunes a judge on annotated CoTs")


def _fail(message: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(2)
