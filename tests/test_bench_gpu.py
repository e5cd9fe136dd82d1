"""``make bench-gpu``: a part that fails costs itself alone and is no number, results are written after each, and tables come from them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu
import pytest

ROOT = Path(__file__).resolve().parents[1]
# In tests: the parts whose processes take seconds; small, on a CPU.
MEASURED = {
    "facts": {"device": "NVIDIA H100", "torch": "2.13.0", "commit": "0123456789abcdef"},
    "matmul": {"tflops": 700.4},
    "train/mistral/plain": {"tokens_per_s": 1000.0, "peak_mib": 40000.0, "share_of_matmul_peak": None},
    "train/mistral/shared": {"tokens_per_s": 4000.0, "peak_mib": 20000.0, "share_of_matmul_peak": 0.41},
    "train/smollm2/plain": {"error": "took longer than its 90 s"},
    "judge/mistral/hf": {"examples_per_s": 2.0, "together": 16, "tokens": 128},
    "judge/mistral/vllm": {"error": "exit status 1: ModuleNotFoundError: No module named 'vllm'"},
    "strategy/ddp": {"step_s": 1.25, "flops_per_s": 4e14, "peak_mib": 9000.0, "estimate_mib": 9500.0},
    "tests": {"status": 0, "summary": "26 passed in 100 s", "failed": []},
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of the benchmark: what it does is in the name of the part."""
    path = tmp_path / "script.py"
    path.write_text(
        "import sys, time\n"
        "part = sys.argv[sys.argv.index('--part') + 1]\n"
        "if part == 'slow': time.sleep(60)\n"
        "if part == 'broken': sys.exit('RuntimeError: CUDA out of memory')\n"
        "print('a line before'); print('{\"rate\": 1.5}' if part != 'mute' else '')\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(path))
    return path


@pytest.mark.usefixtures("script")
def test_a_part_that_fails_costs_itself_and_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []
    write = gpu._write
    monkeypatch.setattr(gpu, "_write", lambda out, found: (write(out, found), written.append(list(json.loads(out.read_text())["parts"]))))
    parts = [gpu.Part("first", 30), gpu.Part("broken", 30), gpu.Part("slow", 0.5), gpu.Part("mute", 30), gpu.Part("last", 30)]
    begun = time.monotonic()
    gpu.run_all(parts, tmp_path / "out" / "gpu.json", small=True)
    assert time.monotonic() - begun < 20
    found = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    assert found["small"] is True
    assert found["parts"]["first"]["rate"] == found["parts"]["last"]["rate"] == 1.5
    assert found["parts"]["broken"] == {"error": "exit status 1: RuntimeError: CUDA out of memory"}
    assert found["parts"]["slow"] == {"error": "took longer than its 0 s"}
    assert found["parts"]["mute"] == {"error": "exit status 0: it said nothing"}
    names = [part.name for part in parts]
    assert written == [names[:count] for count in range(1, 6)]


@pytest.mark.usefixtures("script")
def test_what_the_time_is_over_for_is_left_out(tmp_path: Path) -> None:
    found = gpu.run_all([gpu.Part("first", 30)], tmp_path / "gpu.json", small=True, limit_s=0.5)
    assert found["parts"] == {"first": {"error": "left out: the 0 s were over"}}
    # Run again by its name, it takes its place beside what is there.
    gpu.run_all([gpu.Part("other", 30)], tmp_path / "gpu.json", small=True, keep=True)
    kept = gpu.run_all([gpu.Part("first", 30)], tmp_path / "gpu.json", small=True, keep=True)
    assert [part["rate"] for part in kept["parts"].values()] == [1.5, 1.5]


def test_all_parts_can_be_run_and_fit_into_ten_minutes_together() -> None:
    parts = gpu.parts_of()
    assert {part.name.partition("/")[0] for part in parts} == set(gpu.PARTS)
    assert len({part.name for part in parts}) == len(parts)
    assert gpu.LIMIT_S < 600
    assert all(part.limit_s < gpu.LIMIT_S for part in parts)


def test_tables_say_what_was_measured_and_nothing_else() -> None:
    lines = gpu.tables({"parts": MEASURED}).splitlines()
    assert lines[0] == "On one NVIDIA H100, torch 2.13.0; `make bench-gpu`, commit 0123456789."
    assert "| Mistral-7B's shape, shared prompts | 4,000 | 4.00 | 20,000 | 0.50 | 41% |" in lines
    assert "| Mistral-7B's shape, plain | 1,000 | 1.00 | 40,000 | 1.00 | - |" in lines
    failed = "failed: took longer than its 90 s"
    assert f"| SmolLM2-135M, plain | {failed} | - | {failed} | - | - |" in lines
    assert "| Mistral-7B's shape, generation=hf | 16 | 2 | - |" in lines
    missing = "failed: exit status 1: ModuleNotFoundError: No module named 'vllm'"
    assert f"| Mistral-7B's shape, generation=vllm | {missing} | {missing} | - |" in lines
    assert "| `trainer=ddp` | 1.25 | 400.0 | 9,000 | 9,500 |" in lines
    assert "| `make test-gpu` | 26 passed in 100 s |" in lines
    assert f"| `trainer=fsdp` | {' | '.join([gpu.NOT_MEASURED] * 4)} |" in lines


def test_the_page_shows_the_results_that_are_there(tmp_path: Path) -> None:
    """Without any: each cell says so, and no number stands in its place."""
    text = gpu.DOCS.read_text(encoding="utf-8")
    shown = text.partition(gpu.BEGIN)[2].partition(gpu.END)[0].strip("\n")
    found: dict[str, Any] = json.loads(gpu.RESULT.read_text(encoding="utf-8")) if gpu.RESULT.is_file() else {}
    assert not found.get("small")
    assert shown == gpu.tables(found), "run `python benchmarks/gpu.py --tables`"
    if not found:
        assert "No GPU was at hand" in shown
        assert shown.count(gpu.NOT_MEASURED) > 40


def test_tables_are_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu.BEGIN}\nold\n{gpu.END}\nbehind\n", encoding="utf-8")
    gpu.fill(page, {"parts": MEASURED})
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{gpu.BEGIN}\nOn one NVIDIA H100")
    assert text.endswith(f"{gpu.END}\nbehind\n")
    assert "old" not in text
    with pytest.raises(SystemExit, match="results of --small, which measure nothing"):
        gpu.fill(page, {"small": True, "parts": MEASURED})
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no marks"):
        gpu.fill(page, {})


def run_small(tmp_path: Path, *prefixes: str) -> dict[str, Any]:
    command = [sys.executable, "benchmarks/gpu.py", "--small", "--out", str(tmp_path / "gpu.json"), "--only", *prefixes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert not [part for part in found.values() if "error" in part], done.stderr[-3000:]
    assert done.returncode == 0
    return found


@pytest.mark.slow
def test_a_part_runs_small_on_a_cpu(tmp_path: Path) -> None:
    found = run_small(tmp_path, "train/mistral/shared")["train/mistral/shared"]
    assert found["tokens_per_s"] > 0
    assert found["peak_mib"] > 0
    assert 0 < found["share_of_matmul_peak"] < 1


@pytest.mark.kills  # a process for each part, half a minute each
@pytest.mark.timeout(1200)
def test_the_other_parts_run_small_on_a_cpu(tmp_path: Path) -> None:
    found = run_small(
        tmp_path, "facts", "matmul", "train/smollm2", "judge/mistral/hf", "judge/mistral/plain", "judge/smollm2/hf", "strategy/single",
        "strategy/ddp", "strategy/fsdp", "tests",
    )  # fmt: skip
    assert all(part["examples_per_s"] > 0 for name, part in found.items() if name.startswith("judge"))
    assert all(part["step_s"] > 0 and part["estimate_mib"] > 0 for name, part in found.items() if name.startswith("strategy"))
    assert found["tests"]["status"] == 0


@pytest.mark.vllm
@pytest.mark.kills
@pytest.mark.timeout(900)
def test_the_part_of_vllm_runs_small_on_a_cpu(tmp_path: Path) -> None:
    assert run_small(tmp_path, "judge/mistral/vllm")["judge/mistral/vllm"]["examples_per_s"] > 0
