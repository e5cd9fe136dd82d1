"""Cells as users' files have them: columns without a name, blanks, numbers as answers, compressed files, rows of several raters."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from graders import GRID, StandIn

from tract.apps.grading.columns import columns_in, parse_columns
from tract.apps.grading.files import finish, grade_rows, plan_of
from tract.apps.grading.journal import Journal
from tract.apps.grading.pairs import pairs_of, read_graded
from tract.apps.grading.validation import RATER, Validation, graded_already, graded_now
from tract.common.errors import DataError
from tract.data.readers.files import read_rows

OUTPUTS = ["out.jsonl", "out.ndjson", "out.csv", "out.parquet"]


def grade(source: Path, out: Path, **given: str) -> StandIn:
    plan = plan_of(source, out, given, None, None, overwrite=False)
    judge = StandIn()
    with Journal(plan.journal_path, plan.work(judge.fingerprint), {}, restart=False) as journal:
        grade_rows(plan, judge, journal, lambda _: None)
        finish(plan, journal, judge.grid)
    return judge


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = [row.data for row in read_rows(path)]
    assert all(isinstance(row, dict) for row in rows), rows
    return rows  # type: ignore[return-value]


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize(
    ("name", "content", "own"),
    [
        ("in.csv", ",instruction,response\n0,Name a river.,The Loire 3\n", {"": "0"}),
        ("in.jsonl", '{"": 0, "instruction": "Name a river.", "response": "The Loire 3"}\n', {"": 0}),
        ("in.csv", "instruction,response,\nName a river.,The Loire 3,\n", {"": ""}),
        ("in.csv", "instruction,response\nName a river.,The Loire 3,\n", {"": ""}),
        ("in.csv", " ,instruction,response\nx,Name a river.,The Loire 3\n", {" ": "x"}),
        ("in.tsv", "\t\tinstruction\tresponse\n0\t1\tName a river.\tThe Loire 3\n", {"Unnamed: 0": "0", "Unnamed: 1": "1"}),
    ],
)
def test_columns_without_a_name_pass_through(name: str, content: str, own: dict[str, Any], out: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    judge = grade(tmp_path / name, tmp_path / out)
    assert [(request.id, request.response) for request in judge.graded] == [(None, "The Loire 3")]
    (row,) = rows_of(tmp_path / out)
    assert {column: value for column, value in row.items() if not column.startswith("judge_")} == {
        "instruction": "Name a river.", "response": "The Loire 3",
        **{column: str(value) if out.endswith("csv") else value for column, value in own.items()},
    }  # fmt: skip
    assert float(row["judge_score"]) == 3.0


def test_the_column_without_a_name_can_be_the_id(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(",instruction,response\n7,a,b\n")
    assert grade(tmp_path / "in.csv", tmp_path / "out.csv", **parse_columns(["id="])).graded[0].id == "7"
    with pytest.raises(DataError, match=r"in\.csv: has no column without a name \(--columns id=\); it has \['a'\]"):
        columns_in(["a"], parse_columns(["id="]), "in.csv")


def test_blanks_around_names_of_columns_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("instruction, response, id\nName a river.,The Loire 3,x\n")
    assert grade(tmp_path / "in.csv", tmp_path / "out.csv").graded[0].id == "x"
    assert list(rows_of(tmp_path / "out.csv")[0])[:3] == ["instruction", " response", " id"]


def test_the_index_of_pandas_stays_its_index(tmp_path: Path) -> None:
    pd.DataFrame({"instruction": ["a"], "response": ["3"]}, index=[9]).to_parquet(tmp_path / "in.parquet")
    grade(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert list(pd.read_parquet(tmp_path / "out.parquet").index) == [9]


ODD = ["id", "reference_answer", "criteria", "score_descriptions.1"]


def test_a_blank_cell_is_what_null_and_a_missing_key_are(tmp_path: Path) -> None:
    full = {"instruction": "a", "response": "b", "id": "x", "reference_answer": "c", "criteria": "d", "score_descriptions.1": "e"}
    rows = [full, *({**full, name: None} for name in ODD[:2]), {**full, **dict.fromkeys(ODD)}, {**full, **dict.fromkeys(ODD[2:])}]
    (tmp_path / "null.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "nan.jsonl").write_text("".join(json.dumps(row).replace("null", "NaN") + "\n" for row in rows))
    (tmp_path / "no.jsonl").write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    for name, blank in (("a.csv", ""), ("b.csv", "  ")):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([list(full), *([blank if value is None else value for value in row.values()] for row in rows)])
    pd.DataFrame(rows).to_parquet(tmp_path / "in.parquet")
    found = [grade(path, tmp_path / f"{path.name}.csv").graded for path in sorted(tmp_path.iterdir())]
    assert len(found) == 6
    assert len(found[0]) == 5
    assert all(each == found[0] for each in found)
    assert [request.id for request in found[0]] == ["x", None, "x", None, "x"]
    assert [request.rubric is None for request in found[0]] == [False, False, False, True, True]


def test_a_description_without_a_text_is_none(tmp_path: Path) -> None:
    row = {"instruction": "a", "response": "b", "criteria": "c", "score_descriptions": {"1": None, "3": " ", "5": 5}}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    (request,) = grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl").graded
    assert request.rubric is not None
    assert request.rubric.descriptions == (("5", "5"),)


def test_numbers_are_answers_and_ids(tmp_path: Path) -> None:
    answers = ["42", "3.50", "true", "1E2", '""', '["x"]', '{"a": 1}', "null", "NaN"]
    lines = [f'{{"instruction": 5, "response": {answer}, "id": {number}}}' for number, answer in enumerate(answers)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    judge = grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [(request.instruction, request.response, request.id) for request in judge.graded] == [
        ("5", "42", "0"), ("5", "3.50", "1"), ("5", "true", "2"), ("5", "1E2", "3"), ("5", "", "4"),
    ]  # fmt: skip
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["response"] for row in rows] == [42, 3.5, True, 100.0, "", ["x"], {"a": 1}, None, None]
    reasons = [row["judge_error"] for row in rows[5:]]
    assert [reason.partition(";")[0] for reason in reasons] == [
        "in.jsonl:6: response: found ['x']", "in.jsonl:7: response: found {'a': 1}",
        "in.jsonl:8: response: holds no value (null or NaN)", "in.jsonl:9: response: holds no value (null or NaN)",
    ]  # fmt: skip


def test_a_packed_file_is_graded_and_an_output_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"instruction,response\na,3\n"))
    grade(tmp_path / "in.csv.gz", tmp_path / "out.parquet")
    assert rows_of(tmp_path / "out.parquet")[0]["judge_score"] == 3.0
    with pytest.raises(DataError, match=r"the suffix '\.gz' is no known format of an output; \.jsonl, .* are accepted; compress it when"):
        grade(tmp_path / "in.csv.gz", tmp_path / "out.jsonl.gz")
    (tmp_path / "in.csv.gz").write_bytes((tmp_path / "in.csv.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"^in\.csv\.gz: cannot be unpacked"):
        grade(tmp_path / "in.csv.gz", tmp_path / "out.csv")


# --- several raters of a response

RATED = [("1", 3, "a"), ("1", 4, "b"), ("1", 4, "b"), ("2", 2, "a"), ("2", 3, "a"), ("2", 4, ""), ("2", 4, ""), ("no mass", 3, "a")]


def rated(path: Path, *, rater: bool = True) -> Path:
    rows = [{"instruction": f"Question {answer}?", "response": answer, "human": str(score), "rater": who} for answer, score, who in RATED]
    pd.DataFrame(rows).drop(columns=[] if rater else ["rater"]).to_csv(path)
    return path


def validated(path: Path, tmp_path: Path, *, already: bool) -> tuple[Validation, int]:
    """What calibration gets, and how often the judge was asked."""
    judge = StandIn()
    if already:
        grade(path, tmp_path / "graded.csv")
        path = tmp_path / "graded.csv"
    names = list(rows_of(path)[0])
    columns = columns_in(names, {}, path.name, required=("instruction",), others=(RATER,))
    if already:
        return graded_already(path, columns, "human", GRID, "isotonic"), 0
    return graded_now(path, columns, "human", None, judge, lambda _: None), len(judge.graded)


@pytest.mark.parametrize("already", [False, True])
def test_the_true_score_of_a_response_is_the_mean_over_its_raters(already: bool, tmp_path: Path) -> None:
    found, asked = validated(rated(tmp_path / "in.csv"), tmp_path, already=already)
    assert [example.target for example in found.examples] == [3.5, pytest.approx(10 / 3)]
    assert (found.ratings, found.by_rater, asked) == (5, True, 0 if already else 3)
    assert found.left_out == {
        "a score that its rater gave twice": 1, "a second, other score of a rater": 1, "no score (low_score_mass)": 1,
    }  # fmt: skip


@pytest.mark.parametrize("already", [False, True])
def test_without_raters_equal_rows_are_of_different_ones(already: bool, tmp_path: Path) -> None:
    found, _ = validated(rated(tmp_path / "in.csv", rater=False), tmp_path, already=already)
    assert [example.target for example in found.examples] == [pytest.approx(11 / 3), 3.25]
    assert (found.ratings, found.by_rater) == (7, False)


def test_a_graded_file_without_its_responses_keeps_its_rows_apart(tmp_path: Path) -> None:
    grade(rated(tmp_path / "in.csv"), tmp_path / "graded.csv")
    frame = pd.read_csv(tmp_path / "graded.csv").drop(columns=["response", "rater"])
    frame.to_csv(tmp_path / "few.csv", index=False)
    columns = columns_in(list(frame), {}, "few.csv", required=("instruction",), others=(RATER,))
    assert len(graded_already(tmp_path / "few.csv", columns, "human", GRID, "isotonic").examples) == 7


def graded(path: Path, rows: list[tuple[str, str, float]]) -> Path:
    lines = [{"instruction": question, "response": answer, "judge_score": score, "judge_status": "ok"} for question, answer, score in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_rows_that_repeat_an_answer_and_its_grade_count_once(tmp_path: Path) -> None:
    many = [
        ("a", "x", 3.0),
        ("a", "x", 3.0),
        ("a", "x", 3.0),
        ("b", "y", 2.0),
        ("c", "z", 1.0),
        ("c", "z", 2.0),
        ("d", "u", 1.0),
        ("d", "v", 1.0),
    ]
    first = read_graded(graded(tmp_path / "a.jsonl", many), "instruction", {})
    assert (first.rows, first.repeats, sorted(answer.score or 0 for answer in first.answers.values())) == (8, 2, [2.0, 3.0])
    assert first.left_out == {"with a repeated instruction": 4}  # another grade, or another response
    second = read_graded(graded(tmp_path / "b.jsonl", [("a", "other", 4.0), ("b", "y", 2.0)]), "instruction", {})
    assert len(pairs_of(first, second, ("a", "b"), "instruction").first) == 2
