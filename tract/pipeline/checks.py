"""What is checked before the first stage: folders to write to, models, benchmarks, and the changed configuration of stage 2."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from omegaconf import DictConfig

from tract.artifacts.judge_location import BASE
from tract.artifacts.judges import find_judge
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.config.vocabulary import AUTO, FIT_STAGES
from tract.pipeline.stage_tasks import stage_config
from tract.pipeline.stages.benchmarks import check_benchmarks
from tract.pipeline.validation import validate


def make_writable_folder(key: str, folder: str) -> None:
    """Makes a folder to write to.

    Raises:
        ConfigError: if it cannot be made, or not be written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    except OSError as error:  # a full disk among them, which is told as one
        raise ConfigError(f"{key}: cannot write to {folder!r} ({error.strerror}); give a folder that can be made and written to") from error


def check_before_start(cfg: Config, resolved: DictConfig, plan: list[str]) -> None:
    """Refuses what would otherwise be refused only after data are read, or after the training."""
    _check_models(cfg, plan)
    if "stage2" in plan:
        _check_stage2(resolved)
    if "predict" in plan and cfg.judge is None:
        check_benchmarks(cfg)
    if "evaluate" not in plan or cfg.compare_to is None:
        return
    if cfg.compare_to != "stage1":
        assert find_judge(cfg.compare_to, cfg).fingerprint  # its files are there
    elif "stage1" not in plan:
        raise ConfigError("compare_to: 'stage1' is no stage of this pipeline; give seed, the folder of a run or a judge, a model, or null")


def _check_models(cfg: Config, plan: list[str]) -> None:
    """Refuses models that cannot be trained, or not be sampled from in this process."""
    from tract.inference.hf.sequences import path_of

    here = cfg.generation.backend in ("hf", AUTO) and any(name in plan for name in ("generate", "predict"))
    if any(name in plan for name in FIT_STAGES) or (here and cfg.judge in (None, BASE)):
        path_of(cfg.model)
    others = [spec for spec in (cfg.judge, cfg.compare_to if "evaluate" in plan else None) if spec not in (None, BASE, "stage1")]
    for spec in others if here else ():
        path_of(find_judge(str(spec), cfg).model)


def _check_stage2(resolved: DictConfig) -> None:
    try:
        validate(stage_config(resolved, "stage2"))
    except ConfigError as error:
        raise ConfigError(f"with the changes of stage2: {error}") from None
