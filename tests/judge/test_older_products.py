"""Products of the version before the configuration's keys were renamed (tests/fixtures/before_rooms) still load.

What a product calls its judges stays as it was written: "seed" is the base model there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tract import Judge
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judges import find_judge
from tract.artifacts.runs import find_runs
from tract.artifacts.variants import variants_of
from tract.pipeline.validation import validate

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before_rooms"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a run may write beside what it reads."""
    return Path(shutil.copytree(BEFORE, tmp_path_factory.mktemp("older") / "before", symlinks=True))


@pytest.mark.parametrize("folder", ["runs/before/seed0", "runs/stages/stage2-6c7e017480", "exported"])
def test_a_judge_grades(folder: str, before: Path) -> None:
    with Judge.from_pretrained(str(before / folder), max_cot_tokens=8, least_score_mass=0.0) as judge:
        grade = judge.grade("Write a question.", "is it 5?")
    assert grade.status in ("ok", "truncated_cot"), grade
    assert grade.score == pytest.approx(sum(float(label) * mass for label, mass in grade.distribution.items()))
    assert judge.settings.name == "before"
    assert judge.settings.overlong == "shorten"


def test_a_pipeline_takes_its_fit_stage(before: Path, compose_config: Callable[..., DictConfig]) -> None:
    judge = find_judge(str(before / "runs/stages/stage2-6c7e017480"), validate(compose_config("model=tiny")))
    assert (judge.use_cot, judge.seed, judge.layout.grid.labels) == (True, 0, ("1", "2", "3", "4"))
    assert judge.fingerprint


def test_its_run_is_compared_under_current_names(before: Path) -> None:
    (run,) = find_runs([before / "runs"]).runs
    assert run.config["batch.global_batch_size"] == 4
    assert run.config["compare_to"] == "base"
    assert run.config["evaluation.failed_score"] == "middle"
    assert not any(name in key for key in run.config for name in ("items_per_step", "overlong", "isolate"))
    (variant,), _ = variants_of([run])
    assert not variant.is_untrained
    assert variant.runs == {0: run}


def test_a_product_without_a_record_says_the_same(before: Path) -> None:
    (of_product,) = find_runs([before / "runs/stages/evaluate-d659a5ea0f"]).runs
    (of_record,) = find_runs([before / "runs"]).runs
    left = {key for key in of_record.config if of_record.config[key] != of_product.config.get(key)}
    assert left <= {"stage"}


def test_settings_of_its_fit_stage_have_current_names(before: Path) -> None:
    settings = FitFolder(before / "runs/stages/stage2-6c7e017480", None).settings
    assert settings["train.keep_weights"] == "best"
    assert settings["stage2.init_from"] == "base"
    assert settings["data.source._target_"] == "tract.data.sources.rubric_check.RubricCheck"


def test_its_judges_are_called_as_it_calls_them(before: Path) -> None:
    names = [json.loads(file.read_text())["name"] for file in sorted((before / "runs/stages").glob("predict-*/judge.json"))]
    assert names == ["seed", "stage2"]
