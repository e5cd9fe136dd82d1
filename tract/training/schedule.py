"""How many optimizer steps a training has, and the learning rate over them."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from tract.common.errors import ConfigError
from tract.config.schema import SchedulerConfig, TrainConfig


def total_steps(cfg: TrainConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole training: all epochs, unless ``max_steps`` ends it before."""
    steps = steps_per_epoch * cfg.max_epochs
    return steps if cfg.max_steps == -1 else min(steps, cfg.max_steps)


def warmup_steps(cfg: SchedulerConfig, total_steps: int) -> int:
    """Optimizer steps of the warm-up.

    Raises:
        ConfigError: if they are more than the steps of training.
    """
    steps = cfg.warmup_steps if cfg.warmup_steps is not None else math.ceil((cfg.warmup_fraction or 0.0) * total_steps)
    if steps > total_steps:
        raise ConfigError(f"scheduler.warmup_steps: {steps} steps of warm-up are more than the {total_steps} steps of training; lower it")
    return steps


def build_scheduler(optimizer: Optimizer, total_steps: int, cfg: SchedulerConfig) -> LRScheduler:
    """The learning-rate schedule over ``total_steps`` optimizer steps.

    Raises:
        ConfigError: if the warm-up is longer than the training, or ``scheduler.kwargs`` do not fit.
    """
    warmup = warmup_steps(cfg, total_steps)
    try:
        scheduler: LRScheduler = get_scheduler(
            cfg.name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps, scheduler_specific_kwargs=cfg.kwargs
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"scheduler: {cfg.name} does not accept kwargs {cfg.kwargs}: {' '.join(str(error).split())}") from error
    return scheduler
