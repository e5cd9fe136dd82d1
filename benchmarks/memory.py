"""Peak memory of whole optimizer steps, the project's way beside the plain one, each in a process of its own.

    python benchmarks/memory.py --data FEEDBACK.jsonl --items 8 --rounds 2

On a CPU: the highest resident anonymous memory (RssAnon) while the steps run. Mapped files are not in it, since the system takes
their pages back when it needs them, but the weights are: they are copied out of theirs. On a GPU: torch's highest allocation.
Above the model: the same without what the process held when the model was loaded. The second step has the optimizer's state.
"""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from typing import Any

import torch
from train_step import ChildWork
from workload import ALONE, PLAIN, SHARED, arguments, common_options, configured, device_of, in_child, report

MIB = 2**20
# Between two looks at the memory; an operation on arrays of many MiB takes longer.
_EVERY_S = 0.004


class Peak:
    """The most memory in use while the block runs.

    Attributes:
        before: MiB when the block began. mib: MiB at the peak.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.before = self.mib = 0.0

    def __enter__(self) -> Peak:
        """Begins to watch."""
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / MIB
            return self
        self.before = self.mib = resident_mib()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Takes the peak."""
        if self._cuda:
            self.mib = torch.cuda.max_memory_allocated() / MIB
            return
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            self.mib = max(self.mib, resident_mib())


def resident_mib() -> float:
    """Resident memory of this process that belongs to no file, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def own_memory(model: Any) -> None:
    """Copies the weights out of the file that they may be mapped from, so that they count."""
    for weight in model.parameters():
        weight.data = weight.data.clone()


def child(options: argparse.Namespace) -> dict[str, float]:
    """Steps of one way, in this process."""
    work = ChildWork(options)
    own_memory(work.model)
    step = work.step()
    with Peak(work.device) as peak:
        for _ in range(options.rounds):
            step()
    return {"peak": peak.mib, "above": peak.mib - peak.before}


def main() -> None:
    """Measures each way and writes the table."""
    parser = arguments(__doc__)
    parser.add_argument("--annotations", type=int, nargs="+", default=[3, 1], help="annotations of a prompt (default 3 1)")
    parser.add_argument("--child", choices=[PLAIN, ALONE, SHARED], help=argparse.SUPPRESS)
    parser.set_defaults(rounds=2)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    cfg, _ = configured(*options.overrides, data=options.data)  # fills the cache, so that no child has to
    rows = []
    for number in options.annotations:
        found = {way: in_child(__file__, way, ["--annotations", number, *common_options(options)]) for way in (PLAIN, ALONE, SHARED)}
        for way, mib in found.items():
            ratios = [mib[key] / max(found[PLAIN][key], 1e-9) for key in ("peak", "above")]
            rows.append([number, way, mib["peak"], ratios[0], mib["above"], ratios[1]])
    columns = ["annotations", "way", "peak MiB", "ratio", "above model MiB", "ratio above"]
    report("memory", options.out, device_of(cfg), columns, rows, items=options.items, steps=options.rounds)


if __name__ == "__main__":
    main()
