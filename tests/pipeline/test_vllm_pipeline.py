"""Stages whose judge runs in the real vLLM engine, on two CPU processes. Run: make test-vllm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tract.data.generated_cots.file import COTS_FILE, read_cots

# Two ranks and their engines take minutes.
pytestmark = [pytest.mark.vllm, pytest.mark.kills, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
VLLM = ("generation=vllm", "generation.vllm.enforce_eager=true", "generation.vllm.kv_cache_gib=0.5", "generation.batch_size=8")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2")
SMALL = (
    "model=tiny", "data.source.n_questions=30", "data.source.n_ood_questions=0", "data.max_length=2048", "logger=none",
    "generation.max_cot_tokens=30", "run.name=tiny",
)  # fmt: skip
GONE_S = 15.0


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(script: str, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *SMALL, *overrides]


def finished(root: Path, script: str, *overrides: str) -> str:
    done = subprocess.run(
        command(script, *overrides), cwd=root, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def journal_lines(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.glob("runs/stages/*.partial/**/rank*/*.jsonl"))


def engines(root: Path) -> list[str]:
    """The living processes of vLLM that work in ``root``; other tests may run engines of their own meanwhile."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            title = (process / "cmdline").read_text().replace("\0", " ")
            if "VLLM::" in title and (process / "cwd").resolve() == root.resolve():
                found.append(f"{process.name} {title}")
    return found


@pytest.mark.kills
def test_a_killed_generation_on_two_engines_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    overrides = [*VLLM, *TWO, "judge=base", "generation.n_cot=12", "data.source.n_questions=16"]
    process = subprocess.Popen(
        command("generate_cot.py", *overrides), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 400
    while journal_lines(tmp_path) < 60:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "it wrote nothing"
        time.sleep(0.05)
    assert len(engines(tmp_path)) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + GONE_S
    while left := engines(tmp_path):
        assert time.monotonic() < until, f"an engine lives on without its pipeline: {left}"
        time.sleep(0.1)
    kept = journal_lines(tmp_path)
    said = finished(tmp_path, "generate_cot.py", *overrides)
    assert kept >= 60
    assert "judgements were made before; going on" in said
    (product,) = [path for path in (tmp_path / "runs" / "stages").glob("generate-*") if path.is_dir()]
    records = list(read_cots(product / COTS_FILE, tmp_path / "cache"))
    samples = Counter(record["row"] for record in records)
    assert set(samples.values()) == {12}
    assert len({(record["row"], record["sample"]) for record in records}) == len(records) == 12 * len(samples)
    assert len({tuple(record["cot_ids"]) for record in records if record["row"] == records[0]["row"]}) > 6, "a seed of its own for each"


def judged(root: Path) -> dict[tuple[str, int], Any]:
    (path,) = (root / "runs" / "stages").glob("predict-*/judgements-test.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["id"], line["sample"]): line for line in lines}


def test_prediction_by_one_engine_on_two_processes_is_that_of_the_hf_backend(tmp_path: Path) -> None:
    """Tensor parallelism: both processes stand behind one engine, whose weights are spread over two CPU workers."""
    greedy = ["judge=base", "generation.temperature=0", "evaluation.resamples=20", "evaluation.n_cot=1"]
    for name, how in {"hf": ["trainer=cpu"], "vllm": [*VLLM, *TWO, "generation.vllm.tensor_parallel_size=2"]}.items():
        (tmp_path / name).mkdir()
        finished(tmp_path / name, "evaluate.py", *greedy, *how)
    expected, found = judged(tmp_path / "hf"), judged(tmp_path / "vllm")
    assert found.keys() == expected.keys()
    assert len(found) >= 6
    same = 0
    for key, wanted in expected.items():
        if found[key]["cot_ids"] == wanted["cot_ids"]:
            same += 1
            assert found[key]["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4)
            assert found[key]["finish"] == wanted["finish"]
    assert same >= len(found) - 1  # a tie may be decided by rounding
