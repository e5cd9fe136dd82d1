"""What a multirun shows of its jobs: a line each, when it has ended. All else goes to a file for each job.

On a terminal, what runs is shown until then. Errors are shown too, and what libraries write to stderr. Jobs of submitit have a log of
their own already.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tract.artifacts.records import COMPLETE, FOLDER, SWEEP, RunRecord, records_below
from tract.common.masking import MaskedFormatter, masked_text
from tract.common.progress import JOB_LOG
from tract.common.terminal import say

FOLDER_OF_LOGS = "logs"  # in the folder of the multirun


@contextmanager
def one_line_each(cfg: DictConfig) -> Iterator[None]:
    """Says how a job ended; meanwhile its log goes to a file. A dry run is shown as it is, since it makes nothing."""
    if cfg.get("dry_run"):
        yield
        return
    hydra = HydraConfig.get()
    number, folder = int(hydra.job.num), Path(hydra.sweep.dir)
    logs = folder / FOLDER_OF_LOGS
    path, name = logs / f"job{number}.log", f"job #{number}: {variant_of(cfg)}"
    if number == 0:
        say(f"the log of each job: {_relative_path(str(logs))}/jobN.log")
    begun = time.monotonic()
    with _shown_while_running(name), _logged_to(path) as warned:
        yield
    record = _record(folder, number)
    warnings = f"; {len(warned)} warning{'s' * (len(warned) > 1)} in {_relative_path(str(path))}" if warned else ""
    say(f"{name}: {how_it_ended(record, folder, time.monotonic() - begun)}{warnings}")


@contextmanager
def _shown_while_running(text: str) -> Iterator[None]:
    """Shows on a terminal what is at work, on a line that is cleared at the end, and before an error is shown."""
    if not sys.stdout.isatty():
        yield
        return

    def clear(_: logging.LogRecord | None = None) -> bool:
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(clear)
    sys.stdout.write(f"{text} ..."[: shutil.get_terminal_size().columns - 1])
    sys.stdout.flush()
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(clear)
        clear()


def _record(folder: Path, number: int) -> RunRecord | None:
    """That of a job of this multirun; records of earlier ones may be there."""
    found = (record for _, record in records_below(folder / FOLDER) if record.sweep == os.environ.get(SWEEP, ""))
    return next((record for record in found if record.job == number), None)


def variant_of(cfg: DictConfig) -> str:
    """What tells a job from the others: its variant, else what it was given beyond the words of the command."""
    command = {word.casefold() for word in sys.argv}  # Hydra writes False for false
    given = [override for override in HydraConfig.get().overrides.task if override.casefold() not in command]
    variant, seed = OmegaConf.select(cfg, "run.variant"), OmegaConf.select(cfg, "seed")
    # A variant holds no seed, which a job may have been given all the same.
    return masked_text(f"{variant}, seed {seed}" if variant else " ".join(given) or "as given")


def how_it_ended(record: RunRecord | None, folder: Path, seconds: float) -> str:
    """The text "done after 35 s; test pearson_r 0.812, rmse 0.530 (rail); FOLDER", or "failed after 2 s"."""
    if record is None or record.status != COMPLETE:  # a task that is no pipeline leaves no record
        return f"{'failed' if record is not None else 'done'} after {seconds:.0f} s"
    products = {name: os.path.normpath(folder / FOLDER / place) for name, place in record.stages.items()}
    last = list(products.values())[-1:]
    shown = [_metrics(Path(products["evaluate"]))] if "evaluate" in products else []
    return "; ".join([f"done after {seconds:.0f} s", *filter(None, shown), *(_relative_path(place) for place in last)])


def _metrics(product: Path) -> str:
    """The main predictor's correlation and error on each benchmark."""
    try:
        content: dict[str, Any] = json.loads((product / "metrics.json").read_text(encoding="utf-8"))
        main = content["main_predictor"]
        found = {name: report["predictors"][main] for name, report in content["benchmarks"].items()}
        each = [f"{name} " + ", ".join(f"{key} {_number(of[key]['value'])}" for key in ("pearson_r", "rmse")) for name, of in found.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a product that was removed meanwhile
        return ""
    return f"{'; '.join(each)} ({main})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _relative_path(place: str) -> str:
    relative = os.path.relpath(place)
    return place if relative.startswith("..") else relative


@contextmanager
def _logged_to(path: Path) -> Iterator[list[int]]:
    """Sends log lines to a file and none but errors to the terminal; gives a list that grows with each warning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    warned: list[int] = []
    root = logging.getLogger()
    before = {handler: handler.level for handler in root.handlers}
    file = file_handler(path)

    def count(record: logging.LogRecord) -> bool:
        warned.extend([record.lineno] * (record.levelno == logging.WARNING))
        return True

    file.addFilter(count)
    for handler in before:
        handler.setLevel(logging.ERROR)
    root.addHandler(file)
    os.environ |= {JOB_LOG: str(path.resolve()), "TQDM_DISABLE": "1"}
    try:
        yield warned
    finally:
        del os.environ[JOB_LOG]
        root.removeHandler(file)
        file.close()
        for handler, level in before.items():
            handler.setLevel(level)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def file_handler(path: Path) -> logging.FileHandler:
    """Appends to a log, which is made with the first line."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(MaskedFormatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def follow_job_log() -> None:
    """In a process of a stage: writes to the log of the job that it works for, if there is one, as the job itself does."""
    if path := os.environ.get(JOB_LOG):
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.ERROR)
        logging.getLogger().addHandler(file_handler(Path(path)))
