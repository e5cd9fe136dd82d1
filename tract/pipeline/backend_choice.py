"""Who runs the judge with ``generation=auto``: decided once for a pipeline, before anything is made.

Behind ``decided`` no stage sees "auto": keys, ``config.yaml`` and the processes of a stage have the backend itself. CoTs and predictions
of vLLM and of this process are different products, so a run goes on with the backend that it was begun with, wherever it is looked at.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, open_dict

from tract.artifacts.judge_location import BASE
from tract.artifacts.judges import find_judge
from tract.common.errors import ConfigError, TractError
from tract.config.schema import BATCH_SIZES, Config
from tract.config.vllm import vllm_does_not_fit, vllm_is_missing
from tract.config.vocabulary import AUTO
from tract.pipeline.stages.stage import run_folder
from tract.pipeline.validation import typed

log = logging.getLogger(__name__)

SAMPLING = ("generate", "predict")
_CHOSEN = ("hf", "vllm")


def decided(resolved: DictConfig, stages: Sequence[str]) -> DictConfig:
    """The configuration with the backend that ``generation=auto`` stands for, and its batch size where none is given.

    Args:
        resolved: the configuration as composed. stages: that will run or be looked for; a line says the choice where one of them samples.
    """
    cfg = typed(resolved)
    if cfg.generation.backend != AUTO:
        return resolved
    begun = _begun_with(cfg)
    if begun is not None:
        backend, why = begun[0], f"with which {begun[1].name} of this run was begun; generation=hf or generation=vllm sets another"
    elif (against := vllm_does_not_fit(cfg) or vllm_is_missing() or _four_bit(cfg)) is not None:
        backend, why = "hf", f"since {against}"
    else:
        backend, why = "vllm", "since a CUDA device and the package vllm are here"
    if set(SAMPLING) & set(stages):
        log.info("generation=auto: %s, %s", backend, why)
    chosen = resolved.copy()
    with open_dict(chosen):
        chosen.generation.backend = backend
        chosen.generation.batch_size = cfg.generation.batch_size or BATCH_SIZES[backend]
    return chosen


def check_at_hand(stage: str, cfg: Config) -> None:
    """Refuses to go on with sampling that vLLM has begun where there is no vLLM, instead of beginning anew by another backend.

    Args:
        stage: that is to be made. cfg: behind ``decided``; with ``generation=vllm`` itself the rules have refused it before.

    Raises:
        ConfigError: if the package is missing.
    """
    if stage in SAMPLING and cfg.generation.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"generation.backend: auto goes on with vllm, with which this run was begun, but the package vllm is not installed; make "
            f"{stage} where it is, or set generation=hf to sample anew in this process"
        )


def _begun_with(cfg: Config) -> tuple[str, Path] | None:
    """(backend, folder) of the sampling that this run has made or begun: CoTs before predictions, the newest first."""
    found = [(folder.name.startswith(SAMPLING[0]), file.stat().st_mtime, folder, file) for folder, file in _sampled(cfg)]
    for _, _, folder, file in sorted(found, reverse=True):
        content = _content(file)
        own = content.get("run", {}).get("name"), content.get("seed")
        if folder.suffix == ".partial" and own != (cfg.run.name, cfg.seed):
            continue
        if (backend := content.get("generation", {}).get("backend")) in _CHOSEN:
            return backend, folder
    return None


def _sampled(cfg: Config) -> Iterator[tuple[Path, Path]]:
    """(folder, its config.yaml) of complete stages of this run, and of unfinished ones of all runs."""
    for place, ending in ((run_folder(cfg), ""), (Path(cfg.paths.runs) / "stages", ".partial")):
        for stage in SAMPLING:
            for folder in place.glob(f"{stage}-*{ending}"):
                if (file := folder / "config.yaml").is_file():
                    yield folder, file


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _four_bit(cfg: Config) -> str | None:
    """The judge among those that are given which vLLM does not serve; one that cannot be opened is refused where it is used."""
    for key, spec in (("judge", cfg.judge), ("compare_to", cfg.compare_to)):
        if spec is None or spec in (BASE, "stage1"):
            continue
        try:
            judge = find_judge(spec, cfg)
        except TractError:
            continue
        if judge.four_bit:
            return f"vLLM does not serve {key}={spec}, a judge on 4-bit weights"
    return None
