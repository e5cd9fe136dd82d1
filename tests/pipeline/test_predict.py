"""The predict stage: every item is judged or counted as one that could not be; given CoTs are read as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_pipeline import Tiny, made, metrics, prompts_of, records

from tract.artifacts.judges import find_judge
from tract.artifacts.products import Product
from tract.common.errors import ConfigError, DataError
from tract.inference.prompt_budget import tokens_behind
from tract.pipeline.stages import examples, prepare
from tract.pipeline.stages.predict import read_predictions
from tract.pipeline.validation import validate

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ALONE = ["pipeline=[predict,evaluate]", "evaluation.benchmarks=[test]", "compare_to=null"]
READ = ["evaluation.predictors=[rail,argmax,no_cot]", "compare_to=null"]


def test_every_item_has_its_cots_and_a_reading_without(whole: Any) -> None:
    product = whole.products["predict"]
    for name, count in (("test", 6), ("ood", 4)):
        items = records(product.path / f"items-{name}.jsonl")
        judgements = records(product.path / f"judgements-{name}.jsonl")
        assert [item["status"] for item in items] == ["ok"] * count
        assert [(j["row"], j["sample"]) for j in judgements] == [(item["row"], k) for item in items for k in (-1, 0, 1)]
        counts = product.manifest["benchmarks"][name]
        assert counts["items"] == count
        assert counts["by_status"] == {"ok": count}
        assert counts["without_target"] == counts["without_given_cot"] == 0
        assert counts["cots_by_finish"]["none"] == count
        assert sum(counts["cots_by_finish"].values()) == 3 * count
        assert all(j["free_text"] is not None for j in judgements if j["sample"] >= 0)
    assert not list(product.path.glob("journal*"))


def test_prompts_that_are_too_long_count_as_failures_with_the_fallback(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's context lies so that half of the test items fit; data.max_length, which all exceed, moves nothing here."""
    cfg = validate(whole.tiny.compose())
    judge = find_judge("base", cfg)
    prompts = prompts_of(judge, cfg)
    lengths = sorted(len(prompts[item["id"]]) for item in records(whole.products["predict"].path / "items-test.jsonl"))
    context = lengths[2] + tokens_behind(judge.layout, cfg.generation.max_cot_tokens)
    monkeypatch.setattr(prepare, "context_of", lambda model: context)
    too_long = ["data.truncation=drop", "data.max_length=50", "evaluation.failed_score=lowest"]
    products, lines = whole.tiny.run(*ALONE, *too_long)
    items = records(products["predict"].path / "items-test.jsonl")
    status = [item["status"] for item in items]
    dropped = status.count("dropped_overlong_prompt")
    assert dropped == sum(length > lengths[2] for length in lengths) > 0, status
    assert any(f"predict (test): {dropped} prompts are longer than {lengths[2]} tokens" in line for line in lines)
    assert products["predict"].manifest["benchmarks"]["test"]["by_status"] == {"ok": 6 - dropped, "dropped_overlong_prompt": dropped}
    found = metrics(products["evaluate"])["benchmarks"]["test"]
    assert found["items"] == 6
    for predictor in ("rail", "decode_forced", "no_cot"):
        assert found["predictors"][predictor]["failure_rate"]["value"] >= dropped / 6 - 1e-12
    assert found["predictors"]["rail"]["failure_rate"]["value"] == pytest.approx(dropped / 6)
    left_out = [row for row in records(products["evaluate"].path / "predictions.jsonl") if row["status"] == "dropped_overlong_prompt"]
    assert len(left_out) == dropped
    assert all(row["rail"] is None and row["probabilities"] is None and row["reading"] is None for row in left_out)
    table = pq.read_table(products["evaluate"].path / "predictions.parquet")
    assert table["probabilities"].null_count == dropped
    assert metrics(products["evaluate"])["counts"]["test"]["by_status"]["dropped_overlong_prompt"] == dropped
    assert "too long to be shown; a failed draw of every predictor." in (products["evaluate"].path / "report.html").read_text()


def test_max_items_takes_the_same_items_whatever_their_number(whole: Any) -> None:
    few = [item["id"] for item in records(_predicted(whole, 2))]
    more = [item["id"] for item in records(_predicted(whole, 4))]
    assert len(few) == 2
    assert len(more) == 4
    assert set(few) < set(more) < {item["id"] for item in records(whole.products["predict"].path / "items-test.jsonl")}


def test_a_file_is_judged_without_the_configured_data(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing of the judge's experiment has to be given: here the configured data and grid are others than the judge's."""
    monkeypatch.setattr(examples, "build_source", lambda cfg: pytest.fail("the configured data were read"))
    others = ["data.source.n_constraints=3", "grid=one_to_four", f"judge={whole.products['stage2'].path}"]
    benchmark = [f"evaluation.benchmarks=[{FIXTURES / 'benchmark.json'}]", "evaluation.prompt=finished"]
    products, _ = whole.tiny.run(*others, *benchmark, config="evaluate")
    assert products["predict"].manifest["benchmarks"]["benchmark"]["items"] == 2
    assert metrics(products["evaluate"])["benchmarks"]["benchmark"]["items"] == 2


def _predicted(whole: Any, max_items: int) -> Path:
    found, _ = whole.tiny.run(*ALONE, f"evaluation.max_items={max_items}", "pipeline=[predict]")
    return Path(found["predict"].path / "items-test.jsonl")


def test_annotated_cots_are_read_as_they_were_written(whole: Any) -> None:
    judge = f"judge={whole.products['stage1'].path}"
    products, _ = whole.tiny.run(judge, *READ, "evaluation.cots=annotated", config="evaluate")
    rows = [row for row in records(products["evaluate"].path / "predictions.jsonl") if row["reading"] == "cot"]
    assert {row["finish"] for row in rows} == {"given"}
    assert len(rows) == 10
    assert all(row["cot"].strip() and row["free_text"] is None and row["decode_free"] is None for row in rows)
    assert metrics(products["evaluate"])["facts"]["CoTs"] == "annotated"


def test_generated_cots_are_read_as_they_were_generated(whole: Any) -> None:
    """The judge that wrote them reads what it read then."""
    generated = whole.products["generate"].path
    judge = f"judge={whole.products['stage1'].path}"
    products, _ = whole.tiny.run(judge, *READ, f"evaluation.cots={generated}", "evaluation.benchmarks=[val]", config="evaluate")
    judgements = {(j["row"], j["sample"]): j for j in records(products["predict"].path / "judgements-val.jsonl") if j["sample"] >= 0}
    cots = [cot for cot in pq.read_table(generated / "cots.parquet").to_pylist() if cot["split"] == "val"]
    assert len(cots) == len(judgements) == 12
    for cot in cots:
        judgement = judgements[cot["row"], cot["sample"]]
        assert judgement["cot_ids"] == cot["cot_ids"]
        assert judgement["probabilities"] == pytest.approx(cot["probabilities"], abs=1e-5)


def test_cots_that_are_not_of_the_benchmark_are_refused(whole: Any) -> None:
    given = [f"judge={whole.products['stage1'].path}", *READ, f"evaluation.cots={whole.products['generate'].path}"]
    with pytest.raises(DataError, match=r"evaluation.cots: .* holds no CoT for any item of test"):
        whole.tiny.run(*given, config="evaluate")
    with pytest.raises(ConfigError, match="was generated on other data than val"):
        whole.tiny.run(*given, "evaluation.benchmarks=[val]", "data.source.seed=1", config="evaluate")
    with pytest.raises(ConfigError, match="no complete stage at .*nowhere"):
        whole.tiny.run(*given[:-1], f"evaluation.cots={whole.tiny.root}/nowhere", config="evaluate")


def test_free_decoding_moves_no_cot_and_no_score(whole: Any) -> None:
    without, lines = whole.tiny.run("evaluation.predictors=[rail,no_cot]", "compare_to=null", "stages=[predict]")
    assert made(lines) == ["predict"]
    one, other = (records(product.path / "judgements-test.jsonl") for product in (whole.products["predict"], without["predict"]))
    for first, second in zip(one, other, strict=True):
        assert first["cot_ids"] == second["cot_ids"]
        assert first["forced"] == second["forced"]
        assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-5)


def test_no_cot_alone_samples_nothing(whole: Any) -> None:
    alone = ["evaluation.n_cot=0", "evaluation.predictors=[no_cot]", "evaluation.main_predictor=no_cot"]
    products, _ = whole.tiny.run(*ALONE, *alone)
    assert products["predict"].manifest["benchmarks"]["test"]["cots_by_finish"] == {"none": 6}
    assert list(metrics(products["evaluate"])["benchmarks"]["test"]["predictors"]) == ["no_cot"]


@pytest.mark.parametrize("prompt", [pytest.param("rubric", marks=pytest.mark.kills), "finished"])
def test_real_benchmark_items_get_every_prediction(prompt: str, tmp_path: Path, shared_data: Path) -> None:
    """GPT-4's scores on Vicuna Bench, with our prompt and with the one that the file brings along."""
    tiny = Tiny(tmp_path)
    sample = [f"evaluation.benchmarks=[{shared_data}/vicuna_eval.json]", "evaluation.max_items=6", "evaluation.n_cot=1"]
    products, _ = tiny.run(*ALONE, *sample, f"prompt={prompt}", "data.max_length=6000", "evaluation.resamples=10")
    found = metrics(products["evaluate"])["benchmarks"]["vicuna_eval"]
    assert found["items"] == 6
    assert list(found["predictors"]) == ["rail", "rail_normalized", "argmax", "median", "decode_forced", "decode_free", "no_cot"]
    rows = records(products["evaluate"].path / "predictions.jsonl")
    assert len(rows) == 12
    assert all(1 <= row["target"] <= 5 and row["status"] == "ok" and row["meta"]["response_source"] for row in rows)
    assert len({row["target"] for row in rows}) > 1


@pytest.mark.parametrize(
    ("name", "text"), [("judgements-test.jsonl", "NaN"), ("judgements-test.jsonl", "Infinity"), ("items-test.jsonl", "NaN")]
)
def test_stored_numbers_that_are_none_are_refused_with_the_item(whole: Any, tmp_path: Path, name: str, text: str) -> None:
    """As other code may have written them: the manifest's digests are not looked at here."""
    folder = tmp_path / "predict"
    shutil.copytree(whole.products["predict"].path, folder)
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[1])
    if name.startswith("items"):
        record["target"] = float(text)
    else:
        record["probabilities"][2] = float(text)
    (folder / name).write_text("\n".join([lines[0], json.dumps(record), *lines[2:], ""]), encoding="utf-8")
    assert text in (folder / name).read_text(encoding="utf-8")
    with pytest.raises(DataError, match=f"{name}:2, item {record['id']}: .*{text[:3].lower()}.*force=.predict"):
        read_predictions(Product(folder, whole.products["predict"].manifest, ""))


def test_no_file_of_an_evaluation_holds_nan(whole: Any) -> None:
    for product in whole.products.values():
        for path in [*product.path.glob("*.json"), *product.path.glob("*.jsonl")]:
            for line in path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]:
                json.loads(line, parse_constant=lambda text, path=path: pytest.fail(f"{path} holds {text}"))
