"""The ranks that make one stage together: which of them this process is, and what they exchange.

Each rank is a process with the environment that torchrun gives it, whoever started it. Imports torch only where there are several.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# Rank 0 may wait for another run that makes the same stage, and one rank's share of judging may take long.
_PATIENCE = timedelta(days=30)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class RankInfo:
    """Which rank of a stage this process is.

    Attributes:
        rank: this process, counted over all machines. world_size: processes in all. local_rank: this process on its own machine.
    """

    rank: int
    world_size: int
    local_rank: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes folders and logs for all."""
        return self.rank == 0


_ALONE = RankInfo(0, 1, 0)
_current = _ALONE


def rank_info() -> RankInfo:
    """Which rank this process is, inside ``init_process_group``; alone outside, whatever a launcher has put into the environment."""
    return _current


def ranks_from_environment() -> RankInfo:
    """What a launcher has put into the environment; one process alone where that says nothing."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return _ALONE
    return RankInfo(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def init_process_group(*, gpu: bool, timeout_s: float) -> Iterator[RankInfo]:
    """Connects the ranks for the time of a stage; every library that asks later uses this connection.

    Args:
        gpu: whether tensors on GPUs are exchanged (NCCL), beside those in memory (gloo).
        timeout_s: the longest that a rank waits for another one before it ends with an error.
    """
    global _current
    ranks = ranks_from_environment()
    if ranks.world_size == 1:
        yield ranks
        return
    import torch
    import torch.distributed as dist

    if gpu:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=timedelta(seconds=timeout_s))
    _current = ranks
    try:
        yield ranks
    finally:
        _current = _ALONE
    # Not after an error: the others may be gone, or wait in another exchange.
    dist.destroy_process_group()


def broadcast_from_rank0(value: Any = None, *, patient: bool = False) -> Any:
    """The value that rank 0 gives; the others wait for it.

    Args:
        value: of rank 0; anything that can be pickled. patient: wait for as long as it takes.
    """
    if rank_info().world_size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = [value]
    with _group(patient=patient) as group:
        dist.broadcast_object_list(box, src=0, group=group, device=torch.device("cpu"))
    return box[0]


@contextmanager
def _group(*, patient: bool) -> Iterator[Any]:
    """The process group of all ranks (None), or another one whose ranks wait for as long as it takes."""
    import torch.distributed as dist

    if not patient:
        yield None
        return
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield group
    dist.destroy_process_group(group)


def all_gather_object(value: Any) -> list[Any]:
    """The value of each rank, on all of them."""
    size = rank_info().world_size
    if size == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(value: int) -> int:
    """The highest of all ranks' values."""
    if rank_info().world_size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([value])
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


def barrier(*, patient: bool = False) -> None:
    """Returns when every rank has called it.

    Args:
        patient: wait for as long as it takes: where ranks work apart, a rank that is late is no sign of a fault.
    """
    if rank_info().world_size == 1:
        return
    import torch.distributed as dist

    with _group(patient=patient) as group:
        dist.all_gather_object([None] * rank_info().world_size, None, group=group)


def die_with_parent(parent: int) -> None:
    """Lets this process die with the one that started it, even if that is killed, so that none continues unseen. Linux only.

    Args:
        parent: its process id; if it is gone already, this process ends at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)
