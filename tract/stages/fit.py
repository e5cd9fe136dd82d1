"""The fit stage: fine-tunes the seed LLM on judge examples and writes adapter or weights, tokenizer and layout."""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from tract.config import Config, SchedulerConfig
from tract.data.datamodule import JudgeDataModule
from tract.errors import ConfigError, TrainingError
from tract.lit_module import TractLitModule
from tract.modeling import load_model, save_judge
from tract.objective import Objective
from tract.preview import preview
from tract.stages.callbacks import Throughput, checkpoints, newest_checkpoint
from tract.stages.loggers import build_loggers, close_loggers
from tract.stages.prepare import Prepared, prepare
from tract.stages.run_folder import StageFolder, provenance, stage_folder, write_json

log = logging.getLogger(__name__)


def fit(cfg: Config, resolved: DictConfig) -> Path:
    """Trains, or goes on with a training that was cut off; returns the complete run folder.

    Args:
        cfg: the typed configuration. resolved: the same as composed, for the run folder.

    Raises:
        TractError: for anything that the user can mend.
    """
    _quieten()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = prepare(cfg)
    folder = stage_folder(cfg, resolved, data.store.fingerprint)
    with folder.locked():
        if folder.is_complete and not cfg.run.overwrite:
            log.info("run: %s is complete with this configuration and data; nothing to do (run.overwrite=true makes it anew)", folder.path)
            return folder.path
        folder.begin(overwrite=cfg.run.overwrite)
        _train(cfg, resolved, data, folder)
    log.info("run: finished, product in %s", folder.path)
    for offline in sorted(folder.path.glob("wandb/offline-run-*")):
        log.info("W&B: this run was logged offline; with a key, `wandb sync %s` uploads it", offline)
    return folder.path


def _quieten() -> None:
    """Keeps out what libraries print at every start and no user can act on; warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*will save all targets and predictions in.* buffer.*", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*`tensorboardX` has been removed.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def build(cfg: Config, data: Prepared) -> tuple[TractLitModule, JudgeDataModule]:
    """The module and the loaders, before any weight is loaded."""
    objective = Objective(**vars(cfg.objective))
    datamodule = JudgeDataModule(
        data.tokens,
        data.rows["train"],
        data.rows["val"],
        data.layout,
        objective.supervised_kinds,
        data.tokenizer.pad_token_id,
        items_per_step=cfg.batch.items_per_step,
        micro_batch_size=cfg.batch.micro_batch_size,
        val_micro_batch_size=cfg.batch.val_micro_batch_size,
        seed=cfg.seed,
        num_workers=cfg.data.num_workers,
    )
    module = TractLitModule(
        build_model=partial(load_model, cfg.model, cfg.adapter, seed=cfg.seed),
        trie=data.layout.trie,
        grid=data.layout.grid,
        objective=objective,
        build_optimizer=instantiate(cfg.optimizer),
        build_scheduler=partial(build_scheduler, cfg=cfg.scheduler),
        accumulate=cfg.batch.items_per_step // cfg.batch.micro_batch_size,
    )
    return module, datamodule


def build_scheduler(optimizer: Optimizer, total_steps: int, cfg: SchedulerConfig) -> LRScheduler:
    """The learning-rate schedule over ``total_steps`` optimizer steps.

    Raises:
        ConfigError: if the schedule is unknown or the warm-up is longer than the training.
    """
    warmup = cfg.warmup_steps if cfg.warmup_steps is not None else math.ceil((cfg.warmup_fraction or 0.0) * total_steps)
    if warmup > total_steps:
        raise ConfigError(f"scheduler.warmup_steps: {warmup} steps of warm-up are more than the {total_steps} steps of training; lower it")
    try:
        return get_scheduler(cfg.name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps, scheduler_specific_kwargs=cfg.kwargs)
    except ValueError as error:
        raise ConfigError(f"scheduler.name: {' '.join(str(error).split())}") from error


def _train(cfg: Config, resolved: DictConfig, data: Prepared, folder: StageFolder) -> None:
    begun = time.perf_counter()
    OmegaConf.save(resolved, folder.working / "config.yaml", resolve=True)
    module, datamodule = build(cfg, data)
    (folder.working / "preview.txt").write_text(preview(datamodule.train_set.item(0), data.layout), encoding="utf-8")
    config: Any = OmegaConf.to_container(resolved, resolve=True)
    loggers = build_loggers(cfg, folder.working, folder.key, config)
    validates = bool(data.rows["val"])
    newest, best = checkpoints(cfg.train, folder.working / "checkpoints", validates=validates)
    trainer = _trainer(cfg, [Throughput(), newest, *([best] if best else [])], loggers, folder.working, module.accumulate, validates)
    status = "failed"
    try:
        resume = newest_checkpoint(folder.working / "checkpoints")
        _announce(cfg, module, datamodule, resume)
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=None if resume is None else False)
        if trainer.interrupted:
            raise TrainingError(f"interrupted at optimizer step {trainer.global_step}; the same command goes on from the last checkpoint")
        final = _final_metrics(trainer, module, datamodule) if validates else {}
        exported = _export(cfg, module, best, final, trainer.global_step)
        status = "success"
    finally:
        close_loggers(loggers, status)
    assert module.model is not None
    save_judge(module.model, data.tokenizer, folder.working)
    write_json(folder.working / "layout.json", {**data.layout.to_dict(), "prompt": asdict(data.template)})
    manifest = {
        "stage": cfg.stage,
        "parents": [],
        "key": folder.key,
        "seed": cfg.seed,
        **provenance(),
        "data": {"source": data.store.fingerprint, "tokens": data.tokens.fingerprint, "counts": data.counts},
        "training": {
            "optimizer_steps": trainer.global_step,
            "trained_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
            "seconds_of_last_process": round(time.perf_counter() - begun, 1),
            "resumed": resume is not None,
            "exported": exported,
            "final_metrics": final,
        },
    }
    folder.finish(manifest)


def _trainer(cfg: Config, callbacks: list[Any], loggers: list[Any], root: Path, accumulate: int, validates: bool) -> L.Trainer:
    build_trainer = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    trainer: L.Trainer = build_trainer(
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=str(root),
        max_epochs=cfg.train.max_epochs,
        max_steps=cfg.train.max_steps,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=cfg.train.gradient_clip_norm,
        # In micro-batches, counted over epochs.
        val_check_interval=cfg.train.validate_every_steps * accumulate if validates else None,
        check_val_every_n_epoch=None,
        limit_val_batches=cfg.trainer.get("limit_val_batches", 1.0) if validates else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    return trainer


def _announce(cfg: Config, module: TractLitModule, datamodule: JudgeDataModule, resume: Path | None) -> None:
    sampler = datamodule.train_sampler
    steps = sampler.steps_per_epoch * cfg.train.max_epochs
    if cfg.train.max_steps > 0:
        steps = min(steps, cfg.train.max_steps)
    tokens = sampler.ce_tokens.mean() * cfg.batch.items_per_step
    log.info(
        "fit: %d optimizer steps of %d items (%d micro-batches of %d), about %.0f supervised tokens a step; %s",
        steps, cfg.batch.items_per_step, module.accumulate, cfg.batch.micro_batch_size, tokens, f"resuming from {resume}" if resume else "from the start",
    )  # fmt: skip


def _final_metrics(trainer: L.Trainer, module: TractLitModule, datamodule: JudgeDataModule) -> dict[str, float]:
    """Validation metrics of the last weights."""
    values = trainer.validate(module, datamodule=datamodule, verbose=False)[0]
    return {key: float(value) for key, value in values.items()}


def _export(cfg: Config, module: TractLitModule, best: ModelCheckpoint | None, final: dict[str, float], step: int) -> dict[str, Any]:
    """Puts the weights to export into the module and says which they are."""
    monitor = cfg.train.monitor
    last = {"weights": "last", "step": step, monitor: final.get(monitor)}
    if cfg.train.export == "last" or best is None:
        return last
    if monitor not in final:
        raise ConfigError(f"train.monitor: {monitor!r} is not among the validation metrics; accepted are {', '.join(sorted(final))}")
    if best.best_model_score is None or not best.best_model_path:
        return last
    score, sign = float(best.best_model_score), 1 if cfg.train.monitor_mode == "max" else -1
    if not math.isfinite(score) or sign * final[monitor] >= sign * score:
        return last
    checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    return {"weights": "best", "step": int(checkpoint["global_step"]), monitor: score}
