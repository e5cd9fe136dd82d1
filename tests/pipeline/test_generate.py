"""The generate stage: CoTs of training and validation prompts alone, each with its true score, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_pipeline import Tiny, captured

from tract.artifacts.judges import find_judge
from tract.common.errors import DataError
from tract.data.generated_cots.file import attached_score
from tract.pipeline.stages.examples import examples_of, splits_of
from tract.pipeline.stages.generate import GenerateStage
from tract.pipeline.tracking.tracker import Tracker
from tract.pipeline.validation import validate


def cots_of(product: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(product.path / "cots.parquet").to_pylist()
    return found


@pytest.fixture(scope="module")
def generated(whole: Any) -> list[dict[str, Any]]:
    return cots_of(whole.products["generate"])


def test_training_and_validation_prompts_are_sampled_and_no_others(whole: Any, generated: list[dict[str, Any]]) -> None:
    cfg = validate(whole.tiny.compose())
    store = examples_of(cfg, find_judge("base", cfg).layout.grid)
    splits = splits_of(cfg, store)
    rows = {split: {cot["row"] for cot in generated if cot["split"] == split} for split in ("train", "val")}
    assert rows["train"] == set(splits["train"][:8])  # data.max_train_items
    assert rows["val"] == set(splits["val"])
    assert {cot["split"] for cot in generated} == {"train", "val"}
    assert not {cot["row"] for cot in generated} & {*splits["test"], *splits["ood"]}
    assert [(cot["row"], cot["sample"]) for cot in generated] == [(row, k) for row in sorted(rows["train"] | rows["val"]) for k in (0, 1)]


def test_the_true_score_is_attached(whole: Any, generated: list[dict[str, Any]]) -> None:
    cfg = validate(whole.tiny.compose())
    grid = find_judge("base", cfg).layout.grid
    store = examples_of(cfg, grid)
    for cot in generated:
        example = store.example(cot["row"])
        annotated = [grid.index(annotation.score) for annotation in example.annotations]
        assert cot["id"] == example.id
        assert cot["score_index"] == attached_score(annotated, example.id, cot["sample"])
        assert cot["score"] == grid.values[cot["score_index"]] == example.target
        assert cot["rail"] == pytest.approx(sum(p * v for p, v in zip(cot["probabilities"], grid.values, strict=True)), abs=1e-5)
        assert cot["score_mass"] == pytest.approx(sum(cot["probabilities"]), abs=1e-6)
        assert len(cot["cot_ids"]) <= 12


def test_the_manifest_counts(whole: Any, generated: list[dict[str, Any]]) -> None:
    manifest = whole.products["generate"].manifest
    assert manifest["data"]["counts"]["prompts_by_split"] == {"train": 8, "val": 6}
    assert manifest["cots"]["count"] == len(generated) == 28
    assert manifest["cots"]["by_finish"] == dict(sorted(Counter(cot["finish"] for cot in generated).items()))
    assert any(line.startswith("generate: 28 CoTs for the prompts of 8 train, 6 val; ") for line in whole.lines)
    # The shards are gone, the CoTs are one file.
    assert not list(whole.products["generate"].path.glob("journal*"))


def test_several_annotations_are_attached_by_turns(tmp_path: Path) -> None:
    """Two annotations of each response, four CoTs: each annotation's score twice."""
    tiny = Tiny(tmp_path)
    data = ["data.source.annotations_per_response=2", "data.source.score_noise=0.5", "data.max_train_items=6"]
    products, _ = tiny.run(*data, "generation.n_cot=4", "judge=base", config="generate_cot")
    cfg = validate(tiny.compose(*data))
    store = examples_of(cfg, find_judge("base", cfg).layout.grid)
    scores: dict[int, list[float]] = {}
    for cot in cots_of(products["generate"]):
        scores.setdefault(cot["row"], []).append(cot["score"])
    assert any(len(set(values)) == 2 for values in scores.values())
    for row, values in scores.items():
        assert sorted(values) == sorted([annotation.score for annotation in store.example(row).annotations] * 2)


def test_no_prompt_with_a_score_is_refused(whole: Any) -> None:
    resolved = whole.tiny.compose("generation=hf")
    cfg = validate(resolved)
    stage = GenerateStage(cfg, resolved, find_judge("base", cfg))
    stage.__dict__["_rows"] = {"train": [], "val": []}

    class Folder:
        working = Path(whole.tiny.root)

    with pytest.raises(DataError, match="generate: no prompt of the training and validation splits has a score to attach"), captured():
        stage.make(Folder(), Tracker(None, {}))  # type: ignore[arg-type]
