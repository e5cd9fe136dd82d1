"""The judge of an export, loaded by its five lines, grades as the judge of the run does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_runs import FEEDBACK, Runs

from tract import Grade, GradeRequest, Judge, Rubric
from tract.apps.export.exporting import Exported, export
from tract.apps.export.options import ExportOptions
from tract.artifacts.run_judges import run_judge
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError
from tract.data.sources.feedback_collection import FeedbackCollection

RUBRIC = Rubric("Is the answer right and complete?", {1: "Wrong throughout.", 5: "Right and complete."})
REQUESTS = [
    GradeRequest("What is 7 times 8?", "It is 56.", RUBRIC, "56."),
    GradeRequest("Name a planet with rings.", "Mars, and more words than that.", RUBRIC),
    GradeRequest("Say nothing.", "", RUBRIC),
]


def grades_of(folder: Path) -> list[Grade]:
    # The tiny model knows no scores: half of the probability on the grid would leave none.
    with Judge.from_pretrained(folder, least_score_mass=0.0) as judge:
        return judge.grade_batch(REQUESTS, progress=False)


def assert_same(found: list[Grade], expected: list[Grade]) -> None:
    assert [grade.feedbacks for grade in found] == [grade.feedbacks for grade in expected]
    assert [grade.status for grade in found] == [grade.status for grade in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.score is not None
        assert a.score == pytest.approx(b.score, abs=1e-5)
        for mine, other in zip(a.cots, b.cots, strict=True):
            values = [torch.tensor(list(cot.distribution.values())) for cot in (mine, other)]
            torch.testing.assert_close(*values, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def expected(runs: Runs) -> list[Grade]:
    """The grades of the run's own judge, which writes two CoTs for each request."""
    grades = grades_of(runs.folder)
    assert all(len(grade.cots) == 2 for grade in grades)
    assert len({grade.feedbacks for grade in grades}) == 3
    return grades


@pytest.mark.parametrize("which", ["merged", "adapter"])
def test_an_export_grades_as_its_run_does(which: str, expected: list[Grade], request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(which)
    assert_same(grades_of(exported.folder), expected)


def test_other_weights_of_the_same_sizes_are_another_judge(runs: Runs, adapter: Exported, tmp_path: Path, monkeypatch: Any) -> None:
    """Else a file that one of them has begun to grade would be gone on with by the other."""
    folder = shutil.copytree(adapter.folder, tmp_path / "judge")
    known = open_judge_files(folder).fingerprint
    (folder / "README.md").write_text("another card", encoding="utf-8")
    assert open_judge_files(folder).fingerprint == known
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)
    assert open_judge_files(folder).fingerprint != known
    run = run_judge(runs.whole)
    first = open_judge_files(runs.whole).fingerprint
    monkeypatch.setattr(
        "tract.artifacts.standalone_judges.judge_of_stage", lambda *_, **__: replace(run, fingerprinted=lambda: "of other weights")
    )
    assert open_judge_files(runs.whole).fingerprint != first


def test_whole_weights_grade_the_same_from_the_stage_and_from_the_export(runs: Runs, expected: list[Grade], tmp_path: Path) -> None:
    exported = export(runs.whole, tmp_path / "judge", ExportOptions())
    own = grades_of(runs.whole)
    assert_same(grades_of(exported.folder), own)
    assert own[0].cots[0].distribution != expected[0].cots[0].distribution


def test_a_judge_of_finished_prompts_grades_fields(runs: Runs, tmp_path: Path) -> None:
    exported = export(runs.finished, tmp_path / "judge", ExportOptions())
    source = FeedbackCollection(str(FEEDBACK), "train")
    row = next(iter(source.rows()))
    with Judge.from_pretrained(exported.folder, least_score_mass=0.0, max_cot_tokens=4) as judge:
        example = source.to_example(row, judge.grid)
        shown = judge.settings.prompt.render(replace(example, prompt=None), judge.grid)
        assert shown.user == example.prompt
        grade = judge.grade(example.instruction, example.response, example.rubric, example.reference_answer)
    assert grade.score is not None
    assert grade.error is None


def test_code_that_came_with_a_model_runs_only_on_request(runs: Runs, tmp_path: Path) -> None:
    stage = tmp_path / "stage1-copy"
    shutil.copytree(runs.products["stage1"].path, stage)
    text = (stage / "config.yaml").read_text()
    assert "trust_remote_code: false" in text
    (stage / "config.yaml").write_text(text.replace("trust_remote_code: false", "trust_remote_code: true"))
    with pytest.raises(ConfigError, match="a folder cannot allow this by itself"):
        Judge.from_pretrained(stage)


def test_the_stage_of_a_run_is_chosen_in_python(runs: Runs) -> None:
    stage = open_judge_files(runs.folder, stage="stage1")
    assert stage.settings.training["stage"] == "stage1"
    assert open_judge_files(runs.folder.parent, best="val/rmse").fingerprint == open_judge_files(runs.folder).fingerprint
    with pytest.raises(ConfigError, match="variant: .* holds no judge of variant 'ce_both'; accepted are none"):
        Judge.from_pretrained(runs.folder, variant="ce_both")
    with pytest.raises(ConfigError, match="stage: has no effect, since .* is one judge and not a folder of runs; leave it out"):
        Judge.from_pretrained(runs.whole, stage="stage1")
    with pytest.raises(ConfigError, match="judge: 'base' is the base model of a configuration, which evaluate.py knows"):
        Judge.from_pretrained("base")


def test_an_adapter_alone_is_asked_as_a_chat_model_on_the_base_that_is_given(runs: Runs, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in runs.products["stage2"].path.glob("adapter_*"):
        shutil.copy(path, folder)
    with pytest.raises(ConfigError, match=r"holds an adapter without judge_config.json, so nothing says what .*; give base_model=PATH"):
        open_judge_files(folder)
    found = open_judge_files(folder, base_model=base)
    assert (found.weights, found.settings.fixed_grid) == (folder, False)
    assert found.fingerprint != open_judge_files(base).fingerprint
    with Judge.from_pretrained(folder, base_model=base, least_score_mass=0.0, max_cot_tokens=8) as judge:
        assert judge.grade("Name a prime.", "7").status
