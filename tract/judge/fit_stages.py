"""Which fit stage a run's judge is, and where its evaluations may be: a stage's own folder, or the folder of a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tract.errors import ConfigError, DataError
from tract.judge.settings import SETTINGS_FILE
from tract.records import COMPLETE, FOLDER, RunRecord, records_below
from tract.stages.products import MANIFEST

log = logging.getLogger(__name__)

# The stages that train a judge, the last one first.
FIT_STAGES = ("stage2", "stage1")
_ACCEPTED = "give the folder of a fit stage (stage1-KEY, stage2-KEY) or of a run (runs/NAME/seed0)"


@dataclass(frozen=True)
class FitStage:
    """A complete fit stage.

    Attributes:
        path: its folder. run: folder of the run that led to it, or None.
    """

    path: Path
    run: Path | None

    @property
    def name(self) -> str | None:
        """What the run is called, by its folder runs/NAME/seed0; None without one."""
        if self.run is None:
            return None
        folder = Path(os.path.abspath(self.run))
        return folder.parent.name if folder.name.startswith("seed") else folder.name

    def beside(self, stage: str) -> list[Path]:
        """The complete products of another stage in the run's folder and in the store, each once; those of the run first."""
        places = [*([self.run] if self.run else []), Path(os.path.realpath(self.path)).parent]
        found = [path for place in places for path in sorted(place.glob(f"{stage}-*")) if not path.suffix and (path / MANIFEST).is_file()]
        return list({os.path.realpath(path): path for path in reversed(found)}.values())[::-1]


def is_run(folder: Path) -> bool:
    """Whether a folder is a stage's product or holds a run's stages or records, rather than a model's files."""
    return (folder / MANIFEST).is_file() or folder.name.endswith(".partial") or any(_linked(folder)) or any(folder.glob(f"{FOLDER}/*.json"))


def fit_stage(folder: Path) -> FitStage:
    """The fit stage that a folder is, or the last one of the run that it is: stage 2 if that is complete, else stage 1.

    Raises:
        ConfigError, DataError: if there is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"run: there is no folder {str(folder)!r}; {_ACCEPTED}")
    if folder.name.endswith(".partial"):
        raise ConfigError(f"run: {folder} is not complete yet; run the same training command again, it goes on where it stopped")
    if (folder / SETTINGS_FILE).is_file():
        raise ConfigError(f"run: {folder} is an exported judge already ({SETTINGS_FILE}); {_ACCEPTED}")
    if (folder / MANIFEST).is_file():
        if (stage := _stage_of(folder)) not in FIT_STAGES:
            raise ConfigError(f"run: {folder} is the product of the stage {stage!r}, which trains no judge; {_ACCEPTED}")
        return FitStage(folder, None)
    recorded = _records(folder)
    for stage in FIT_STAGES:
        # A record says what the newest command made; links are all there is where a run was cut off after its training.
        for path in (*_recorded(recorded, stage), *sorted(_linked(folder, stage), key=_finished, reverse=True)):
            log.info("run: %s is judged by %s", folder, path.name)
            return FitStage(path, folder)
    seeds = sorted(path.name for path in folder.glob("seed*") if any(_linked(path)))
    which = f"; its seeds are {', '.join(seeds)}, e.g. {folder / seeds[0]}" if seeds else ""
    raise ConfigError(f"run: {folder} holds no complete fit stage{which}; {_ACCEPTED}")


def _records(folder: Path) -> list[tuple[Path, RunRecord]]:
    """(file, record) of the folder's own complete runs, the newest first."""
    if not (folder / FOLDER).is_dir():
        return []
    found = [(path, record) for path, record in records_below(folder / FOLDER) if record.status == COMPLETE]
    return sorted(found, key=lambda entry: entry[1].finished, reverse=True)


def _recorded(records: list[tuple[Path, RunRecord]], stage: str) -> Iterator[Path]:
    for path, record in records:
        product = Path(os.path.normpath(path.parent / record.stages[stage])) if stage in record.stages else None
        if product is not None and (product / MANIFEST).is_file():
            yield product


def _linked(folder: Path, *stages: str) -> Iterator[Path]:
    """The complete fit stages in the folder of a run."""
    for stage in stages or FIT_STAGES:
        yield from (path for path in folder.glob(f"{stage}-*") if not path.suffix and (path / MANIFEST).is_file())


def _finished(folder: Path) -> str:
    return str(_manifest(folder).get("finished", ""))


def _stage_of(folder: Path) -> str:
    return str(_manifest(folder).get("stage", folder.name.rpartition("-")[0] or folder.name))


def _manifest(folder: Path) -> dict[str, object]:
    """The manifest as it stands there; whether the product is whole is checked when it is opened."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({' '.join(str(error).split())}); rebuild the stage") from error
    return content if isinstance(content, dict) else {}
