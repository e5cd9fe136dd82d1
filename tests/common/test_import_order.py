"""No file in the working directory, or beside the scripts, is imported in place of a module of Python or of a library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tract
from tract.common.import_order import for_children
from tract.pipeline.launching.launch import _environment, _run_one

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "scripts" / "package_path"
MODULES = (
    "calendar", "copy", "enum", "hydra", "json", "logging", "numpy", "omegaconf", "queue", "random", "re", "select", "signal", "socket",
    "statistics", "string", "subprocess", "token", "torch", "types", "typing", "yaml",
)  # fmt: skip
PACKAGES = ("datasets", "evaluate", "transformers", "wandb")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with files of these names, each of which leaves a mark when it is imported."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n")
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n")
    return folder


def imported(trap: Path) -> str:
    mark = trap.parent / "imported"
    return mark.read_text() if mark.exists() else ""


def run(*command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**own, **more}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_marks_are_left_where_nothing_keeps_the_files_out(trap: Path) -> None:
    run("-c", "import queue", cwd=trap)
    assert "queue" in imported(trap)


@pytest.mark.parametrize("beside", [False, True])
def test_a_script_imports_no_file_of_the_working_directory_or_beside_it(beside: bool, trap: Path) -> None:
    checkout = trap
    if not beside:
        checkout = trap.parent / "checkout"
        checkout.mkdir()
    shutil.copy(ROOT / "train.py", checkout)
    (checkout / "tract").symlink_to(ROOT / "tract")
    done = run(str(checkout / "train.py"), "model=tiny", "--cfg", "job", cwd=trap)
    assert (done.returncode, imported(trap)) == (0, ""), done.stderr
    assert "assets/tiny" in done.stdout


def test_the_process_of_a_stage_imports_no_file_of_the_working_directory(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trap)
    status = _run_one(trap.parent / "absent", _environment({}, alone=True))
    assert (status, imported(trap)) == (1, "")  # there is no task, which it says after its imports


@pytest.mark.slow
def test_a_pipeline_with_stages_in_processes_of_their_own_imports_none(trap: Path) -> None:
    few = ["data.source.n_questions=12", "data.source.n_ood_questions=1", "data.num_workers=1", "train.max_steps=1", "generation=hf"]
    places = [f"paths.runs={trap.parent}/runs", f"paths.cache={trap.parent}/cache"]
    done = run(
        str(ROOT / "train.py"),
        "model=tiny",
        *few,
        "stages=[stage1]",
        "run.subprocess_stages=true",
        *places,
        cwd=trap,
        WANDB_MODE="disabled",
    )
    assert (done.returncode, imported(trap)) == (0, ""), done.stderr


@pytest.mark.parametrize("command", [(), ("compare",), ("export",), ("serve",)])
def test_a_command_that_is_run_imports_none_of_these(command: tuple[str, ...], trap: Path) -> None:
    """Python's own ``runpy`` comes before the package, so that names which it imports itself are beyond reach; docs/running.md."""
    for name in ("enum", "re", "types", "typing"):
        (trap / f"{name}.py").unlink()
    done = run("-m", "tract", *command, "--help", cwd=trap, PYTHONPATH=str(ROOT))
    assert (done.returncode, imported(trap)) == (0, ""), done.stderr


def test_children_find_this_package_and_what_lies_beside_it_last(trap: Path) -> None:
    told = "import sys, tract, tract.common.errors; print(tract.__file__, sys.path[-1], tract.common.errors.ConfigError.__name__)"
    done = run("-c", told, cwd=trap, **for_children({}))
    assert done.stdout.split() == [tract.__file__, str(ROOT), "ConfigError"]
    assert run("-m", "tract", "--version", cwd=trap, **for_children({})).stdout == f"tract {tract.__version__}\n"
    assert imported(trap) == ""


def test_a_module_beside_a_script_can_still_be_named_in_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text("class Mine: pass\n")
    (tmp_path / "tract").symlink_to(ROOT / "tract")
    first = (ROOT / "train.py").read_text().split("from omegaconf")[0]
    script = tmp_path / "script.py"
    script.write_text(f"{first}\nfrom tract.pipeline.target_rules import _located\nprint(_located('my_module.Mine').__name__)\n")
    assert run(str(script), cwd=tmp_path.parent).stdout == "Mine\n"
    assert run("-P", "-c", "import my_module; print('found')", cwd=tmp_path, PYTHONPATH=str(tmp_path)).stdout == "found\n"


def test_the_user_s_own_path_keeps_its_meaning() -> None:
    assert for_children({}) == {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(SHIM)}
    paths = for_children({"PYTHONPATH": os.pathsep.join(["/mine", "", "/other"])})["PYTHONPATH"]
    assert paths.split(os.pathsep) == [str(SHIM), "/mine", "/other"]  # an empty one is the working directory
    assert for_children({"PYTHONPATH": paths})["PYTHONPATH"] == paths
