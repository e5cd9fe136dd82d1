"""Which runs there are in the folders that were given, and what is left out of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tract.artifacts.fit_stages import FitFolder, manifest_in
from tract.artifacts.products import MANIFEST, STORE, read_manifest
from tract.artifacts.records import COMPLETE, FOLDER, RUNNING, RunRecord, names_of_run, records_below
from tract.common.errors import DataError
from tract.config.renames import upgraded_config
from tract.config.schema import without_added_keys
from tract.config.vocabulary import FIT_STAGES
from tract.evaluation.results import METRICS_FILE

CONFIG_FILE, REPORT_FILE = "config.yaml", "report.html"
_EXPORTED = "judge_config.json"
_LOOKED_FOR = f"a {FOLDER}/*.json, an evaluate-* with {METRICS_FILE}"


@dataclass(frozen=True)
class RecordedRun:
    """A run of the pipeline that was evaluated.

    Attributes:
        config: dotted key -> value, resolved; see ``flat`` and ``without_added_keys``. product: folder of its evaluate stage.
        finished: when the product was, ISO time.
        place: where it stands among all runs: number of the folder that was given, then of its job in a sweep.
        stages: stage -> folder of its product, of those that its record names.
    """

    config: Mapping[str, Any]
    product: Path
    finished: str
    place: tuple[int, int]
    stages: Mapping[str, Path] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config["seed"])

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.config.get("run.name", ""))

    @property
    def folder(self) -> Path | None:
        """The run's own folder, which links to its stages, beside the folder of all products; None where it is not there."""
        store = Path(os.path.realpath(self.product)).parent
        folder = store.parent / self.name / str(self.config.get("run.variant") or "") / f"seed{self.seed}"
        return folder if store.name == STORE and folder.is_dir() else None

    @property
    def judge(self) -> Path | None:
        """The folder of the judge that it trained and evaluated: of its last fit stage; None where it trained none."""
        return next((self.stages[name] for name in reversed(FIT_STAGES) if name in self.stages and self.config.get("judge") is None), None)


@dataclass(frozen=True)
class LeftOut:
    """A run that is not compared. ``what`` it was: its name and overrides; ``why`` it is left out."""

    what: str
    why: str


@dataclass(frozen=True)
class Found:
    """What the folders hold."""

    runs: tuple[RecordedRun, ...]
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
        folders: each an evaluate stage, a run, a multirun or anything above; a fit or predict stage stands for its evaluations.

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
            raise DataError(_no_run(folder))
        for path, record in own:
            if record.key not in records or _rank(record) > _rank(records[record.key][1]):
                records[record.key] = (path, record, min(number, records.get(record.key, (path, record, number))[2]))
        for product in linked:
            products.setdefault(product, number)
    entries = [run_of(path, record, number) for path, record, number in records.values()]
    runs = sorted((entry for entry in entries if isinstance(entry, RecordedRun)), key=lambda run: run.place)
    left_out = sorted((entry for entry in entries if isinstance(entry, LeftOut)), key=lambda entry: (entry.what, entry.why))
    # Runs may share a product under different names.
    known = {_run_identity(run) for run in runs}
    for product, number in products.items():
        run = _run_in(product, number)
        if (called := _run_identity(run)) not in known:
            known.add(called)
            runs.append(run)
    return Found(tuple(runs), tuple(left_out))


def _run_identity(run: RecordedRun) -> tuple[object, ...]:
    return os.path.realpath(run.product), run.name, run.config.get("run.variant"), run.seed


def _no_run(folder: Path) -> str:
    """Why there is nothing to compare in a folder, and what to give instead."""
    anew = (
        f"evaluate it with the settings of its experiment and a name of its own, `python evaluate.py experiment=EXPERIMENT judge={folder} "
        "run.name=NAME`, and give the folder of that run, runs/NAME"
    )
    if (folder / _EXPORTED).is_file():
        return f"{folder}: is an exported judge, which holds no evaluation; give {_origin(folder)}, or {anew}"
    if (folder / MANIFEST).is_file():
        return f"{folder}: is a stage without an evaluation beside it; {anew}"
    return f"{folder}: no run to compare; looked for {_LOOKED_FOR} in it and below"


def _origin(folder: Path) -> str:
    """The run that a judge was exported from, as far as its settings know it."""
    try:
        training = json.loads((folder / _EXPORTED).read_text(encoding="utf-8")).get("training") or {}
        name, seed = training.get("run"), training.get("seed")
    except (OSError, ValueError, AttributeError):
        name = seed = None
    if not isinstance(name, str):
        return "the folder of the run that it was exported from"
    return f"the folder of the run that it was exported from, {name}{'' if seed is None else f' with seed {seed}'} (runs/{name})"


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is the product of an evaluate stage."""
    return (folder / METRICS_FILE).is_file() and (folder / MANIFEST).is_file()


def _rank(record: RunRecord) -> tuple[bool, str]:
    """Of the records of one run the last complete one counts."""
    return record.status == COMPLETE, record.finished


def run_of(path: Path, record: RunRecord, number: int = 0) -> RecordedRun | LeftOut:
    """The run of a record, or why there is nothing to compare.

    Args:
        path: of the record's file. record: its content. number: of the folder that was given, among all of them.

    Raises:
        DataError: if its configuration is none, or the manifest of its product cannot be read.
    """
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
    stages = {name: path.parent / folder for name, folder in record.stages.items()}
    return RecordedRun(_with_seed(config, path), product, _finished(product), (number, -1 if record.job is None else record.job), stages)


def _run_in(product: Path, number: int) -> RecordedRun:
    """The run that a product without a record belongs to, by its configuration and the folder that it lies in."""
    path = product / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = without_added_keys(flat(upgraded_config(content) if isinstance(content, dict) else content))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: no configuration of a run ({type(error).__name__}); evaluate it anew with force=[evaluate]") from error
    config = _with_seed(config, path)
    parent = Path(os.path.abspath(product)).parent
    if parent.name == f"seed{config['seed']}":  # products are shared, and the configuration in them is that of the first run
        store = Path(os.path.realpath(product)).parent
        config["run.name"], variant = names_of_run(parent, store.parent if store.name == STORE else None, config.pop("run.variant", None))
        config |= {} if variant is None else {"run.variant": variant}
    return RecordedRun(config, product, _finished(product), (number, -1))


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
    if (folder / MANIFEST).is_file():
        yield from _evaluations_of(folder)
        return
    for base, names, _ in os.walk(folder):
        for name in sorted(names):
            if name.startswith("evaluate-") and not name.endswith((".partial", ".discarded")) and is_evaluation(Path(base) / name):
                yield Path(base) / name
        names[:] = sorted(name for name in names if name not in (STORE, FOLDER) and not name.startswith("evaluate-"))


def _evaluations_of(stage: Path) -> Iterator[Path]:
    """The evaluations beside a stage that are of its predictions, or of the judge that it trained."""
    own = Path(os.path.realpath(stage))
    for path in FitFolder(stage, None).beside("evaluate"):
        predicted = own.parent / _folder_name(manifest_in(path).get("parents"), "predict")
        if predicted == own or (
            (predicted / MANIFEST).is_file()
            and _folder_name(manifest_in(predicted).get("judge"), "weights") == own.name
            and is_evaluation(path)
        ):
            yield path


def _folder_name(facts: Any, role: str) -> str:
    """The name of the folder that a manifest names in a role; empty for none."""
    return Path(str(facts.get(role) or "")).name if isinstance(facts, Mapping) else ""
