"""A rubric in a column: the same one from each format and each way to write it, as from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graders import StandIn
from grading_files import grade, read, write

from tract.apps.grading.columns import columns_in
from tract.apps.grading.rubric_file import read_rubric
from tract.common.errors import DataError
from tract.data.readers.rows import RawRow
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric

TEXT = "[Is it a prime?]\nScore 0: It is not.\nScore 1: It is."
MAPPING = {"criteria": "Is it a prime?", "descriptions": {"0": "It is not.", "1": "It is."}}
EXPECTED = Rubric("Is it a prime?", {0: "It is not.", 1: "It is."})
OTHER = {"criteria": "Is it short?", "descriptions": {"1": "no", "2": "so", "3": "yes"}}


def rows(*rubrics: Any) -> list[dict[str, Any]]:
    return [{"instruction": "Name a prime.", "response": "7", "rubric": rubric} for rubric in rubrics]


def graded_by(source: Path) -> list[Rubric | None]:
    """The rubrics that the judge is given."""
    judge = StandIn()
    grade(source, source.with_name(f"{source.name}.graded.jsonl"), judge)
    return [request.rubric for request in judge.graded]


def test_a_rubric_is_the_same_from_every_format_and_from_python(tmp_path: Path) -> None:
    flat = {"criteria": "Is it a prime?", "score0_description": "It is not.", "score1_description": "It is."}
    texts = [TEXT, json.dumps(MAPPING), json.dumps(flat), "Is it a prime?\n0: It is not.\n1: It is."]
    found = graded_by(write(tmp_path / "a.csv", rows(*texts))) + graded_by(write(tmp_path / "a.parquet", rows(*texts)))
    found += graded_by(write(tmp_path / "a.jsonl", rows(*texts, MAPPING, flat)))
    pq.write_table(pa.Table.from_pylist(rows(MAPPING, OTHER)), tmp_path / "struct.parquet")  # each row has the scores of both
    struct, other = graded_by(tmp_path / "struct.parquet")
    python = [GradeRequest.of({"instruction": "a", "response": "b", "rubric": own}).rubric for own in (*texts, MAPPING, flat)]
    assert found + [struct] + python == [EXPECTED] * len(found + [struct] + python)
    assert other == Rubric("Is it short?", {1: "no", 2: "so", 3: "yes"})


def test_a_map_of_parquet_is_a_mapping(tmp_path: Path) -> None:
    kind = pa.struct({"criteria": pa.string(), "descriptions": pa.map_(pa.string(), pa.string())})
    schema = pa.schema({"instruction": pa.string(), "response": pa.string(), "rubric": kind})
    rubric = {"criteria": MAPPING["criteria"], "descriptions": [("0", "It is not."), ("1", "It is.")]}
    pq.write_table(pa.Table.from_pylist(rows(rubric), schema=schema), tmp_path / "map.parquet")
    assert graded_by(tmp_path / "map.parquet") == [EXPECTED]


def test_descriptions_of_other_rows_are_left_out_of_a_struct(tmp_path: Path) -> None:
    content = [
        {"instruction": "a", "response": "1", "criteria": "Right?", "score_descriptions": {"0": "no", "3": "yes"}},
        {"instruction": "a", "response": "1", "criteria": "Right?", "score_descriptions": {"1": "no", "5": "yes"}},
    ]
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "in.parquet")
    assert graded_by(tmp_path / "in.parquet") == [Rubric("Right?", {0: "no", 3: "yes"}), Rubric("Right?", {1: "no", 5: "yes"})]


def test_rows_without_a_rubric_or_with_two_or_with_one_of_doubt(tmp_path: Path) -> None:
    content = rows(None, "", "Right?\n1. a\n2. b", 5, TEXT)
    content[-1]["criteria"] = "Right?"
    content.append({"instruction": "a", "response": "b", "criteria": "Right?"})
    judge = StandIn()
    grade(write(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl", judge)
    assert [request.rubric for request in judge.graded] == [None, None, Rubric("Right?")]
    errors = [row["judge_error"] for row in read(tmp_path / "out.jsonl")]
    assert errors[2].startswith("in.jsonl:3: rubric: cannot tell whether '1. a' and '2. b' are scores or a numbered list; write each score")
    assert errors[3].startswith("in.jsonl:4: rubric: found a int; text, or criteria and descriptions, are accepted")
    assert errors[4] == "in.jsonl:5: rubric: is given beside criteria; a row has one rubric, leave one of them empty"


def test_the_column_can_have_another_name(tmp_path: Path) -> None:
    content = [{"instruction": "a", "response": "1", "how": TEXT}]
    judge = StandIn()
    grade(write(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl", judge, {"rubric": "how"})
    assert judge.graded[0].rubric == EXPECTED
    with pytest.raises(ValueError, match="--rubric: is given beside --columns rubric=...; give one of them"):
        grade(tmp_path / "in.jsonl", tmp_path / "other.jsonl", judge, {"rubric": "how"}, rubric=EXPECTED)


def test_descriptions_as_json_text_are_an_object(tmp_path: Path) -> None:
    """As ``tract grade`` writes them into a CSV file."""
    rubric = Rubric("Right?", {0: "no", 1: "yes"})
    columns = columns_in(["instruction", "response", "criteria", "score_descriptions"], {}, "in.csv")
    cells = {"instruction": "a", "response": "b", "criteria": "Right?", "score_descriptions": ' {"0": "no", "1": "yes", "2": null}'}
    assert columns.request(RawRow("in.csv:2", cells), None).rubric == rubric
    with pytest.raises(ValueError, match=r"score_descriptions: found '\{0: no'; JSON of an object of score and text is accepted"):
        columns.request(RawRow("in.csv:2", {**cells, "score_descriptions": "{0: no"}), None)


@pytest.mark.parametrize("text", ["criteria: c\ndescriptions: {1: yes}\n", "criteria: c\ndescriptions: {no: x}\n", "criteria: on\n"])
def test_a_word_that_yaml_made_a_boolean_says_quote_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "rubric.yaml").write_text(text)
    with pytest.raises(DataError, match="found .*YAML reads yes, no, on and off as true and false: quote it"):
        read_rubric(tmp_path / "rubric.yaml")
