"""What must be equal: validation in training and evaluation, live cache and fresh forward, whatever batch, shard or order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_pipeline import made, metrics, prompts_of, records

import tract.pipeline.stages.judging
from tract.artifacts.judges import find_judge
from tract.inference.batching import batches_by_length
from tract.inference.judgement import Prompt
from tract.method.predictors import log_normalizer, score_probabilities
from tract.models.loading import load_judge
from tract.pipeline.validation import validate

IN_TRAINING = {"pearson_r": "val/pearson_r", "spearman_rho": "val/spearman_rho", "kendall_tau": "val/kendall_tau", "rmse": "val/rmse"}
GIVEN = ["evaluation.benchmarks=[val]", "evaluation.predictors=[rail,rail_normalized,no_cot]", "evaluation.target=annotated"]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_validation_in_training_equals_the_evaluation_on_the_same_cots(stage: str, whole: Any) -> None:
    trained = whole.products[stage]
    cots = "annotated" if stage == "stage1" else whole.products["generate"].path
    products, _ = whole.tiny.run(f"judge={trained.path}", f"evaluation.cots={cots}", *GIVEN, config="evaluate")
    found = metrics(products["evaluate"])["benchmarks"]["val"]
    final = trained.manifest["training"]["final_metrics"]
    assert found["items"] == 6
    for name, in_training in IN_TRAINING.items():
        assert found["predictors"]["rail"][name]["value"] == pytest.approx(final[in_training], abs=1e-5), name
    assert found["predictors"]["rail"]["score_mass"]["value"] == pytest.approx(final["val/score_mass"], abs=1e-5)
    assert found["baselines"]["constant"]["rmse"]["value"] == pytest.approx(final["val/rmse_constant"], abs=1e-5)


@pytest.mark.kills
def test_the_exported_best_weights_have_the_metric_that_they_were_chosen_by(whole: Any) -> None:
    """The worst of all validations counts as the best here, since a few steps only make it better."""
    best = ["train.keep_weights=best", "train.monitor_mode=max", "train.validate_every_steps=1", "train.max_steps=3", "stages=[stage1]"]
    trained = whole.tiny.run(*best)[0]["stage1"]
    exported = trained.manifest["training"]["exported"]
    assert exported["weights"] == "best"
    products, _ = whole.tiny.run(f"judge={trained.path}", "evaluation.cots=annotated", *GIVEN, config="evaluate")
    found = metrics(products["evaluate"])["benchmarks"]["val"]["predictors"]["rail"]["rmse"]["value"]
    assert found == pytest.approx(exported["val/rmse"], abs=1e-5)
    assert found != pytest.approx(trained.manifest["training"]["final_metrics"]["val/rmse"], abs=1e-3)


def test_predictions_equal_a_fresh_forward_pass_of_the_weights(whole: Any) -> None:
    """RAIL and the distribution of every judgement, by plain forward passes of what stands in the folder."""
    cfg = validate(whole.tiny.compose())
    judge = find_judge(str(whole.products["stage2"].path), cfg)
    model: Any = load_judge(judge.model, judge.weights, four_bit=False, seed=0)
    layout, prompts = judge.layout, prompts_of(judge, cfg)
    judgements = records(whole.products["predict"].path / "judgements-test.jsonl")
    rails = {(row["id"], row["cot_index"]): row["rail"] for row in records(whole.products["evaluate"].path / "predictions.jsonl")}
    assert len(judgements) == 18
    for judgement in judgements:
        ids = [*prompts[judgement["id"]], *judgement["cot_ids"], *layout.cue_ids]
        with torch.no_grad():
            logits = torch.stack([model(torch.tensor([[*ids, *path]]), use_cache=False).logits[0, -1] for path in layout.trie.paths])
        expected = score_probabilities(logits, log_normalizer(logits), torch.arange(len(logits))[None], layout.trie)[0]
        torch.testing.assert_close(torch.tensor(judgement["probabilities"]), expected, rtol=0, atol=1e-4)
        rail = float((expected.double() * torch.tensor(layout.grid.values, dtype=torch.float64)).sum())
        sample = None if judgement["sample"] < 0 else judgement["sample"]
        assert rails[judgement["id"], sample] == pytest.approx(rail, abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "reverse"),
    [(["generation.batch_size=1", "generation.shard_size=1"], False), (["generation.batch_size=7", "generation.shard_size=5"], True)],
)
def test_batch_shard_and_order_move_no_token_and_no_score(
    overrides: list[str], reverse: bool, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generate stage made anew elsewhere, from the same judge."""
    if reverse:
        monkeypatch.setattr(tract.pipeline.stages.judging, "batches_by_length", _reversed_batches)
    judge = f"judge={whole.products['stage1'].path}"
    products, lines = whole.tiny.run(judge, *overrides, f"paths.runs={tmp_path}", config="generate_cot")
    assert made(lines) == ["generate"]
    first, second = (
        pq.read_table(product.path / "cots.parquet").to_pylist() for product in (whole.products["generate"], products["generate"])
    )
    assert len(first) == len(second) == 28
    for one, other in zip(first, second, strict=True):
        for name in one:
            if name in ("probabilities", "rail", "score_mass"):
                assert one[name] == pytest.approx(other[name], abs=1e-4), name
            else:
                assert one[name] == other[name], name
    shutil.rmtree(tmp_path)


def _reversed_batches(prompts: list[Prompt], sequences: int, n_cot: int) -> Iterator[list[Prompt]]:
    """Other prompts beside each other, the shortest ones first."""
    return reversed([batch[::-1] for batch in batches_by_length(prompts, sequences, n_cot)])
