"""Two processes on one pipeline at once: each stage is made by one of them, and both end with the same products."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from crash_pipeline import predictions, product, run_here, start, undisturbed

from tract.entry import guarded
from tract.stages.products import open_product, read_manifest
from tract.stages.run_folder import StageFolder

pytestmark = pytest.mark.slow
STAGES = {"stage1": 1, "generate": 1, "stage2": 1, "predict": 2, "evaluate": 1}  # the seed LLM is judged beside the trained judge
_PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory)


def stage_of(whole: Path, stage: str, place: Path) -> StageFolder:
    """The folder of a stage with the identity that it has in the undisturbed run."""
    folder = product(whole, stage)
    return StageFolder(place / "runs" / "stages" / folder.name, read_manifest(folder)[1])


@pytest.mark.timeout(1500)
def test_each_stage_is_made_once_and_both_end_well(whole: Path, tmp_path: Path) -> None:
    processes = [start(tmp_path, output=f"output{number}.txt") for number in range(2)]
    codes = [process.wait(_PATIENCE_S) for process in processes]
    said = [(tmp_path / f"output{number}.txt").read_text(encoding="utf-8") for number in range(2)]
    assert codes == [0, 0], said
    made = Counter(stage for text in said for stage in STAGES for line in text.splitlines() if f"] {stage}: finished, " in line)
    reused = Counter(stage for text in said for stage in STAGES for line in text.splitlines() if f"] {stage}: reused, " in line)
    assert made == STAGES
    assert reused == STAGES
    assert any("is working on" in text and "waiting (0 s)" in text for text in said)
    assert all("report: " in text for text in said)
    store = tmp_path / "runs" / "stages"
    products = [path for path in store.iterdir() if path.suffix != ".lock"]
    assert Counter(open_product(path).manifest["stage"] for path in products) == STAGES
    assert predictions(tmp_path) == predictions(whole)


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
