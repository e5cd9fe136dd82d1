"""Runs are found by their records, else by the links in their folders; each counts once, and what is left out is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import NO_RECORD, config_of, make_run

from tract.artifacts.records import COMPLETE, FAILED, RUNNING, RunRecord
from tract.artifacts.runs import find_runs, flat
from tract.common.errors import DataError


def test_a_flat_configuration_has_dotted_keys_and_no_empty_sections() -> None:
    assert flat({"a": {"b": 1, "c": {}, "d": [1, {"e": 2}]}, "f": None}) == {"a.b": 1, "a.d": [1, {"e": 2}], "f": None}


def test_records_say_what_was_run(tmp_path: Path) -> None:
    made = [make_run(tmp_path, 0.5, seed=seed, objective__lambda=0.1) for seed in (0, 1)]
    found = find_runs([tmp_path / "runs"])
    assert [run.seed for run in found.runs] == [0, 1]
    assert [run.product.resolve() for run in found.runs] == [run.product for run in made]
    assert {run.config["objective.lambda"] for run in found.runs} == {0.1}
    assert found.left_out == ()


@pytest.mark.parametrize("where", ["runs/tract/seed0", "runs/tract", "runs", "", "runs/tract/seed0/link", "runs/stages"])
def test_a_run_without_a_record_is_found_by_its_product(where: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5, records=NO_RECORD)
    (run,) = find_runs([tmp_path / where.replace("link", made.product.name)]).runs
    assert run.product.resolve() == made.product
    assert run.config == flat(made.config)


def test_a_shared_product_is_called_like_the_run_that_links_to_it(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5, records=NO_RECORD)
    other = tmp_path / "runs" / "other" / "seed0"
    other.mkdir(parents=True)
    (other / made.product.name).symlink_to(made.product)
    assert find_runs([other]).runs[0].name == "other"
    assert [run.name for run in find_runs([tmp_path / "runs"]).runs] == ["other", "tract"]


def test_a_link_beside_the_record_of_a_sweep_is_the_same_run(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, records=tmp_path / "runs" / "tract" / "multirun", job=0)
    (run,) = find_runs([tmp_path / "runs"]).runs
    assert run.place == (0, 0)


def test_a_run_counts_once_however_often_it_is_given(tmp_path: Path) -> None:
    """By its record in its own folder, by that in the folder of a sweep, and by the link."""
    make_run(tmp_path, 0.5)
    run = tmp_path / "runs" / "tract" / "seed0"
    (record,) = (run / "records").iterdir()
    sweep = tmp_path / "runs" / "tract" / "multirun" / "records"
    sweep.mkdir(parents=True)
    (sweep / record.name).write_text(record.read_text())
    assert len(find_runs([tmp_path / "runs", run, run, tmp_path / "runs" / "tract"]).runs) == 1
    assert len(find_runs([next(path for path in run.iterdir() if path.is_symlink()), run]).runs) == 1


def test_failed_and_unfinished_runs_are_left_out_and_told(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    folder = tmp_path / "runs" / "swept"
    RunRecord(FAILED, config_of(seed=1), ("seed=1", "x=2"), message="out of memory").write(folder)
    RunRecord(RUNNING, config_of(seed=2), ("seed=2",)).write(folder)
    RunRecord(COMPLETE, config_of(seed=3), (), {"stage1": "x"}).write(folder)
    RunRecord(COMPLETE, config_of(seed=4), (), {"evaluate": "gone"}).write(folder)
    found = find_runs([tmp_path / "runs"])
    assert len(found.runs) == 1
    whys = {out.what: out.why for out in found.left_out}
    assert whys["tract seed=1 x=2"] == "failed: out of memory"
    assert whys["tract seed=2"] == "it runs, or was killed"
    assert whys["tract seed=3"] == "it has no evaluate stage"
    assert whys["tract seed=4"].startswith("its evaluation is gone: ")


def test_a_run_that_failed_once_and_was_run_again_elsewhere_is_not_left_out(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5)
    RunRecord(FAILED, made.config, (), message="out of memory").write(tmp_path / "runs" / "again")
    assert find_runs([tmp_path / "runs"]).left_out == ()


def test_runs_stand_in_the_order_of_the_folders_and_then_of_the_jobs(tmp_path: Path) -> None:
    for job, seed in enumerate((5, 3, 4)):
        make_run(tmp_path, 0.5, records=tmp_path / "sweep", link=False, job=job, seed=seed)
    make_run(tmp_path, 0.5, run__name="first", seed=9)
    assert [run.seed for run in find_runs([tmp_path / "runs" / "first", tmp_path / "sweep"]).runs] == [9, 5, 3, 4]


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(
        DataError, match=r"no run to compare; looked for a records/\*\.json, an evaluate-\* with metrics\.json in it and below"
    ):
        find_runs([tmp_path])
    RunRecord(COMPLETE, [1], ()).write(tmp_path / "bad")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the configuration is no mapping, so this is no record of a run; remove it"):
        find_runs([tmp_path])
    shutil.rmtree(tmp_path / "bad")
    made = make_run(tmp_path, 0.5, records=NO_RECORD)
    (made.product / "config.yaml").write_text("- 1")
    with pytest.raises(DataError, match=r"config\.yaml: no configuration of a run \(AttributeError\)"):
        find_runs([tmp_path])
    (made.product / "config.yaml").write_text("seed: null")
    with pytest.raises(DataError, match="seed is None and must be a whole number"):
        find_runs([tmp_path])


def test_a_copy_of_a_run_with_products_in_the_place_of_links_is_found(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, records=NO_RECORD)
    shutil.copytree(tmp_path / "runs" / "tract", tmp_path / "copy" / "tract", symlinks=False)
    (run,) = find_runs([tmp_path / "copy"]).runs
    assert run.name == "tract"


def test_the_record_that_finished_last_counts(tmp_path: Path) -> None:
    old, new = (make_run(tmp_path, noise, records=NO_RECORD, link=False) for noise in (0.5, 0.6))
    for number, made in enumerate((new, old)):
        record = RunRecord(COMPLETE, new.config, (), {"evaluate": str(made.product)}, finished=f"2026-01-0{2 - number}")
        replace(record).write(tmp_path / f"folder{number}")
    assert [run.product for run in find_runs([tmp_path / "folder1", tmp_path / "folder0"]).runs] == [new.product]


def test_a_run_of_a_sweep_is_called_by_its_folders_without_a_record(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5, records=NO_RECORD)
    (tmp_path / "runs" / "tract" / "seed0" / made.product.name).unlink()
    for variant in ("a=1", "a=2"):
        folder = tmp_path / "runs" / "sweep" / variant / "seed0"
        folder.mkdir(parents=True)
        (folder / made.product.name).symlink_to(made.product)
    found = find_runs([tmp_path / "runs" / "sweep"]).runs
    assert [(run.name, run.config["run.variant"]) for run in found] == [("sweep", "a=1"), ("sweep", "a=2")]
    (alone,) = find_runs([tmp_path / "runs" / "sweep" / "a=2" / "seed0"]).runs
    assert (alone.name, alone.config["run.variant"]) == ("sweep", "a=2")


def test_a_judge_stands_for_its_evaluations(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5)
    store = made.product.parent
    content = json.loads((made.product / "manifest.json").read_text())
    (made.product / "manifest.json").write_text(json.dumps({**content, "parents": {"predict": "runs/stages/predict-1"}}))
    for name, facts in (
        ("stage2-1", {"stage": "stage2"}),
        ("stage2-2", {"stage": "stage2"}),
        ("predict-1", {"stage": "predict", "judge": {"weights": "runs/stages/stage2-1"}}),
    ):
        (store / name).mkdir()
        (store / name / "manifest.json").write_text(json.dumps(facts))
    for name in ("stage2-1", "predict-1"):
        (run,) = find_runs([store / name]).runs
        assert run.product.resolve() == made.product
    with pytest.raises(
        DataError, match=r"stage2-2: is a stage without an evaluation beside it; evaluate it with .* judge=\S+2 run.name=NAME`"
    ):
        find_runs([store / "stage2-2"])
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "judge_config.json").write_text("{}")
    from_run = "exported: is an exported judge, which holds no evaluation; give the folder of the run that it was exported from"
    with pytest.raises(DataError, match=f"{from_run}, or evaluate it with the settings of its experiment"):
        find_runs([tmp_path / "exported"])
    (tmp_path / "exported" / "judge_config.json").write_text('{"training": {"run": "own", "seed": 3}}')
    with pytest.raises(DataError, match=rf"{from_run}, own with seed 3 \(runs/own\), or .*run.name=NAME`, and give .* runs/NAME$"):
        find_runs([tmp_path / "exported"])
