"""Which of the judges below a folder is meant: the only one, or the one that the user chooses; never the newest without a word."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract.artifacts.fit_stages import (
    FitFolder,
    broken_links,
    final_stages,
    fit_stages_of,
    fit_stages_of_jobs,
    not_comparable,
    run_folders,
)
from tract.common.errors import ConfigError
from tract.common.near_names import near_names
from tract.config.vocabulary import FIT_STAGES
from tract.evaluation.metrics import METRIC_TABLE

log = logging.getLogger(__name__)

# Validation metrics that a judge may be chosen by -> whether less of it is better.
LESS_IS_BETTER = {name: METRIC_TABLE[name].less_is_better for name in ("pearson_r", "spearman_rho", "kendall_tau", "score_mass", "rmse")}
LESS_IS_BETTER |= {"squared_error": True, "ce": True}  # of training alone
_SPLIT = "val"
_SHOWN = 10  # judges in a message
_SHOWN_KEYS = 3


@dataclass(frozen=True)
class Choice:
    """What the user said of which judge of a run is meant; None for nothing.

    Attributes:
        stage: "stage1", "stage2", or the key of one. variant: of a multirun's job. best: the validation metric to choose by, "val/rmse".
    """

    stage: str | None = None
    variant: str | None = None
    best: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """What was said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def chosen_judge(folder: Path, choice: Choice) -> FitFolder:
    """The judge of a run's folder, of that of a multirun, or of one above them.

    A run with both stages of one pipeline is judged by stage 2, and the same judge in the folders of several runs is one.

    Raises:
        ConfigError: if there is none, or more than one; these are listed, and how to choose.
    """
    _check_choice(choice)
    found = _judges_below(folder, every=choice.stage is not None)
    if not found:
        raise ConfigError(_no_judge_message(folder))
    variants = _variants(found)
    if choice.stage is not None:
        found = [stage for stage in found if choice.stage in (stage.stage, stage.key, stage.path.name)]
        _check_any_left(found, "stage", choice.stage, folder, _judges_below(folder, every=True), variants)
    if choice.variant is not None:
        left = [stage for stage in found if variants[stage.path] == choice.variant]
        _check_any_left(left, "variant", choice.variant, folder, found, variants)
        found = left
    if choice.best is not None:
        return _best_by(found, choice.best, variants)
    if len(_each_once(found)) > 1:
        raise ConfigError(_several_judges_message(folder, _each_once(found), variants))
    _log_older(found[0])
    return found[0]


def _log_older(stage: FitFolder) -> None:
    """Says which stages of the same configuration a judge stands for."""
    beside = fit_stages_of(stage.run) if stage.run is not None and stage.run.is_dir() else []
    older = [other.path.name for other in beside if other.made_by == stage.made_by and other.key != stage.key]
    if older:
        log.info("judge: %s stands for the older %s, made by the same configuration of other code or data", stage.path, ", ".join(older))


def described(stage: FitFolder) -> str:
    """What messages call a judge that was taken: variant, seed, stage and key, as far as they are known."""
    parts = [f"variant {stage.variant}" if stage.variant else "", f"seed {stage.seed}" if stage.seed is not None else ""]
    return ", ".join(filter(None, (*parts, f"{stage.stage}-{stage.key}")))


def _check_choice(choice: Choice) -> None:
    for name, value in choice.given.items():
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{name}: {value!r} names no {name}; give text, or leave it out")
    if choice.best is not None and choice.best not in _accepted_metrics():
        near = near_names(choice.best, _accepted_metrics(), most=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"best: {choice.best!r} is no metric of training; {hint}accepted are {', '.join(_accepted_metrics())}")


def _accepted_metrics() -> list[str]:
    return [f"{_SPLIT}/{name}" for name in LESS_IS_BETTER]


def _judges_below(folder: Path, *, every: bool) -> list[FitFolder]:
    """The judges below a folder, each with its run: those that runs end with, or all."""
    runs = run_folders(folder)
    if not runs and (jobs := fit_stages_of_jobs(folder)):
        return [stage for stages in jobs for stage in (stages if every else stages[:1])]
    found = [fit_stages_of(run) for run in runs]
    return [stage for stages in found for stage in (stages if every else final_stages(stages))]


def _each_once(stages: Sequence[FitFolder]) -> list[FitFolder]:
    """Each judge once, in whichever run it is found first."""
    return list({os.path.realpath(stage.path): stage for stage in reversed(stages)}.values())[::-1]


def _variants(stages: Sequence[FitFolder]) -> Mapping[Path, str | None]:
    """Path -> what a judge's variant is called: as its run's folder or ablation says, else by the settings that differ from the others'."""
    names = {stage.path: stage.variant for stage in stages}
    unnamed = [stage for stage in stages if names[stage.path] is None]
    keys = sorted({key for stage in unnamed for key in stage.settings})
    differing = [key for key in keys if len({repr(stage.settings.get(key)) for stage in unnamed}) > 1 and key != "seed"]
    for stage in unnamed:
        told = [f"{key}={stage.settings.get(key)}" for key in differing[:_SHOWN_KEYS]]
        names[stage.path] = ",".join(told) or None
    return names


def _check_any_left(left: Sequence[FitFolder], name: str, wanted: str, folder: Path, among: Sequence[FitFolder], variants: Any) -> None:
    """Refuses a choice that nothing answers to."""
    if left:
        return
    own = [variants.get(stage.path) if name == "variant" else stage.stage for stage in among]
    accepted = sorted({str(value) for value in own if value is not None})
    if name == "stage":
        accepted = [stage for stage in FIT_STAGES if stage in accepted] + ["the key of one"]
    near = near_names(wanted, accepted, most=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{name}: {folder} holds no judge of {name} {wanted!r}; {hint}accepted are {', '.join(accepted) or 'none'}")


def _best_by(stages: Sequence[FitFolder], metric: str, variants: Mapping[Path, str | None]) -> FitFolder:
    """The judge with the best of a metric; the first one of equals.

    Raises:
        ConfigError: if that of one is not known, or they were validated on CoTs that cannot be compared.
    """
    if not_comparable([stage.validated_on for stage in stages]):
        raise ConfigError(_not_comparable_message(stages, metric, variants))
    values = {stage.path: stage.metrics.get(metric) for stage in stages}
    if unknown := [stage for stage in stages if values[stage.path] is None]:
        common = sorted(name for name in _accepted_metrics() if all(stage.metrics.get(name) is not None for stage in stages))
        others = f" (nor that of {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        accepted = f"known of all: {', '.join(common)}" if common else "give the folder of one judge"
        raise ConfigError(
            f"best: {metric} of {_line_about(unknown[0], variants)} is not known{others}: weights that were the best of a training "
            f"are kept with the metric that says so, train.monitor, and no other; {accepted}"
        )
    sign = 1 if LESS_IS_BETTER[metric.rpartition("/")[2]] else -1
    return min(stages, key=lambda stage: sign * float(values[stage.path] or 0.0))


def _not_comparable_message(stages: Sequence[FitFolder], metric: str, variants: Mapping[Path, str | None]) -> str:
    """Why a validation metric does not choose between judges, with one of each kind, and what does."""
    of_kinds = {stage.validated_on: stage for stage in reversed(stages)}
    each = "; ".join(f"{_line_about(stage, variants)} on {kind}" for kind, stage in sorted(of_kinds.items()))
    return (
        f"best: {metric} cannot be compared, since training validated some of these judges on annotated CoTs, which can give a score away, "
        f"and others without: {each}; leave some out (--variant, --stage), or repeat their command with "
        "'evaluation.benchmarks=[val,test]' added, which trains nothing again and whose end names the best, and give that judge's folder"
    )


def _several_judges_message(folder: Path, stages: Sequence[FitFolder], variants: Mapping[Path, str | None]) -> str:
    apart = _distinguishing_settings(stages, variants)
    shown = [_line_about(stage, variants, apart[stage.path]) for stage in stages[:_SHOWN]]
    more = f"; and {len(stages) - _SHOWN} more" if len(stages) > _SHOWN else ""
    return (
        f"judge: {folder} holds {len(stages)} judges: {'; '.join(shown)}{more}; give one of these folders; the commands of tract choose by "
        "--variant NAME, --stage stage1, stage2 or KEY, and --best val/rmse too (Python: variant=, stage=, best=)"
    )


def _distinguishing_settings(stages: Sequence[FitFolder], variants: Mapping[Path, str | None]) -> dict[Path, str]:
    """Path -> the settings that tell a judge from others of the same variant, seed and stage; empty where there are none."""
    alike: dict[tuple[object, ...], list[FitFolder]] = {}
    for stage in stages:
        alike.setdefault((variants.get(stage.path), stage.seed, stage.stage), []).append(stage)
    found = {}
    for own in alike.values():
        keys = sorted({key for stage in own for key in stage.settings})
        differing = [key for key in keys if len({repr(stage.settings.get(key)) for stage in own}) > 1]
        for stage in own:
            found[stage.path] = ", ".join(f"{key}={stage.settings.get(key)}" for key in differing[:_SHOWN_KEYS])
    return found


def _line_about(stage: FitFolder, variants: Mapping[Path, str | None], apart: str = "") -> str:
    """The folder to give for a judge, and what is known of it."""
    variant, rmse = variants.get(stage.path), stage.metrics.get(f"{_SPLIT}/rmse")
    known = [
        f"variant {variant}" if variant else "",
        f"seed {stage.seed}" if stage.seed is not None else "",
        apart,
        f"{stage.stage}-{stage.key}",
        f"val/rmse {rmse:.4g}" if rmse is not None else "",
    ]
    return f"{_shortest_folder(stage)} ({', '.join(filter(None, known))})"


def _shortest_folder(stage: FitFolder) -> Path:
    """The shortest folder that names this judge alone: its run's, where that holds no other, else its own."""
    run = stage.run
    if run is not None and run.is_dir() and len(_each_once(final_stages(fit_stages_of(run)))) == 1:
        alone = final_stages(fit_stages_of(run))[0]
        if os.path.realpath(alone.path) == os.path.realpath(stage.path):
            return run
    return stage.path


def _no_judge_message(folder: Path) -> str:
    """Why a folder holds no judge: what was found in it, and what is accepted."""
    broken = [link for run in run_folders(folder) for link in broken_links(run)]
    if broken:
        where = os.readlink(broken[0])
        return (
            f"judge: {folder} holds no complete fit stage, but links that lead nowhere ({broken[0].name} -> {where}); its products are "
            "in the folder of all runs (runs/stages): move or mount that along, or give the folder of a stage"
        )
    return f"judge: {folder} holds no complete fit stage{_holds(folder)}; {ACCEPTED}"


ACCEPTED = (
    "give the folder of a run (runs/NAME/seed0, runs/NAME/VARIANT/seed0), of a fit stage (stage1-KEY, stage2-KEY), an exported judge "
    "(judge_config.json), an adapter (adapter_config.json) or a model (config.json), or a model's hub id"
)


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return ", it is empty"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; it holds {', '.join(names[:5])}{more}"
