"""A stage to run, as a process is given it: its configuration, its inputs, and the check that its code is that of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tract.artifacts.judges import find_judge
from tract.artifacts.products import open_product
from tract.config.vocabulary import FIT_STAGES
from tract.pipeline.identity.keys import code_digests, named_code
from tract.pipeline.identity.loaded_code import changed_error, check_hashes
from tract.pipeline.stages.stage import Stage
from tract.pipeline.validation import typed

PRODUCT_FILE = "product.txt"  # where a stage's own process says what it made
_CHANGEABLE = ("objective", "optimizer", "scheduler", "batch", "train")  # sections that stage2 changes


@dataclass(frozen=True)
class StageTask:
    """A stage to run, in words that another process understands.

    Attributes:
        stage: its name. inputs: role -> folder of a parent's product, or how a judge is called. force: rebuild it.
        compared: whether it predicts for the judge that the run's own one is compared to.
    """

    stage: str
    inputs: Mapping[str, str]
    force: bool
    compared: bool = False


def stage_config(resolved: DictConfig, stage: str) -> DictConfig:
    """The configuration of one stage: that of the pipeline, with the sections that ``stage2`` changes.

    Raises:
        ConfigError: if the changed configuration is not sound.
    """
    changed = resolved.copy()
    with open_dict(changed):
        changed.stage = stage
        if stage == "stage2":
            for section in _CHANGEABLE:
                changed[section] = OmegaConf.merge(changed[section], resolved.stage2[section])
    return changed


def build_stage(task: StageTask, resolved: DictConfig) -> Stage:
    """The stage of a task, of a configuration that ``run_pipeline`` has checked; nothing heavy is loaded.

    Raises:
        TractError: if an input is missing or damaged.
    """
    config = stage_config(resolved, task.stage)
    cfg = typed(config)
    inputs = task.inputs
    # Each is imported where it is wanted: Lightning alone takes seconds, and the process of a stage that samples needs none of it.
    if task.stage in FIT_STAGES:
        from tract.pipeline.stages.fit import FitStage

        parents = {role: open_product(Path(inputs[role])) for role in ("generated", "start") if role in inputs}
        return FitStage(cfg, config, parents.get("generated"), parents.get("start"))
    if task.stage == "generate":
        from tract.pipeline.stages.generate import GenerateStage

        return GenerateStage(cfg, config, find_judge(inputs["judge"], cfg))
    if task.stage == "predict":
        from tract.pipeline.stages.predict import PredictStage

        return PredictStage(cfg, config, find_judge(inputs["judge"], cfg), compared=task.compared)
    from tract.pipeline.stages.evaluate import EvaluateStage

    other = open_product(Path(inputs["other"])) if "other" in inputs else None
    return EvaluateStage(cfg, config, open_product(Path(inputs["predicted"])), other)


def stage_modules(stage: str) -> list[str]:
    """All modules of the package that a stage may import."""
    return list(code_digests("tract.pipeline.stages.fit" if stage in FIT_STAGES else f"tract.pipeline.stages.{stage}", ignored_fields=()))


def check_code(task: StageTask, resolved: DictConfig, code: Mapping[str, Any]) -> None:
    """Refuses a task in a process of its own whose code is not that of the pipeline which began it.

    Args:
        code: the hashes of the package's files, and the digests of the user's modules that the configuration names, there.

    Raises:
        ConfigError: naming the files or modules.
    """
    check_hashes(task.stage, code["files"], lambda: stage_modules(task.stage))
    now = named_code(plain_container(resolved))
    if changed := sorted(name for name in now.keys() | code["named"].keys() if now.get(name) != code["named"].get(name)):
        raise changed_error(task.stage, changed)


def plain_container(resolved: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries and lists."""
    plain: Any = OmegaConf.to_container(resolved, resolve=True)
    return dict(plain)
