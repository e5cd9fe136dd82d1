"""What a multirun shows of its jobs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tract.artifacts.records import RunRecord
from tract.common.errors import ConfigError
from tract.common.progress import JOB_LOG
from tract.pipeline.entry import launch
from tract.pipeline.sweeps.job_log import follow_job_log, how_it_ended

log = logging.getLogger("tract.test")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Hydra sets up the root logger of the process that it runs in."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)


def run_jobs(monkeypatch: pytest.MonkeyPatch, task: object, folder: Path, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "run.name=jobs", f"paths.runs={folder}", *arguments])
    GlobalHydra.instance().clear()
    launch(task, "train")  # type: ignore[arg-type]


def test_a_job_shows_one_line_and_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def task(cfg: DictConfig) -> None:
        log.info("a table\nof two lines, seed %d", cfg.seed)
        log.warning("look here, hf_%s", "x" * 34)
        if cfg.seed == 1:
            log.error("this is shown")

    run_jobs(monkeypatch, task, tmp_path, "seed=0,1", "trainer.enable_progress_bar=false")
    out, error = capfd.readouterr()
    lines = out.splitlines()
    logs = tmp_path / "jobs" / "multirun" / "logs"
    assert lines[0] == f"the log of each job: {logs}/jobN.log"
    assert lines[1] == f"job #0: seed=0: done after 0 s; 1 warning in {logs}/job0.log"
    assert lines[2].endswith("] this is shown")
    assert lines[3] == f"job #1: seed=1: done after 0 s; 1 warning in {logs}/job1.log"
    assert len(lines) == 4
    assert error == ""
    for seed in (0, 1):
        text = (logs / f"job{seed}.log").read_text()
        assert f"of two lines, seed {seed}\n" in text
        assert "look here, ***" in text


def test_a_job_is_told_by_its_variant_and_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_jobs(monkeypatch, lambda cfg: None, tmp_path, "objective.lambda=0,1", "seed=3,4")
    told = [line.partition(": done")[0] for line in capfd.readouterr().out.splitlines() if ": done" in line]
    assert told == [
        f"job #{k}: objective.lambda={weight}, seed {seed}" for k, (weight, seed) in enumerate([(0, 3), (0, 4), (1, 3), (1, 4)])
    ]


def test_the_error_of_a_job_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def task(cfg: DictConfig) -> None:
        raise ConfigError("seed: 0 is taken")

    with pytest.raises(SystemExit):
        run_jobs(monkeypatch, task, tmp_path, "seed=0")
    out, error = capfd.readouterr()
    assert out.splitlines()[1] == "job #0: as given: failed after 0 s"
    assert error.splitlines()[0] == "error: seed: 0 is taken"
    assert not (tmp_path / "jobs" / "multirun" / "logs").exists(), "there was nothing to log"


def test_a_terminal_shows_the_job_at_work_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "12")
    seen: list[str] = []
    run_jobs(monkeypatch, lambda cfg: seen.append(capsys.readouterr().out), tmp_path, "seed=0,1", "trainer.enable_progress_bar=false")
    assert seen[0].endswith("/jobN.log\njob #0: see"), "a character less than the terminal is wide, else it wraps"
    assert seen[1] == "\r\x1b[Kjob #0: seed=0: done after 0 s\njob #1: see"
    assert capsys.readouterr().out == "\r\x1b[Kjob #1: seed=1: done after 0 s\n"


def test_a_dry_run_is_shown_in_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    run_jobs(monkeypatch, lambda cfg: log.info("needs much"), tmp_path, "seed=0,1", "dry_run=true")
    assert capfd.readouterr().out.count("needs much") == 2


def test_the_last_line_holds_the_metrics(tmp_path: Path) -> None:
    product = tmp_path / "stages" / "evaluate-0123456789"
    product.mkdir(parents=True)
    values = {"pearson_r": {"value": 0.8123}, "rmse": {"value": None}}
    content = {"main_predictor": "rail", "benchmarks": {"test": {"predictors": {"rail": values}}}}
    (product / "metrics.json").write_text(json.dumps(content))
    record = RunRecord("complete", {}, stages={"stage1": "../x", "evaluate": "../../stages/evaluate-0123456789"})
    folder = tmp_path / "jobs"
    assert how_it_ended(record, folder, 35.2) == f"done after 35 s; test pearson_r 0.812, rmse undefined (rail); {product}"
    (product / "metrics.json").write_text("{")
    assert how_it_ended(record, folder, 35.2) == f"done after 35 s; {product}"
    assert how_it_ended(RunRecord("running", {}), folder, 1) == "failed after 1 s"


def test_the_process_of_a_stage_writes_to_the_log_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    levels = [handler.level for handler in before]
    monkeypatch.setenv(JOB_LOG, str(tmp_path / "job0.log"))
    try:
        follow_job_log()
        log.warning("from a stage")
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
        for handler, level in zip(before, levels, strict=True):
            handler.setLevel(level)
    assert "] from a stage\n" in (tmp_path / "job0.log").read_text()
