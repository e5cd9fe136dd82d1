"""Keeps the record of a run of the pipeline: begun, complete with what it made, or failed and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tract.artifacts.products import Product
from tract.artifacts.records import COMPLETE, FAILED, FOLDER, RUNNING, SWEEP, RunRecord, config_of
from tract.common.errors import ReportedExit, TractError
from tract.common.masking import masked_text
from tract.config.schema import Config
from tract.pipeline.stages.stage import run_folder


@contextmanager
def recorded(resolved: DictConfig, cfg: Config, products: Mapping[str, Product]) -> Iterator[None]:
    """Writes the record at the beginning of the run and at its end; one that is killed or interrupted stays "running".

    Args:
        resolved: the configuration as composed. cfg: the same, typed. products: of the stages that are done, filled meanwhile.
    """
    folder, begun = _begun(resolved, cfg)
    begun.write(folder)
    try:
        yield
    except (Exception, ReportedExit) as error:
        known = isinstance(error, (TractError, OSError))
        message = error.message if isinstance(error, ReportedExit) else str(error) if known else f"{type(error).__name__}: {error}"
        replace(begun, status=FAILED, message=masked_text(" ".join(message.split())), finished=_now()).write(folder)
        raise
    stages = {name: os.path.relpath(product.path, folder / FOLDER) for name, product in products.items()}
    replace(begun, status=COMPLETE, stages=stages, finished=_now()).write(folder)


def _begun(resolved: DictConfig, cfg: Config) -> tuple[Path, RunRecord]:
    """Where the record goes, and what is known at the beginning."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    overrides = tuple(map(masked_text, hydra.overrides.task)) if hydra else ()
    record = RunRecord(RUNNING, config_of(resolved), overrides)
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        return run_folder(cfg), record
    return Path(hydra.sweep.dir), replace(record, sweep=os.environ.get(SWEEP, ""), job=int(hydra.job.num))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
