"""Lightning's logger for the W&B run of a stage."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tract.common.progress import STEP_AXIS
from tract.pipeline.tracking.tracker import Tracker


class GuardedLogger(Logger):
    """Writes metrics to a tracker, which lets no failure of W&B through. Lightning's own would end the training.

    Args:
        tracker: of the stage.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker
        self._name, self._version = str(tracker.run.project), str(tracker.run.id)

    @property
    def name(self) -> str:
        """The project."""
        return self._name

    @property
    def version(self) -> str:
        """The id of the run."""
        return self._version

    @property
    def experiment(self) -> Any:
        """The run, or None where W&B has failed."""
        return self._tracker.run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row; ``step`` counts optimizer steps."""
        row = {**metrics, **({} if step is None else {STEP_AXIS: step})}
        self._tracker.guard("log metrics", lambda: self._tracker.run.log(row))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has the whole configuration already."""
