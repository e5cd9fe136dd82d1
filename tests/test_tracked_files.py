"""Files of a user's beside those of the project fail no test of the project's and are in none of its generated pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_files import tracked

ROOT = Path(__file__).resolve().parents[1]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a: 1\n")


def test_only_tracked_files_count_in_a_checkout(tmp_path: Path) -> None:
    write(tmp_path, "conf/data/own name.yaml", "conf/train.yaml", "conf/data/gone.yaml", "conf/notes.md")
    git(tmp_path, "init")
    git(tmp_path, "add", "-A")
    write(tmp_path, "conf/data/my_data.yaml", "conf/mine/other.yaml")
    (tmp_path / "conf/data/gone.yaml").unlink()
    found = tracked(tmp_path / "conf", "*.yaml")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["conf/data/own name.yaml", "conf/train.yaml"]


def test_outside_a_checkout_all_files_count(tmp_path: Path) -> None:
    write(tmp_path, "conf/b.yaml", "conf/data/a.yaml")
    assert tracked(tmp_path / "conf", "*.yaml") == [tmp_path / "conf/b.yaml", tmp_path / "conf/data/a.yaml"]


@pytest.mark.slow
def test_a_users_files_in_conf_fail_no_test(tmp_path: Path) -> None:
    """Those that look at all of conf/, in a checkout with files of a user's that are no sound configuration by themselves."""
    for folder in ("conf", "docs", "scripts", "tests", "tract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), ROOT / "pyproject.toml", ROOT / "README.md"):
        shutil.copy(path, tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "add", "-A")
    for name in ("data/my_data", "experiment/mine", "model/mine", "ablation/mine", "sweep/mine", "mine/mine"):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("defaults: [no_such_file]\npath: judged.csv\nunknown: 1")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def pytest_of(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "-m", "not slow", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout[-5000:]
        return ran.stdout

    pytest_of("tests/config/test_config_reference.py", "tests/config/test_configs.py", "-k", "test_config_reference or tidy or found")
    places = ("config/test_ablations", "config/test_configs", "text/test_injection", "models/test_model_options", "pipeline/test_multirun")
    looking = [f"tests/{place}.py" for place in places]
    collected = pytest_of("--collect-only", *looking)
    assert "[ce_only-quickstart]" in collected
    assert "mine" not in collected.replace("-", " ").replace("[", " ").replace("]", " ").replace("/", " ").split()
