"""How requests are read: with the judge's own scores, or those of a rubric where the judge was trained on none."""

from __future__ import annotations

import threading
from collections import OrderedDict

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_options import with_grid
from tract.inference.sampling import Sampling
from tract.inference.worker import MOST_READINGS, ReadoutConfig
from tract.judge.rendering import labels_for
from tract.text.schema import Rubric


class Readouts:
    """The readouts of a judge by grid and sampling, for any thread; the last ones used are kept.

    Bounded: behind a server, rubrics with other scores may come without end.

    Args:
        files: the judge.
    """

    def __init__(self, files: JudgeFiles) -> None:
        self._layout = files.layout
        self._fixed_grid = files.settings.fixed_grid
        self._free = files.settings.predictor == "decode_free"
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[tuple[str, ...], Sampling], ReadoutConfig] = OrderedDict()

    def of(self, rubric: Rubric | None, sampling: Sampling) -> ReadoutConfig:
        """The readout for the scores of a rubric.

        Raises:
            ConfigError: if the tokenizer cannot tell the rubric's scores apart.
            DataError: if the rubric describes scores that the judge does not give.
        """
        own = self._layout
        labels = labels_for(rubric, own.grid, fixed=self._fixed_grid)
        with self._lock:
            readout = self._kept.get((labels, sampling))
            if readout is None:
                layout = own if labels == own.grid.labels else with_grid(own, labels)
                readout = self._kept[labels, sampling] = ReadoutConfig(layout, sampling, self._free)
                if len(self._kept) > MOST_READINGS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((labels, sampling))
            return readout
