"""Which runs there are in the folders that were given, and what is left out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tract.config import without_added_keys
from tract.errors import DataError
from tract.evaluation.results import METRICS_FILE
from tract.records import COMPLETE, FOLDER, RUNNING, RunRecord, records_below
from tract.stages.products import MANIFEST, read_manifest

CONFIG_FILE = "config.yaml"
# The folder of the products that runs share: those in it are no runs by themselves.
_STORE = "stages"
_LOOKED_FOR = f"a {FOLDER}/*.json, an evaluate-* with {METRICS_FILE}"


@dataclass(frozen=True)
class Run:
    """A run of the pipeline that was evaluated.

    Attributes:
        config: dotted key -> value, resolved; see ``flat`` and ``without_added_keys``. product: folder of its evaluate stage.
        finished: when the product was, ISO time.
        place: where it stands among all runs: number of the folder that was given, then of its job in a sweep.
    """

    config: Mapping[str, Any]
    product: Path
    finished: str
    place: tuple[int, int]

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config["seed"])

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.config.get("run.name", ""))


@dataclass(frozen=True)
class LeftOut:
    """A run that is not compared. ``what`` it was: its name and overrides; ``why`` it is left out."""

    what: str
    why: str


@dataclass(frozen=True)
class Found:
    """What the folders hold."""

    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, for all that is no mapping; empty mappings have no key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def find_runs(folders: Sequence[Path]) -> Found:
    """The evaluated runs in the folders and below them, each once.

    Records of the pipeline say what was run. Where a product of an evaluate stage is in a run's folder and no record names it, the
    configuration that lies in the product is taken.

    Args:
        folders: each an evaluate stage, a run, a multirun or anything above.

    Raises:
        DataError: if a folder does not exist or holds no run, or a record or configuration cannot be read.
    """
    records: dict[str, tuple[Path, RunRecord, int]] = {}
    products: dict[Path, int] = {}
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            found = "is a file" if folder.exists() else "no such folder"
            raise DataError(f"{folder}: {found}; give runs, folders of multiruns, or any folder above them")
        own = [] if is_evaluation(folder) else list(records_below(folder))
        linked = list(_products_below(folder))
        if not own and not linked:
            raise DataError(f"{folder}: no run to compare; looked for {_LOOKED_FOR} in it and below")
        for path, record in own:
            if record.key not in records or _rank(record) > _rank(records[record.key][1]):
                records[record.key] = (path, record, min(number, records.get(record.key, (path, record, number))[2]))
        for product in linked:
            products.setdefault(product, number)
    entries = [_run_of(path, record, number) for path, record, number in records.values()]
    runs = sorted((entry for entry in entries if isinstance(entry, Run)), key=lambda run: run.place)
    left_out = sorted((entry for entry in entries if isinstance(entry, LeftOut)), key=lambda entry: (entry.what, entry.why))
    # Runs may share a product under different names.
    known = {(os.path.realpath(run.product), run.name, run.seed) for run in runs}
    for product, number in products.items():
        run = _run_in(product, number)
        if (place := (os.path.realpath(product), run.name, run.seed)) not in known:
            known.add(place)
            runs.append(run)
    return Found(tuple(runs), tuple(left_out))


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is the product of an evaluate stage."""
    return (folder / METRICS_FILE).is_file() and (folder / MANIFEST).is_file()


def _rank(record: RunRecord) -> tuple[bool, str]:
    """Of the records of one run the last complete one counts."""
    return record.status == COMPLETE, record.finished


def _run_of(path: Path, record: RunRecord, number: int) -> Run | LeftOut:
    """The run of a record, or why there is nothing to compare."""
    if not isinstance(record.config, Mapping):
        raise DataError(f"{path}: the configuration is no mapping, so this is no record of a run; remove it")
    config = without_added_keys(flat(record.config))
    what = " ".join([str(config.get("run.name", path.stem)), *(record.overrides or [f"seed={config.get('seed')}"])])
    if record.status != COMPLETE:
        state = "it runs, or was killed" if record.status == RUNNING else record.status
        return LeftOut(what, f"{state}: {record.message}" if record.message else state)
    if "evaluate" not in record.stages:
        return LeftOut(what, "it has no evaluate stage")
    product = path.parent / record.stages["evaluate"]
    if not is_evaluation(product):
        return LeftOut(what, f"its evaluation is gone: {product} does not exist or is not whole")
    return Run(_with_seed(config, path), product, _finished(product), (number, -1 if record.job is None else record.job))


def _run_in(product: Path, number: int) -> Run:
    """The run that a product without a record belongs to, by its configuration and the folder that it lies in."""
    path = product / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = without_added_keys(flat(content))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: no configuration of a run ({type(error).__name__}); evaluate it anew with force=[evaluate]") from error
    config = _with_seed(config, path)
    parent = Path(os.path.abspath(product)).parent
    if parent.name == f"seed{config['seed']}":  # products are shared, and the configuration in them is that of the first run
        config["run.name"] = parent.parent.name
    return Run(config, product, _finished(product), (number, -1))


def _with_seed(config: dict[str, Any], path: Path) -> dict[str, Any]:
    if not isinstance(config.get("seed"), int):
        raise DataError(f"{path}: seed is {config.get('seed')!r} and must be a whole number; this is no configuration of a run")
    return config


def _finished(product: Path) -> str:
    return str(read_manifest(product)[0].get("finished", ""))


def _products_below(folder: Path) -> Iterator[Path]:
    """The evaluate products in a folder and below, or the folder itself, in the order of their names; links are followed to them alone."""
    if is_evaluation(folder):
        yield folder
        return
    for base, names, _ in os.walk(folder):
        for name in sorted(names):
            if name.startswith("evaluate-") and not name.endswith((".partial", ".discarded")) and is_evaluation(Path(base) / name):
                yield Path(base) / name
        names[:] = sorted(name for name in names if name not in (_STORE, FOLDER) and not name.startswith("evaluate-"))
