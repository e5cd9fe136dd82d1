"""A stage in a process of its own: errors come through as one line, and it dies with the pipeline."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import tract.pipeline.launching.job
from tract.common.errors import DataError
from tract.pipeline.identity.loaded_code import hashes
from tract.pipeline.pipeline import _run_in_subprocess
from tract.pipeline.stage_tasks import PRODUCT_FILE, StageTask

ROOT = Path(__file__).resolve().parents[2]
PREDICT = {"stage": "predict", "inputs": {"judge": "base"}, "force": False, "compared": False}
CODE = {"files": hashes(), "named": {}}


def task_folder(folder: Path, config: DictConfig, **changed: Any) -> Path:
    """What the pipeline leaves for a job; its parent is this process."""
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    (folder / "task.json").write_text(json.dumps({**PREDICT, "parent": os.getpid(), "import_path": [], "code": CODE, **changed}))
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is run in this process must not tie it to its parent, nor change its logging."""
    monkeypatch.setattr(tract.pipeline.launching.job, "die_with_parent", lambda parent: None)
    monkeypatch.setattr(tract.pipeline.launching.job.logging.config, "dictConfig", lambda content: None)
    monkeypatch.setattr(tract.pipeline.launching.job.logging, "captureWarnings", lambda capture: None)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("data.path: is empty;\ngive another"), "error: data.path: is empty; give another"),
        (
            OSError(errno.ENOSPC, "No space left on device", "cots.parquet"),
            "error: disk full: cots.parquet; free space and run the same command again: it goes on where it stopped",
        ),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_an_error_of_the_users_is_one_line_and_status_2(
    error: Exception,
    line: str,
    compose_config: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(task: Any, config: Any, folder: Path) -> None:
        raise error

    monkeypatch.setattr(tract.pipeline.launching.job, "_run", fail)
    with pytest.raises(SystemExit) as ended:
        tract.pipeline.launching.job.main(task_folder(tmp_path, compose_config("model=tiny")))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.usefixtures("in_process")
def test_a_fault_of_ours_keeps_its_traceback(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: Any, config: Any, folder: Path) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(tract.pipeline.launching.job, "_run", fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        tract.pipeline.launching.job.main(task_folder(tmp_path, compose_config("model=tiny")))


@pytest.mark.usefixtures("in_process")
def test_the_task_and_the_configuration_arrive_as_they_were_sent(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[Any] = []
    monkeypatch.setattr(
        tract.pipeline.launching.job, "_run", lambda task, config, folder: arrived.extend([task.pop("code"), StageTask(**task), config])
    )
    config = compose_config("model=tiny", "from=predict", "evaluation.target=annotated")
    tract.pipeline.launching.job.main(task_folder(tmp_path, config, import_path=["no-such-folder"]))
    assert arrived[:2] == [CODE, StageTask("predict", {"judge": "base"}, False)]
    assert sys.path.pop() == "no-such-folder"
    assert arrived[2] == OmegaConf.create(OmegaConf.to_container(config, resolve=True))


def fake_job(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Puts a short program in the place of ``python -m tract.pipeline.launching.job``, for the pipeline that starts it."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{program}")
    script.chmod(0o755)
    monkeypatch.setattr("tract.pipeline.launching.launch.sys.executable", str(script))


@pytest.mark.parametrize(("program", "status"), [("raise SystemExit(2)", 2), ("raise SystemExit(1)", 1)])
def test_the_status_passes_through_the_pipeline(
    program: str, status: int, compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_job(monkeypatch, tmp_path, program)
    with pytest.raises(SystemExit) as ended:
        _run_in_subprocess(StageTask(**PREDICT), compose_config("model=tiny"))
    assert ended.value.code == status


def test_a_killed_job_is_told_apart(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_job(monkeypatch, tmp_path, "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(SystemExit) as ended:
        _run_in_subprocess(StageTask(**PREDICT), compose_config("model=tiny"))
    assert ended.value.code == 128 + 9
    assert "predict: its process was ended by signal 9; memory may have run out; run the same command again" in caplog.text


def test_the_job_gets_its_folder_and_the_package_and_says_where_its_product_is(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.json"
    program = (
        "import json, os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[4])\n"
        f"pathlib.Path({str(kept)!r}).write_text(json.dumps([sys.argv[1:], json.loads((folder / 'task.json').read_text()),"
        "(folder / 'config.yaml').is_file(), os.environ['PYTHONPATH']]))\n"
        f"(folder / {PRODUCT_FILE!r}).write_text('predict-abc')\n"
    )
    fake_job(monkeypatch, tmp_path, program)
    monkeypatch.setattr("tract.pipeline.pipeline.open_product", lambda path, *, just_made: path)
    assert _run_in_subprocess(StageTask(**PREDICT), compose_config("model=tiny")) == Path("predict-abc")
    arguments, task, has_config, path = json.loads(kept.read_text())
    assert arguments[:3] == ["-P", "-m", "tract.pipeline.launching.job"]
    code, import_path = task.pop("code"), task.pop("import_path")
    assert task == {**PREDICT, "parent": os.getpid()}
    assert import_path == [os.path.abspath(place) for place in sys.path]
    assert code == CODE
    assert (
        hashlib.sha256((ROOT / "tract" / "method" / "objective.py").read_bytes()).hexdigest() == code["files"]["tract/method/objective.py"]
    )
    assert has_config
    assert path.split(os.pathsep)[0] == str(ROOT / "scripts" / "package_path")
    assert not Path(arguments[3]).exists()


_TIED = """
import os, sys, time
from tract.common.distributed import die_with_parent
die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""
_PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {_TIED!r}])
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can tie a process to its parent")
def test_a_job_dies_with_its_parent() -> None:
    """Even if the parent is killed, and cannot say good-bye."""
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while _lives(child):
        assert time.monotonic() < deadline, "the job outlives its parent"
        time.sleep(0.02)
    parent.stdout.close()


def _lives(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can tie a process to its parent")
def test_a_job_whose_parent_is_gone_already_does_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _TIED, "1"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_a_real_job_makes_its_stage_and_says_one_line_of_an_error(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    few = ["data.source.n_questions=12", "data.source.n_ood_questions=1", "generation.max_cot_tokens=8"]
    small = ["model=tiny", *few, "generation=hf"]  # a job is told what the pipeline has decided

    def run(*overrides: str, **changed: Any) -> subprocess.CompletedProcess[str]:
        folder = task_folder(tmp_path, compose_config(*small, *overrides), **changed)
        command = [sys.executable, "-m", "tract.pipeline.launching.job", str(folder)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)

    done = run()
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "stages").glob("predict-*/manifest.json"))) == 1
    wrong = run(inputs={"judge": "./nowhere"})
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert line.startswith("error: judge: there is no folder './nowhere'; give the folder of a run (runs/NAME/seed0, ")
