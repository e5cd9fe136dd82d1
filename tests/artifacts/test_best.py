"""The best of a sweep is chosen by validation, over seeds, and not where validation cannot tell."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from made_runs import NO_RECORD, items_of, make_run
from omegaconf import DictConfig

from tract.apps.compare.comparison import compare
from tract.apps.compare.options import DEFAULT_METRICS, CompareOptions
from tract.apps.compare.tables import markdown, terminal
from tract.artifacts.best import best_lines
from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import write_manifest
from tract.artifacts.records import COMPLETE, FAILED, SWEEP, RunRecord, records_below
from tract.artifacts.runs import RecordedRun, find_runs, run_of
from tract.common.errors import ConfigError
from tract.pipeline.entry import launch


def trained(root: Path, monitored: float | None, *, stage: str = "stage2", seed: int = 0, noise: float = 0.5, **changes: Any) -> None:
    """A run of a sweep whose fit stage validated so."""
    own = {"train__monitor": "val/rmse", "train__monitor_mode": "min", **changes}
    made = make_run(root, noise, seed=seed, records=root / "runs" / "sweep", **own)
    identity = StageIdentity(stage, {"config": made.config, "monitored": monitored}, {}, {})
    judge = root / "runs" / "stages" / f"{stage}-{identity.key}"
    judge.mkdir(parents=True, exist_ok=True)
    write_manifest(judge, {"stage": stage, "training": {"exported": {"weights": "best", str(own["train__monitor"]): monitored}}}, identity)
    for path, record in records_below(root / "runs" / "sweep"):
        if record.config == made.config:
            content = json.loads(path.read_text())
            content["stages"][stage] = str(judge)
            path.write_text(json.dumps(content))


def runs_of(root: Path) -> list[RecordedRun]:
    return [run for path, record in records_below(root / "runs" / "sweep") if isinstance(run := run_of(path, record), RecordedRun)]


def said(root: Path) -> str:
    return "\n".join(best_lines(runs_of(root)))


def test_the_best_mean_over_seeds_wins_and_its_best_seed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, (one, other) in enumerate([(0.6, 0.9), (0.8, 0.2)]):  # 0.70 and 0.55
        trained(tmp_path, one, seed=seed, objective__lambda=0.1)
        trained(tmp_path, other, seed=seed, objective__lambda=10.0)
    monkeypatch.chdir(tmp_path)
    first, following, judge, folder, report = best_lines(runs_of(tmp_path))
    assert first == "best of 2 variants by val/rmse in training, less is better: objective.lambda=10 (0.550, mean of 2 seeds)"
    assert following == "  next: objective.lambda=0.1 (0.700, mean of 2 seeds)"
    assert judge.startswith("  judge (seed 1, the best of 2 by it): runs/stages/stage2-")
    assert (tmp_path / judge.rpartition(": ")[2] / "manifest.json").is_file()
    assert folder == "  run: runs/tract/seed1"
    assert (tmp_path / report.rpartition(": ")[2]).parent.is_dir()


def test_more_is_better_where_the_mode_says_so(tmp_path: Path) -> None:
    more = {"train__monitor": "val/pearson_r", "train__monitor_mode": "max"}
    trained(tmp_path, 0.3, objective__lambda=0.1, **more)
    trained(tmp_path, 0.4, objective__lambda=10.0, **more)
    trained(tmp_path, None, objective__lambda=1.0, **more)
    text = said(tmp_path)
    assert "by val/pearson_r in training, more is better: objective.lambda=10 (.400, 1 seed)" in text
    assert "1 of the variants cannot be chosen so, since val/pearson_r is not known of them" in text


def test_the_validation_benchmark_goes_before_what_training_saw(tmp_path: Path) -> None:
    both = {"items": {"test": items_of("test"), "val": items_of("val")}}
    trained(tmp_path, 0.9, noise=0.2, objective__lambda=0.1, **both)
    trained(tmp_path, 0.1, noise=0.9, objective__lambda=10.0, **both)
    assert "best of 2 variants by val/rmse of the evaluation, less is better: objective.lambda=0.1 (" in said(tmp_path)


def test_the_optimized_metric_decides_and_the_test_split_is_said_to_be_one(tmp_path: Path) -> None:
    make_run(tmp_path, 0.2, records=tmp_path / "runs" / "sweep", optimized_metric="test/pearson_r", objective__lambda=0.1)
    make_run(tmp_path, 0.9, records=tmp_path / "runs" / "sweep", optimized_metric="test/pearson_r", objective__lambda=10.0)
    text = said(tmp_path)
    assert "best of 2 variants by test/pearson_r of the evaluation, more is better: objective.lambda=0.1" in text
    assert "it was chosen on test, so its numbers there are too good; confirm them on other data" in text


def test_nothing_is_chosen_by_the_test_split(tmp_path: Path) -> None:
    make_run(tmp_path, 0.2, records=tmp_path / "runs" / "sweep", run__name="a")
    make_run(tmp_path, 0.9, records=tmp_path / "runs" / "sweep", run__name="b")
    assert said(tmp_path) == (
        "no best run is named: nothing but the test split measured them, which is not for choosing; to choose by the validation split, "
        "give the same command with 'evaluation.benchmarks=[val,test]' added, which trains nothing again"
    )


def test_annotated_cots_and_generated_ones_are_not_compared(tmp_path: Path) -> None:
    trained(tmp_path, 0.1, stage="stage1", run__ablation="stage1_only")
    trained(tmp_path, 0.5, run__ablation="tract")
    assert "on annotated CoTs, which can give a score away, and others without" in said(tmp_path)
    assert "[val,test]" in said(tmp_path)


def test_judges_without_cots_are_compared_with_those_that_read_their_own(tmp_path: Path) -> None:
    trained(tmp_path, 0.4, stage="stage1", run__ablation="regression_only", objective__use_cot=False)
    trained(tmp_path, 0.5, run__ablation="tract")
    assert "best of 2 variants by val/rmse in training, less is better: regression_only (0.400, 1 seed)" in said(tmp_path)


def test_what_training_cannot_tell_is_said(tmp_path: Path) -> None:
    """One judge, evaluated in several ways."""
    trained(tmp_path, 0.5, evaluation__n_cot=1)
    trained(tmp_path, 0.5, evaluation__n_cot=5)
    assert "val/rmse in training is the same for evaluation.n_cot=1, evaluation.n_cot=5; to choose by" in said(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({}, {"train__monitor": "val/mae"}, "they were trained by several train.monitor (val/mae, val/rmse); to choose by"),
        ({"data__val_fraction": 0.1}, {"data__val_fraction": 0.2}, "not the same, since data.val_fraction differs; compare them on one"),
        ({"data__max_train_items": 9}, {"data__max_train_items": 5}, "best of 2 variants"),
    ],
)
def test_numbers_that_mean_other_things_are_not_compared(one: dict[str, Any], other: dict[str, Any], why: str, tmp_path: Path) -> None:
    trained(tmp_path, 0.5, run__name="a", **one)
    trained(tmp_path, 0.6, run__name="b", **other)
    assert why in said(tmp_path)


def test_a_metric_without_a_number_names_nothing(tmp_path: Path) -> None:
    trained(tmp_path, None, objective__lambda=0.1)
    assert said(tmp_path) == "no best run is named: val/rmse is defined for none of them"
    assert best_lines([]) == []


def test_seeds_of_one_variant_are_told_as_one(tmp_path: Path) -> None:
    trained(tmp_path, 0.5, seed=0)
    trained(tmp_path, 0.3, seed=1)
    trained(tmp_path, None, seed=2)
    text = said(tmp_path)
    assert text.startswith("one variant, val/rmse in training: tract (0.400, mean of 2 seeds)\n  judge (seed 1, the best of 2 by it): ")


def test_variants_with_fewer_seeds_are_told(tmp_path: Path) -> None:
    trained(tmp_path, 0.5, seed=0)
    trained(tmp_path, 0.5, seed=1)
    trained(tmp_path, 0.6, seed=0, objective__lambda=7.0)
    assert "not all have the same number of seeds" in said(tmp_path)


def test_a_given_judge_is_not_taken_for_one_that_was_trained(tmp_path: Path) -> None:
    trained(tmp_path, 0.5, judge="runs/other")
    assert "nothing but the test split measured them" in said(tmp_path)
    assert find_runs([tmp_path / "runs" / "sweep"]).runs[0].judge is None


def ended(monkeypatch: pytest.MonkeyPatch, task: Callable[[DictConfig], None], *arguments: str) -> int:
    """The exit status of a multirun of a task in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "run.name=jobs", *arguments])
    GlobalHydra.instance().clear()
    try:
        launch(task, "train")  # type: ignore[arg-type]
    except SystemExit as error:
        return int(str(error.code))
    return 0


def evaluated(root: Path, **changes: Any) -> None:
    """What a job of the multirun at work leaves when it is complete."""
    hydra = HydraConfig.get()
    made = make_run(root, changes.pop("noise"), records=NO_RECORD, **changes)
    record = RunRecord(COMPLETE, made.config, stages={"evaluate": str(made.product)}, sweep=os.environ[SWEEP], job=int(hydra.job.num))
    record.write(Path(hydra.sweep.dir))


def test_the_end_of_a_multirun_names_the_best_of_its_own_jobs_beside_those_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(cfg: DictConfig) -> None:
        if cfg.objective["lambda"] == 2:
            raise ConfigError("objective.lambda: 2 is taken")
        weight = float(cfg.objective["lambda"])
        evaluated(tmp_path, noise=weight, objective__lambda=weight, optimized_metric="test/rmse")

    monkeypatch.chdir(tmp_path)
    # Of an earlier one in the same folder, and better.
    old = make_run(tmp_path, 0.01, records=tmp_path / "my runs" / "jobs" / "multirun", objective__lambda=0.01, optimized_metric="test/rmse")
    status = ended(monkeypatch, task, "objective.lambda=0.3,0.9,2", "paths.runs='my runs'")
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert status == 2
    assert lines[-6].startswith("best of 2 variants by test/rmse of the evaluation, less is better: objective.lambda=0.3 (")
    assert lines[-4] == "  it was chosen on test, so its numbers there are too good; confirm them on other data"
    assert shlex.split(lines[-1])[-2:] == ["compare", "my runs/jobs/multirun"]
    assert old.product.name not in said.out
    assert said.err.splitlines()[-2].startswith("1 of 3 jobs did not complete; ")


def test_a_comparison_marks_what_the_end_of_the_sweep_names(tmp_path: Path) -> None:
    """Though it is the worse one on the test split."""
    for seed in (0, 1):
        trained(tmp_path, 0.9, noise=0.3, seed=seed, objective__lambda=0.0)
        trained(tmp_path, 0.4, noise=1.5, seed=seed, objective__lambda=1.0)
    assert "objective.lambda=1 (0.400, mean of 2 seeds)" in said(tmp_path).splitlines()[0]
    own = compare(find_runs([tmp_path / "runs" / "sweep"]), CompareOptions(None, None, DEFAULT_METRICS, 0.95, 0))
    assert [row.variant for row in own.tables[0].rows][:2] == ["objective.lambda=0", "objective.lambda=1"]
    for text in (terminal(own), markdown(own)):
        assert "objective.lambda=1 (best val/rmse)" in text
        assert "objective.lambda=0 (best" not in text
    assert '"best val/rmse" is what the end of a sweep chooses' in markdown(own)


def test_without_validation_two_seeds_have_no_best(tmp_path: Path) -> None:
    for seed in (0, 1):
        trained(tmp_path, None, noise=0.3, seed=seed, objective__lambda=0.0)
        trained(tmp_path, None, noise=1.5, seed=seed, objective__lambda=1.0)
    own = compare(find_runs([tmp_path / "runs" / "sweep"]), CompareOptions(None, None, DEFAULT_METRICS, 0.95, 0))
    assert [table.best for table in own.tables] == [()]
    assert "(best" not in terminal(own) + markdown(own)
    trained(tmp_path, None, noise=0.3, seed=2, objective__lambda=0.0)
    own = compare(find_runs([tmp_path / "runs" / "sweep"]), CompareOptions(None, None, DEFAULT_METRICS, 0.95, 0))
    assert "objective.lambda=0 (best Pearson r)" in markdown(own)
    assert "objective.lambda=0 (best)" in terminal(own)


def test_a_job_that_two_records_tell_of_failed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure in the process of a stage is recorded there too, by the configuration as it was decided."""

    def task(cfg: DictConfig) -> None:
        hydra = HydraConfig.get()
        of_stage = RunRecord(FAILED, {"seed": cfg.seed}, message="no", sweep=os.environ[SWEEP], job=int(hydra.job.num))
        of_stage.write(Path(hydra.sweep.dir))
        if cfg.seed == 0:
            raise ConfigError("no, and more")
        RunRecord(COMPLETE, {"b": 1}, sweep=os.environ[SWEEP], job=int(hydra.job.num)).write(Path(hydra.sweep.dir))

    assert ended(monkeypatch, task, "seed=0,1", f"paths.runs={tmp_path}/runs") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("1 of 2 jobs did not complete; ")
    assert lines[-1].startswith("error: job #0: no, and more (")


def test_a_multirun_whose_jobs_cannot_be_read_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(cfg: DictConfig) -> None:
        evaluated(tmp_path, noise=0.5, seed=cfg.seed, optimized_metric="test/rmse")
        for path in (tmp_path / "runs" / "stages").glob("*/metrics.json"):
            path.write_text("{")

    assert ended(monkeypatch, task, "seed=0,1", f"paths.runs={tmp_path}/runs") == 0
    assert "metrics.json: cannot be read (JSONDecodeError); evaluate the run anew with force=[evaluate]" in capsys.readouterr().out


def test_a_multirun_without_an_evaluation_names_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, lambda cfg: None, "seed=0,1", f"paths.runs={tmp_path}/runs") == 0
    said = capsys.readouterr()
    assert "best" not in said.out + said.err
