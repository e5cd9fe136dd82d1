"""Multiruns: failed jobs, searches, every sweep; jobs of submitit and joblib, here as processes of this machine; the batch script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from tracked_files import tracked

from tract.artifacts.records import records_below
from tract.artifacts.runs import find_runs
from tract.common.errors import ConfigError, ReportedExit
from tract.common.signals import Interrupted
from tract.pipeline.entry import launch
from tract.pipeline.sweeps import multirun
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model=tiny", "data.source.n_questions=12", "data.source.n_ood_questions=0", "logger=none", "trainer.enable_progress_bar=false",
    "batch.global_batch_size=4", "pipeline=[stage1]", "train.max_steps=1", "train.keep_weights=last", "train.validate_base_model=false",
    "run.name=jobs",
)  # fmt: skip


def places(root: Path) -> list[str]:
    return [f"paths.runs={root}/runs", f"paths.cache={root}/cache"]


def run(*command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "PYTHONPATH", "COLUMNS")  # the last one, of a worker of xdist, would fold log lines
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        command, cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1", **more}, capture_output=True, text=True, timeout=400, check=False
    )


def jobs(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A multirun of small trainings, each a submitit job, started in a folder where nothing may appear."""
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=submitit_local"]
    done = run(*command, *SMALL, *places(root), *overrides, cwd=elsewhere)
    assert list(elsewhere.iterdir()) == []
    return done


def complete(root: Path) -> list[str]:
    """The folders of the runs with a complete stage 1, below that of their name."""
    found = [path for depth in ("", "*/") for path in (root / "runs" / "jobs").glob(f"{depth}seed*/stage1-*")]
    return sorted(str(path.parent.relative_to(root / "runs" / "jobs")) for path in found)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the entry ends, before any job."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        launch(lambda cfg: pytest.fail("it ran"), "train")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("launcher", ["slurm", "submitit_slurm"])
def test_without_the_plugin_the_error_says_how_to_get_it(
    launcher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Plugins.instance()  # else it is found and registered after it was taken out
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "submitit_slurm.yaml")
    line = refused(monkeypatch, capsys, "-m", f"hydra/launcher={launcher}", "seed=0,1")
    mends = "run `pip install -c constraints.txt -e '.[slurm]'`"
    assert line == f"error: hydra/launcher: submitit_slurm needs the package hydra-submitit-launcher; {mends}"


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused(monkeypatch, capsys, "-m", "hydra/launcher=slurm", "seed=0,1", *places(tmp_path))
    assert line == 'error: hydra/launcher: Could not detect "srun", are you indeed on a slurm cluster?'


@pytest.mark.parametrize(
    "override", ["+logger.wandb.api_key=abc", "+logger.wandb.api_key=abc,def", "+model.chat_template_kwargs.note=hf_" + "x" * 34]
)
def test_a_multirun_with_a_secret_is_refused_before_anything_is_written(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1", override, *places(tmp_path)])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        launch(lambda cfg: pytest.fail("it ran"), "train")
    assert ended.value.code == 2
    out, error = capfd.readouterr()
    key = override.lstrip("+").partition("=")[0]
    assert error.startswith(f"error: {key}: a multirun writes its configuration to multirun.yaml, with this secret; ")
    assert error.endswith(f"{key}='${{oc.env:NAME}}'\n")
    assert "abc" not in out + error
    assert "hf_x" not in out + error
    assert list(tmp_path.iterdir()) == []


def test_a_multirun_whose_secret_is_in_the_environment_writes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "c0rrect-h0rse")
    override = "+logger.wandb.api_key='${oc.env:SOME_SERVICE_TOKEN}'"
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1", "run.name=jobs", override, *places(tmp_path)])
    GlobalHydra.instance().clear()
    seen: list[str] = []
    launch(lambda cfg: seen.append(cfg.logger.wandb.api_key), "train")
    assert seen == ["c0rrect-h0rse"] * 2
    assert "${oc.env:SOME_SERVICE_TOKEN}" in (tmp_path / "runs" / "jobs" / "multirun" / "multirun.yaml").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"c0rrect" in path.read_bytes()]
    assert "c0rrect" not in "".join(capfd.readouterr())


def test_a_launcher_without_a_multirun_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(monkeypatch, capsys, "hydra/launcher=slurm")
    assert line.startswith("error: hydra/launcher: slurm starts the runs of a multirun, also a single one, with -m; add -m")


def test_the_slurm_launcher_is_the_plugin_s_with_keys_set() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        chosen = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
        launcher = compose("train", chosen, return_hydra_config=True).hydra.launcher
    assert launcher._target_ == "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    assert (launcher.partition, launcher.tasks_per_node, launcher.timeout_min) == ("gpu", 1, 720)


def multirun_of(monkeypatch: pytest.MonkeyPatch, task: Callable[[DictConfig], float | None], *arguments: str) -> int:
    """The exit status of a multirun of a task in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "run.name=jobs", *arguments])
    GlobalHydra.instance().clear()
    try:
        launch(task, "train")
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


@pytest.mark.kills
def test_a_failed_job_loses_no_other_and_is_listed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One by an error of the user's, one by a stage's process, one by a fault of ours."""
    done = []

    def task(cfg: DictConfig) -> None:
        if cfg.seed == 1:
            raise ConfigError("seed: 1 is taken")
        if cfg.seed == 2:
            raise ReportedExit(2, "data.path: absent")
        if cfg.seed == 3:
            raise ZeroDivisionError("by\nzero")
        done.append(cfg.seed)

    assert multirun_of(monkeypatch, task, "seed=0,1,2,3,4", *places(tmp_path)) == 2
    assert done == [0, 4]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-4:] == [
        "3 of 3 jobs did not complete; the same command again runs these, and reuses the others:",
        "error: job #1: seed: 1 is taken (seed=1)",
        "error: job #2: data.path: absent (seed=2)",
        "error: job #3: ZeroDivisionError: by zero (seed=3)",
    ]
    folder = tmp_path / "runs" / "jobs" / "multirun"
    assert {(record.job, record.status) for _, record in records_below(folder)} == {(1, "failed"), (2, "failed"), (3, "failed")}
    # The same command again: what was mended has another record then, and nothing is listed.
    assert multirun_of(monkeypatch, lambda cfg: None, "seed=0,4", *places(tmp_path)) == 0
    assert capsys.readouterr().err == ""


def test_jobs_that_only_say_what_they_would_do_are_not_counted_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run leaves no record, so how many went well is not known, and not said."""

    def task(cfg: DictConfig) -> None:
        if cfg.seed == 1:
            raise ConfigError("seed: 1 is taken")

    assert multirun_of(monkeypatch, task, "seed=0,1", "dry_run=true", *places(tmp_path)) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "1 job did not complete; the same command again runs these, and reuses the others:",
        "error: job #1: seed: 1 is taken",
    ]


def test_an_interrupt_ends_the_whole_multirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def task(cfg: DictConfig) -> None:
        done.append(cfg.seed)
        raise Interrupted(signal.SIGTERM)

    assert multirun_of(monkeypatch, task, "seed=0,1", *places(tmp_path)) == 128 + signal.SIGTERM
    assert done == [0]


def test_a_search_gets_what_a_task_returns_and_counts_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Optuna: the trial with the least value wins; one that fails has none."""
    seen = []

    def task(cfg: DictConfig) -> float:
        assert (cfg.optimized_metric, cfg.evaluation.benchmarks, cfg.compare_to) == ("val/rmse", ["val"], None)
        seen.append(cfg.optimizer.lr)
        if len(seen) == 2:
            raise ConfigError("no")
        return abs(float(cfg.optimizer.lr) - 1e-4)

    assert multirun_of(monkeypatch, task, "sweep=optuna", "hydra.sweeper.n_trials=5", *places(tmp_path)) == 2
    assert len(set(seen)) == 5
    out = capsys.readouterr()
    best = min((lr for place, lr in enumerate(seen) if place != 1), key=lambda lr: abs(lr - 1e-4))
    assert f"Best value: {abs(best - 1e-4)}" in out.out + out.err
    assert "error: job #1: no\n" in out.err
    # The same search again asks the same, so that what is complete is reused.
    first = list(seen)
    seen.clear()
    multirun_of(monkeypatch, task, "sweep=optuna", "hydra.sweeper.n_trials=5", *places(tmp_path))
    assert seen[:2] == first[:2]


SWEEPS = [path.stem for path in tracked(ROOT / "conf" / "sweep", "*.yaml")]


@pytest.mark.parametrize("sweep", [pytest.param(name, marks=[pytest.mark.kills] if name in ("lambda", "n_cot") else []) for name in SWEEPS])
def test_every_sweep_runs_its_jobs(sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without -m."""
    seen: list[DictConfig] = []

    def task(cfg: DictConfig) -> float:
        validate(cfg)
        seen.append(cfg)
        return 1.0

    small = ["hydra.sweeper.n_trials=2"] if sweep == "optuna" else []
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=tract_quickstart", f"sweep={sweep}", *small, *places(tmp_path)])
    GlobalHydra.instance().clear()
    launch(task, "train")
    expected = {
        "ablations": [path.stem for path in tracked(ROOT / "conf" / "ablation", "*.yaml")],
        "lambda": [0, 0.1, 1, 10],
        "n_cot": [1, 2, 4, 8],
    }
    if sweep == "optuna":
        assert len({cfg.optimizer.lr for cfg in seen}) == 2
        return
    found = {"ablations": "run.ablation", "lambda": "objective.lambda", "n_cot": "evaluation.n_cot"}[sweep]
    assert sorted(OmegaConf.select(cfg, found) for cfg in seen) == expected[sweep]


def test_each_job_has_a_variant_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, int]] = []

    def task(cfg: DictConfig) -> None:
        validate(cfg)
        seen.append((cfg.run.variant, cfg.seed))

    def variants(*arguments: str) -> list[tuple[str | None, int]]:
        seen.clear()
        assert multirun_of(monkeypatch, task, "model=tiny", *arguments, *places(tmp_path)) == 0
        return list(seen)

    assert variants("seed=0,1", "objective.lambda=1") == [(None, 0), (None, 1)]
    assert variants("objective.lambda=0.1", "objective=tract,ce_only") == [("objective=tract", 0), ("objective=ce_only", 0)]
    assert variants("sweep=lambda", "seed=3", "evaluation.benchmarks=[val, test]") == [
        (f"objective.lambda={weight}", 3) for weight in ("0", "0.1", "1", "10")
    ]
    assert variants("run.variant=mine", "objective.lambda=1,2") == [("mine", 0)] * 2
    assert variants("run.variant=a,b", "seed=0,1") == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(900)
def test_a_sweep_leaves_a_judge_in_each_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two ablations, two lambdas and two seeds: folders, comparison, export of the best, and what a folder above says."""
    from tract.apps.cli.main import main
    from tract.pipeline.pipeline import run as run_stages

    small = [override for override in SMALL if not override.startswith(("pipeline=", "train."))]
    quick = [
        "train.max_steps=2",
        "train.validate_base_model=false",
        "optimizer.lr=0.01",
        "run.subprocess_stages=false",
        "generation.max_cot_tokens=8",
        "evaluation.resamples=20",
        "compare_to=null",
        "train.keep_weights=best",
    ]
    swept = ["+ablation=tract,from_stage1", "objective.lambda=0.1,1", "seed=0,1"]
    assert multirun_of(monkeypatch, run_stages, "hydra/job_logging=none", *small, *quick, *swept, *places(tmp_path)) == 0
    root = tmp_path / "runs" / "jobs"
    folders = [
        f"{ablation}+objective.lambda={weight}/seed{seed}"
        for ablation in ("from_stage1", "tract")
        for weight in ("0.1", "1")
        for seed in "01"
    ]
    assert sorted(set(complete(tmp_path))) == folders
    assert all(len(list((root / folder).glob("stage2-*"))) == 1 for folder in folders)
    assert len(list((tmp_path / "runs" / "stages").glob("stage1-*/manifest.json"))) == 4, "stage 1 is shared by both ablations"
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "200")

    def tract(*arguments: object) -> tuple[int, str, str]:
        try:
            main([str(argument) for argument in arguments])
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    status, _, said = tract("export", root, tmp_path / "out")
    assert status == 2
    assert said.startswith(f"error: judge: {root} holds 8 judges: ")
    assert all(f"{root / folder} (variant " in said for folder in folders)
    status, said, _ = tract("export", root, tmp_path / "out", "--best", "val/rmse")
    assert status == 0
    values = {}
    for folder in folders:
        (stage,) = (root / folder).glob("stage2-*")
        values[folder, stage.name] = json.loads((stage / "manifest.json").read_text())["training"]["exported"]["val/rmse"]
    (folder, stage_name), _ = min(values.items(), key=lambda entry: entry[1])
    variant, seed = folder.split("/")
    assert f"\njudge: variant {variant}, seed {seed[4:]}, {stage_name}, in {root / folder / stage_name}" in said
    status, said, _ = tract("compare", root, "--resamples", 0)
    assert status == 0
    assert all(f"{ablation} objective.lambda={weight} " in said for ablation in ("tract", "from_stage1") for weight in ("0.1", "1"))
    # Without the records of the sweep the folders still say whose the evaluations are.
    shutil.rmtree(root / "multirun")
    found = find_runs([root])
    assert sorted((run.name, run.config["run.variant"], run.seed) for run in found.runs) == sorted(
        ("jobs", folder.split("/")[0], int(folder[-1])) for folder in folders
    )
    # A stage that was removed leaves a link to nowhere.
    (stage,) = (root / folders[0]).glob("stage2-*")
    (first,) = (root / folders[0]).glob("stage1-*")
    for link in (stage, first):
        shutil.rmtree(link.resolve())
    status, _, said = tract("export", root / folders[0], tmp_path / "other")
    assert (status, "but links that lead nowhere (stage" in said) == (2, True)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("error: data.path: absent\n", "hydra/launcher: data.path: absent"),
        ("Killed\n", "hydra/launcher: Job 7 (task: 0) has not produced any output (state: FAILED); Error stream produced:; Killed"),
    ],
)
def test_a_job_that_ended_without_a_result_is_one_line(log: str, line: str) -> None:
    head = f"Job 7 (task: 0) has not produced any output (state: FAILED)\nError stream produced:\n{'-' * 40}\n"
    assert multirun.explain(RuntimeError(head + log)) == line


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(600)
def test_each_job_trains_into_the_folder_of_its_configuration(tmp_path: Path) -> None:
    done = jobs(tmp_path, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert complete(tmp_path) == ["seed0", "seed1"]
    logs = sorted((tmp_path / "runs" / "jobs" / "multirun" / ".submitit").glob("*/*_log.out"))
    assert len(logs) == 2
    assert all("stage1: finished, " in log.read_text() for log in logs)


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(600)
def test_the_error_of_a_job_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    """The first job's is found in the process of its stage, the last one's by the check of its configuration."""
    done = jobs(tmp_path, "data.max_length=8,2048,0")
    assert done.returncode == 2, done.stdout + done.stderr
    head, first, last = done.stderr.splitlines()
    assert head.startswith("2 of 3 jobs did not complete; ")
    assert first.startswith("error: job #0: data: no usable item in the training split")
    assert last.startswith("error: job #2: data.max_length: 0 is not a number >= 1 (log: ")
    assert last.endswith(") (data.max_length=0)")
    log = Path(last.rpartition("(log: ")[2].partition(")")[0])
    assert log.read_text() == "error: data.max_length: 0 is not a number >= 1\n"
    assert log.is_relative_to(tmp_path / "runs" / "jobs" / "multirun" / ".submitit")
    assert complete(tmp_path) == ["data.max_length=2048/seed0"]


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(600)
def test_concurrent_jobs_share_stage_1_and_its_cots(tmp_path: Path) -> None:
    """Two processes of joblib: what both need is made by one of them."""
    small = [override for override in SMALL if not override.startswith(("pipeline=", "train.max_steps="))]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *small, *places(tmp_path)]
    one_process = [
        "run.subprocess_stages=false",
        "generation.max_cot_tokens=8",
        "evaluation.resamples=20",
        "compare_to=null",
        "train.max_steps=2",
    ]
    done = run(*command, *one_process, "+ablation=from_stage1,mixed_cots,zero_shot", "optimizer.lr=0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made = sorted(path.parent.name.partition("-")[0] for path in (tmp_path / "runs" / "stages").glob("*/manifest.json"))
    assert made == ["evaluate"] * 3 + ["generate"] + ["predict"] * 3 + ["stage1"] + ["stage2"] * 2
    found = {str(record.config["run"]["ablation"]): record for _, record in records_below(tmp_path / "runs")}
    assert set(found) == {"from_stage1", "mixed_cots", "zero_shot"}
    assert found["from_stage1"].stages["generate"] == found["mixed_cots"].stages["generate"]
    assert all(record.status == "complete" for record in found.values())
    folder = tmp_path / "runs" / "jobs" / "multirun" / "records"
    assert all((folder / product / "manifest.json").is_file() for record in found.values() for product in record.stages.values())
    # Also in processes that only inherit which keys all jobs share.
    assert {name: record.config["run"]["variant"] for name, record in found.items()} == {name: name for name in found}
    links = {path.parent.parent.name for path in (tmp_path / "runs" / "jobs").glob("*/seed0/evaluate-*")}
    assert links == set(found)


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(600)
def test_tasks_of_a_job_train_together(tmp_path: Path) -> None:
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true")
    done = jobs(tmp_path, "hydra.launcher.tasks_per_node=2", "seed=0", *ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert complete(tmp_path) == ["seed0"]
    first, second = sorted((tmp_path / "runs" / "jobs" / "multirun" / ".submitit").glob("*/*_log.out"))
    assert "on each of 2 processes" in first.read_text()
    assert "finished" not in second.read_text(), "one process speaks for all"


SRUN = """#!/usr/bin/env bash
# Two tasks on this machine, in the environment that srun gives them.
[ "$1" = --kill-on-bad-exit=1 ] || exit 64
shift
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_NODEID=0 MASTER_ADDR=127.0.0.1
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" >"task$rank.log" 2>&1 & tasks[$rank]=$!
done
wait "${tasks[0]}" && wait "${tasks[1]}"
"""


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_batch_script_trains_with_a_task_for_each_device(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    programs = {"srun": SRUN, ".venv/bin/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    job = {"JOB_ID": str(os.getpid()), "JOB_NUM_NODES": "1", "NTASKS": "2", "NTASKS_PER_NODE": "2", "CPUS_PER_TASK": "1", "PROCID": "0"}
    slurm = {f"SLURM_{name}": value for name, value in job.items()}
    ranks = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true", "logger=wandb")
    script = str(ROOT / "scripts" / "multinode.sbatch")
    done = run("bash", script, *SMALL, *places(tmp_path), *ranks, cwd=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}", **slurm)
    first, second = ((tmp_path / f"task{rank}.log").read_text() for rank in range(2))
    assert done.returncode == 0, done.stderr + first + second
    assert "on each of 2 processes" in first
    assert "stage1: finished" in first
    assert "finished" not in second
    assert complete(tmp_path) == ["seed0"]
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 1, "one of the ranks logs"


SBATCH = """#!/usr/bin/env bash
# An array of two jobs on this machine.
for task in 0 1; do
  SLURM_JOB_ID=$((4242 + task)) SLURM_ARRAY_JOB_ID=4242 SLURM_ARRAY_TASK_ID=$task SLURM_NTASKS=1 bash "$1" >/dev/null 2>&1 &
done
echo Submitted batch job 4242
"""
SRUN_OF_JOB = """#!/usr/bin/env bash
# The one task of a job, with its log where it is wanted: srun --unbuffered --output OUT --error ERR COMMAND
[ "$1 $2 $4 $SLURM_KILL_BAD_EXIT" = "--unbuffered --output --error 1" ] || exit 64
logs=("$3" "$5")
logs=("${logs[@]//%A/4242}"); logs=("${logs[@]//%a/$SLURM_ARRAY_TASK_ID}"); logs=("${logs[@]//%t/0}")
mkdir -p "$(dirname "${logs[0]}")"
export SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0
shift 5
exec "$@" >"${logs[0]}" 2>"${logs[1]}"
"""


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.timeout(600)
def test_the_slurm_launcher_submits_an_array_of_jobs(tmp_path: Path) -> None:
    """With an sbatch and srun of our own; there is no sacct, so the results alone say that the jobs are over."""
    for name, text in {"sbatch": SBATCH, "srun": SRUN_OF_JOB}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    done = run(*command, *SMALL, *places(tmp_path), "adapter.rank=2,0", cwd=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    folder = tmp_path / "runs" / "jobs" / "multirun" / ".submitit"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: job #1: adapter.rank: 0 is not a number >= 1 (log: {folder}/4242_1/4242_1_0_log.err) (adapter.rank=0)"], (
        done.stderr
    )
    assert done.returncode == 2
    assert complete(tmp_path) == ["adapter.rank=2/seed0"]
    (script,) = folder.rglob("*_submission.sh")
    wanted = {"--partition=gpu", "--array=0-1%2", "--ntasks-per-node=1", "--gpus-per-node=1", "--time=720"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines()}
