"""Curves of fit stages: read from the CSV files of all tries, drawn beside the judge, and no part of any key or fingerprint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_pipeline import Tiny

from tract.artifacts.products import CURVES_FILE, open_product, read_manifest
from tract.evaluation.curves import Curves, curves_png
from tract.pipeline.curves import curves_of_judge, write_curves
from tract.pipeline.identity.keys import code_digests
from tract.pipeline.stages.stage import IGNORED_CODE, REPORTED_CODE

HEAD = "step,train/ce,train/loss,val/rmse"


def logged(folder: Path, version: int, *lines: str) -> None:
    place = folder / "csv" / f"version_{version}"
    place.mkdir(parents=True)
    (place / "metrics.csv").write_text("\n".join([HEAD, *lines]) + "\n")


def stage(folder: Path, name: str, **facts: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": name, **facts}))
    return folder


def test_steps_are_those_that_were_taken(tmp_path: Path) -> None:
    """Lightning numbers steps from 0, but validations before the first and after the last one by what was taken."""
    logged(tmp_path, 0, "0,,,0.9", "0,2.0,2.5,", "1,1.5,2.0,", "1,,,0.7", "2,1.0,1.5,", "3,,,0.6")
    stage(tmp_path, "stage1")
    (curves,) = curves_of_judge(str(tmp_path))
    assert curves == Curves("stage1", {"train/ce": ((1, 2.0), (2, 1.5), (3, 1.0)), "val/rmse": ((0, 0.9), (2, 0.7), (3, 0.6))})


def test_of_tries_that_overlap_the_later_one_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    logged(tmp_path, 10, "1,7.0,7.0,", "2,6.0,6.0,")
    logged(tmp_path, 9, "0,9.0,9.0,", "1,8.0,8.0,", "")
    with (tmp_path / "csv" / "version_9" / "metrics.csv").open("a") as file:
        file.write('""')
    stage(tmp_path, "stage1")
    (curves,) = curves_of_judge(str(tmp_path))
    assert curves.series == {"train/ce": ((1, 9.0), (2, 7.0), (3, 6.0))}


def test_without_csv_files_the_manifest_says_what_is_kept_and_the_report_why_not_more(tmp_path: Path) -> None:
    training = {"optimizer_steps": 8, "seed_metrics": {"val/rmse": 0.0, "val/pearson_r": None}, "final_metrics": {"val/rmse": 0.5}}
    stage(tmp_path / "stage1-a", "stage1", training=training)
    (curves,) = curves_of_judge(str(tmp_path / "stage1-a"))
    assert curves.series == {"val/rmse": ((0, 0.0), (8, 0.5))}
    assert curves.missing is not None
    assert "stage1-a was trained without the CSV logger, so only the validations before and after training are shown" in curves.missing
    stage(tmp_path / "stage1-b", "stage1")
    (nothing,) = curves_of_judge(str(tmp_path / "stage1-b"))
    assert nothing.series == {}
    assert nothing.missing is not None
    assert "so there is no curve; logger=csv" in nothing.missing


def test_damaged_files_are_a_reason_and_no_end_of_the_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logged(tmp_path, 0, "0,x,1.0,")
    stage(tmp_path, "stage1")
    (curves,) = curves_of_judge(str(tmp_path))
    assert curves.series == {}
    assert "cannot be read (could not convert string to float: 'x')" in str(curves.missing)
    write_curves(tmp_path, "stage1")
    assert "stage1: curves.png was not drawn (ValueError: could not convert" in caplog.text
    assert not (tmp_path / CURVES_FILE).exists()


def test_the_stages_of_a_judge_are_found_also_where_their_folders_were_moved(tmp_path: Path) -> None:
    stage(tmp_path / "stage1-a", "stage1")
    stage(tmp_path / "generate-b", "generate", parents={"judge": str(tmp_path / "stage1-a")})
    stage(tmp_path / "stage2-c", "stage2", parents={"generate": "/somewhere/else/generate-b"})
    assert [found.stage for found in curves_of_judge(str(tmp_path / "stage2-c"))] == ["stage1", "stage2"]
    shutil.rmtree(tmp_path / "stage1-a")
    assert [found.stage for found in curves_of_judge(str(tmp_path / "stage2-c"))] == ["stage2"]
    assert curves_of_judge("") == curves_of_judge(str(tmp_path)) == ()


def test_curves_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no stage kept values"):
        curves_png([Curves("stage1", {})])


@pytest.mark.parametrize("made_by", ["fit", "generate", "predict"])
def test_plots_and_reports_are_no_part_of_the_key_of_what_takes_hours(made_by: str) -> None:
    code = code_digests(f"tract.pipeline.stages.{made_by}", ignored_fields=(*IGNORED_CODE, *REPORTED_CODE))
    shows = ("curves", "report", "plots", "drawing", "verdict", "worst_items", "item_cards")
    assert not [name for name in code if name.rpartition(".")[2] in shows]


def test_a_fit_draws_its_curves_and_the_report_shows_them(tmp_path: Path) -> None:
    """Whatever the logger, key and fingerprint of the judge are the same."""
    tiny, products = Tiny(tmp_path), {}
    for logger in ("csv", "none"):
        run = ("pipeline=[stage1,predict,evaluate]", f"logger={logger}", "compare_to=null", "evaluation.benchmarks=[test]", "force=[all]")
        products[logger], _ = tiny.run(*run)
        folder = products[logger]["stage1"].path
        assert (folder / CURVES_FILE).is_file() == (logger == "csv")
        report = (products[logger]["evaluate"].path / "report.html").read_text()
        assert "How training went" in report
        assert ("without the CSV logger" in report) == (logger == "none")
    one, other = (products[logger]["stage1"] for logger in ("csv", "none"))
    assert one.fingerprint == other.fingerprint
    assert one.path == other.path
    assert CURVES_FILE not in read_manifest(one.path)[0]["files"]
    assert open_product(one.path).fingerprint == one.fingerprint
