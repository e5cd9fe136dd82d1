"""One stage in a process of its own: ``python -m tract.job FOLDER``, started by the pipeline.

The folder holds ``config.yaml``, resolved, and ``task.json``. Processes of other ranks start with the same command.
"""

from __future__ import annotations

import ctypes
import json
import logging.config
import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from tract.entry import CONFIG_DIR, guarded

_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> None:
    """Runs the task that the folder describes."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    _end_with(task.pop("parent"))
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    logging.config.dictConfig(_logging())
    logging.captureWarnings(True)
    guarded(_run)(task, config, folder)


def _run(task: dict[str, Any], config: DictConfig, folder: Path) -> None:
    # Heavy imports, after the process is tied to its parent.
    from tract.stages.pipeline import PRODUCT_FILE, Task, build_stage
    from tract.stages.stage import run_stage
    from tract.validation import typed

    wanted = Task(**task)
    product = run_stage(build_stage(wanted, config), typed(config), force=wanted.force)
    (folder / PRODUCT_FILE).write_text(str(product.path), encoding="utf-8")


def _end_with(parent: int) -> None:
    """Lets this process die with the pipeline, even if that is killed, so that nobody works on unseen. Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


def _logging() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIG_DIR / "hydra" / "job_logging" / "tract.yaml").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main(Path(sys.argv[1]))
