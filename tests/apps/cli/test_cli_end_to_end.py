"""The commands with a real, tiny judge: graded as the Python API grades, calibrated, and graded again with the calibration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from judge_items import make_rubric_examples
from talking import PROMPT, TALKING

from tract import Judge
from tract.artifacts.judge_settings import read_settings

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_grade_calibrate_grade_and_compare(talking_folder: str, tmp_path: Path, tract: Command) -> None:
    examples = make_rubric_examples(24)
    rows = [
        {"question": example.instruction, "answer": example.response, "n": n, "human": (1.0, 5.0, 3.0)[n % 3]}
        for n, example in enumerate(examples)
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompt.yaml").write_text(yaml.safe_dump(PROMPT))
    mapping = ["--columns", "instruction=question", "response=answer", "id=n"]
    options = {name: value for name, value in TALKING.items() if name != "prompt"}
    settings = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]

    status, output, error = tract(
        "grade", source, "--judge", talking_folder, "-o", tmp_path / "a.parquet", *mapping, "--prompt", tmp_path / "prompt.yaml", *settings
    )
    assert status == 0, error
    graded: list[dict[str, Any]] = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in graded] == rows
    with Judge.from_pretrained(talking_folder, **TALKING) as judge:
        for row, found in zip(rows[:3], graded, strict=False):
            grade = judge.grade(row["question"], row["answer"])
            assert found["judge_score"] == pytest.approx(grade.score, abs=1e-4)
            assert (found["judge_status"], found["judge_feedbacks"]) == (grade.status, list(grade.feedbacks))
            assert dict(found["judge_distribution"]) == pytest.approx(dict(grade.distribution), abs=1e-4)
        exported = Path(shutil.copytree(talking_folder, tmp_path / "exported"))
        judge.settings.write(exported)  # what an exported folder holds beside weights and tokenizer

    # --force: on other machines a random judge's scores may fit held-out questions no better after it than before.
    status, output, error = tract("calibrate", "--judge", exported, "--data", source, "--target", "human", *mapping, "--force")
    assert status == 0, error
    assert "RMSE after, on held-out questions (5 folds)" in output
    assert (found_in := read_settings(exported / "judge_config.json").calibration) is not None
    assert found_in.fitted_on["items"] == 24

    assert tract("grade", source, "--judge", exported, "-o", tmp_path / "b.jsonl", *mapping)[0] == 0
    assert tract("grade", source, "--judge", exported, "-o", tmp_path / "c.jsonl", *mapping, "--calibrated")[0] == 0
    plain, mended = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("b.jsonl", "c.jsonl"))
    for first, again, other in zip(graded, plain, mended, strict=True):
        assert again["judge_score"] == pytest.approx(first["judge_score"], abs=1e-4)  # off by default
        assert other["judge_raw_score"] == pytest.approx(again["judge_score"], abs=1e-4)
    errors = [sum((row["judge_score"] - row["human"]) ** 2 for row in rows) for rows in (plain, mended)]
    assert errors[1] < errors[0]

    status, output, _ = tract("compare", tmp_path / "b.jsonl", tmp_path / "c.jsonl", "--columns", "id=n", "instruction=question")
    assert status == 0
    assert "24 pairs by id" in output
