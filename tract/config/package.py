"""A model that is given by its id or folder over an option whose weights come from a Python package, as the quickstart's do."""

from __future__ import annotations

import importlib.util
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

log = logging.getLogger(__name__)

_OPTIONS = Path(__file__).resolve().parents[2] / "conf" / "model"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# What belongs to the packaged model and to no other one, with the value that it has without a package (conf/model/_base.yaml).
_OF_PACKAGE = {"package": None, "revision": None, "tokenizer_name_or_path": None, "random_init": False, "pad_token": None}


def drop_package(cfg: DictConfig) -> None:
    """Takes ``model.name_or_path`` for a hub id or a path where it names no file of ``model.package``; one line says so.

    What the option with this package sets for its own model (tokenizer, revision, pad token, random weights) goes with it; a value of
    these keys that is another one than the option's is the user's and stays. So the new model's own pad token counts.

    Args:
        cfg: as composed; changed in place, so that all that reads it sees one model.
    """
    try:
        package, name = OmegaConf.select(cfg, "model.package"), OmegaConf.select(cfg, "model.name_or_path")
    except OmegaConfBaseException:
        return  # an interpolation that leads nowhere, which the checks name
    if not (isinstance(package, str) and isinstance(name, str) and name.strip()):
        return
    option = _option_with(package)
    if _is_inside(package, name) or not (Path(name).exists() or (option is not None and _may_be_on_hub(name))):
        return
    values = option or {}
    gone = {key: value for key, value in _OF_PACKAGE.items() if cfg.model.get(key) == (package if key == "package" else values.get(key))}
    set_back = {key: value for key, value in gone.items() if cfg.model.get(key) != value}
    for key, value in set_back.items():
        OmegaConf.update(cfg, f"model.{key}", value)
    shown = ", ".join(f"{key}={str(value).lower() if value is False else 'null'}" for key, value in set_back.items())
    log.info("model.name_or_path: %r is no file of the package %s, so it is taken for a hub id or a path, with %s", name, package, shown)


def _is_inside(package: str, name: str) -> bool:
    """Whether a pattern names something in the package; without the package, the option's own pattern would."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return name == (_option_with(package) or {}).get("name_or_path")
    try:
        return any(Path(spec.origin).parent.glob(name))
    except (NotImplementedError, ValueError, IndexError):  # an absolute path, or no pattern
        return False


def _may_be_on_hub(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith(".gguf")


@cache
def _option_with(package: str) -> dict[str, Any] | None:
    """The keys of the project's own option whose weights are in this package; None where there is none."""
    for path in sorted(_OPTIONS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("package") == package:
            return content
    return None
