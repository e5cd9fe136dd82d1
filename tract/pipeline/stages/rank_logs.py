"""The judgements of a stage that several ranks make: a log for each rank, read as one.

<folder>/rank0/, rank1/, ...      the ``JudgementLog`` of each rank, also of those of an earlier try with more of them
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tract.common.distributed import barrier, rank_info
from tract.common.safe_paths import resolve_within
from tract.data.steps import partition
from tract.inference.judgement import Judgement
from tract.pipeline.stages.judgement_log import JudgementLog

Part = TypeVar("Part")


class RankLogs:
    """What all ranks have judged so far, and this rank's place to add to it.

    Opening takes all ranks, so that a damaged log is repaired by one of them, before the others read it.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        """Opens the logs in ``folder``, which is made if it is not there.

        Args:
            folder: holds nothing but the logs. shard_size: the most judgements of a file.

        Raises:
            DataError: if a log leads out of the folder by a link.
        """
        self._folder = folder
        self._shard_size = shard_size
        folder.mkdir(parents=True, exist_ok=True)
        if rank_info().is_first:
            self._open_all()
        barrier()
        own = folder / f"rank{rank_info().rank}"
        self._done_before = {key for log in self._open_all() if log.folder != own for key in log.done}
        barrier()
        self._own = JudgementLog(own, shard_size)

    def _open_all(self) -> list[JudgementLog]:
        for path in (*self._folder.glob("rank*"), *self._folder.glob("rank*/*")):
            resolve_within(self._folder, path.relative_to(self._folder).as_posix())
        return [JudgementLog(path, self._shard_size) for path in sorted(self._folder.glob("rank*"))]

    def missing(self, row: int, samples: Sequence[int]) -> bool:
        """Whether any of these samples of the row was absent at the opening, and this rank has not made it since."""
        return any((row, sample) not in self._done_before and (row, sample) not in self._own.done for sample in samples)

    def append(self, judgements: Sequence[Judgement]) -> None:
        """Adds judgements of this rank; see ``JudgementLog.append``. What another log had at the opening is not written."""
        self._own.append([j for j in judgements if (j.row, j.sample) not in self._done_before])

    def own_share(self, parts: Sequence[Part], costs: Sequence[int], ranks_per_judge: int = 1) -> list[Part]:
        """This rank's share of the work, in the given order; all judges get about as much of the cost.

        Args:
            ranks_per_judge: ranks that share one judge; the first of them gets its share, the others nothing.
        """
        judge, place = divmod(rank_info().rank, ranks_per_judge)
        if place:
            return []
        share = partition(costs, max(1, rank_info().world_size // ranks_per_judge))[judge]
        return [parts[k] for k in share]

    def ordered(self) -> Iterator[Judgement]:
        """The judgements of all ranks, ascending by (row, sample); for one rank, when all have come here by ``finish``."""
        last = None
        for judgement in heapq.merge(*(log.ordered() for log in self._open_all()), key=lambda j: (j.row, j.sample)):
            if (judgement.row, judgement.sample) != last:
                yield judgement
            last = (judgement.row, judgement.sample)

    def finish(self) -> bool:
        """Waits until all ranks have made their share; whether this rank is the one that continues with all of it."""
        barrier(patient=True)
        return rank_info().is_first
