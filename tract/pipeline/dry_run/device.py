"""The device that a dry run plans for: its memory and the speed of its products, as far as they are known here."""

from __future__ import annotations

import timeit
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from tract.config.schema import Config
from tract.models.precisions import arithmetic_of
from tract.pipeline.dry_run.memory import GIB
from tract.pipeline.dry_run.training_setup import on_gpu, precision_of
from tract.pipeline.launching.launch import processes

_SIZE, _TRIES = 1024, 5  # of the product that shows a CPU's speed
# Of what a device could do at most, the share that a training reaches. CPU: measured, docs/performance.md (training: 57-61 % of the
# matmul peak). GPU: assumed, what well-tuned trainings of 7B models report on A100 and H100.
SHARE = {"cpu": 0.6, "gpu": 0.4}


@dataclass(frozen=True)
class Device:
    """What is planned for.

    Attributes:
        name: for people. note: what is assumed, or "".
        memory: bytes that a process may use; None where it is not known.
        peak: FLOP/s; None where it is not known. share: of it that a training reaches.
        count: devices that work together; a CPU counts once, however many processes share it.
    """

    name: str
    note: str
    memory: float | None
    peak: float | None
    share: float
    count: int


def hours(flops: float, peak: float, share: float, devices: int) -> float:
    """How long so many devices take at a share of their peak, in FLOP/s each."""
    return flops / (peak * share * devices) / 3600


def find_device(cfg: Config) -> Device:
    """The configured device; what ``run.device_memory_gib`` says goes before what is here."""
    given, count, note = cfg.run.device_memory_gib, processes(cfg), ""
    memory = given * GIB if given else None
    dtype = arithmetic_of(precision_of(cfg)) or torch.float32
    if not on_gpu(cfg):
        return Device("CPU", "", memory or _machine_memory() / count, cpu_peak(dtype), SHARE["cpu"], 1)
    if not torch.cuda.is_available():
        if str(cfg.trainer.get("devices", 1)) in ("auto", "-1"):
            note = f"trainer.devices={cfg.trainer['devices']}, but no GPU is here: the figures assume {count}; set a number"
        return Device("GPU", note, memory, None, SHARE["gpu"], count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GPUs that Lightning does not know: then the time is not printed
        peak = get_available_flops(torch.device("cuda", 0), dtype)
    memory = memory or float(torch.cuda.get_device_properties(0).total_memory)
    return Device(torch.cuda.get_device_name(0), note, memory, peak, SHARE["gpu"], count)


def _machine_memory() -> float:
    """Bytes that this machine's processes may use: its memory, or the limit of their control group."""
    memory = float(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return min(memory, float(text)) if text.isdecimal() else memory


def cpu_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large product here, the best of some."""
    a, b = (torch.randn(_SIZE, _SIZE).to(dtype) for _ in range(2))
    return 2 * _SIZE**3 / min(timeit.repeat(lambda: a @ b, number=1, repeat=_TRIES))
