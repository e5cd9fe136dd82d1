"""What a judge's name leads to. Every command and the Python API that takes a judge finds it here, so all take the same ones."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from tract.artifacts.fit_stages import FitFolder, is_run, manifest_in, run_folders, stage_of
from tract.artifacts.judge_choice import ACCEPTED, Choice, chosen_judge, described
from tract.artifacts.judge_settings import SETTINGS_FILE
from tract.artifacts.products import MANIFEST
from tract.common.errors import ConfigError
from tract.config.vocabulary import FIT_STAGES

log = logging.getLogger(__name__)

BASE = "base"
PACKAGE = "package:"
# What a location is.
FIT, EXPORTED, ADAPTER = "a fit stage", "an exported judge", "an adapter"
MODEL, HUB, IN_PACKAGE = "a model", "a name on the hub", "a model in a package"


@dataclass(frozen=True)
class JudgeLocation:
    """Where a judge is.

    Attributes:
        kind: ``BASE`` for the configured base model; ``FIT`` a fit stage; ``EXPORTED`` a folder with judge_config.json; ``ADAPTER`` one of
            PEFT; ``MODEL`` a folder with a model; ``HUB`` no folder, so an id on the hub; ``IN_PACKAGE`` package:NAME.
        spec: as it was given. fit: the fit stage, of that kind alone.
    """

    kind: str
    spec: str
    fit: FitFolder | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        return self.fit.path if self.fit is not None else Path(self.spec)


_NOTHING = Choice()


def locate_judge(spec: str, choice: Choice = _NOTHING) -> JudgeLocation:
    """Where the judge is that a user names; nothing of it is loaded or checked.

    Args:
        spec: the folder of a run, of a multirun or above them, of a fit stage (also a link to it), an exported judge, an adapter of PEFT, a
            model's folder or hub id, package:NAME, or "base". choice: which one is meant, of a folder that holds several.

    Raises:
        ConfigError: if it is none of these, or holds several judges; the line lists them.
    """
    found = _location_of(spec, choice)
    if choice.given and (found.fit is None or not _is_from_run(Path(spec))):
        name = next(iter(choice.given))
        raise ConfigError(f"{name}: has no effect, since {spec} is one judge and not a folder of runs; leave it out")
    if found.fit is not None and found.fit.run is not None:
        log.info("judge: %s is %s", spec, described(found.fit))
    return found


def _is_from_run(folder: Path) -> bool:
    return not (folder / MANIFEST).is_file()


def _location_of(spec: str, choice: Choice) -> JudgeLocation:
    if spec == BASE:
        return JudgeLocation(BASE, spec)
    if spec.startswith(PACKAGE):
        return JudgeLocation(IN_PACKAGE, spec)
    folder = Path(spec)
    if folder.name.endswith(".partial"):
        raise ConfigError(f"judge: {folder} is not complete yet; run the same training command again, it resumes where it stopped")
    if not folder.is_dir():
        return _no_folder(spec)
    if (folder / SETTINGS_FILE).is_file():
        return JudgeLocation(EXPORTED, spec)
    if (folder / MANIFEST).is_file():
        return JudgeLocation(FIT, spec, _fit_stage(folder))
    if (folder / "adapter_config.json").is_file():
        return JudgeLocation(ADAPTER, spec)
    if (folder / "config.json").is_file() and not is_run(folder):
        return JudgeLocation(MODEL, spec)
    return JudgeLocation(FIT, spec, chosen_judge(folder, choice))


def _fit_stage(folder: Path) -> FitFolder:
    """The fit stage that a folder is.

    Raises:
        ConfigError: if it is the folder of another stage.
    """
    manifest = manifest_in(folder)
    if (stage := stage_of(folder, manifest)) in FIT_STAGES:
        return FitFolder(folder, None)
    asked = _judge_that_was_asked(folder, stage)
    its = f"; its judge is {asked}, give that" if asked is not None else f"; {ACCEPTED}"
    raise ConfigError(f"judge: {folder} is the product of the stage {stage!r}, which trains no judge{its}")


def _judge_that_was_asked(folder: Path, stage: str) -> Path | None:
    """The fit stage whose judge a predict, generate or evaluate stage asked, where it is there."""
    store = Path(os.path.realpath(folder)).parent
    manifest = manifest_in(folder)
    parents = manifest.get("parents")
    own = parents if isinstance(parents, dict) else {}
    if stage == "evaluate":
        predicted = store / Path(str(own.get("predict", ""))).name
        return _judge_that_was_asked(predicted, "predict") if (predicted / MANIFEST).is_file() and predicted != store else None
    judge = manifest.get("judge")
    name = judge.get("weights") if stage == "predict" and isinstance(judge, dict) else own.get("judge")
    found = folder.parent / Path(str(name or "")).name
    places = [place for place in (found, store / found.name) if name and (place / MANIFEST).is_file()]
    return places[0] if places else None


def _no_folder(spec: str) -> JudgeLocation:
    """A hub id, if that is what it may be."""
    folder = Path(spec)
    if folder.is_symlink():
        raise ConfigError(f"judge: {spec} is a link to {os.readlink(folder)}, which is not there; {ACCEPTED}")
    if folder.exists():
        if folder.suffix == ".gguf":
            return JudgeLocation(MODEL, spec)
        raise ConfigError(f"judge: {spec} is a file; {ACCEPTED}")
    if spec.startswith((".", "/", "~", "runs/")) or folder.parent.is_dir() and spec.count("/") > 1:
        near = _nearby_runs(folder)
        raise ConfigError(f"judge: there is no folder {spec!r}{near}; {ACCEPTED}")
    return JudgeLocation(HUB, spec)


def _nearby_runs(folder: Path) -> str:
    """The runs of the innermost folder above that is there."""
    above = next((place for place in folder.parents if place.is_dir()), None)
    if above is None or str(above) in (".", "/") or not (runs := run_folders(above)):
        return ""
    shown = ", ".join(str(run) for run in runs[:3])
    return f" (there are {shown}{' and others' if len(runs) > 3 else ''})"
