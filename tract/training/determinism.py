"""``deterministic=true``: equal bits from equal inputs, in every process of every stage that computes with torch.

The sum of many numbers depends on how many threads share it, so each process computes with one: neither the machine's cores nor
OMP_NUM_THREADS move a bit then. Seeds need nothing more: all that is drawn belongs to the seed, the example and the step anyway.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tract.common.errors import ConfigError

_THREADS = 1
# cuBLAS gives equal bits with workspaces of its own for each stream only; read when CUDA's first product is made.
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_REFUSED = re.compile(r"(?P<operation>\S+(?: with .*?)?) does not have a deterministic implementation")


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Lets torch compute with equal bits meanwhile, if that is wanted.

    Raises:
        ConfigError: naming an operation that has no deterministic implementation here.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    os.environ.setdefault(*_CUBLAS)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(_THREADS)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if (found := _REFUSED.search(str(error))) is None:
            raise
        raise ConfigError(
            f"deterministic: true, but {found['operation']} has no deterministic implementation on this device; set deterministic=false, "
            "or trainer=cpu"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
