"""Scores of several raters, with and without a text: what is trained on, what is attached to generated CoTs, and what is said of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from composing import composed
from tiny_pipeline import SMALL, records

from tract.config import Config
from tract.stages.fit import fit
from tract.stages.pipeline import run_pipeline
from tract.stages.prepare import examples_of, prepare, sampling_tokens, seed_layout

TinyConfig = Callable[..., tuple[Config, Any]]
COLUMNS = {"question_id": "qid", "instruction": "question", "response": "answer", "score": "points", "cot": "comment"}


@pytest.fixture
def rated(tiny_config: TinyConfig, tmp_path: Path) -> Callable[..., tuple[Config, Any]]:
    """Twenty questions, each scored 5 (with the same comment twice, unless every fourth) and 2 without one."""
    rows = []
    for n in range(20):
        comment = "" if n % 4 == 3 else f"Answer {n} is right."
        rows += [f"q{n},Question {n}?,Answer {n}.,{rater},{score},{text}" for rater, score, text in
                 (("a", 5, comment), ("b", 5, comment), ("c", 2, ""))]  # fmt: skip
    (tmp_path / "rated.csv").write_text("qid,question,answer,rater,points,comment\n" + "\n".join(rows) + "\n")

    def run(*overrides: str) -> tuple[Config, Any]:
        mapped = [f"data.source.columns.{field}={column}" for field, column in COLUMNS.items()]
        return tiny_config("data=columns", f"data.path={tmp_path}/rated.csv", "train.max_steps=1", *mapped, *overrides)

    return run


def test_each_rating_is_a_continuation_where_no_cot_is_learned(rated: Callable[..., tuple[Config, Any]]) -> None:
    cfg, _ = rated("data.source.columns.cot=null", "objective=regression_only", "pipeline=[stage1,predict,evaluate]")
    cfg.stage = "stage1"
    found = prepare(cfg)
    for row in found.tokens.dataset.with_format(None):
        assert (row["score_index"], row["rating_index"], row["cot_ids"]) == ([4, 4, 1], [], [[], [], []])
        assert row["target"] == 4.0
    assert found.counts["examples_by_status"] == {"ok": 20}
    assert (found.counts["ratings"], found.counts["equal_rows_kept"]) == (60, 20)


def test_a_rating_without_a_comment_counts_for_the_target_and_for_generated_cots(rated: Callable[..., tuple[Config, Any]]) -> None:
    cfg, _ = rated("data.source.columns.rater=rater")
    cfg.stage = "stage1"
    found = prepare(cfg)
    assert found.counts["examples_by_status"] == {"ok": 15, "dropped_unannotated": 5}
    assert (found.counts["annotations"], found.counts["ratings"], found.counts["equal_rows_kept"]) == (30, 30, 0)
    _, layout, template = seed_layout(cfg)
    tokens = sampling_tokens(cfg, examples_of(cfg, layout.grid), template, layout, found.lengths, trained=True)
    for sampled in tokens.dataset.with_format(None):
        assert sorted([*sampled["score_index"], *sampled["rating_index"]]) == [1, 4, 4]
        assert (sampled["target"], sampled["status"]) == (4.0, "ok")


def test_log_preview_and_manifest_say_what_became_of_equal_rows(
    rated: Callable[..., tuple[Config, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    cfg, resolved = rated()
    with caplog.at_level(logging.INFO, "tract"):
        folder = fit(cfg, resolved)
    assert "15 rows are equal to an earlier one" not in caplog.text  # 5 of the 20 have no comment, but equal scores
    assert "20 rows are equal to an earlier one (prompt, feedback and score) and count as votes of other raters" in caplog.text
    assert "data.source.columns.rater" in caplog.text
    said = "scores of raters: 30 with a text, 30 without, of 20 examples; 20 equal rows count as votes of other raters, 0 duplicates"
    assert said in caplog.text
    assert said in (folder / "preview.txt").read_text(encoding="utf-8")
    counts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["data"]["counts"]
    assert [counts[name] for name in ("rows_read", "annotations", "ratings", "equal_rows_kept", "duplicates_dropped")] == [
        60,
        30,
        30,
        20,
        0,
    ]


def test_predictions_carry_texts_ids_and_the_scores_of_every_rater(tmp_path: Path) -> None:
    """As the user wrote them; a report and numbers say how far the raters agree."""
    rows = []
    for n in range(12):
        for answer in "xy":
            rows += [f"T-{n:02d},T-{n:02d}/{answer},Parcel {n}?,</script>{answer} {n},anna,{n % 5 + 1},Kind {answer}{n}.",
                     f"T-{n:02d},T-{n:02d}/{answer},Parcel {n}?,</script>{answer} {n},ben,{(n + (answer == 'y')) % 5 + 1},"]  # fmt: skip
    (tmp_path / "rated.csv").write_text("qid,id,question,answer,rater,points,comment\n" + "\n".join(rows) + "\n")
    mapped = [f"data.source.columns.{field}={column}" for field, column in {**COLUMNS, "id": "id", "rater": "rater"}.items()]
    without_data = [name for name in SMALL if not name.startswith("data.")]
    resolved = composed(
        [
            "data=columns", f"data.path={tmp_path}/rated.csv", *mapped, *without_data, f"paths.runs={tmp_path}/runs",
            f"paths.cache={tmp_path}/cache", "data.val_fraction=0.0", "data.test_fraction=0.9",
            "pipeline=[predict,evaluate]", "evaluation.benchmarks=[test]",
        ],
        "evaluate",
    )  # fmt: skip
    folder = run_pipeline(resolved)["evaluate"].path
    found = records(folder / "predictions.jsonl")
    ids = {row["id"] for row in found}
    assert len(found) == 3 * len(ids) >= 3 * 20
    for row in found:
        n, answer = int(row["id"][2:4]), row["id"][-1]
        assert row["id"] == f"T-{n:02d}/{answer}"
        assert (row["question_id"], row["instruction"], row["response"]) == (f"T-{n:02d}", f"Parcel {n}?", f"</script>{answer} {n}")
        scores = (n % 5 + 1.0, (n + (answer == "y")) % 5 + 1.0)
        assert row["raters"] == [
            {"rater": "anna", "score": scores[0], "comment": f"Kind {answer}{n}."},
            {"rater": "ben", "score": scores[1], "comment": None},
        ]
        assert row["target"] == sum(scores) / 2
    assert {(row["reading"], row["cot_index"]) for row in found} == {("no_cot", None), ("cot", 0), ("cot", 1)}
    assert "sample" not in found[0]
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert [entry["raters"] for entry in table] == [row["raters"] for row in found]
    agreement = json.loads((folder / "metrics.json").read_text())["benchmarks"]["test"]["agreement"]
    assert (agreement["n_items"], agreement["n_raters"], agreement["exact"]) == (len(ids), 2, 0.5)
    report = (folder / "report.html").read_text()
    assert all(name in report for name in ids)
    assert "&lt;/script&gt;y" in report
    assert "</script>y" not in report
