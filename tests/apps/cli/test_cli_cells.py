"""The commands on files as users have them: an index without a name, blank cells, compressed files, several raters."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from graders import StandIn
from made_settings import made_settings

from tract.text.schema import Rubric

Command = Callable[..., tuple[int, str, str]]
TINY = Path(__file__).resolve().parents[3] / "tract" / "assets" / "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_settings().write(tmp_path)
    return tmp_path


@pytest.fixture
def rated(folder: Path) -> pd.DataFrame:
    """Thirty responses, each scored by two raters, one of them twice."""
    rows = [
        {"instruction": f"Question {n}?", "response": str(n % 5 + 1), "id": None, "human": score, "rater": rater}
        for n in range(30)
        for rater, score in (("a", 3), ("b", 4), ("b", 4))
    ]
    return pd.DataFrame(rows)


def test_an_index_without_a_name_is_no_hindrance_to_any_command(folder: Path, rated: pd.DataFrame, tract: Command, judge: StandIn) -> None:
    rated.to_csv(folder / "in.csv.gz")
    rated.rename_axis("").reset_index().to_json(folder / "in.ndjson", orient="records", lines=True)
    for name, out in (("in.csv.gz", "a.csv"), ("in.ndjson", "b.jsonl"), ("in.ndjson", "c.parquet")):
        assert tract("grade", folder / name, "--judge", "j", "-o", folder / out)[0] == 0
    assert all(request.id is None for request in judge.graded)
    assert json.loads((folder / "b.jsonl").read_text().splitlines()[4])[""] == 4
    assert (folder / "a.csv").read_text().splitlines()[5].startswith("4,Question 1?,2,,4,b,2.0,ok")
    status, output, error = tract(
        "compare", folder / "a.csv", folder / "b.jsonl", folder / "c.parquet", "--resamples", 10, "--by", "instruction"
    )
    assert (status, error) == (0, "")
    assert "a.csv: 90 rows, 30 answers with a score (1 to 5); 60 rows repeat an answer and its grade, which count once" in output
    assert "30 pairs by instruction, 30 questions" in output
    for name in ("in.csv.gz", "in.ndjson"):
        status, output, error = tract("inspect", folder / name, "--judge", TINY, "--row", 4)
        assert status == 0, error
        assert "Question 1?" in output


@pytest.mark.parametrize("name", ["in.csv", "in.ndjson", "graded.csv"])
def test_calibration_is_on_the_mean_of_the_raters_and_says_so(
    name: str, folder: Path, rated: pd.DataFrame, tract: Command, judge: StandIn
) -> None:
    rated.to_csv(folder / "in.csv")
    rated.to_json(folder / "in.ndjson", orient="records", lines=True)
    tract("grade", folder / "in.csv", "--judge", "j", "-o", folder / "graded.csv")
    arguments = ["calibrate", "--judge", folder, "--data", folder / name, "--target", "human", "--resamples", 10, "--dry-run"]
    status, output, error = tract(*arguments)
    assert status == 0, error
    assert output.startswith(
        f"{folder / name}: 30 examples with a score and a target, 30 questions; a target is the mean over the raters of a response, of "
        "60 ratings in all; left out: a score that its rater gave twice: 30\n"
    )
    renamed = folder / f"other_{name}"
    renamed.write_text((folder / name).read_text().replace("rater", "who"))
    _, output, _ = tract(*arguments[:4], renamed, *arguments[5:])
    assert "of 90 ratings in all; equal rows count as different raters, --columns rater=COLUMN tells them apart\n" in output
    _, output, _ = tract(*arguments[:4], renamed, *arguments[5:], "--columns", "rater=who")
    assert "of 60 ratings in all; left out: a score that its rater gave twice: 30\n" in output


@pytest.mark.parametrize("command", ["grade", "inspect", "calibrate"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.xlsx", "has the suffix '.xlsx', which is no known format; save the sheet as CSV; accepted is a .jsonl"),
        ("a.csv.gz", "a.csv.gz: cannot be unpacked: "),
    ],
)
def test_files_that_cannot_be_read_are_one_line(
    command: str, name: str, message: str, folder: Path, tract: Command, judge: StandIn
) -> None:
    (folder / name).write_bytes(gzip.compress(b"instruction,response,human\na,b,3\n")[:20])
    more = {
        "grade": ["-o", folder / "o.csv", "--judge", "j"],
        "inspect": ["--judge", TINY],
        "calibrate": ["--judge", folder, "--target", "human"],
    }
    where = ["--data", folder / name] if command == "calibrate" else [folder / name]
    status, _, error = tract(command, *where, *more[command])
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "rubric", ["Check:\n1: tone\n2: facts\n3: style\nRate from 1 to 10.", "Rate it from 1 to 5, with 0.5 steps.", "Grade A-F"]
)
def test_no_command_grades_on_scores_that_a_rubric_does_not_ask_for(rubric: str, folder: Path, tract: Command, judge: StandIn) -> None:
    good = {"instruction": "a", "response": "3", "human": 3}
    (folder / "in.jsonl").write_text(
        "".join(json.dumps({**good, "instruction": text, "rubric": text}) + "\n" for text in (rubric, "Right?"))
    )
    status, _, _ = tract("grade", folder / "in.jsonl", "--judge", "j", "-o", folder / "out.jsonl")
    grades = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [(grade["judge_status"], grade["judge_score"]) for grade in grades] == [("error", None), ("ok", 3.0)]
    assert "write each score on a line of its own" in grades[0]["judge_error"]
    status, _, error = tract("inspect", folder / "in.jsonl", "--judge", TINY, "--row", 1)
    assert status == 2
    assert "write each score on a line of its own" in error
    _, output, error = tract("calibrate", "--judge", folder, "--data", folder / "in.jsonl", "--target", "human", "--dry-run")
    assert "write each score on a line of its own" in output + error
    assert all(request.rubric == Rubric("Right?") for request in judge.graded)
    _, output, _ = tract("compare", folder / "out.jsonl", folder / "out.jsonl", "--resamples", 10)
    assert "1 answers with a score" in output
