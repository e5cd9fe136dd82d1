"""Where the relative paths that a run was made with lead today: from here, from where it was made, or beside its folder.

A run is used from other folders than the one that its command was given in, and whole projects are moved or mounted elsewhere. What a run
records stays as it was written, so that its key does not depend on where it lies.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tract.common.errors import ConfigError
from tract.config.schema import ModelConfig
from tract.models.locating import load_config, locate, model_fingerprint

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WHERE = "start the command where it lies, or link it there; a judge takes base_model=PATH too (--base-model PATH)"


def whereabouts(model: ModelConfig) -> dict[str, str | None]:
    """For the manifest: where the command was given, and the folder or file of the base model, None for one of the hub or of a package."""
    folder = None
    with suppress(OSError):  # it was removed meanwhile
        folder = os.getcwd()
    local = model.package is None and os.path.exists(model.name_or_path)
    return {"working_directory": folder, "base_model": os.path.abspath(model.name_or_path) if local else None}


def places_of(written: str, folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Where a relative path of a run leads to something, each place once; the likeliest first, and that as it is written.

    Args:
        written: in the configuration of the run. folder: of the stage. manifest: of it.
    """
    made = manifest.get("working_directory")
    bases = [*([Path(made)] if isinstance(made, str) else []), *Path(os.path.abspath(folder)).parents, *folder.resolve().parents]
    found: dict[str, Path] = {}
    for path in (Path(written), *(base / written for base in bases)):
        if path.exists():
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def found_base(model: ModelConfig, seed: int, folder: Path, manifest: Mapping[str, Any]) -> ModelConfig:
    """A run's base model as it is found today; unchanged where it is one of the hub, of a package, or lies where it is written.

    Of several folders, the one with the files that the run was trained on is taken.

    Args:
        model: as the run's configuration has it. seed: of the run. folder: of the stage. manifest: of it.

    Raises:
        ConfigError: if it was a folder or file, and is there no more.
    """
    name, was = model.name_or_path, manifest.get("base_model")
    if model.package is not None or ("base_model" in manifest and was is None):
        return model
    places = places_of(name, folder, manifest)
    of_hub = was is None and is_hub_id(name)  # or a folder, of a run of an earlier version, which does not say
    if not places:
        if of_hub:
            return _of_hub(model, folder)
        made = f" ({was} when the run was made)" if was is not None and was != name else ""
        raise ConfigError(f"base_model: {folder} was trained on {name!r}{made}, which is not there any more; {_WHERE}")
    candidates = [model if place == Path(name) else replace(model, name_or_path=str(place)) for place in places]
    if candidates == [model] and was is None:
        return model
    trained_on = manifest["identity"]["config"].get("model", {}).get("fingerprint")
    found = next((each for each in candidates if model_fingerprint(each, seed, named=name) == trained_on), None)
    if found is None and of_hub:
        return _of_hub(model, folder)
    if found is None:
        found = candidates[0]
        log.warning("base_model: %s was trained on %r; %s, with other files, is taken for it", folder, name, found.name_or_path)
    elif found is not model:
        log.info("base_model: %s of %s is %s", name, folder, found.name_or_path)
    return found


def is_hub_id(name: str) -> bool:
    """Whether a model's name may be its id on the hub; a relative path of two parts looks the same."""
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith(".gguf")


def _of_hub(model: ModelConfig, folder: Path) -> ModelConfig:
    """The same, of a run that does not say whether its base model was a folder, as earlier versions did not."""
    try:
        load_config(model, locate(model))
    except ConfigError as error:
        raise ConfigError(
            f"base_model: {folder} was trained on {model.name_or_path!r}; no folder here or beside the run has its files, and it is not "
            f"found on the hub; {_WHERE} ({error})"
        ) from error
    return model
