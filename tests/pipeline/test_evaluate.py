"""The evaluate stage: its files, and that its numbers are those of the predictions beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tiny_pipeline import Tiny, made, metrics, records

from tract.artifacts.products import Product
from tract.common.errors import ConfigError
from tract.evaluation.items import BenchmarkItem
from tract.pipeline.stages.evaluate import check_comparable, rubric_shown

PREDICTORS = ("rail", "rail_normalized", "argmax", "median", "decode_forced", "decode_free")
MIDDLE = 3.0


@pytest.fixture(scope="module")
def rows(whole: Any) -> list[dict[str, Any]]:
    return records(whole.products["evaluate"].path / "predictions.jsonl")


def scores_of(rows: Sequence[dict[str, Any]], predictor: str, fallback: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(mean score of each item, its target, failure rate), from the rows of one benchmark."""
    by_item: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["reading"] == ("no_cot" if predictor == "no_cot" else "cot"):
            by_item.setdefault(row["id"], []).append(row)
    column = "rail" if predictor == "no_cot" else predictor
    draws = [[row[column] for row in found] for found in by_item.values()]
    scores = np.array([np.mean([fallback if draw is None else draw for draw in found]) for found in draws])
    return scores, np.array([found[0]["target"] for found in by_item.values()]), float(np.mean([[d is None for d in f] for f in draws]))


def test_the_files_are_there_with_one_row_for_each_item_and_cot(whole: Any, rows: list[dict[str, Any]]) -> None:
    folder = whole.products["evaluate"].path
    assert {"predictions.jsonl", "predictions.parquet", "metrics.json", "results.md", "report.html", "config.yaml"} <= {
        path.name for path in folder.iterdir()
    }
    keys = [(row["benchmark"], row["id"], row["reading"], row["cot_index"]) for row in rows]
    assert len(set(keys)) == len(keys) == (6 + 4) * 3
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert [{**row, "meta": json.loads(row["meta"]), "probabilities": json.loads(row["probabilities"])} for row in table] == rows
    for row in rows:
        assert row["finish"] in ("none", "cue", "end", "length")
        assert row["score_mass"] == pytest.approx(sum(row["probabilities"].values()))
        assert row["rail"] == pytest.approx(sum(int(label) * p for label, p in row["probabilities"].items()))
    report = (folder / "report.html").read_text()
    assert "<html" in report
    assert '<img src="http' not in report
    assert "| test" in (folder / "results.md").read_text() or "test" in (folder / "results.md").read_text()


@pytest.mark.parametrize("benchmark", ["test", "ood"])
@pytest.mark.parametrize("predictor", [*PREDICTORS, "no_cot"])
def test_the_metrics_are_those_of_scipy_on_the_predictions(predictor: str, benchmark: str, whole: Any, rows: list[dict[str, Any]]) -> None:
    found = {
        name: value["value"]
        for name, value in metrics(whole.products["evaluate"])["benchmarks"][benchmark]["predictors"][predictor].items()
    }
    scores, targets, failed = scores_of([row for row in rows if row["benchmark"] == benchmark], predictor, MIDDLE)
    assert found["failure_rate"] == pytest.approx(failed)
    assert found["rmse"] == pytest.approx(float(np.sqrt(np.mean((scores - targets) ** 2))))
    assert found["mae"] == pytest.approx(float(np.mean(np.abs(scores - targets))))
    constant = np.ptp(scores) == 0
    for name, function in (("pearson_r", stats.pearsonr), ("spearman_rho", stats.spearmanr), ("kendall_tau", stats.kendalltau)):
        expected = None if constant else pytest.approx(float(function(scores, targets).statistic), abs=1e-6)
        assert found[name] == expected, name


def test_differences_are_this_judge_minus_the_other(whole: Any) -> None:
    found = metrics(whole.products["evaluate"])
    own, other = found["benchmarks"]["test"], found["others"]["base"]["test"]
    for predictor in ("rail", "argmax", "no_cot"):
        for metric in ("rmse", "mae", "score_mass"):
            difference = own["differences"][predictor][metric]["value"]
            assert difference == pytest.approx(
                own["predictors"][predictor][metric]["value"] - other["predictors"][predictor][metric]["value"]
            )
    assert own["differences"]["rail"]["score_mass"]["value"] != 0


def test_the_fallback_moves_what_failed_and_nothing_else(whole: Any, rows: list[dict[str, Any]]) -> None:
    """The tiny model never writes the cue, so that each free decoding fails; RAIL never does."""
    products, lines = whole.tiny.run("evaluation.failed_score=highest")
    assert made(lines) == ["evaluate"]
    before, after = (metrics(product)["benchmarks"]["test"]["predictors"] for product in (whole.products["evaluate"], products["evaluate"]))
    assert before["decode_free"]["failure_rate"]["value"] > 0
    assert after["rail"] == before["rail"]
    scores, targets, _ = scores_of([row for row in rows if row["benchmark"] == "test"], "decode_free", 5.0)
    assert after["decode_free"]["rmse"]["value"] == pytest.approx(float(np.sqrt(np.mean((scores - targets) ** 2))))
    assert after["decode_free"]["rmse"]["value"] != pytest.approx(before["decode_free"]["rmse"]["value"])


def test_the_main_predictor_is_shown_in_the_log(whole: Any) -> None:
    _, lines = whole.tiny.run("evaluation.main_predictor=no_cot", "compare_to=null")
    assert any("predictor no_cot" in line for line in lines)


def test_judges_called_alike_are_told_apart(whole: Any) -> None:
    """Stage 2 beside another stage 2."""
    changed, _ = whole.tiny.run("stage2.init_from=stage1", "stages=[stage1,generate,stage2]")
    products, _ = whole.tiny.run(f"judge={whole.products['stage2'].path}", f"compare_to={changed['stage2'].path}", config="evaluate")
    found = metrics(products["evaluate"])
    (other,) = found["others"]
    assert found["judge"] == "stage2"
    assert other.startswith("stage2 (predict-")


def test_other_benchmarks_are_not_compared(whole: Any) -> None:
    own = whole.products["predict"]
    other = Product(own.path, {**own.manifest, "benchmarks": {"val": {}}}, own.fingerprint)
    with pytest.raises(ConfigError, match=r"compare_to: .* holds predictions on \['val'\], not on the same benchmarks"):
        check_comparable(own, other)


def test_without_resamples_there_are_no_intervals(whole: Any) -> None:
    products, _ = whole.tiny.run("evaluation.resamples=0", "compare_to=null")
    found = metrics(products["evaluate"])["benchmarks"]["test"]["predictors"]["rail"]["rmse"]
    assert found["value"] is not None
    assert found["low"] is found["high"] is None


@pytest.mark.parametrize(
    ("rubric", "fields", "said"),
    [
        ({"criteria": "Right?", "descriptions": {"1": "", "5": ""}}, ["response", "rubric"], "shown"),
        ({"criteria": "", "descriptions": {"1": "no", "5": "yes"}}, ["response", "score_descriptions"], "shown"),
        ({"criteria": "Right?", "descriptions": {}}, ["instruction", "response"], "hidden"),
        ({"criteria": "", "descriptions": {"1": "", "5": ""}}, ["response", "rubric"], "absent"),
        (None, [], "absent"),
        ({"criteria": "Right?", "descriptions": {}}, None, None),
    ],
)
def test_whether_prompts_show_the_rubric(rubric: Any, fields: list[str] | None, said: str | None) -> None:
    items = [BenchmarkItem("a", 0, "q", 3.0, 1, "ok", {}), BenchmarkItem("b", 1, "q", 3.0, 1, "ok", {}, rubric=rubric)]
    assert rubric_shown(items, fields) == said


def test_what_prompts_show_is_known_of_a_judge(whole: Any) -> None:
    fields = whole.products["predict"].manifest["shown_fields"]
    assert {"instruction", "response"} <= set(fields)


def test_the_fallback_is_a_point_of_the_grid_or_its_middle(tmp_path: Any) -> None:
    tiny = Tiny(tmp_path)
    grid = ["grid.labels=[1,2,3,4]", "data.source.n_constraints=3"]
    products, _ = tiny.run("pipeline=[predict,evaluate]", *grid, "evaluation.benchmarks=[test]", "evaluation.n_cot=1")
    found = records(products["evaluate"].path / "predictions.jsonl")
    assert list(found[0]["probabilities"]) == ["1", "2", "3", "4"]
    scores, targets, _ = scores_of(found, "decode_free", 2.5)
    assert metrics(products["evaluate"])["benchmarks"]["test"]["predictors"]["decode_free"]["mae"]["value"] == pytest.approx(
        float(np.mean(np.abs(scores - targets)))
    )
