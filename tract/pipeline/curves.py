"""The curves of fit stages, from the CSV files that they logged to, or from what their manifests keep."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

from tract.artifacts.products import CURVES_FILE, MANIFEST
from tract.config.vocabulary import FIT_STAGES
from tract.evaluation.curves import CURVES, Curves, curves_png

log = logging.getLogger(__name__)


def write_curves(folder: Path, stage: str) -> None:
    """Draws ``curves.png`` in the folder of a fit stage from its CSV files; nothing where there are none.

    A figure that cannot be drawn is a warning: the judge beside it took hours.
    """
    try:
        series = _logged(folder)
        if series:
            (folder / CURVES_FILE).write_bytes(curves_png([Curves(stage, series)]))
    except Exception as error:
        log.warning("%s: %s was not drawn (%s: %s)", stage, CURVES_FILE, type(error).__name__, " ".join(str(error).split()))


def curves_of_judge(weights: str | None) -> tuple[Curves, ...]:
    """The curves of the fit stages that a judge came from, first to last; none for a model that no stage trained.

    Args:
        weights: folder of the judge's weights, as the manifest of a predict stage has it.
    """
    return tuple(_curves(folder, manifest) for folder, manifest in _fit_stages(Path(weights) if weights else None))


def _fit_stages(folder: Path | None) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, manifest) of the fit stages up to a judge's own, first to last."""
    manifest = _manifest(folder)
    if folder is None or manifest.get("stage") not in FIT_STAGES:
        return []
    parent = _beside(folder, manifest.get("parents", {}).get("generate"))
    writer = _beside(folder, _manifest(parent).get("parents", {}).get("judge"))
    return [*_fit_stages(writer), (folder, manifest)]


def _manifest(folder: Path | None) -> dict[str, Any]:
    if folder is None or not (folder / MANIFEST).is_file():
        return {}
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return content


def _beside(folder: Path, named: str | None) -> Path | None:
    """A folder that a manifest names; where it was moved, the one of that name beside."""
    if not named:
        return None
    return Path(named) if Path(named).exists() else folder.parent / Path(named).name


def _curves(folder: Path, manifest: dict[str, Any]) -> Curves:
    stage = str(manifest["stage"])
    try:
        series = _logged(folder)
    except (OSError, ValueError, LookupError, csv.Error) as error:
        return Curves(stage, {}, f"the CSV files of {folder.name} cannot be read ({' '.join(str(error).split())})")
    if series:
        return Curves(stage, series)
    kept = _kept(manifest.get("training", {}))
    shown = "only the validations before and after training are shown" if kept else "there is no curve"
    return Curves(stage, kept, f"{folder.name} was trained without the CSV logger, so {shown}; logger=csv, default and all write one")


def _logged(folder: Path) -> dict[str, tuple[tuple[int, float], ...]]:
    """Metric -> (optimizer steps, value), from the CSV files of all tries; where tries overlap the later one counts."""
    found: dict[str, dict[int, float]] = {}
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    for path in files:
        trained = -1  # number of the last step with a training row
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if not row.get("step"):  # a line that a kill cut off
                    continue
                step = int(row["step"])
                # Steps are numbered from 0, but validations before the first and after the last one by the steps that were taken.
                trained = max(trained, step) if row.get("train/loss") else trained
                taken = step + 1 if step <= trained else step
                for metric in CURVES:
                    if (text := row.get(metric)) and math.isfinite(value := float(text)):
                        found.setdefault(metric, {})[taken] = value
    return {metric: tuple(sorted(values.items())) for metric, values in found.items()}


def _kept(training: dict[str, Any]) -> dict[str, tuple[tuple[int, float], ...]]:
    """What a manifest keeps: the validation metrics before training, if they were asked for, and of the last weights."""
    before, after, steps = training.get("seed_metrics") or {}, training.get("final_metrics") or {}, training.get("optimizer_steps")
    found = {}
    for metric in CURVES:
        points = [(step, values.get(metric)) for step, values in ((0, before), (steps, after))]
        if kept := tuple((int(step), float(value)) for step, value in points if step is not None and value is not None):
            found[metric] = kept
    return found
