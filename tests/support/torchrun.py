"""Trainings on several processes (``rank_worker``), and how far their numbers are apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "support" / "rank_worker.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def environment(**more: str) -> dict[str, str]:
    """Of a process that starts ranks itself."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # DeepSpeed compiles with ninja
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "PATH": programs}
    return {**kept, **paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The distance of all tensors together, relative to the expected ones."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - value).norm()) ** 2 for name, value in expected.items())
    return float((difference / sum(float(value.norm()) ** 2 for value in expected.values())) ** 0.5)
