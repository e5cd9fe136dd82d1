"""Jobs of a multirun: each has a folder of its variant and leaves a record; one that fails does not end the others.

The end of a multirun names the best job and lists those that failed.

A job runs in the process of the command (Hydra's basic launcher), in one of joblib's, or in one that submitit starts
(hydra/launcher=slurm, or submitit_local to try it). What it returns is pickled, so its error is no exception. Knows Hydra and submitit.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tract.artifacts.records import COMPLETE, FAILED, FOLDER, SWEEP, RunRecord, config_of, records_below
from tract.common import import_order
from tract.common.command_line import tract_command
from tract.common.errors import ConfigError, DataError, ReportedExit
from tract.common.masking import masked_text, secret_keys
from tract.common.signals import Interrupted
from tract.common.terminal import say
from tract.pipeline.old_names import upgrade_sweep
from tract.pipeline.sweeps import job_variant
from tract.pipeline.sweeps.job_log import one_line_each

_PACKAGES = ("submitit", "hydra_plugins.hydra_submitit_launcher")
_SUBMITIT_MAIN = "submitit.core._submit"
_ERROR = "error: "  # how an entry script, and the process of a stage, begins its last line


@dataclass(frozen=True)
class Failure:
    """What a job that failed returns; no number, so a sweeper that optimises counts it as failed.

    Attributes:
        job: its name. message: one line.
    """

    job: str
    message: str


def is_job() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def is_submitit_job() -> bool:
    """Whether submitit started this very process; its environment alone is inherited by processes that a job starts."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _SUBMITIT_MAIN


def check_launcher() -> None:
    """Refuses a launcher for a run that is none of a multirun, which Hydra would make here, on the machine that jobs are sent from.

    Raises:
        ConfigError: if one is chosen.
    """
    hydra = HydraConfig.get()
    chosen = hydra.runtime.choices["hydra/launcher"]
    if hydra.mode == RunMode.RUN and chosen != "basic":
        raise ConfigError(f"hydra/launcher: {chosen} starts the runs of a multirun, also a single one, with -m; add -m, or leave it out")


class SweepStart(Callback):
    """Names the multirun for its jobs; refuses one with a secret in its configuration, which Hydra and submitit would write to files."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called before anything is written.

        Raises:
            SystemExit: if there is a secret; Hydra would only warn of an error of another kind.
        """
        upgrade_sweep(config)
        os.environ[SWEEP] = f"{time.time_ns():x}-{os.getpid()}"
        os.environ[job_variant.FIXED_KEYS] = job_variant.fixed_keys(config.hydra.overrides.task)
        if (runs := str(config.paths.runs)).startswith("~"):  # what is given in other ways is expanded before Hydra reads it
            sys.stderr.write(
                f"{_ERROR}paths.runs: ~ in {runs!r} of a file is not read before a multirun; write the folder out, or give it with "
                "paths.runs= or in TRACT_RUNS\n"
            )
            sys.exit(2)
        found = secret_keys(OmegaConf.to_container(config))
        if not found:
            _started.append(Path(config.hydra.sweep.dir))
            return
        named = [key for key in found if not key.startswith("hydra.")]  # what Hydra adds repeats the overrides
        given = [override.partition("=")[0].lstrip("+~") for override in config.hydra.overrides.task if secret_keys(override)]
        key = (named or given or found)[0]
        sys.stderr.write(
            f"{_ERROR}{key}: a multirun writes its configuration to multirun.yaml, with this secret; put it into an environment variable, "
            f"and give the name: {key}='${{oc.env:NAME}}'\n"
        )
        sys.exit(2)


_started: list[Path] = []  # the folders of the multiruns that this process started


def findable() -> None:
    """Lets jobs import the package that this process runs, wherever the command was started, and nothing by that place."""
    os.environ.update(import_order.for_children(os.environ))


def run_job(task: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | Failure | None:
    """What the task of a job returns; its error, of whatever kind, goes to the record of the run, and the other jobs go on.

    Raises:
        SystemExit: if the job was interrupted or is to be started again, or if it has other tasks, which must end with it.
    """
    job_variant.set_variant(cfg, HydraConfig.get().overrides.task)
    shown = nullcontext() if is_submitit_job() else one_line_each(cfg)
    with shown:
        return _run_job(task, cfg)


def _run_job(task: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | Failure | None:
    try:
        return task(cfg)
    except ReportedExit as told:
        status, message = int(str(told.code)), told.message
    except SystemExit as ended:
        if isinstance(ended, Interrupted) or not ended.code or by_submitit(ended):  # it starts jobs again that were out of time
            raise
        status, message = 1, f"ended with exit status {ended.code}"
    except Exception as error:
        sys.stderr.write(masked_text(traceback.format_exc()))
        status, message = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
    message = masked_text(message)
    if is_submitit_job():
        from submitit import JobEnvironment

        job = JobEnvironment()
        log = job.paths.stderr if job.paths.stderr.exists() else job.paths.stdout
        message = f"{message} (log: {log})"
        if job.global_rank == 0:
            _record(cfg, message)
        if job.num_tasks > 1:  # by its status the scheduler knows that the others have to be ended
            sys.exit(status)
    else:
        _record(cfg, message)
    return Failure(f"job #{HydraConfig.get().job.num}", message)


def _record(cfg: DictConfig, message: str) -> None:
    hydra = HydraConfig.get()
    overrides = tuple(map(masked_text, hydra.overrides.task))
    record = RunRecord(FAILED, config_of(cfg), overrides, message=message, sweep=os.environ.get(SWEEP, ""), job=int(hydra.job.num))
    record.write(Path(hydra.sweep.dir))


def tell_end() -> bool:
    """Says which job of the multirun of this process is the best, and which did not complete, if it was one; whether any did not."""
    ended = False
    while _started:
        folder = _started.pop()
        found = [(path, record) for path, record in records_below(folder / FOLDER) if record.sweep == os.environ.get(SWEEP)]
        _print_best(folder, [(path, record) for path, record in found if record.status == COMPLETE])
        ended |= _print_failures(_one_record_per_job([record for _, record in found]))
    return ended


def _print_best(folder: Path, complete: list[tuple[Path, RunRecord]]) -> None:
    """Names the best of the jobs that were evaluated, and the command that compares them all."""
    if not complete:
        return
    # numpy and scipy, which a process that starts jobs and no more does without until now.
    from tract.artifacts.best import best_lines
    from tract.artifacts.runs import RecordedRun, run_of

    try:
        runs = [run for path, record in complete if isinstance(run := run_of(path, record), RecordedRun)]
        lines = best_lines(runs)
    except (DataError, OSError, ValueError, LookupError) as error:  # what the jobs made stays as it is
        say(f"no best run is named: {masked_text(' '.join(str(error).split()))}")
        return
    if runs:
        shown = os.path.relpath(folder)
        say(masked_text("\n".join([*lines, f"compare: {tract_command('compare', str(folder) if shown.startswith('..') else shown)}"])))


def _one_record_per_job(found: list[RunRecord]) -> list[RunRecord]:
    """One record of each job: that of its completion, else the one that says most.

    A failure in the process of a stage is recorded there, by the configuration as it was decided, and by the job.
    """
    told = sorted(found, key=lambda record: (record.status == COMPLETE, len(record.message)))
    return list({record.job: record for record in told if record.job is not None}.values()) + [
        record for record in told if record.job is None
    ]


def _print_failures(found: list[RunRecord]) -> bool:
    """Lists the jobs that did not complete; whether there are any."""
    bad = sorted((record for record in found if record.status != COMPLETE), key=lambda record: record.job or 0)
    if not bad:
        return False
    # Of jobs that only say what they would do, none but those that failed leave a record.
    dry = any(record.config.get("dry_run") for record in found)
    count = f"{len(bad)} {'job' if len(bad) == 1 else 'jobs'}" if dry else f"{len(bad)} of {len(found)} jobs"
    sys.stderr.write(f"{count} did not complete; the same command again runs these, and reuses the others:\n")
    for record in bad:
        own = _own_overrides(record, found)
        said = record.message or "it ended without a word"
        sys.stderr.write(f"{_ERROR}job #{record.job}: {said}{f' ({own})' if own else ''}\n")
    return True


def _own_overrides(record: RunRecord, others: list[RunRecord]) -> str:
    """The overrides of a job that not all have."""
    return masked_text(" ".join(text for text in record.overrides if not all(text in other.overrides for other in others)))


def by_submitit(error: BaseException) -> bool:
    """Whether an error came from within submitit or its plugin."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f"{module}.".startswith(f"{package}.") for module in modules for package in _PACKAGES)


def explain(error: Exception) -> str:
    """One line for jobs that could not be submitted, or one that ended without a word."""
    text = str(error)
    lines = [line.strip(" -") for line in text.splitlines()]
    said = [line.removeprefix(_ERROR) for line in text.splitlines() if line.startswith(_ERROR)]
    return f"hydra/launcher: {said[-1] if said else '; '.join(filter(None, lines))[:600]}"
