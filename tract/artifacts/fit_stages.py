"""The judges in the folders of runs: fit stages, which of them a run ends with, and where their evaluations may be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tract.artifacts.products import MANIFEST, STORE
from tract.artifacts.records import COMPLETE, FOLDER, RunRecord, names_of_run, records_below
from tract.common.errors import DataError
from tract.config.ignored_fields import OF_TRAINING
from tract.config.renames import upgraded_config
from tract.config.vocabulary import FIT_STAGES

ANNOTATED = "annotated CoTs"
RUN_FOLDER = re.compile(r"seed\d+")


@dataclass(frozen=True)
class FitFolder:
    """A complete fit stage.

    Attributes:
        path: its folder. run: folder of the run that led to it, or None.
    """

    path: Path
    run: Path | None

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest as it stands there; whether the product is whole is checked when it is opened."""
        return manifest_in(self.path)

    @property
    def stage(self) -> str:
        """One of ``FIT_STAGES``."""
        return stage_of(self.path, self.manifest)

    @property
    def key(self) -> str:
        """Of its product."""
        return str(self.manifest.get("key", self.path.name.rpartition("-")[2]))

    @property
    def seed(self) -> int | None:
        """Of the run; None where nothing says it."""
        seed = self.manifest.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def name(self) -> str | None:
        """What the run is called, by its folder runs/NAME/seed0 or runs/NAME/VARIANT/seed0; None without one."""
        found = self._names
        return None if found is None else "-".join(filter(None, found))

    @property
    def variant(self) -> str | None:
        """What tells the run from others of its name, by its folder or its ablation; None for nothing."""
        if self._names is not None and self._names[1]:
            return self._names[1]
        run = self.config.get("run")
        ablation = run.get("ablation") if isinstance(run, Mapping) else None
        return str(ablation) if ablation else None

    @cached_property
    def _names(self) -> tuple[str, str | None] | None:
        if self.run is None:
            return None
        if not RUN_FOLDER.fullmatch(self.run.absolute().name):
            return self.run.absolute().name, None
        store = Path(os.path.realpath(self.path)).parent
        return names_of_run(self.run, store.parent if store.name == STORE else None, self.manifest.get("variant"))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration that it was made with first; empty where there is none that can be read."""
        try:
            content = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return upgraded_config(content) if isinstance(content, dict) else {}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Dotted key -> value of all that may train another judge."""
        own = {key: value for key, value in self.config.items() if key not in OF_TRAINING}
        run = own.pop("run", None)
        return _by_dotted_key(own) | {"run.ablation": run.get("ablation") if isinstance(run, Mapping) else None}

    @cached_property
    def made_by(self) -> str:
        """Equal for stages that one configuration made, of whatever code and data."""
        own = [self.stage, self.seed, self.settings] if self.config else str(self.path)
        return json.dumps(own, sort_keys=True, default=str)

    @cached_property
    def metrics(self) -> Mapping[str, float | None]:
        """Validation metrics of the weights that it holds, by name; those of its last step only where the last weights were kept."""
        training = self.manifest.get("training")
        if not isinstance(training, Mapping):
            return {}
        exported, final = (training.get(name) or {} for name in ("exported", "final_metrics"))
        own = {name: value for name, value in exported.items() if "/" in name}
        return {**(final if exported.get("weights") == "last" else {}), **own}

    @property
    def validated_on(self) -> str:
        """What the validation of its training gave it to read, see ``validated_on``."""
        return validated_on(self.stage, use_cot=self.settings.get("objective.use_cot") is not False)

    def beside(self, stage: str) -> list[Path]:
        """The complete products of another stage in the run's folder and in the store, each once; those of the run first."""
        places = [*([self.run] if self.run else []), Path(os.path.realpath(self.path)).parent]
        found = [path for place in places for path in sorted(place.glob(f"{stage}-*")) if not path.suffix and (path / MANIFEST).is_file()]
        return list({os.path.realpath(path): path for path in reversed(found)}.values())[::-1]

    @property
    def marks(self) -> set[str]:
        """What a stage that was trained on its CoTs may know it by: the name of its folder, and the fingerprint of what is in it."""
        return {Path(os.path.realpath(self.path)).name, str(self.manifest.get("fingerprint", self.path.name))}

    def first_stage(self) -> set[str] | None:
        """The ``marks`` of the stage 1 whose CoTs a stage 2 was trained on; None where these CoTs are not there any more.

        CoTs of equal weights are made once, so they may be those of another stage 1 with the same fingerprint.
        """
        generated = _parent_folder_name(self.manifest, "generate")
        for folder in (Path(os.path.realpath(self.path)).parent, self.path.parent) if generated else ():
            if (folder / str(generated) / MANIFEST).is_file():
                name = _parent_folder_name(manifest_in(folder / str(generated)), "judge")
                first = folder / str(name)
                return FitFolder(first, None).marks if name and (first / MANIFEST).is_file() else {str(name)}
        return None


def validated_on(stage: str, *, use_cot: bool) -> str:
    """What the validation of a fit stage's training gave the judge to read before the score."""
    if not use_cot:
        return "no CoTs"
    return "generated CoTs" if stage == "stage2" else ANNOTATED


def not_comparable(kinds: Collection[str]) -> bool:
    """Whether validation metrics of judges that were validated on these cannot be compared: annotated CoTs can give a score away."""
    return ANNOTATED in kinds and len(set(kinds)) > 1


def is_run(folder: Path) -> bool:
    """Whether a folder is a stage's product or holds a run's stages or records, rather than a model's files."""
    return (folder / MANIFEST).is_file() or folder.name.endswith(".partial") or any(linked(folder)) or any(folder.glob(f"{FOLDER}/*.json"))


def run_folders(folder: Path) -> list[Path]:
    """The folders of runs: the folder itself, else those called seedN in it and two levels below; links are not followed."""
    if any(linked(folder)) or any(broken_links(folder)) or (RUN_FOLDER.fullmatch(folder.name) and (folder / FOLDER).is_dir()):
        return [folder]
    found = [path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth) if RUN_FOLDER.fullmatch(path.name)]
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def fit_stages_of(run: Path) -> list[FitFolder]:
    """The fit stages in the folder of a run: its links, and what its records name; each once."""
    of = None if run.name == STORE else run
    paths = [*sorted(linked(run)), *(path for _, stages in recorded_stages(run) for path in stages)]
    return list({os.path.realpath(path): FitFolder(path, of) for path in reversed(paths)}.values())[::-1]


def fit_stages_of_jobs(multirun: Path) -> list[list[FitFolder]]:
    """The fit stages of each job of a multirun, by the records in its folder, with the folder of its run; the last one first."""
    found = []
    for record, stages in recorded_stages(multirun):
        run = record.config.get("run") or {}
        names = str(run.get("name")), str(run.get("variant") or ""), f"seed{record.config.get('seed')}"
        found.append([FitFolder(path, Path(os.path.realpath(path)).parents[1].joinpath(*names)) for path in stages])
    return found


def final_stages(stages: Iterable[FitFolder]) -> list[FitFolder]:
    """The judges that the runs of one folder end with: all but the stages 1 whose CoTs a stage 2 among them was trained on.

    Of those that the same configuration made of other code or data, the newest stands for the others.
    """
    every = list(stages)
    seconds = [stage for stage in every if stage.stage == "stage2"]
    firsts = [stage.first_stage() for stage in seconds]
    known = set[str]().union(*(marks for marks in firsts if marks is not None))
    # Where the CoTs between them are gone, nothing tells whose stage 1 it was.
    kept = [] if None in firsts else [stage for stage in every if stage.stage == "stage1" and not stage.marks & known]
    newest = {stage.made_by: stage for stage in sorted((*seconds, *kept), key=lambda found: str(found.manifest.get("finished", "")))}
    final = list(newest.values())
    return [stage for stage in every if stage in final]


def recorded_stages(folder: Path) -> list[tuple[RunRecord, list[Path]]]:
    """(record, its fit stages, the last one first) of the complete runs that a folder has records of, without stages that are gone."""
    if not (folder / FOLDER).is_dir():
        return []
    found = []
    for file, record in records_below(folder / FOLDER):
        made = [
            file.parent / record.stages[stage] for stage in reversed(FIT_STAGES) if record.status == COMPLETE and stage in record.stages
        ]
        there = [Path(os.path.normpath(path)) for path in made]
        found.append((record, [path for path in there if (path / MANIFEST).is_file()]))
    return [entry for entry in found if entry[1]]


def linked(folder: Path) -> Iterator[Path]:
    """The complete fit stages in a folder, by their names."""
    for stage in reversed(FIT_STAGES):
        yield from (path for path in folder.glob(f"{stage}-*") if not path.suffix and (path / MANIFEST).is_file())


def broken_links(folder: Path) -> list[Path]:
    """Links in a folder to stages that are not there."""
    return sorted(path for stage in FIT_STAGES for path in folder.glob(f"{stage}-*") if path.is_symlink() and not path.exists())


def stage_of(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The name of the stage that made a folder."""
    return str(manifest.get("stage", folder.name.rpartition("-")[0] or folder.name))


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a stage's folder, unchecked.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({' '.join(str(error).split())}); rebuild the stage") from error
    return content if isinstance(content, dict) else {}


def _parent_folder_name(manifest: Mapping[str, Any], role: str) -> str | None:
    """The name of a parent's folder."""
    parents = manifest.get("parents")
    return Path(str(parents[role])).name if isinstance(parents, Mapping) and role in parents else None


def _by_dotted_key(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _by_dotted_key(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
