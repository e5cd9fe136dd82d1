"""Scores of several raters, with and without a text: what is trained on, what is attached to generated CoTs, and what is said of it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from composing import composed
from tiny_pipeline import SMALL

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.models.base_layout import base_layout
from tract.pipeline.dry_run.plan import plan_of
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.stages.examples import examples_of, splits_of
from tract.pipeline.stages.fit import build, fit
from tract.pipeline.stages.prepare import prepare, sampling_tokens

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
    assert found.counts["examples_by_status"] == {"ok": 20}
    assert (found.counts["annotations"], found.counts["ratings"], found.counts["equal_rows_kept"]) == (30, 30, 0)
    assert [len(row["rating_index"]) for row in found.tokens.dataset.with_format(None)] == [3 if n % 4 == 3 else 1 for n in range(20)]
    _, layout, template = base_layout(cfg)
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


@pytest.mark.parametrize("share_prompts", ["true", "false"])
@pytest.mark.parametrize("grid", ["one_to_five", "one_to_ten"])
def test_tokens_and_examples_are_counted_as_the_loaders_give_them(
    rated: Callable[..., tuple[Config, Any]], share_prompts: str, grid: str
) -> None:
    cfg, _ = rated("data.source.columns.rater=rater", f"batch.share_prompts={share_prompts}", f"grid={grid}")
    cfg.stage = "stage1"
    data = prepare(cfg)
    _, loaders = build(cfg, data)
    for loader, items in ((loaders.train_dataloader(), loaders.train_sampler), (loaders.val_dataloader(), loaders.val_sampler)):
        batches = [batch for batch in loader if not batch.is_padding]
        assert sum(batch.input_ids.shape[1] for batch in batches) == items.lengths.sum()
        ce_tokens, examples = (
            np.asarray(getattr(items, name, getattr(items, f"_{name}", None))).sum() for name in ("ce_tokens", "examples")
        )
        assert sum(batch.target_ids.numel() for batch in batches) == ce_tokens
        assert sum(batch.scores.numel() for batch in batches) == examples
    trained = plan_of("stage1", cfg, None).train
    assert trained.tokens.sum() == loaders.train_sampler.lengths.sum()
    assert plan_of("stage2", cfg, None).data.counts["ratings_in_training"]["trained_on"] == 0


def test_validation_reads_scores_behind_cots_alone(rated: Callable[..., tuple[Config, Any]], caplog: pytest.LogCaptureFixture) -> None:
    cfg, _ = rated("data.source.columns.rater=rater", "data.val_fraction=0.5")
    cfg.stage = "stage1"
    data = prepare(cfg)
    without = data.counts["val_items_without_cot"]
    assert without > 1
    assert len(data.rows["val"]) + without == len(splits_of(cfg, data.store)["val"])
    _, loaders = build(cfg, data)
    for place in range(len(data.rows["val"])):
        item = loaders.val_set.item(place)
        assert (len(item.continuations), item.ratings) == (2, [])
    with caplog.at_level(logging.INFO, "tract"):
        data.report()
    assert f"reads scores after annotated CoTs; {without} items without a CoT are left out of it" in caplog.text


def test_agreement_and_trained_ratings_are_in_log_preview_and_manifest(
    rated: Callable[..., tuple[Config, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    cfg, resolved = rated("data.source.columns.rater=rater")
    with caplog.at_level(logging.INFO, "tract"):
        folder = fit(cfg, resolved)
    shown = (folder / "preview.txt").read_text(encoding="utf-8")
    data = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["data"]
    given = data["counts"]["ratings_in_training"]["given"]
    assert data["counts"]["ratings_in_training"] == {"given": given, "trained_on": given, "left_out_since": "their items are left out"}
    agreement = data["rater_agreement"]
    assert (agreement["n_items"], agreement["n_ratings"], agreement["n_raters"]) == (20, 60, 3)
    assert agreement["exact"] == pytest.approx(1 / 3)
    assert agreement["pairwise_difference"] == 2.0
    for said in (
        "agreement of raters: 20 items with two or more scores (60 scores by 3 named raters): Krippendorff's alpha",
        f"{given} of {given} scores without a CoT in the training split are trained on by the squared error",
    ):
        assert said in caplog.text
        assert said in shown
    assert "a rating without a CoT, after the same prompt" in shown


@pytest.mark.parametrize(("override", "reason"), [("objective=ce_only", "objective.lambda=0"), ("objective.train_on_ratings=false",) * 2])
def test_ratings_that_are_not_trained_on_are_counted(
    rated: Callable[..., tuple[Config, Any]], override: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg, _ = rated("data.source.columns.rater=rater", override)
    cfg.stage = "stage1"
    data = prepare(cfg)
    assert data.counts["examples_by_status"] == {"ok": 15, "dropped_unannotated": 5}
    given = data.counts["ratings_in_training"]["given"]
    with caplog.at_level(logging.INFO, "tract"):
        data.report()
    assert f"data: 0 of {given} scores without a CoT in the training split are trained on by the squared error" in caplog.text
    assert f"squared error; {given} are left out ({reason})" in caplog.text
    _, loaders = build(cfg, data)
    assert all(not loaders.train_set.item(place).ratings for place in range(len(data.rows["train"])))


def test_scores_alone_are_no_cots_to_learn(rated: Callable[..., tuple[Config, Any]]) -> None:
    cfg, _ = rated("data.source.columns.cot=null")
    cfg.stage = "stage1"
    with pytest.raises(ConfigError, match=r"none of the \d+ items of the training split has a CoT to learn, .*ablation=regression_only"):
        prepare(cfg)


def test_a_list_of_score_columns_is_a_value_of_the_configuration(tiny_config: TinyConfig, tmp_path: Path) -> None:
    """As it is written on a command line; each rater's scores are trained on, with a comment and without."""
    rows = [f"Question {n}?,Answer {n}.,{1 + n % 5},{'' if n % 3 == 0 else 5 - n % 5},{f'Remark {n}.' if n % 2 else ''}" for n in range(20)]
    (tmp_path / "wide.csv").write_text("question,answer,anna,ben,anna_comment\n" + "\n".join(rows) + "\n")
    cfg, _ = tiny_config(
        "data=columns", f"data.path={tmp_path}/wide.csv", "data.source.columns.instruction=question",
        "data.source.columns.response=answer", "data.source.columns.score=[anna,ben]", "data.source.columns.cot=[anna_comment,null]",
    )  # fmt: skip
    cfg.stage = "stage1"
    data = prepare(cfg)
    found = data.tokens.dataset.with_format(None)
    assert [row["score_index"] for row in found] == [[n % 5] if n % 2 else [] for n in range(20)]
    assert [row["rating_index"] for row in found] == [
        ([] if n % 2 else [n % 5]) + ([] if n % 3 == 0 else [4 - n % 5]) for n in range(20)
    ]  # fmt: skip
    assert data.agreement is not None
    assert (data.agreement.n_items, data.agreement.n_raters) == (13, 2)


@pytest.mark.slow
def test_a_whole_pipeline_counts_each_score_once(rated: Callable[..., tuple[Config, Any]], tmp_path: Path) -> None:
    """Ratings are examples in stage 1 and scores of generated CoTs in stage 2; an item that has nothing else is trained on in both."""
    rated()  # writes the file
    mapped = [f"data.source.columns.{field}={column}" for field, column in {**COLUMNS, "rater": "rater"}.items()]
    own = ["data=columns", f"data.path={tmp_path}/rated.csv", "data.max_train_items=null", "generation.n_cot=3", *mapped]
    small = [text for text in SMALL if not text.startswith(("data.source.", "data.max", "generation.n_", "evaluation.benchmarks"))]
    paths = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", "evaluation.benchmarks=[test]"]
    products = run_pipeline(composed([*small, *own, *paths], "train"))
    first, second = (products[name].manifest["data"] for name in ("stage1", "stage2"))
    assert first["counts"]["ratings_in_training"]["trained_on"] == first["counts"]["ratings_in_training"]["given"] > 0
    assert first["rater_agreement"] == second["rater_agreement"]
    assert first["rater_agreement"]["n_items"] == 20
    assert first["counts"]["items_by_split"]["train"] == second["counts"]["items_by_split"]["train"]
    assert "rating(s) without a CoT" not in (products["stage2"].path / "preview.txt").read_text(encoding="utf-8")
    cots = pq.read_table(products["generate"].path / "cots.parquet")
    scores = Counter(zip(cots["id"].to_pylist(), cots["score"].to_pylist(), strict=True))
    assert {(score, number) for (_, score), number in scores.items()} == {(5.0, 2), (2.0, 1)}  # the three raters' scores, each once
