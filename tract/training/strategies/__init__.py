"""Training strategies that spread weights, gradients or the optimizer over ranks: DeepSpeed ZeRO and FSDP.

Lightning's own with three additions: weights are made in shares (``create``), a checkpoint's folder gets its name when all of it
is written, and processes on CPUs are accepted, so that a configuration can be tried without a GPU. What the parts of a checkpoint
are unpickled from are numbers and names alone: the libraries by themselves would run whatever a part that was replaced says.
"""

from tract.training.strategies.fsdp import FSDP
from tract.training.strategies.zero import ZeRO

__all__ = ["FSDP", "ZeRO"]
