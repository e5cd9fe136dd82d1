"""Jobs of a multirun that are processes of their own, which submitit starts (hydra/launcher=slurm, or submitit_local to try it).

What a job returns is pickled, and read by the process that waits for all of them. So the error of a job is returned, and becomes a
line of the waiting process when it is read there. Knows submitit.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tract.errors import ConfigError
from tract.masking import masked_text, secret_keys

_PACKAGES = ("submitit", "hydra_plugins")
_JOB = "submitit.core._submit"
_ERROR = "error: "  # how an entry script, and the process of a stage, begins its last line

failed: list[str] = []  # the jobs whose errors were told here


def is_job() -> bool:
    """Whether submitit started this very process; its environment alone is inherited by processes that a job starts."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _JOB


def check_launcher() -> None:
    """Refuses a launcher for a run that is none of a multirun, which Hydra would make here, on the machine that jobs are sent from.

    Raises:
        ConfigError: if one is chosen.
    """
    hydra = HydraConfig.get()
    chosen = hydra.runtime.choices["hydra/launcher"]
    if hydra.mode == RunMode.RUN and chosen != "basic":
        raise ConfigError(f"hydra/launcher: {chosen} starts the runs of a multirun, also a single one, with -m; add -m, or leave it out")


class SweepCheck(Callback):
    """Refuses a multirun with a secret in its configuration, which Hydra would write to multirun.yaml and submitit to its files."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called before anything is written.

        Raises:
            SystemExit: if there is a secret; Hydra would only warn of an error of another kind.
        """
        found = secret_keys(OmegaConf.to_container(config))
        if not found:
            return
        named = [key for key in found if not key.startswith("hydra.")]  # what Hydra adds repeats the overrides
        given = [override.partition("=")[0].lstrip("+~") for override in config.hydra.overrides.task if secret_keys(override)]
        key = (named or given or found)[0]
        sys.stderr.write(
            f"{_ERROR}{key}: a multirun writes its configuration to multirun.yaml, with this secret; put it into an environment variable, "
            f"and give the name: {key}='${{oc.env:NAME}}'\n"
        )
        sys.exit(2)


def findable(root: Path) -> None:
    """Lets jobs import the package that this process runs, wherever the command was started."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(root) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, paths)])


@dataclass(frozen=True)
class Failure:
    """What a job that failed returns; where it is unpickled, the error is told.

    Attributes:
        job: its name. message: one line.
    """

    job: str
    message: str

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str, str]]:
        return _tell, (self.job, self.message)


def _tell(job: str, message: str) -> None:
    failed.append(job)
    sys.stderr.write(f"{_ERROR}{job}: {message}\n")


def run_as_job(task: Callable[[DictConfig], None], cfg: DictConfig) -> Failure | None:
    """Runs the task of a job; an error of whatever kind is returned, and stands in the job's log."""
    reason = None
    try:
        task(cfg)
        return None
    except SystemExit as ended:
        if not ended.code or by_submitit(ended):  # it starts jobs again that were out of time
            raise
        status = ended.code
    except Exception as error:
        sys.stderr.write(masked_text(traceback.format_exc()))
        status, reason = 1, f"{type(error).__name__}: {error}"
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.num_tasks > 1:  # by its status the scheduler knows that the others have to be ended
        sys.exit(status)
    log = job.paths.stderr if job.paths.stderr.exists() else job.paths.stdout
    said = reason or _last_error(log.read_text(encoding="utf-8", errors="replace")) or f"ended with exit status {status}"
    return Failure(f"job #{HydraConfig.get().job.num}", masked_text(f"{' '.join(said.split())} (log: {log})"))


def by_submitit(error: BaseException) -> bool:
    """Whether an error came from within submitit or its plugin."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.split(".")[0] in _PACKAGES for module in modules)


def explain(error: Exception) -> str:
    """One line for jobs that could not be submitted, or one that ended without a word."""
    text = str(error)
    lines = [line.strip(" -") for line in text.splitlines()]
    return f"hydra/launcher: {_last_error(text) or '; '.join(filter(None, lines))[:600]}"


def _last_error(text: str) -> str | None:
    lines: list[Any] = [line.removeprefix(_ERROR) for line in text.splitlines() if line.startswith(_ERROR)]
    return lines[-1] if lines else None
