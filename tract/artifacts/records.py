"""The record of a run of the pipeline: its configuration, how it ended and what it made; what sweeps list and comparisons read.

    <runs>/<run name>/seed<seed>/records/<key>.json     of a run by itself (with run.variant, in <run name>/<variant>/seed<seed>)
    <sweep folder>/records/<key>.json                   of a job of a multirun

The key is a hash of the configuration, so that the same job, run again, replaces its record. Stages are shared, runs are not: two
runs that differ in nothing but their names have one product and a record each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tract.common.durable import write_atomically
from tract.common.errors import DataError
from tract.common.masking import masked
from tract.config.renames import upgraded_config, upgraded_overrides

FOLDER = "records"
COMPLETE, FAILED, RUNNING = "complete", "failed", "running"
SWEEP = "TRACT_SWEEP"  # environment variable: which multirun a job belongs to


@dataclass(frozen=True)
class RunRecord:
    """How a run of the pipeline stands.

    Attributes:
        status: "running", "complete" or "failed"; a run that was killed stays "running".
        config: the whole configuration, resolved, without secrets.
        overrides: of the command line; of a multirun's job, its own.
        stages: stage -> folder of its product, relative to the folder of the record where that is possible.
        message: what went wrong, one line; empty if nothing did.
        sweep: names the multirun that ran it last; empty for a run by itself. job: its number there.
        finished: ISO time (UTC); empty while it runs.
    """

    status: str
    config: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    stages: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    sweep: str = ""
    job: int | None = None
    finished: str = ""

    @property
    def key(self) -> str:
        """10 hex characters of the SHA-256 of the configuration."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode()).hexdigest()[:10]

    def write(self, folder: Path) -> Path:
        """Writes the record below the folder, whole or not at all; returns its path."""
        path = folder / FOLDER / f"{self.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, concurrent=True) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        return path


def read_record(path: Path) -> RunRecord:
    """The record in a file, with the current names of its configuration (``tract.config.renames``).

    Raises:
        DataError: if it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        overrides, _ = upgraded_overrides(content["overrides"])
        config = upgraded_config(content["config"]) if isinstance(content["config"], Mapping) else content["config"]
        return RunRecord(**{**content, "config": config, "overrides": tuple(overrides)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: no record of a run ({type(error).__name__}: {' '.join(str(error).split())}); remove it") from error


def records_below(folder: Path) -> Iterator[tuple[Path, RunRecord]]:
    """(file, record) of each record in the folder or in folders below it, in the order of their names; links are not followed.

    Raises:
        DataError: if a file among them is none.
    """
    for base, folders, files in os.walk(folder):
        folders.sort()
        if Path(base).name == FOLDER:
            yield from ((Path(base) / name, read_record(Path(base) / name)) for name in sorted(files) if name.endswith(".json"))


def names_of_run(folder: Path, runs: Path | None, variant: str | None) -> tuple[str, str | None]:
    """(name, variant) of the run whose folder is NAME/seedN or NAME/VARIANT/seedN; the variant is None for the first.

    Args:
        folder: of the run. runs: the folder of all runs, where it is known: what lies between decides. variant: elsewhere, as that of a
            run that was copied, the one that a product in the folder was made for.
    """
    folder = Path(os.path.abspath(folder))
    between = Path(os.path.relpath(os.path.realpath(folder), os.path.realpath(runs))).parts if runs is not None else ()
    if ".." in between or len(between) not in (2, 3):
        between = folder.parts[-3:] if variant and folder.parent.name == variant else folder.parts[-2:]
    return (between[0], between[1] if len(between) == 3 else None) if len(between) > 1 else (folder.name, None)


def config_of(cfg: DictConfig) -> dict[str, Any]:
    """The configuration for a record: resolved where that is possible, without secrets."""
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:  # a record of a run that failed just for this
        content = OmegaConf.to_container(cfg)
    shown: dict[str, Any] = masked(content)
    return shown
