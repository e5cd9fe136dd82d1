"""The commands with a hosted chat model: what cannot be read has a status and is counted, thoughts have a column."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from chat_stand_in import hosted, said

Command = Callable[..., tuple[int, str, str]]
ANSWERS = {
    "thought": said("<think>\nDraft. [RESULT] 2\n</think>\nClear. [RESULT] 4"),
    "range": said("Mixed. [RESULT] 3-4"),
    "cut": said("<think>\nDraft. [RESULT] 2", "length"),
    "plain": said("Good. [RESULT] 5"),
}


def answer(request: dict[str, Any]) -> tuple[Any, ...]:
    return next(each for word, each in ANSWERS.items() if f"{word} response" in request["messages"][-1]["content"])


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return [dict(row) for row in pq.read_table(path).to_pylist()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{**row, "judge_thoughts": json.loads(row["judge_thoughts"])} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_statuses_and_thoughts_go_into_graded_files_and_counts(tmp_path: Path, tract: Command) -> None:
    data = tmp_path / "in.jsonl"
    items = [{"id": word, "instruction": f"Question {word}?", "response": f"a {word} response", "human": 4} for word in ANSWERS]
    data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    with hosted(answer) as (url, asked):
        judge = ["--judge", "m", "--backend", "openai", "--api", "chat", "--base-url", url, "--extra-body", "reasoning_effort=low"]
        for suffix in ("jsonl", "csv", "parquet"):
            status, output, error = tract("grade", data, *judge, "-o", tmp_path / f"out.{suffix}")
            assert status == 0, error
            assert re.search(r"mean score mass +1\.000\n", output)
            assert "unreadable_score  1 (25.0 %)" in " ".join(output.split("\n")).replace("    ", "  ")
        assert {request["reasoning_effort"] for request in asked} == {"low"}
        status, _, error = tract("grade", data, *judge[:-1], "stream=true", "-o", tmp_path / "no.jsonl")
        assert (status, "extra_body.stream: cannot be set" in error) == (2, True)
    for suffix in ("jsonl", "csv", "parquet"):
        found = rows(tmp_path / f"out.{suffix}")
        assert [row["judge_status"] for row in found] == ["ok", "unreadable_score", "truncated_cot", "ok"]
        assert [row["judge_score_mass"] in (None, "") for row in found] == [False, True, True, False]
        assert [row["judge_feedback"] for row in found] == ["Clear.", "Mixed.", "", "Good."]
        assert [row["judge_thoughts"] for row in found] == [["Draft. [RESULT] 2"], [], ["Draft. [RESULT] 2"], []]
    status, output, error = tract("compare", tmp_path / "out.jsonl", tmp_path / "out.parquet")
    assert status == 0, error
    assert (
        "2 pairs by id, 2 questions; left out: no score in out.jsonl (unreadable_score) and out.parquet (unreadable_score): 1, " in output
    )
