"""Files of responses and their grading by a stand-in: shared by several test files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graders import StandIn

from tract.apps.grading.files import finish, grade_rows, plan_of
from tract.apps.grading.journal import Journal
from tract.apps.grading.summary import Summary
from tract.text.schema import Rubric

ROWS: list[dict[str, Any]] = [
    {"instruction": "Name a colour.", "response": "blue 4", "id": 7, "extra": [1, {"a": None}], "part": 0.5, "flag": True},
    {"instruction": "Name an animal.", "response": "", "reference_answer": "cat", "extra": "text", "part": 2, "flag": False},
    {"instruction": "", "response": "to nothing", "extra": None, "part": None},
    {"instruction": "Name a number.", "response": "no mass"},
    {"instruction": "Name a stone, “ü\u2028”.", "response": "broken, = 1"},
    {"instruction": "Name a tree.", "response": "truncated oak 2", "id": "tree"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".csv", ".tsv"):
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([names, *([row.get(name, "") for name in names] for row in rows)])
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        texts = [{name: None if row.get(name) is None else str(row[name]) for name in names} for row in rows]
        pq.write_table(pa.Table.from_pylist(texts), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a graded file."""
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def grade(
    source: Path, out: Path, judge: StandIn | None = None, given: Mapping[str, str] | None = None, rubric: Rubric | None = None,
    limit: int | None = None,
) -> Summary:  # fmt: skip
    """Grades a file as the command does."""
    judge = judge or StandIn()
    plan = plan_of(source, out, given or {}, rubric, limit, overwrite=False)
    with Journal(plan.journal_path, plan.work(judge.fingerprint)) as journal:
        grade_rows(plan, judge, journal, lambda _: None)
        return finish(plan, journal, judge.grid)
