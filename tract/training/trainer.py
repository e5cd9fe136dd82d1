"""Builds Lightning's trainer with its callbacks, and runs it. Knows nothing of stages, products and Hydra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor

from tract.common.distributed import broadcast_from_rank0, rank_info
from tract.common.errors import ConfigError
from tract.config.devices import ZERO, spreads_weights
from tract.config.schema import Config
from tract.data.datamodule import JudgeDataModule
from tract.method.lit_module import TractLitModule
from tract.models.sharding import elements_of, whole_weights
from tract.training.callbacks.checkpoints import AtomicCheckpointIO, checkpoints, newest_checkpoint
from tract.training.callbacks.packing import CheckPacking
from tract.training.callbacks.throughput import Throughput
from tract.training.callbacks.validation import ValidateAtStartAndEnd
from tract.training.graceful_stop import GracefulStop
from tract.training.kept_weights import choose_weights
from tract.training.reports import announce, report_validation
from tract.training.steps_bar import StepsBar
from tract.training.strategies.precision import own_precision

TrainerFactory = Callable[..., L.Trainer]


def run_training(
    cfg: Config, trainer_factory: TrainerFactory, module: TractLitModule, datamodule: JudgeDataModule, loggers: list[Logger], folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Trains from the start, or from the newest checkpoint in ``folder/checkpoints``. All ranks must call it.

    Args:
        cfg: the whole configuration. trainer_factory: as in ``build_trainer``. module, datamodule: what is trained, on what.
        loggers: of this rank. folder: for checkpoints and the metrics of the base model.

    Returns:
        (facts about the training, plain values; on rank 0 the whole weights that the judge keeps by their names).

    Raises:
        ConfigError: if the trainer cannot be built. TrainingError: if something is not finite. DataError: if the best weights are damaged.
    """
    validates = len(datamodule.val_sampler) > 0
    newest, best = checkpoints(cfg.train, folder / "checkpoints", validates=validates)
    edge_validations = ValidateAtStartAndEnd(folder / "seed_metrics.json" if validates and cfg.train.validate_base_model else None)
    graceful_stop = GracefulStop(cfg.stage, folder / "checkpoints")
    bar = [StepsBar(cfg.stage)] if cfg.trainer.get("enable_progress_bar", True) else []
    callbacks = [CheckPacking(), graceful_stop, Throughput(), newest, *([best] if best else []), edge_validations, *bar]
    trainer = build_trainer(cfg, trainer_factory, callbacks, loggers, folder, module.accumulate, validates=validates)
    resume: Path | None = broadcast_from_rank0(newest_checkpoint(folder / "checkpoints") if rank_info().is_first else None)
    announce(cfg.batch, module, datamodule, resume)
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    final = dict(module.validation_metrics)
    items = len(datamodule.val_sampler.lengths)
    report_validation(edge_validations.seed_values, final, items)
    assert module.model is not None
    exported, weights = choose_weights(cfg.train, module.model, best, final, items, trainer.global_step)
    if cfg.adapter.kind == "full":  # a judge's folder holds all weights: of a multimodal model those of its vision part too
        weights |= whole_weights(module.model, trained=False)
    facts = {
        "optimizer_steps": trainer.global_step,
        "processes": trainer.world_size,
        "trained_parameters": sum(elements_of(p) for p in module.parameters() if p.requires_grad),
        "resumed": resume is not None,
        "exported": exported,
        "seed_metrics": edge_validations.seed_values,
        "final_metrics": final,
    }
    return facts, weights


def build_trainer(
    cfg: Config,
    trainer_factory: TrainerFactory,
    callbacks: list[Callback],
    loggers: list[Logger],
    root: Path,
    accumulate: int,
    *,
    validates: bool,
) -> L.Trainer:
    """Lightning's trainer for a configuration.

    Args:
        cfg: the whole configuration. trainer_factory: makes the trainer, with the arguments of ``cfg.trainer`` already given.
        callbacks, loggers: of the trainer. root: folder for what it writes.
        accumulate: micro-batches of an optimizer step. validates: whether there are items to validate on.

    Raises:
        ConfigError: if Lightning refuses the configuration.
    """
    arguments: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": loggers or False,
        "default_root_dir": str(root),
        "max_epochs": cfg.train.max_epochs,
        "max_steps": cfg.train.max_steps,
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": cfg.train.gradient_clip_norm,
        # In micro-batches, counted over epochs.
        "val_check_interval": cfg.train.validate_every_steps * accumulate if validates else None,
        "check_val_every_n_epoch": None,
        "limit_val_batches": cfg.trainer.get("limit_val_batches", 1.0) if validates else 0,
        "num_sanity_val_steps": 0,
        # The base model is validated first, and weights that are built in inference mode could not be trained.
        "inference_mode": False,
        "use_distributed_sampler": False,
        "plugins": _plugins(cfg),
        "enable_model_summary": False,
    }
    if not _uses_deepspeed(cfg) and (precision := own_precision(str(cfg.trainer.get("precision")))) is not None:
        arguments |= {"precision": None, "plugins": [*arguments["plugins"], precision]}
    try:
        trainer: L.Trainer = trainer_factory(**arguments)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: cannot be built with {cfg.trainer}: {' '.join(str(error).split())}") from error
    return trainer


def _uses_deepspeed(cfg: Config) -> bool:
    """Whether the strategy is ZeRO, which has a precision of its own."""
    strategy = cfg.trainer.get("strategy")
    return spreads_weights(cfg) and str(strategy and strategy.get("_target_")) == ZERO


def _plugins(cfg: Config) -> list[Any]:
    own_folders = spreads_weights(cfg)  # strategies that do write their checkpoints themselves
    # Explicit, since Lightning takes a single process for one of several where SLURM's job has tasks.
    environment = TorchElasticEnvironment() if rank_info().world_size > 1 else LightningEnvironment()
    return [*([] if own_folders else [AtomicCheckpointIO()]), environment]
