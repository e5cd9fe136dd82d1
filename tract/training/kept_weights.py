"""Which weights a training keeps: those of the best validation, or the last ones."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from tract.common.distributed import rank_info
from tract.common.errors import ConfigError
from tract.config.schema import TrainConfig
from tract.models.sharding import whole_weights
from tract.training.callbacks.best_weights import BestWeights
from tract.training.reports import undefined_because

log = logging.getLogger(__name__)


def choose_weights(
    cfg: TrainConfig, model: nn.Module, best: BestWeights | None, final: dict[str, float | None], items: int, step: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The trained weights that the judge keeps: the best of all validations, or the last ones. Every rank must call it.

    Args:
        cfg: ``keep_weights`` and ``monitor``. model: with the last weights. best: the best weights of all validations.
        final: metrics of the last weights, over so many ``items``. step: of the last weights.

    Returns:
        (which weights these are, for the manifest; on rank 0 the weights by their names, nothing on other ranks).

    Raises:
        ConfigError: if the monitored metric does not exist.
    """
    monitor = cfg.monitor
    if cfg.keep_weights == "best" and best is not None:
        if monitor not in final:
            raise ConfigError(f"train.monitor: {monitor!r} is not among the validation metrics; accepted are {', '.join(sorted(final))}")
        if final[monitor] is None and best.score is None:
            log.warning(
                "train.monitor: %s was undefined in every validation (%s), so no weights are the best: the last ones are exported; "
                "give more validation items (data.max_val_items, data.val_fraction), or set train.monitor=val/rmse",
                monitor,
                undefined_because(items),
            )
        elif best.beats(final[monitor]):
            weights = best.load() if rank_info().is_first else {}
            return {"weights": "best", "step": best.step, monitor: best.score}, weights
    return {"weights": "last", "step": step, monitor: final.get(monitor)}, whole_weights(model)
