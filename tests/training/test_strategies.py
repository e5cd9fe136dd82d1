"""Training on two processes, for real (gloo): the same gradient and weights as one, and going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchrun import TORCHRUN, WORKER, environment, relative
from transformers import AutoModelForCausalLM

from tract.config.vocabulary import STAGES

ROOT = Path(__file__).resolve().parents[2]
# Each is started on two processes, a minute or more each: these by `.ci/run`, all by `make test-kills`.
IN_CI = ("ddp", "deepspeed_zero3")
OFFLOAD = "deepspeed_zero3_offload"  # its optimizer is C++, which is compiled at the first use on a machine: two minutes
TOLERANCE = 1e-5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of the worker by (trainer, adapter, processes), each with and without accumulation."""
    folder = tmp_path_factory.mktemp("ranks")
    launched: set[tuple[str, int]] = set()

    def result(trainer: str, adapter: str, processes: int, budget: str) -> dict[str, Any]:
        if (trainer, processes) not in launched:
            torchrun = [*TORCHRUN, f"--nproc-per-node={processes}"] if processes > 1 else []
            adapters = "full" if trainer == OFFLOAD else "lora,full"
            command = [sys.executable, *torchrun, str(WORKER), str(folder), trainer, adapters, "null", "700"]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            launched.add((trainer, processes))
        loaded: dict[str, Any] = torch.load(folder / f"{trainer}-{adapter}-{processes}-{budget}.pt")
        return loaded

    return result


@pytest.mark.parametrize(
    ("strategy", "adapter"),
    [
        *product(IN_CI, ("lora", "full")),
        *(pytest.param(*both, marks=pytest.mark.kills) for both in product(("deepspeed_zero2", "fsdp"), ("lora", "full"))),
        pytest.param(OFFLOAD, "full", marks=pytest.mark.kills),
    ],
)
def test_two_processes_give_the_gradient_and_weights_of_one(trained: Any, strategy: str, adapter: str) -> None:
    """Five steps of AdamW with clipping and decay; the fourth step has one item for two processes."""
    alone = trained("cpu", adapter, 1, "null")
    assert alone["accumulate"] == 1
    for budget in ("null", "700"):
        two = trained(strategy, adapter, 2, budget)
        assert (two["accumulate"] > 1) == (budget == "700")
        assert relative(two["gradient"], alone["gradient"]) <= TOLERANCE
        assert relative(two["weights"], alone["weights"]) <= TOLERANCE
        for key, value in alone["logged"].items():
            assert two["logged"][key] == pytest.approx(value, rel=1e-4), key
    assert trained("cpu", adapter, 1, "700")["accumulate"] > 1
    assert relative(trained("cpu", adapter, 1, "700")["weights"], alone["weights"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("strategy", "share"), [("ddp", 1.0), ("deepspeed_zero3", 0.5), pytest.param("fsdp", 0.5, marks=pytest.mark.kills)]
)
def test_sharded_weights_are_spread(trained: Any, strategy: str, share: float) -> None:
    result = trained(strategy, "lora", 2, "null")
    assert result["own_elements"] / result["elements"] == pytest.approx(share, rel=0.02)


# Long enough to be killed in the second epoch; dropout, so that random numbers count.
LONG = (
    "model=tiny", "data.source.n_questions=20", "data.source.n_ood_questions=0", "logger=none", "trainer.enable_progress_bar=false",
    "batch.global_batch_size=5", "batch.max_tokens_per_micro_batch=1400", "train.max_steps=28", "train.max_epochs=9",
    "train.keep_weights=last",
    "train.validate_every_steps=12", "train.checkpoint_every_steps=4", "train.validate_base_model=false", "adapter.dropout=0.1",
    "optimizer.lr=0.003", "trainer.accelerator=cpu", "trainer.precision=32-true", "pipeline=[stage1]",
)  # fmt: skip


def command(root: Path, *overrides: str) -> list[str]:
    places = [f"paths.runs={root}/runs", f"paths.cache={root}/cache"]
    return [sys.executable, str(ROOT / "train.py"), *LONG, *places, *overrides]


def run(root: Path, *overrides: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *overrides), env=environment(**more), cwd=root, capture_output=True, text=True, timeout=300, check=False
    )


def finished(root: Path) -> dict[str, torch.Tensor]:
    (folder,) = (path for path in (root / "runs" / "stages").glob("stage1-*") if path.is_dir())
    assert not folder.name.endswith(".partial")
    return load_file(folder / "adapter_model.safetensors")


def killed_after(root: Path, checkpoint: str, *overrides: str) -> None:
    """Starts the command and kills its processes when a checkpoint appears."""
    process = subprocess.Popen(
        command(root, *overrides), env=environment(), cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not list((root / "runs" / "stages").glob(f"stage1-*.partial/checkpoints/{checkpoint}")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the ranks die with it


@pytest.mark.kills  # four starts of two processes each
@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp", OFFLOAD])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, strategy: str) -> None:
    """And, from the same kill, on another number of processes to the same weights but for dropout."""
    chosen = (f"trainer={strategy}", *(["optimizer=cpu_adamw"] if strategy == OFFLOAD else []))
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run(tmp_path / "whole", *chosen, "trainer.devices=2")
    assert whole.returncode == 0, whole.stderr[-3000:]
    killed_after(tmp_path / "cut", "last-step=8*.ckpt", *chosen, "trainer.devices=2")
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    again = run(tmp_path / "cut", *chosen, "trainer.devices=2")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "resuming from" in again.stdout
    expected, found = finished(tmp_path / "whole"), finished(tmp_path / "cut")
    if strategy == OFFLOAD:  # DeepSpeedCPUAdam multiplies beta's powers step by step, and takes them anew when it goes on
        assert relative(found, expected) <= TOLERANCE  # 0 on some CPUs
    else:
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    other = run(tmp_path / "other", *chosen, "trainer.devices=1")
    assert other.returncode == 0, other.stderr[-3000:]
    assert "resuming from" in other.stdout
    assert "resuming a run of 2 processes with 1" in other.stdout
    assert relative(finished(tmp_path / "other"), expected) < 0.5


@pytest.mark.kills
@pytest.mark.parametrize("strategy", ["deepspeed_zero3", "fsdp"])
def test_all_weights_that_were_spread_are_exported_whole(tmp_path: Path, strategy: str) -> None:
    """As a folder that transformers loads, with the weights of a training by one process."""
    chosen = ("adapter=full", "adapter.dropout=0", "train.max_steps=3")
    weights = {}
    for trainer, devices in (("cpu", 1), (strategy, 2)):
        (tmp_path / trainer).mkdir()
        done = run(tmp_path / trainer, f"trainer={trainer}", f"trainer.devices={devices}", *chosen)
        assert done.returncode == 0, done.stderr[-3000:]
        (file,) = (tmp_path / trainer / "runs" / "stages").glob("stage1-*/model.safetensors")
        weights[trainer] = AutoModelForCausalLM.from_pretrained(file.parent).state_dict()
    assert relative(weights[strategy], weights["cpu"]) <= TOLERANCE


def test_a_failing_rank_ends_the_job_with_its_error(tmp_path: Path) -> None:
    begun = time.monotonic()
    failed = run(tmp_path, "trainer=ddp", "trainer.devices=2", "trainer.strategy._target_=rank_failures.FailsOnRank1")
    assert failed.returncode != 0
    assert "rank 1 breaks on purpose" in failed.stderr
    assert "rank 1 of 2 failed first" in failed.stdout
    assert time.monotonic() - begun < 120


@pytest.mark.kills
def test_a_rank_that_hangs_ends_the_job_within_the_time_out(tmp_path: Path) -> None:
    failed = run(
        tmp_path, "trainer=ddp", "trainer.devices=2", "trainer.strategy._target_=rank_failures.HangsOnRank1", "run.rank_timeout_s=10"
    )
    assert failed.returncode != 0
    assert "another rank is gone or did not answer" in failed.stderr


@pytest.mark.kills
@pytest.mark.parametrize(
    ("trainer", "strategy"),
    [
        ("ddp", "NaNOnRank1"),
        ("fsdp", "ShardedNaNOnRank1"),
        ("deepspeed_zero2", "ZeRONaNOnRank1"),
        ("deepspeed_zero3", "ZeRONaNOnRank1"),
    ],
)
def test_nan_on_one_rank_stops_all_of_them_in_the_same_step(trainer: str, strategy: str, tmp_path: Path) -> None:
    """No rank waits for another: each says the same line, with the examples of all, and the checkpoint of the step before."""
    more = (
        "batch.max_tokens_per_micro_batch=null",
        "train.checkpoint_every_steps=1",
        f"trainer.strategy._target_=rank_failures.{strategy}",
    )
    failed = run(tmp_path, f"trainer={trainer}", "trainer.devices=2", *more)
    assert failed.returncode == 2, failed.stderr[-3000:]
    (line, *others) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: stage1, optimizer step 4: loss or gradient is not finite (loss nan"), line
    assert line.count("rubric_check-0-") > 5, "the step's five examples, and those of rank 1 once more"
    assert "; among these, not finite by themselves: rubric_check-0-" in line
    assert "/checkpoints/last-step=3.ckpt (optimizer step 3)" in line
    assert set(others) <= {line}
    assert "Traceback" not in failed.stderr


# All stages on a few items, without dropout: what is judged does not depend on who judges it.
PIPELINE = (
    "model=tiny", "data.source.n_questions=24", "data.source.n_ood_questions=2", "data.val_fraction=0.125", "data.test_fraction=0.125",
    "logger=none", "trainer.enable_progress_bar=false", "batch.global_batch_size=4", "batch.max_tokens_per_micro_batch=null",
    "train.max_steps=2",
    "train.keep_weights=last", "train.validate_base_model=false", "optimizer.lr=0.01", "data.max_train_items=8", "adapter.dropout=0",
    "generation.max_cot_tokens=12", "generation.n_cot=2", "generation.batch_size=4", "evaluation.n_cot=2", "evaluation.resamples=20",
    "evaluation.benchmarks=[test,ood]", "trainer.accelerator=cpu", "trainer.precision=32-true", "run.name=ranks",
)  # fmt: skip


def run_pipeline(root: Path, *launcher: str, trainer: str) -> subprocess.CompletedProcess[str]:
    root.mkdir(exist_ok=True)
    chosen = [
        *PIPELINE,
        f"trainer={trainer}",
        f"paths.runs={root}/runs",
        f"paths.cache={root}/cache",
        f"run.subprocess_stages={trainer != 'cpu'}",
    ]
    return subprocess.run(
        [sys.executable, *launcher, str(ROOT / "train.py"), *chosen, *([] if trainer == "cpu" else ["trainer.devices=2"])],
        env=environment(), cwd=root, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def judged(root: Path) -> dict[tuple[str, int, int], tuple[Any, list[float]]]:
    """(file, row, sample) -> (CoT, probabilities) of the judge of stage 2."""
    found = {}
    for folder in (root / "runs" / "ranks" / "seed0").glob("predict-*"):
        if json.loads((folder / "judge.json").read_text())["name"] == "stage2":
            for file in folder.glob("judgements-*.jsonl"):
                for line in file.read_text().splitlines():
                    record = json.loads(line)
                    found[file.name, record["row"], record["sample"]] = (record["cot_ids"], record["probabilities"])
    return found


def expect_same_judgements(root: Path, other: Path) -> None:
    expected, found = judged(root), judged(other)
    assert len(expected) == 3 * (6 + 4)
    assert found.keys() == expected.keys()
    for key, (cot, probabilities) in expected.items():
        assert found[key][0] == cot, key
        assert found[key][1] == pytest.approx(probabilities, rel=1e-4, abs=1e-7), key


@pytest.mark.kills
def test_all_stages_on_two_processes(tmp_path: Path) -> None:
    """The same judgements as on one process, each once."""
    for name, trainer in {"alone": "cpu", "own": "ddp"}.items():
        done = run_pipeline(tmp_path / name, trainer=trainer)
        assert done.returncode == 0, done.stderr[-3000:]
    expect_same_judgements(tmp_path / "alone", tmp_path / "own")


@pytest.mark.kills
def test_all_stages_on_two_processes_of_torchrun(tmp_path: Path) -> None:
    """Also: where a stage goes does not depend on who starts it."""
    for name, (launcher, trainer) in {"alone": ((), "cpu"), "torchrun": ((*TORCHRUN, "--nproc-per-node=2"), "ddp")}.items():
        done = run_pipeline(tmp_path / name, *launcher, trainer=trainer)
        assert done.returncode == 0, done.stderr[-3000:]
    expect_same_judgements(tmp_path / "alone", tmp_path / "torchrun")
    again = run_pipeline(tmp_path / "torchrun", trainer="ddp")
    assert again.returncode == 0, again.stderr[-3000:]
    assert [stage for stage in STAGES if f"{stage}: reused" in again.stdout] == list(STAGES), again.stdout


@pytest.mark.kills
def test_two_tasks_of_srun_train_together(tmp_path: Path) -> None:
    """With the environment that srun gives its tasks, started by hand."""
    chosen = [
        *PIPELINE,
        "trainer=fsdp",
        "trainer.devices=2",
        "pipeline=[stage1]",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={tmp_path}/c",
    ]
    of_step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NODEID": "0"}
    tasks = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *chosen],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**of_step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), MASTER_ADDR="127.0.0.1"),
        )  # fmt: skip
        for rank in range(2)
    ]
    outputs = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs[0][1][-3000:]
    assert "on each of 2 processes" in outputs[0][0]
    assert "stage1: finished" in outputs[0][0]
    assert "finished" not in outputs[1][0], "one process speaks for all"
