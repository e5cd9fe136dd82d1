"""What a stage is: it knows what it is made from, and makes its product in a folder that is complete or absent."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import Product, open_product, read_manifest
from tract.artifacts.recorded_paths import whereabouts
from tract.artifacts.run_folder import StageFolder, find, provenance, reason, version_changes
from tract.common import signals
from tract.common.distributed import barrier, broadcast_from_rank0
from tract.common.errors import DataError
from tract.config.schema import Config
from tract.pipeline.tracking.tracker import Tracker, tracked

log = logging.getLogger(__name__)

# Modules that move no number: what they do shows in the log, in messages, or in who may work when.
IGNORED_CODE = (
    "tract",
    "tract.config*",
    "tract.pipeline.config_rules",
    "tract.artifacts.identity",
    "tract.common.command_line",
    "tract.common.containers",
    "tract.common.counts",
    "tract.common.durable",
    "tract.common.errors",
    "tract.common.near_names",
    "tract.common.library_logs",
    # Which of two exact ways sequences take; what was decided is part of the key.
    "tract.models.exactness",
    "tract.models.small_model",
    "tract.inference.hf.exactness",
    "tract.inference.hf.paths",
    "tract.inference.hf.sequences",
    "tract.data.data_warnings",
    # A rubric as text, and a base model by its path: what they were read as is part of the key.
    "tract.data.rubrics.*",
    "tract.artifacts.recorded_paths",
    # Where a judge lies: what was found there is part of the key, in its fingerprint.
    "tract.evaluation.calibration",
    "tract.artifacts.judge_settings",
    "tract.artifacts.exported_judge",
    "tract.artifacts.fit_stages",
    "tract.artifacts.judge_choice",
    "tract.artifacts.judge_location",
    "tract.common.safe_paths",
    "tract.common.masking",
    "tract.common.signals",
    "tract.training.preview",
    "tract.common.distributed",
    "tract.artifacts.records",
    "tract.pipeline.validation",
    "tract.pipeline",
    "tract.training.callbacks*",
    "tract.training.library_messages",
    "tract.training.reports",
    "tract.pipeline.identity.keys",
    "tract.pipeline.stages.judgement_log",
    "tract.pipeline.launching.launch",
    "tract.training.graceful_stop",
    "tract.pipeline.identity.loaded_code",
    "tract.pipeline.tracking.loggers",
    "tract.artifacts.products",
    "tract.common.progress",
    "tract.pipeline.stages.rank_logs",
    "tract.artifacts.run_folder",
    "tract.pipeline.run_record",
    "tract.pipeline.stages.stage",
    "tract.training.steps_bar",
    "tract.pipeline.tracking.tracker",
    "tract.pipeline.tracking.offline_runs",
    "tract.pipeline.tracking.tracked_products",
    "tract.pipeline.tracking.wandb_logger",
)

# Moves no number of the stages before an evaluation: they log it, and an evaluation reports it.
REPORTED_CODE = ("tract.evaluation.agreement",)


class Stage(Protocol):
    """A stage with its inputs; nothing heavy is loaded before ``make``."""

    @property
    def name(self) -> str:
        """The stage's name, one of ``config_rules.STAGES``."""

    def identity(self) -> StageIdentity:
        """All that its product depends on."""

    @property
    def cfg(self) -> Config:
        """Its typed configuration."""

    @property
    def resolved(self) -> DictConfig:
        """The same as composed."""

    def make(self, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
        """Makes the product in ``folder.working``; returns facts for the manifest. ``tracker`` takes what is to be seen meanwhile."""


def label_of(stage: Stage) -> str:
    """What messages call a stage: its name, and where a run has two of it, whose it is."""
    return str(getattr(stage, "label", stage.name))


def folder_of(stage: Stage, cfg: Config, *, force: bool) -> StageFolder:
    """The folder of a stage's product, whether it is there or not."""
    return find(Path(cfg.paths.runs), stage.identity(), "redo" if force else cfg.run.on_code_change, cfg.run.on_version_change)


def complete_product(folder: StageFolder, cfg: Config) -> Product | None:
    """The product if it is there and is to be reused, linked into the run's folder; a line says which versions differ.

    Raises:
        DataError: if it is there but damaged.
    """
    if not folder.is_complete or outdated(folder, cfg):
        return None
    product = open_product(folder.path)
    if changes := version_changes(product.manifest):
        _say_versions(folder.identity.stage, changes, "reused (run.on_version_change=reuse)")
    folder.link(run_folder(cfg))
    return product


def outdated(folder: StageFolder, cfg: Config) -> list[str]:
    """The versions for which a product that is there is to be rebuilt; none where it is absent or may be reused.

    Raises:
        DataError: if its manifest cannot be used.
    """
    if cfg.run.on_version_change == "reuse" or not folder.is_complete:
        return []
    return version_changes(read_manifest(folder.path)[0])


def _say_versions(stage: str, changes: list[str], what: str) -> None:
    log.warning("%s: versions differ from those that it was made with: %s; %s", stage, ", ".join(changes), what)


def run_folder(cfg: Config) -> Path:
    """Where a run's stages are linked."""
    return Path(cfg.paths.runs) / cfg.run.name / (cfg.run.variant or "") / f"seed{cfg.seed}"


def _names(cfg: Config) -> dict[str, Any]:
    """What the run is called that makes a stage, for the manifest."""
    return {"run": cfg.run.name, "variant": cfg.run.variant, "seed": cfg.seed}


def follow_stage(stage: Stage, cfg: Config) -> None:
    """Takes part in making a stage that rank 0 runs with ``run_stage``, in the folder that it says."""
    signals.set_status(f"in {stage.name}")
    folder: StageFolder | None = broadcast_from_rank0(patient=True)
    if folder is not None:
        _make(stage, folder, cfg, Tracker(None, {}))
        barrier(patient=True)


def _make(stage: Stage, folder: StageFolder, cfg: Config, tracker: Tracker) -> dict[str, Any]:
    if stage.name == "evaluate" or not cfg.deterministic:  # metrics are numpy's, in one order
        return stage.make(folder, tracker)
    from tract.training.determinism import determinism  # it imports torch, which the pipeline's own process does without

    with determinism(cfg.deterministic):
        return stage.make(folder, tracker)


def _draw_curves(stage: Stage, folder: StageFolder) -> None:
    """Draws how a fit stage went, beside its product and no part of it."""
    if stage.name in ("stage1", "stage2"):
        from tract.pipeline.curves import write_curves  # matplotlib, which the start of a command does without

        write_curves(folder.working, stage.name)


def _made_since(begun: datetime, folder: StageFolder) -> bool:
    """Whether the product was made after that time."""
    try:
        return folder.is_complete and datetime.fromisoformat(read_manifest(folder.path)[0]["finished"]) > begun
    except DataError:
        return False


def _begins(stage: Stage, folder: StageFolder, cfg: Config, *, force: bool) -> bool:
    """Says why the stage is made; whether it takes the place of a complete product."""
    changes = outdated(folder, cfg)
    if changes and not force:
        _say_versions(label_of(stage), changes, "rebuilt (run.on_version_change=redo)")
    else:
        log.info("%s: %s", label_of(stage), _why(stage, folder, cfg, force=force))
    return force or bool(changes)


def run_stage(stage: Stage, cfg: Config, *, force: bool) -> Product:
    """The stage's product: reused if it is there, else made here, going on where an earlier try was cut off.

    With several ranks this is for the first one; the others call ``follow_stage``.

    Raises:
        TractError: for anything that the user can fix.
    """
    folder, label = folder_of(stage, cfg, force=force), label_of(stage)
    signals.set_status(f"in {stage.name}")
    begun = datetime.now(UTC)
    with folder.locked(wait=cfg.run.when_locked == "wait"):
        # Another run that was waited for may be at work with what it made, and that is new already.
        force = force and not _made_since(begun, folder)
        if not force and (product := complete_product(folder, cfg)) is not None:
            log.info("%s: reused, %s (same configuration, inputs and code)", label, folder.path)
            broadcast_from_rank0(None, patient=True)
            return product
        replaces = _begins(stage, folder, cfg, force=force)
        if folder.working.exists() and not replaces:
            log.info("%s: resuming from what an earlier try left in %s", label, folder.working)
        folder.begin(overwrite=replaces)
        if force:
            signals.add_rebuilt(stage.name)
        broadcast_from_rank0(folder, patient=True)
        shown: Any = OmegaConf.to_container(stage.resolved, resolve=True)
        with tracked(stage.cfg, shown, folder.key) as tracker:
            facts = _make(stage, folder, cfg, tracker)
            barrier(patient=True)
            _draw_curves(stage, folder)
            product = folder.finish({"stage": stage.name, **_names(cfg), **provenance(), **whereabouts(cfg.model), **facts})
            tracker.log_product(product)
    folder.link(run_folder(cfg))
    signals.set_status(f"after {stage.name}, which is complete")
    log.info("%s: finished, %s", label, folder.path)
    return product


def _why(stage: Stage, folder: StageFolder, cfg: Config, *, force: bool) -> str:
    """Why the stage is made, in terms of this run."""
    if force and (folder.is_complete or folder.working.exists()):
        return f"rebuilding, since it is named in force ({', '.join(cfg.force)})"
    judge = stage.judge.name if stage.name == "predict" else None  # type: ignore[attr-defined]
    return reason(Path(cfg.paths.runs), folder.identity, run_folder(cfg), judge=judge)
