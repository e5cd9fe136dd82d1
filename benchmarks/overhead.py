"""Share of a training that is spent outside the model: loading batches, logging, checkpoints, and Lightning itself.

    python benchmarks/overhead.py --data FEEDBACK.jsonl --items 8 --steps 48

Runs the trainer of the fit stage, as ``train.py`` does, with the CSV logger and a checkpoint every 24 optimizer steps, under a
profiler. The whole is the training loop: set-up, which loads the weights, comes before it, and there is no validation. Inside the
model are forward with loss, backward, and the optimizer with clipping. On a GPU each part waits for what it began, so what would
overlap adds up.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from workload import arguments, configured, device_of, report

from tract.config.schema import Config
from tract.pipeline.stages.fit import build, trainer_factory
from tract.pipeline.stages.prepare import Prepared
from tract.pipeline.tracking.loggers import build_loggers, close_loggers
from tract.training.library_messages import silence_library_logs
from tract.training.trainer import run_training

LOOP, LOGGERS = "run_training_epoch", "loggers"
# Parts of a training by the ends of the names of Lightning's actions.
MODEL = {
    "forward and loss": (".training_step",),
    "backward": (".backward",),
    "optimizer": (".optimizer_step", ".configure_gradient_clipping", ".optimizer_zero_grad"),
}
OUTSIDE = {
    "loading batches": (".train_dataloader_next", ".batch_to_device", "_batch_transfer"),
    "values to log, gradient norm": ("TractLitModule.on_before_optimizer_step",),
    "loggers": (LOGGERS,),
    "checkpoints": ("save_checkpoint",),
}


class Stopwatch(Profiler):
    """Adds up the seconds of Lightning's actions in the training loop.

    Args:
        settle: called before each look at the clock, so that the work of a GPU counts where it was begun.

    Attributes:
        own: seconds of each action without those of actions inside it. loop: seconds of the training loop.
    """

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self.own: defaultdict[str, float] = defaultdict(float)
        self.loop = 0.0
        self._settle = settle
        self._open: list[tuple[str, float, float]] = []  # name, begin, seconds of what was inside

    def start(self, action_name: str) -> None:
        """Begins an action."""
        if self._open or action_name == LOOP:
            self._settle()
            self._open.append((action_name, time.perf_counter(), 0.0))

    def stop(self, action_name: str) -> None:
        """Ends it."""
        if not self._open or self._open[-1][0] != action_name:  # begun before the loop, or stopped twice
            return
        self._settle()
        _, begun, inside = self._open.pop()
        seconds = time.perf_counter() - begun
        # What a checkpoint asks of module and callbacks is its own.
        if any(name == "save_checkpoint" for name, _, _ in self._open):
            return
        self.own[action_name] += seconds - (0 if action_name == "save_checkpoint" else inside)
        if self._open:
            name, before, within = self._open.pop()
            self._open.append((name, before, within + seconds))
        else:
            self.loop += seconds

    def of(self, ends: tuple[str, ...]) -> float:
        """Seconds of the actions with such names."""
        return sum(seconds for name, seconds in self.own.items() if name.endswith(ends))


def watch(logger: Logger, stopwatch: Stopwatch) -> None:
    """Lets a logger's work be an action too."""
    for name in ("log_metrics", "save"):
        setattr(logger, name, _timed(getattr(logger, name), stopwatch))


def _timed(call: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with stopwatch.profile(LOGGERS):
            return call(*args, **kwargs)

    return run


def train(cfg: Config, data: Prepared, device: torch.device) -> tuple[Stopwatch, float]:
    """Trains in a temporary folder; returns the stopwatch and the seconds of the whole, set-up included."""
    stopwatch = Stopwatch(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    cfg.trainer["profiler"] = stopwatch
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        module, loaders = build(cfg, dataclasses.replace(data, rows={**data.rows, "val": []}))
        loggers = build_loggers(cfg, Path(folder))
        for logger in loggers:
            watch(logger, stopwatch)
        run_training(cfg, trainer_factory(cfg), module, loaders, loggers, Path(folder))
        seconds = time.perf_counter() - begun
        close_loggers(loggers, "success")
    return stopwatch, seconds


def main() -> None:
    """Trains and writes the table of parts."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=48, help="optimizer steps (default 48)")
    options = parser.parse_args()
    cfg, data = configured(
        "logger=csv", "train.checkpoint_every_steps=24", f"batch.global_batch_size={options.items}", f"train.max_steps={options.steps}",
        "train.max_epochs=1000", *options.overrides, data=options.data,
    )  # fmt: skip
    device = device_of(cfg)
    silence_library_logs()
    stopwatch, seconds = train(cfg, data, device)
    parts = {name: stopwatch.of(ends) for name, ends in (MODEL | OUTSIDE).items()}
    parts["Lightning and the rest"] = stopwatch.loop - sum(parts.values())
    parts["outside the model, in all"] = stopwatch.loop - sum(parts[name] for name in MODEL)
    rows = [[name, part, 100 * part / stopwatch.loop] for name, part in parts.items()]
    rows += [["training loop", stopwatch.loop, 100.0], ["set-up, not counted", seconds - stopwatch.loop, "-"]]
    report("overhead", options.out, device, ["part", "s", "% of training"], rows, items=options.items, steps=options.steps)


if __name__ == "__main__":
    main()
