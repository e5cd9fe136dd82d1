"""Scores of several raters, with and without a text: what is trained on, what is attached to generated CoTs, and what is said of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tract.config import Config
from tract.stages.fit import fit
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
