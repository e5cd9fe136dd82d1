"""``tract compare`` of graded files: what is printed and written, and mistakes as one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tract.apps.grading.graded import TYPES

Command = Callable[..., tuple[int, str, str]]


def graded(path: Path, scores: list[float | None]) -> Path:
    rows = [
        {"id": n, "instruction": f"Question {n // 2}?", "judge_score": score, "judge_status": "error" if score is None else "ok"}
        for n, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        graded(tmp_path / "a.jsonl", [1, 2, 3, 4, None, 3]),
        graded(tmp_path / "b.jsonl", [2, 3, 3, 5, 2, None]),
        graded(tmp_path / "c.jsonl", [1, 1, 1, 1]),
    ]


def test_tables_histogram_and_file(files: list[Path], tmp_path: Path, tract: Command) -> None:
    status, output, error = tract("compare", *files, "--tie-margin", 0.5, "--resamples", 100, "--out", tmp_path / "out")
    assert (status, error) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "a.jsonl: 6 rows, 5 answers with a score"
    assert "4 pairs by id, 2 questions; left out: no score in a.jsonl (error): 1, no score in b.jsonl (error): 1" in lines
    assert "95 % intervals, clustered by question; ties: differences of at most 0.5 points" in lines
    (difference, against_c) = (line for line in lines if line.startswith("difference, "))
    assert difference.startswith("difference, b.jsonl minus a.jsonl  +0.750 [+0.500, +1.000]")
    assert against_c.startswith("difference, c.jsonl minus a.jsonl  -1.500")
    assert any(line.startswith("b.jsonl wins") and "75.0 % [50.0, 100.0]" in line for line in lines)
    assert any(line.endswith(f"| {'#' * 40} 3") for line in lines)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert [(each["first_file"], each["second_file"], each["pairs"]) for each in content] == [
        ("a.jsonl", "b.jsonl", 4),
        ("a.jsonl", "c.jsonl", 4),
    ]
    assert content[0]["difference"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert content[0]["left_out"] == {"no score in a.jsonl (error)": 1, "no score in b.jsonl (error)": 1}


def test_the_baseline_can_be_another(files: list[Path], tract: Command) -> None:
    _, output, _ = tract("compare", *files, "--baseline", "c", "--resamples", 0)
    assert output.startswith("c.jsonl: 4 rows")
    assert "difference, a.jsonl minus c.jsonl  +1.500\n" in output
    assert "no intervals; ties" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl"], "a.jsonl is alone; give two graded files or more"),
        (["a.jsonl", "."], "is a file and . is none; give graded files, or folders of runs"),
        (["a.jsonl", "b.jsonl", "--tie-margin", "-1"], "--tie-margin: -1.0 is not a number of points >= 0"),
        (["a.jsonl", "b.jsonl", "--tie-margin", "nan"], "--tie-margin: nan is not"),
        (["a.jsonl", "b.jsonl", "--baseline", "z"], "--baseline: 'z' is not one of a.jsonl, b.jsonl"),
        (["a.jsonl", "b.jsonl", "--predictor", "rail"], "--predictor: is for runs"),
        (["a.jsonl", "b.jsonl", "--confidence", "95"], "--confidence: 95 is not between 0 and 1"),
        (["a.jsonl", "b.jsonl", "--columns", "id=key"], "a.jsonl: has no column 'key'"),
        (["a.jsonl", "other.jsonl"], "no answer of a.jsonl and other.jsonl pairs up by id"),
        (["a.jsonl", "plain.jsonl"], "plain.jsonl: has no columns judge_score and judge_status; grade it first"),
        ([".", "--seed", "1"], "--seed: is for graded files; . is none"),
        (["nowhere"], "there is no file or folder nowhere; give graded files, or folders of runs"),
        (["nosuch.jsonl", "a.jsonl"], "there is no file or folder nosuch.jsonl; give graded files, or folders of runs"),
        (["a.jsonl", "nosuch.jsonl"], "there is no file or folder nosuch.jsonl; give graded files, or folders of runs"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], message: str, files: list[Path], tmp_path: Path, tract: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.jsonl").write_text(json.dumps({"id": 99, "instruction": "x", "judge_score": 1, "judge_status": "ok"}) + "\n")
    (tmp_path / "plain.jsonl").write_text(json.dumps({"id": 1, "instruction": "x"}) + "\n")
    status, _, error = tract("compare", *arguments)
    assert (status, len(error.splitlines())) == (2, 1)
    assert message in error


def on_scale(path: Path, scores: list[float], scale: range) -> Path:
    spread = {str(label): 1 / len(scale) for label in scale}
    rows = [
        {"instruction": f"Question {n}?", "judge_score": score, "judge_status": "ok", "judge_distribution": spread}
        for n, score in enumerate(scores)
    ]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "judge_distribution": json.dumps(spread)} for row in rows)
    else:
        columns = {name: [row[name] for row in rows] for name in rows[0]} | {"judge_distribution": [list(spread.items())] * len(rows)}
        schema = pa.schema({name: TYPES.get(name, pa.string()) for name in columns})
        pq.write_table(pa.table(columns, schema=schema), path)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_two_scales_are_refused_or_normalized(suffix: str, tmp_path: Path, tract: Command) -> None:
    a = on_scale(tmp_path / f"a.{suffix}", [1, 3, 5], range(1, 6))
    b = on_scale(tmp_path / f"b.{suffix}", [1, 5.5, 5.5], range(1, 11))
    status, output, error = tract("compare", a, b)
    assert (status, len(error.splitlines())) == (2, 1)
    assert output.splitlines() == [f"a.{suffix}: 3 rows, 3 answers with a score (1 to 5)"]
    found = f"a.{suffix} (1 to 5) and b.{suffix} (1 to 10)"
    assert f"error: tract compare: the scores of {found} are on several scales, whose points cannot be compared" in error
    assert "--normalize" in error
    arguments = ["--normalize", "--tie-margin", 0.1, "--resamples", 0, "--out", tmp_path / "out"]
    status, output, error = tract("compare", a, b, *arguments)
    assert (status, error) == (0, "")
    assert "scores are normalized: (score - lowest) / (highest - lowest) of each one's own scale, from 0 to 1" in output
    assert "ties: differences of at most 0.1 of the normalized scores" in output
    assert f"difference, b.{suffix} minus a.{suffix}  -0.167\n" in output  # of 0, 0.5, 1 and 0, 0.5, 0.5
    (content,) = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (content["normalized"], content["first_scales"], content["ties"]["value"]) == (True, [[1, 2, 3, 4, 5]], pytest.approx(2 / 3))


def test_one_scale_is_compared_in_points(tmp_path: Path, tract: Command) -> None:
    a, b = (on_scale(tmp_path / f"{name}.jsonl", scores, range(11)) for name, scores in (("a", [1, 2]), ("b", [9, 10])))
    status, output, _ = tract("compare", a, b, "--resamples", 0)
    assert status == 0
    assert "difference, b.jsonl minus a.jsonl  +8.000" in output
    assert "normalized" not in output


def test_normalize_is_for_files(tmp_path: Path, tract: Command) -> None:
    assert "--normalize: is for graded files" in tract("compare", tmp_path, "--normalize")[2]


def test_blanks_around_the_name_of_an_id_do_not_count(tmp_path: Path, tract: Command) -> None:
    grade = "ok,3.0,3.0,[],"
    for name in ("a.csv", "b.csv"):
        rows = "".join(f"Q,{n},{grade}\n" for n in range(3))
        (tmp_path / name).write_text(f"instruction, ID,judge_status,judge_score,judge_raw_score,judge_feedbacks,judge_distribution\n{rows}")
    status, output, error = tract("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--columns", "id=ID", "--resamples", 10)
    assert (status, error) == (0, "")
    assert "3 pairs by id" in output
