"""The device that a dry run plans for: its memory and the speed of its products, as far as they can be told here."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from tract.config.schema import Config
from tract.pipeline.dry_run.facts import GIB
from tract.pipeline.dry_run.model_facts import on_gpu
from tract.pipeline.launching.launch import processes

_SIZE, _TRIES = 1024, 5  # of the product that tells a CPU's speed
_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@dataclass(frozen=True)
class Device:
    """What is planned for.

    Attributes:
        name: for people. key: of the configuration that decides on its memory. note: what is assumed, or "".
        memory: bytes that a process may use; None where it is not known. peak: FLOP/s; None where it is not known.
        shared: whether all processes share one such device, as on a CPU.
    """

    name: str
    key: str
    memory: float | None
    peak: float | None
    note: str
    shared: bool

    def speeds(self, processes: int) -> int:
        """How many times the peak so many processes have."""
        return 1 if self.shared else processes


def find_device(cfg: Config) -> Device:
    """The configured device; what ``run.device_memory_gib`` says goes before what is here."""
    given = cfg.run.device_memory_gib
    dtype = _DTYPES.get(str(cfg.trainer.get("precision", "32-true")), torch.float16)
    if not on_gpu(cfg):
        memory = given * GIB if given is not None else machine_memory() / processes(cfg)
        return Device("CPU", "run.device_memory_gib" if given else "trainer", memory, cpu_peak(dtype), "", shared=True)
    here, note = torch.cuda.is_available(), ""
    if str(cfg.trainer.get("devices", 1)) in ("auto", "-1") and not here:
        note = f"trainer.devices={cfg.trainer['devices']}, but no GPU is here: the figures assume {processes(cfg)}; set a number"
    if not here:
        return Device("GPU", "run.device_memory_gib", given * GIB if given else None, None, note, shared=False)
    name = torch.cuda.get_device_name(0)
    memory = given * GIB if given else float(torch.cuda.get_device_properties(0).total_memory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GPUs that Lightning does not know: then the time is not told
        peak = get_available_flops(torch.device("cuda", 0), dtype)
    return Device(name, "run.device_memory_gib" if given else "trainer", memory, peak, note, shared=False)


def machine_memory() -> float:
    """Bytes that this machine's processes may use: its memory, or the limit of their control group."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return min(memory, float(text)) if text.isdecimal() else memory


def cpu_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large product here, the best of some."""
    a, b = (torch.randn(_SIZE, _SIZE).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_TRIES):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2 * _SIZE**3 / best
