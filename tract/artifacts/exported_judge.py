"""An exported judge, in a folder or on the hub: its settings, and the model and adapter that belong to them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from tract.artifacts.judge_location import EXPORTED, HUB, JudgeLocation
from tract.artifacts.judge_settings import SETTINGS_FILE, BaseModel, JudgeSettings, read_settings
from tract.artifacts.recorded_paths import is_hub_id, places_of
from tract.common.errors import ConfigError

log = logging.getLogger(__name__)

NO_BASE = "give base_model=PATH (--base-model PATH)"


@dataclass(frozen=True)
class ExportedJudge:
    """What an exported judge is loaded from.

    Attributes:
        settings: how it works. model: what to load, its own folder or id, or what an adapter belongs on.
        adapter: folder of the adapter, or None for whole weights.
    """

    settings: JudgeSettings
    model: BaseModel
    adapter: Path | None


def exported_judge(found: JudgeLocation, *, revision: str | None = None, base_model: str | None = None) -> ExportedJudge | None:
    """The exported judge of a folder or a hub id; None where nothing is exported.

    Args:
        found: where it is. revision: on the hub. base_model: what an adapter belongs on, in place of what its settings say.

    Raises:
        ConfigError: if its settings cannot be used, or a base model was a folder and is not there.
    """
    if found.kind == EXPORTED:
        settings = read_settings(found.path / SETTINGS_FILE)
        own, adapter = BaseModel(found.spec), found.path
    elif found.kind == HUB and (path := _from_hub(found.spec, revision)) is not None:
        settings = read_settings(path)
        own, adapter = BaseModel(found.spec, revision=revision), path
    else:
        return None
    if not settings.adapter:
        return ExportedJudge(settings, own, None)
    weights = adapter if found.kind == EXPORTED else _adapter_from_hub(found.spec, revision)
    base = _base_of(settings, found.path) if base_model is None else BaseModel(base_model)
    return ExportedJudge(settings, base, weights)


def _base_of(settings: JudgeSettings, folder: Path) -> BaseModel:
    """What an exported adapter belongs on, also where its folder was moved together with that of the base model.

    A name that may be an id of the hub is one: an export names a folder by its whole path.

    Raises:
        ConfigError: if that is a folder which is not there.
    """
    base = settings.base_model
    if base.package is not None or is_hub_id(base.name_or_path):
        return base
    found = places_of(base.name_or_path, folder, {})
    if not found:
        raise ConfigError(f"base_model: the adapter {folder} belongs on {base.name_or_path!r}, which is not there; {NO_BASE}")
    return replace(base, name_or_path=str(found[0]))


def _from_hub(spec: str, revision: str | None) -> Path | None:
    """The settings of a judge on the hub; None where there are none, or nothing of it is known."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(spec, SETTINGS_FILE, revision=revision))
    except LocalEntryNotFoundError:  # no network, or none is wanted
        if try_to_load_from_cache(spec, SETTINGS_FILE, revision=revision) is not _CACHED_NO_EXIST:
            log.warning(
                "%s: whether it has a %s cannot be looked up, so it is asked as a chat model that was not trained as a judge",
                spec,
                SETTINGS_FILE,
            )
        return None
    except EntryNotFoundError:  # a chat model
        return None
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"judge: cannot look up {SETTINGS_FILE} of {spec!r} on the hub: {reason}") from error
    except HFValidationError as error:
        raise ConfigError(f"judge: {spec!r} is no folder and no hub id: {' '.join(str(error).split())[:200]}") from error


def _adapter_from_hub(spec: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(spec, revision=revision, allow_patterns=["adapter_*", "*.json"]))
    except OSError as error:
        raise ConfigError(f"judge: cannot load the adapter of {spec!r}: {' '.join(str(error).split())[:200]}") from error
