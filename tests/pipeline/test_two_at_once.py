"""Two processes on one pipeline at once: each stage is made by one of them, and both end with the same products."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crash_pipeline import predictions, product, run_here, start, undisturbed
from omegaconf import OmegaConf

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import open_product, read_manifest
from tract.artifacts.run_folder import StageFolder
from tract.pipeline.entry import guarded
from tract.pipeline.stages.stage import run_stage

pytestmark = pytest.mark.slow
STAGES = {"stage1": 1, "generate": 1, "stage2": 1, "predict": 2, "evaluate": 1}  # the base model is judged beside the trained judge
_PATIENCE_S = 600.0


def _says(line: str, stage: str, what: str) -> bool:
    """Whether a line of the log says this of a stage, or of the compared judge's."""
    return re.search(rf"\] {stage}(?: \([^)]*\))?: {what}, ", line) is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory)


def stage_of(whole: Path, stage: str, place: Path) -> StageFolder:
    """The folder of a stage with the identity that it has in the undisturbed run."""
    folder = product(whole, stage)
    return StageFolder(place / "runs" / "stages" / folder.name, read_manifest(folder)[1])


@pytest.mark.kills
@pytest.mark.timeout(1500)
def test_each_stage_is_made_once_and_both_end_well(whole: Path, tmp_path: Path) -> None:
    processes = [start(tmp_path, output=f"output{number}.txt") for number in range(2)]
    codes = [process.wait(_PATIENCE_S) for process in processes]
    said = [(tmp_path / f"output{number}.txt").read_text(encoding="utf-8") for number in range(2)]
    assert codes == [0, 0], said
    made = Counter(stage for text in said for stage in STAGES for line in text.splitlines() if _says(line, stage, "finished"))
    reused = Counter(stage for text in said for stage in STAGES for line in text.splitlines() if _says(line, stage, "reused"))
    assert made == STAGES
    assert reused == STAGES
    assert any("is working on" in text and "waiting (0 s)" in text for text in said)
    assert all("report: " in text for text in said)
    store = tmp_path / "runs" / "stages"
    products = [path for path in store.iterdir() if path.suffix != ".lock"]
    assert Counter(open_product(path).manifest["stage"] for path in products) == STAGES
    assert predictions(tmp_path) == predictions(whole)


@pytest.mark.kills
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("isolate", ["true", "false"])
def test_what_both_force_is_made_once(isolate: str, whole: Path, tmp_path: Path) -> None:
    """Else the one that waited would take away the product that the other is at work with."""
    run_here(tmp_path, "stages=[stage1]")
    forced = ("force=[stage1]", f"run.subprocess_stages={isolate}")
    first = start(tmp_path, *forced, output="output0.txt")
    while not list((tmp_path / "runs" / "stages").glob("stage1-*.partial")):
        assert first.poll() is None
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGSTOP)  # until the other one waits
    second = start(tmp_path, *forced, output="output1.txt")
    while "waiting (" not in (tmp_path / "output1.txt").read_text():
        assert second.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGCONT)
    codes = [process.wait(_PATIENCE_S) for process in (first, second)]
    said = [(tmp_path / f"output{number}.txt").read_text(encoding="utf-8") for number in range(2)]
    assert codes == [0, 0], said
    assert [text.count("stage1: finished") for text in said] == [1, 0]
    assert predictions(tmp_path) == predictions(whole)


def test_a_forced_stage_that_was_made_while_it_waited_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg: Any = SimpleNamespace(
        paths=SimpleNamespace(runs=str(tmp_path)),
        model=SimpleNamespace(package=None, name_or_path="of/hub"),
        run=SimpleNamespace(on_code_change="redo", on_version_change="reuse", when_locked="wait", name="r", ablation=None, variant=None),
        force=["stage1"],
        seed=0,
        deterministic=False,
        stage="stage1",
        logger={},
    )
    made = []

    class Fake:
        name, resolved = "stage1", OmegaConf.create()

        def __init__(self) -> None:
            self.cfg = cfg

        def identity(self) -> StageIdentity:
            return StageIdentity("stage1", {"seed": 0}, {}, {})

        def make(self, folder: StageFolder, tracker: Any) -> dict[str, Any]:
            made.append(folder)
            return {}

    run_stage(Fake(), cfg, force=False)
    run_stage(Fake(), cfg, force=True)
    assert len(made) == 2
    locked = StageFolder.locked

    @contextmanager
    def after_another(folder: StageFolder, *, wait: bool) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(StageFolder, "locked", locked)
            run_stage(Fake(), cfg, force=True)
        with locked(folder, wait=wait):
            yield

    monkeypatch.setattr(StageFolder, "locked", after_another)
    run_stage(Fake(), cfg, force=True)
    assert len(made) == 3


@pytest.mark.parametrize("stage", ["stage1", "generate"])
def test_refusing_is_one_line(stage: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock is held here, as by another process; what comes before the stage is made and stays."""
    folder = stage_of(whole, stage, tmp_path)
    with folder.locked(wait=False), pytest.raises(SystemExit) as caught:
        guarded(run_here)(tmp_path, "run.when_locked=refuse", "stages=[stage1,generate]")
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith("error: run.when_locked=refuse: process ")
    assert line.endswith(f"is working on {folder.working}; wait for it, or set run.when_locked=wait")
    assert not folder.working.exists()
    made = [path.name for path in (tmp_path / "runs" / "stages").iterdir() if not path.suffix]
    assert made == ([] if stage == "stage1" else [product(whole, "stage1").name])
