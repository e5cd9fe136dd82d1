"""The processes that make one stage together: which of them this one is, and how they agree.

Each rank is a process with the environment that torchrun gives it, whoever started it. Knows torch.distributed alone.
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
class Ranks:
    """The ranks of a stage.

    Attributes:
        rank: this process, counted over all machines. size: processes in all. local: this process on its own machine.
    """

    rank: int
    size: int
    local: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes folders and logs for all."""
        return self.rank == 0


_ALONE = Ranks(0, 1, 0)
_current = _ALONE


def rank_info() -> Ranks:
    """Which rank this process is, inside ``init_process_group``; alone outside, whatever a launcher has put into the environment."""
    return _current


def by_environment() -> Ranks:
    """The ranks that a launcher has started; one process alone where the environment says nothing."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return _ALONE
    return Ranks(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def init_process_group(*, gpu: bool, timeout_s: float) -> Iterator[Ranks]:
    """Connects the ranks for the time of a stage; every library that asks later uses this connection.

    Args:
        gpu: whether tensors on GPUs are exchanged (NCCL), beside those in memory (gloo).
        timeout_s: the longest that a rank waits for another one before it ends with an error.
    """
    global _current
    ranks = by_environment()
    if ranks.size == 1:
        yield ranks
        return
    import torch
    import torch.distributed as dist

    if gpu:
        torch.cuda.set_device(ranks.local)
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
    if rank_info().size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = [value]
    with _group(patient=patient) as group:
        dist.broadcast_object_list(box, src=0, group=group, device=torch.device("cpu"))
    return box[0]


@contextmanager
def _group(*, patient: bool) -> Iterator[Any]:
    """The connection of all ranks, or another one whose ranks wait for as long as it takes."""
    import torch.distributed as dist

    if not patient:
        yield None
        return
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield group
    dist.destroy_process_group(group)


def all_gather_object(value: Any) -> list[Any]:
    """The value of each rank, on all of them."""
    size = rank_info().size
    if size == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(value: int) -> int:
    """The highest of all ranks' values."""
    if rank_info().size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([value])
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


def wait_for_all(*, patient: bool = False) -> None:
    """Returns when every rank has come here.

    Args:
        patient: wait for as long as it takes: where ranks work apart, the time that one is behind says nothing is wrong.
    """
    if rank_info().size == 1:
        return
    import torch.distributed as dist

    with _group(patient=patient) as group:
        dist.all_gather_object([None] * rank_info().size, None, group=group)


def end_with(parent: int) -> None:
    """Lets this process die with the one that started it, even if that is killed, so that nobody works on unseen. Linux only.

    Args:
        parent: its process id; if it is gone already, this process ends at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)
