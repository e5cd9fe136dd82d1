"""What a checkpoint holds beside weights, optimizer and loops, so that a resumed training equals an uninterrupted one."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from tract.common.distributed import all_gather_object, rank_info
from tract.common.errors import TrainingError

log = logging.getLogger(__name__)


class CheckpointState:
    """The trained weights alone, each rank's random numbers (dropout), the last validation, and the micro-batches of a step."""

    def __init__(self) -> None:
        self._random_state: dict[str, Tensor] | None = None  # of a checkpoint, until training starts

    def save(self, module: Any, checkpoint: dict[str, Any]) -> None:
        """Changes a checkpoint of Lightning's, in place. Every rank must call it.

        Args:
            module: the ``TractLitModule``. checkpoint: with its whole ``state_dict``.
        """
        trained = set(module.trained_names())
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        random_state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random_state["cuda"] = torch.cuda.get_rng_state()
        checkpoint["random_states"] = all_gather_object(random_state)
        checkpoint["micro_batches_per_step"] = module.accumulate
        checkpoint["validation"] = {"at": module.validated_at, "metrics": module.validation_metrics}

    def load(self, module: Any, checkpoint: dict[str, Any]) -> None:
        """Takes over what ``save`` added, and counts on in the micro-batches of this run.

        Args:
            module: the ``TractLitModule``. checkpoint: its progress is rescaled in place.

        Raises:
            TrainingError: if the checkpoint lacks a trained weight.
        """
        # A strategy that spreads weights has checked and loaded them itself.
        missing = set(module.trained_names()) - set(checkpoint["state_dict"]) if "state_dict" in checkpoint else set()
        if missing:
            raise TrainingError(f"checkpoint: lacks {len(missing)} trained weights, e.g. {min(missing)}; it belongs to another run")
        module.validated_at, module.validation_metrics = checkpoint["validation"]["at"], dict(checkpoint["validation"]["metrics"])
        states, ranks = checkpoint["random_states"], rank_info()
        if len(states) == ranks.world_size:
            self._random_state = states[ranks.rank]
        else:
            log.info(
                "resuming a run of %d processes with %d: dropout draws other random numbers from here on", len(states), ranks.world_size
            )
        _rescale_progress(checkpoint.get("loops", {}), checkpoint["micro_batches_per_step"], module.accumulate)

    def restore_random_numbers(self) -> None:
        """Sets the random numbers of this process to where the loaded checkpoint left them, once."""
        if self._random_state is None:
            return
        torch.set_rng_state(self._random_state["cpu"].cpu())
        if torch.cuda.is_available() and "cuda" in self._random_state:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu())
        self._random_state = None


def _rescale_progress(loops: dict[str, Any], then: int, now: int) -> None:
    """Converts Lightning's counts of micro-batches, in place, from ``then`` to ``now`` micro-batches per optimizer step."""
    if then == now or not loops:
        return
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        for name, count in counts.items():
            counts[name] = count // then * now
