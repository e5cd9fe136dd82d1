"""Moments of a running pipeline, seen by the files that it writes: when tests kill or interrupt it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.001
PATIENCE_S = 600.0  # for one start of the command, on a machine with other work too
CACHE = "cache"
STAGES = ("", "stage1", "generate", "stage2", "predict", "evaluate")  # "" for the start, before any
Files = dict[str, tuple[int, int]]  # path below the store, or of the cache -> (bytes, time of the last change in ns)


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        stage: the stage at work; "" for the start of the process, before any. writes: a pattern; a file of the stage, or of the
            cache, whose name it fits has just appeared or changed. delay_s: to wait then. isolate: each stage in a process of its own;
            else as by default, on a CPU all in one.
        alone: kill only the process that was started; else its whole group.
    """

    stage: str
    writes: str
    delay_s: float
    isolate: bool = False
    alone: bool = False


def wait_for_moment(moment: Moment, before: Files, place: Path, process: subprocess.Popen[str]) -> str:
    """Waits until the moment has come, or the command has ended; returns the stage at work."""
    begun = time.monotonic()
    while (stage := _due(moment, before, place)) is None and process.poll() is None:
        assert time.monotonic() - begun < PATIENCE_S, f"{moment} never came: {output_of(place)}"
        time.sleep(_POLL_S)
    time.sleep(moment.delay_s)
    return stage or moment.stage


def _due(moment: Moment, before: Files, place: Path) -> str | None:
    """The stage at work if the moment has come; a stage that is over already gives way to the next one."""
    if not moment.writes:
        return "start"
    after = files_in_work(place)
    changed = [name for name, state in after.items() if before.get(name) != state]
    if not moment.stage and any(re.search(moment.writes, name) for name in changed):
        return "start"
    for name in changed:
        if name.startswith(f"{moment.stage}-") and re.search(moment.writes, name):
            return moment.stage
    later = [stage for stage in STAGES if stage_rank(stage) > stage_rank(moment.stage)]
    return next((stage for name in changed for stage in later if name.startswith(f"{stage}-")), None)


def stage_rank(stage: str) -> int:
    """The place of a stage in the pipeline; of "", the start, 0."""
    return STAGES.index(stage)


def files_in_work(place: Path) -> Files:
    """What the stages in work and the cache hold; files come and go while they are listed."""
    found: Files = {}
    store = place / "runs" / "stages"
    for folder in (*store.glob("*.partial"), place / CACHE):
        for path in (Path(root) / name for root, _, names in os.walk(folder) for name in names):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            found[path.relative_to(place if folder.name == CACHE else store).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found


def output_of(place: Path) -> str:
    """The end of what the command printed."""
    return (place / "output.txt").read_text(encoding="utf-8")[-3000:]
