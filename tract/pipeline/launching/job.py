"""One stage in a process of its own: ``python -m tract.pipeline.launching.job FOLDER``, started by the pipeline.

The folder holds ``config.yaml``, resolved, and ``task.json``. The processes of other ranks start with the same command.
"""

from __future__ import annotations

import json
import logging.config
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from tract.common import import_order, signals
from tract.common.distributed import RankInfo, die_with_parent, init_process_group, ranks_from_environment
from tract.common.errors import ReportedExit, TrainingError
from tract.pipeline.entry import CONFIG_DIR, guarded, show_masked
from tract.pipeline.launching.interrupt_note import leave_note
from tract.pipeline.sweeps.job_log import follow_job_log

# What gloo and NCCL say of a rank that does not answer any more.
_LOST = re.compile(r"[Cc]onnection (closed|reset|refused)|[Tt]imed out|timeout|Broken pipe|remote process exited|NCCL")
_LAST_WAIT_S = 5.0


def main(folder: Path) -> None:
    """Runs the task that the folder describes."""
    with signals.handled(partial(_leave_note, folder), once=False):
        _main(folder)


def _leave_note(folder: Path, number: int, reason: str) -> None:
    if ranks_from_environment().is_first:
        leave_note(folder, number, reason)


def _main(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    die_with_parent(task.pop("parent"))
    import_order.add_last(task.pop("import_path"))
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    logging.config.dictConfig(_logging())
    follow_job_log()
    logging.captureWarnings(True)
    sys.excepthook = show_masked
    if not ranks_from_environment().is_first:  # one rank speaks for all, unless something is wrong
        logging.getLogger("tract").setLevel(logging.WARNING)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
    try:
        guarded(_run)(task, config, folder)
    except ReportedExit as told:
        from tract.pipeline.launching.launch import ERROR_FILE

        (folder / ERROR_FILE).write_text(told.message, encoding="utf-8")  # for the record of the run
        raise


def _run(task: dict[str, Any], config: DictConfig, folder: Path) -> None:
    # Heavy imports, after the process is tied to its parent.
    from tract.artifacts.products import checked_by_leader
    from tract.pipeline.identity.loaded_code import check_unchanged
    from tract.pipeline.stage_tasks import PRODUCT_FILE, StageTask, build_stage, check_code, stage_modules
    from tract.pipeline.stages.stage import follow_stage, run_stage
    from tract.pipeline.validation import typed

    code = task.pop("code")
    wanted, cfg = StageTask(**task), typed(config)
    check_code(wanted, config, code)
    gpu = cfg.trainer.get("accelerator") in ("gpu", "cuda")
    with init_process_group(gpu=gpu, timeout_s=cfg.run.rank_timeout_s) as ranks, _outlived(ranks), checked_by_leader():
        stage = build_stage(wanted, config)
        check_unchanged(wanted.stage, lambda: stage_modules(wanted.stage))  # once more, behind the imports
        if ranks.is_first:
            product = run_stage(stage, cfg, force=wanted.force)
            (folder / PRODUCT_FILE).write_text(str(product.path), encoding="utf-8")
        else:
            follow_stage(stage, cfg)


@contextmanager
def _outlived(ranks: RankInfo) -> Iterator[None]:
    """Lets the rank that failed first be heard: the others, who only lose the connection to it, wait for their end."""
    try:
        yield
    except RuntimeError as error:
        if ranks.world_size == 1 or not _LOST.search(str(error)):
            raise
        time.sleep(_LAST_WAIT_S)  # whoever started the ranks ends this one meanwhile
        raise TrainingError(f"rank {ranks.rank}: another rank is gone or did not answer ({str(error).splitlines()[0][:200]})") from None


def _logging() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIG_DIR / "hydra" / "job_logging" / "tract.yaml").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main(Path(sys.argv[1]))
