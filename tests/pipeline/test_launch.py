"""Who starts the processes of a stage: how many, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tract.common.errors import ConfigError, ReportedExit
from tract.config.schema import Config
from tract.pipeline.launching import launch

TinyConfig = Callable[..., tuple[Config, Any]]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    launch.launcher.cache_clear()
    yield
    launch.launcher.cache_clear()


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        ([], 1),
        (["trainer.devices=4"], 4),
        (["trainer.devices=[2]"], 1),
        (["trainer.devices=auto"], 1),
        (["trainer.devices=3", "trainer.num_nodes=2"], 6),
    ],
)
def test_processes(tiny_config: TinyConfig, overrides: list[str], size: int) -> None:
    assert launch.processes(tiny_config(*overrides)[0]) == size


@pytest.mark.parametrize(
    ("overrides", "apart"),
    [
        ([], False),
        (["run.subprocess_stages=true"], True),
        (["run.subprocess_stages=false", "generation=vllm"], False),
        (["generation=vllm"], True),
        (["trainer.devices=2"], True),
        (["trainer.num_nodes=2"], True),
        (["trainer=single"], True),
        (["trainer=deepspeed_zero2", "trainer.devices=1", "trainer.accelerator=cpu", "trainer.precision=32-true"], True),
    ],
)
@pytest.mark.usefixtures("vllm_counts_as_installed")
def test_auto_isolates_where_it_matters(tiny_config: TinyConfig, overrides: list[str], apart: bool) -> None:
    assert launch.isolated(tiny_config(*overrides)[0]) is apart


def test_auto_is_the_default(compose_config: Callable[..., Any]) -> None:
    assert compose_config("model=tiny").run.subprocess_stages == "auto"


@pytest.mark.parametrize("value", ["never", "1", "null"])
def test_isolate_accepts_auto_true_and_false(tiny_config: TinyConfig, value: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.subprocess_stages: .*"):
        tiny_config(f"run.subprocess_stages={value}")


def test_auto_counts_the_gpus(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert launch.processes(tiny_config("trainer=ddp")[0]) == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer=ddp", "trainer.devices=4"], "trainer.devices: 4 GPUs are asked for, 2 are present; set trainer.devices=2"),
        (["trainer.num_nodes=2"], "trainer.num_nodes: 2 machines need one process for each device, started by srun or torchrun"),
        (
            ["trainer.devices=2", "run.subprocess_stages=false"],
            "run.subprocess_stages: false runs stages in this one process, but trainer.devices=2",
        ),
    ],
)
def test_what_cannot_be_started_is_refused(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError) as refused:
        launch.check_devices(tiny_config("run.subprocess_stages=true", *overrides)[0])
    assert str(refused.value).startswith(message)


def test_a_machine_without_gpus_says_what_to_set(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"1 GPUs are asked for, 0 are present; set trainer.accelerator=cpu .*, or trainer=cpu"):
        launch.check_devices(tiny_config("trainer=single")[0])


def test_as_many_processes_as_devices_must_be_started(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launch.follows()
    with pytest.raises(ConfigError, match=r"trainer.devices: 2 on 1 machines are 2 processes, but 4 were started"):
        launch.check_devices(tiny_config("trainer.devices=2", "run.subprocess_stages=true")[0])
    launch.check_devices(tiny_config("trainer.devices=2", "trainer.num_nodes=2", "run.subprocess_stages=true")[0])


def test_tasks_of_srun_are_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """But a batch script without srun is one process, whatever its allocation holds."""
    batch = {"SLURM_JOB_ID": "4242", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}
    for name, value in batch.items():
        monkeypatch.setenv(name, value)
    assert launch.launcher() is None
    launch.launcher.cache_clear()
    task = {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
    }
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    found = launch.launcher()
    assert found is not None
    assert {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR")} == {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "GROUP_RANK": "1", "MASTER_ADDR": "gpu07",
    }  # fmt: skip
    assert 15000 <= int(found["MASTER_PORT"]) < 30000
    assert launch.follows()


def test_a_single_task_of_srun_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what a submitit job with one task sees."""
    task = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SUBMITIT_EXECUTOR": "slurm"}
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    assert launch.launcher() is None


@pytest.mark.parametrize("tasks", [1, 4])
def test_tasks_of_a_submitit_job_on_this_machine_are_ranks(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the multirun was started in a task of srun."""
    task = {"EXECUTOR": "local", "LOCAL_NTASKS": str(tasks), "LOCAL_GLOBALID": "3", "LOCAL_LOCALID": "3", "LOCAL_JOB_ID": "4242"}
    for name, value in task.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    found = launch.launcher()
    if tasks == 1:
        assert found is None
        return
    assert found is not None
    assert [found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")] == ["3", "3", "4", "127.0.0.1"]
    assert launch.follows()


@pytest.mark.parametrize(
    ("code", "note", "message"),
    [
        (2, "data.path: absent", "data.path: absent"),
        (1, None, "stage1: its process ended with exit status 1"),
        (-signal.SIGKILL, None, "stage1: its process ended with exit status 137"),
    ],
)
def test_what_the_process_of_a_stage_told_comes_with_its_status(
    code: int, note: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the record of the run, since the process itself has told the user."""

    def run(folder: Path, environment: Any) -> int:
        if note is not None:
            (folder / launch.ERROR_FILE).write_text(note)
        return code

    monkeypatch.setattr(launch, "_run_one", run)
    with pytest.raises(ReportedExit) as ended:
        launch.run_job({"stage": "stage1"}, OmegaConf.create({"seed": 0}), 1, "product.txt")
    assert ended.value.message == message
    assert ended.value.code == (code if code > 0 else 137)
