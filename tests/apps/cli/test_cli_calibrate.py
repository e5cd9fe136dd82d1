"""``tract calibrate``: what is fitted, what is said of it, and what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graders import StandIn
from made_settings import made_settings

from tract.apps.grading import calibrating
from tract.artifacts.judge_settings import read_settings
from tract.artifacts.trained_on import response_hash, write_trained_on
from tract.evaluation.scored import Estimate
from tract.text.schema import Rubric

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_settings().write(tmp_path)
    return tmp_path


def validation(path: Path, count: int = 40) -> Path:
    """The judge gives 1 to 5; what deserves them lies between 2 and 4. Some rows are of no use, each in its own way."""
    rows: list[dict[str, Any]] = [
        {"instruction": f"Question {n // 2}?", "response": str(n % 5 + 1), "human": 3 + (n % 5 - 2) / 2} for n in range(count)
    ]
    rows += [{"instruction": "a", "response": "1", "human": None}, {"instruction": "a", "response": "no mass", "human": 3}]
    rows += [{"instruction": "a", "response": "unreadable", "human": 3}]
    rows += [{"instruction": "", "response": "1", "human": 3}, {"instruction": "a", "response": "1", "human": 6}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n")
    return path


LEFT_OUT = {
    "no target": 1,
    "fields that cannot be used": 1,
    "a target that is no number of the grid's range": 1,
    "cannot be read": 1,
    "no score (low_score_mass)": 1,
    "no score (unreadable_score)": 1,
}


def test_a_judge_is_graded_with_fitted_and_its_settings_written(folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl")
    before = read_settings(folder / "judge_config.json")
    arguments = ["calibrate", "--judge", folder, "--data", data, "--target", "human", "--method", "isotonic"]
    status, output, _ = tract(*arguments, "--dry-run")
    assert status == 0
    assert "nothing was written (--dry-run)" in output
    assert read_settings(folder / "judge_config.json") == before
    status, output, _ = tract(*arguments)
    assert status == 0
    assert f"{data}: 40 examples with a score and a target, 20 questions; left out: " in output
    assert all(f"{reason}: {count}" in output for reason, count in LEFT_OUT.items())
    # Errors are 1, 0.5, 0, 0.5, 1: the root of their mean square is the root of 0.5. The map takes them away.
    table = dict(re.split("  +", line, maxsplit=1) for line in output.splitlines() if "  " in line.strip())
    assert table["RMSE before"].startswith("0.707 [")
    assert table["RMSE after, on held-out questions (5 folds)"] == "0.000 [0.000, 0.000]"
    assert table["90 % intervals that hold the target, before"].startswith("0.200 [")
    assert table["90 % intervals that hold the target, after"] == "1.000 [1.000, 1.000]"
    after = read_settings(folder / "judge_config.json")
    assert after.calibration is not None
    assert (after.calibration.raw, after.calibration.calibrated) == ((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 2.5, 3.0, 3.5, 4.0))
    facts = after.calibration.fitted_on
    assert (facts["file"], facts["target"], facts["items"], facts["left_out"]) == ("val.jsonl", "human", 40, LEFT_OUT)
    assert facts["rmse_before"]["value"] == pytest.approx(0.5**0.5)
    assert {**after.to_dict(), "calibration": None} == before.to_dict()
    assert "calibrated" not in judge.options  # type: ignore[attr-defined]


def test_a_graded_file_needs_no_judge(folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl")
    for out in ("graded.jsonl", "graded.csv", "graded.parquet"):
        tract("grade", data, "-o", folder / out, "--judge", "j")
    judge.graded.clear()
    found = {}
    for file in ("val.jsonl", "graded.jsonl", "graded.csv", "graded.parquet"):
        for method in ("temperature", "isotonic"):
            status, _, error = tract("calibrate", "--judge", folder, "--data", folder / file, "--target", "human", "--method", method)
            assert status == 0, error
            calibration = read_settings(folder / "judge_config.json").calibration
            assert calibration is not None
            found[file, method] = (calibration.temperature, calibration.raw, calibration.calibrated, calibration.fitted_on["rmse_after"])
        if file != "val.jsonl":
            assert found[file, "isotonic"] == found["val.jsonl", "isotonic"]
            assert found[file, "temperature"] == found["val.jsonl", "temperature"]
    assert len(judge.graded) == 2 * 42  # of the ungraded file alone


def test_a_calibration_that_gains_nothing_says_so(folder: Path, tract: Command, judge: StandIn) -> None:
    rows = [{"instruction": f"Question {n}?", "response": str(n % 5 + 1), "human": (n * 7) // 5 % 5 + 1} for n in range(50)]
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, output, _ = tract("calibrate", "--judge", folder, "--data", folder / "val.jsonl", "--target", "human", "--resamples", 100)
    assert "this data does not show that the calibration lowers the error" in output
    assert output.splitlines()[-3:] == [
        str(folder / "judge_config.json"),
        "calibrated scores are given with --calibrated, as in:",
        f"  tract grade FILE --judge {folder} --calibrated -o graded.jsonl",
    ]


def test_a_calibration_that_raises_the_error_is_written_by_force_alone(
    folder: Path, tract: Command, judge: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raises: the whole interval of the paired difference lies above 0."""
    before = (folder / "judge_config.json").read_bytes()
    measured = calibrating.effect
    difference = Estimate(0.377, 0.221, 0.516)
    monkeypatch.setattr(calibrating, "effect", lambda *given, **named: replace(measured(*given, **named), difference=difference))
    arguments = ["calibrate", "--judge", folder, "--data", validation(folder / "val.jsonl"), "--target", "human", "--resamples", 50]
    status, output, _ = tract(*arguments)
    assert status == 0
    assert "the calibration raises the error on questions that it was not fitted on\n" in output
    assert "does not show" not in output
    assert output.splitlines()[-1].startswith("nothing was written: the calibration raises the error")
    assert "--calibrated" not in output
    assert (folder / "judge_config.json").read_bytes() == before
    status, output, _ = tract(*arguments, "--force")
    assert status == 0
    assert "it holds a calibration that raises the error (--force)" in output
    assert "tract grade" not in output
    assert read_settings(folder / "judge_config.json").calibration is not None


def test_intervals_that_became_too_wide_are_told(folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl", count=200)
    _, output, _ = tract("calibrate", "--judge", folder, "--data", data, "--target", "human", "--method", "isotonic", "--dry-run")
    assert "intervals: 20 % held the target before, 100 % do after, where 90 % are wanted: they are now too wide\n" in output
    assert "warning" not in output
    assert "  low_score_mass: the judge expected something else than a score; no score\n" in output
    assert "whether the judge was trained on these rows is not known, since the judge has no trained_on.txt" in output


def test_few_rows_are_a_warning(folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl", count=20)
    _, output, _ = tract("calibrate", "--judge", folder, "--data", data, "--target", "human", "--method", "isotonic", "--dry-run")
    assert "100 % do after, where 90 % are wanted: they may be too wide now, which so few questions do not tell\n" in output
    assert "warning: 10 questions are too few to tell how often the intervals hold: anything from 72 % to 100 % fits" in output


@pytest.mark.parametrize("graded", [False, True])
def test_rows_that_were_trained_on_are_a_warning(graded: bool, folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl")
    if graded:
        tract("grade", data, "-o", folder / "graded.csv", "--judge", "j")
        data = folder / "graded.csv"
    arguments = ["calibrate", "--judge", folder, "--data", data, "--target", "human", "--dry-run"]
    write_trained_on(folder, {response_hash("other", "text")})
    assert "the judge was trained on none of these 40 responses" in tract(*arguments)[1]
    write_trained_on(folder, {response_hash(f"Question {n}?", f" {2 * n % 5 + 1} ") for n in range(3)})
    assert "warning: the judge was trained on 3 of these 40 responses (or chosen by them)" in tract(*arguments)[1]


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--target", "gold"], "has no column 'gold' (--target); it has instruction, response, human"),
        ({}, ["--target", "Humans"], "has no column 'Humans' (--target) (did you mean 'human'?); it has instruction, response, human"),
        ({}, ["--target", "[human,response]"], "--target takes one column, found 2 (human, response); give a column of their means"),
        ({}, ["--folds", "1"], "--folds: 1 leaves nothing to fit on"),
        ({}, ["--folds", "21"], "20 questions with a score and a target cannot be cut into 21 folds"),
        ({}, ["--method", "platt"], "argument --method: invalid choice: 'platt'"),
        ({"predictor": "argmax"}, ["--method", "temperature"],
         "a temperature does not move scores that are read by argmax; use --method isotonic"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_one_line(
    changes: dict[str, Any], arguments: list[str], message: str, tmp_path: Path, tract: Command, judge: StandIn
) -> None:
    made_settings(**changes).write(tmp_path)
    before = (tmp_path / "judge_config.json").read_bytes()
    target = [] if "--target" in arguments else ["--target", "human"]
    status, _, error = tract("calibrate", "--judge", tmp_path, "--data", validation(tmp_path / "val.jsonl"), *target, *arguments)
    assert (status, len([line for line in error.splitlines() if line.startswith("error: ")])) == (2, 1)
    assert message in error
    assert (tmp_path / "judge_config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge_raw_score": 2.0}, "graded.jsonl:1: judge_score: is calibrated already"),
        ({"judge_distribution": {"0": 1.0}}, "graded.jsonl:1: judge_distribution: holds the scores 0; the judge's are 1, 2, 3, 4, 5"),
        ({"judge_feedbacks": ["a", "b"]}, "is the mean over several feedbacks"),
        ({"judge_distribution": {"1": -1.0}}, "judge_distribution: found -1 for 1; probabilities are accepted"),
    ],
)
def test_grades_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, folder: Path, tract: Command) -> None:
    p = {"1": 0.0, "2": 0.0, "3": 1.0, "4": 0.0, "5": 0.0}
    row = {"instruction": "a", "judge_score": 3.0, "judge_raw_score": 3.0, "judge_status": "ok", "judge_distribution": p, "human": 3}
    (folder / "graded.jsonl").write_text(json.dumps({**row, **changes}) + "\n")
    status, _, error = tract("calibrate", "--judge", folder, "--data", folder / "graded.jsonl", "--target", "human")
    assert status == 2
    assert message in error


WIDE = {"criteria": "Right?", "descriptions": {str(score): "x" for score in range(1, 11)}}


def test_rows_on_another_scale_are_counted_by_its_name(folder: Path, tract: Command, judge: StandIn) -> None:
    """Of an ungraded file by their rubrics, in a column of text or of a mapping; of a graded one by the distribution."""
    data = validation(folder / "val.jsonl")
    wide = {"instruction": "a", "response": "1", "human": 9}
    text = "Right?\n" + "\n".join(f"{score}: x" for score in range(1, 11))
    with data.open("a") as file:
        file.writelines(json.dumps({**wide, "rubric": rubric}) + "\n" for rubric in (WIDE, text))
    status, output, _ = tract("calibrate", "--judge", folder, "--data", data, "--target", "human", "--resamples", 10)
    assert status == 0
    assert "a rubric on the scale 1 to 10, not the judge's 1 to 5: 2" in output
    assert all(request.rubric is None for request in judge.graded)
    (folder / "rubric.txt").write_text("Right?\n1 = no\n5 = yes")
    _, _, error = tract("calibrate", "--judge", folder, "--data", data, "--target", "human", "--rubric", folder / "rubric.txt", "--dry-run")
    assert f"{data}: the column 'rubric' is not used, since --rubric is for all rows" in error
    assert judge.graded[-1].rubric == Rubric("Right?", {1: "no", 5: "yes"})
    grade = {
        "judge_score": 8.0,
        "judge_raw_score": 8.0,
        "judge_status": "ok",
        "judge_distribution": dict.fromkeys(WIDE["descriptions"], 0.1),
    }
    tract("grade", validation(folder / "plain.jsonl"), "-o", folder / "graded.jsonl", "--judge", "j")
    with (folder / "graded.jsonl").open("a") as file:
        file.write(json.dumps({**wide, **grade}) + "\n")
    status, output, _ = tract("calibrate", "--judge", folder, "--data", folder / "graded.jsonl", "--target", "human", "--resamples", 10)
    assert status == 0
    assert "graded on the scale 1 to 10, not the judge's 1 to 5: 1" in output


def test_a_file_on_another_scale_alone_leaves_nothing(folder: Path, tract: Command, judge: StandIn) -> None:
    (folder / "in.jsonl").write_text(json.dumps({"instruction": "a", "response": "1", "human": 9, "rubric": WIDE}) + "\n")
    status, output, error = tract("calibrate", "--judge", folder, "--data", folder / "in.jsonl", "--target", "human")
    assert (status, judge.graded) == (2, [])
    assert "left out: a rubric on the scale 1 to 10, not the judge's 1 to 5: 1" in output
    assert "no row has both a score and a target, so there is nothing to fit on" in error


def test_equal_failures_are_one_line_with_a_count(folder: Path, tract: Command, judge: StandIn) -> None:
    data = validation(folder / "val.jsonl")
    broken = [json.dumps({"instruction": f"q{n}?", "response": f"broken {n}", "human": 3}) + "\n" for n in range(30)]
    data.write_text("".join(broken) + data.read_text())
    status, output, error = tract("calibrate", "--judge", folder, "--data", data, "--target", "human", "--dry-run")
    assert status == 0
    assert "no score (error): 30" in output
    assert output.count("the model failed") == 1
    assert "\n  30 x the model failed\n  1 x val.jsonl:74: instruction: holds no value" in output
    assert not [line for line in error.splitlines() if "failed" in line]
