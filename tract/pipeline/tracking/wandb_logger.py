"""Lightning's logger for the W&B run of a stage."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tract.common.progress import STEP_AXIS


class GuardedLogger(Logger):
    """Hands metrics to a function that lets no failure of W&B through. Lightning's own logger would end the training.

    Args:
        run: of W&B. log_row: logs a row of metrics; never raises.
    """

    def __init__(self, run: Any, log_row: Callable[[dict[str, float]], None]) -> None:
        super().__init__()
        self._run, self._log_row = run, log_row

    @property
    def name(self) -> str:
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(self._run.id)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row; ``step`` counts optimizer steps."""
        self._log_row({**metrics, **({} if step is None else {STEP_AXIS: step})})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has the whole configuration already."""
