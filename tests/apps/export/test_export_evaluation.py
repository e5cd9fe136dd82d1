"""An exported judge under evaluate.py and generate_cot.py: with its own prompt, cue and grid it gives the numbers of its stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from exported_runs import Runs
from tiny_pipeline import Tiny, metrics

from tract.apps.export.eval_metrics import metrics_of
from tract.apps.export.exporting import Exported
from tract.artifacts.judges import find_judge
from tract.artifacts.products import Product
from tract.artifacts.run_judges import run_judge
from tract.common.errors import ConfigError

# Another prompt and other scores than the judge was trained with, which are the judge's to say.
OTHER = ("run.name=other", "prompt=short", "compare_to=null")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Another store, so that none of the runs is evaluated again."""
    return Tiny(tmp_path_factory.mktemp("elsewhere"))


def evaluated(elsewhere: Tiny, judge: object) -> dict[str, Product]:
    return elsewhere.run(f"judge='{judge}'", *OTHER, config="evaluate")[0]


def judged(products: dict[str, Product]) -> list[dict[str, Any]]:
    return pq.read_table(products["evaluate"].path / "predictions.parquet").to_pylist()


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_an_export_is_evaluated_as_its_stage_is(kind: str, runs: Runs, elsewhere: Tiny, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(kind)
    own, others = evaluated(elsewhere, exported.folder), evaluated(elsewhere, runs.folder)
    stage = evaluated(elsewhere, runs.products["stage2"].path)
    assert others["evaluate"].path == stage["evaluate"].path
    found, expected = judged(own), judged(stage)
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        numbers = {name: row.pop(name) for name in ("rail", "probabilities", "score_mass")}
        assert numbers["rail"] == pytest.approx(other["rail"], abs=1e-4)
        for name in ("id", "target", "reading", "cot_index", "decode_free"):
            assert row[name] == other[name]
        assert json.loads(numbers["probabilities"]) == pytest.approx(json.loads(other["probabilities"]), abs=1e-4)
    for name, benchmark in metrics(stage["evaluate"])["benchmarks"].items():
        mine = metrics(own["evaluate"])["benchmarks"][name]["predictors"]["rail"]["rmse"]["value"]
        assert mine == pytest.approx(benchmark["predictors"]["rail"]["rmse"]["value"], abs=1e-4)
    assert own["predict"].manifest["judge"]["weights"] == str(exported.folder)
    assert metrics(own["evaluate"])["judge"] == exported.settings.name


def test_an_export_brings_its_own_wording(runs: Runs, merged: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(merged.folder, folder)
    cfg = runs.cfg
    known = find_judge(str(folder), cfg)
    assert (known.layout.grid.labels, known.use_cot, known.four_bit) == (merged.settings.grid.labels, True, False)
    (folder / "README.md").write_text("another card")
    assert find_judge(str(folder), cfg).fingerprint == known.fingerprint
    content = json.loads((folder / "judge_config.json").read_text())
    content["prompt"]["blocks"][0] = "Another beginning.\n\n{instruction}"
    (folder / "judge_config.json").write_text(json.dumps(content))
    other = find_judge(str(folder), cfg)
    assert other.template.blocks[0].startswith("Another beginning.")
    assert other.fingerprint != known.fingerprint
    (folder / "judge_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"judge_config.json: .*; export the judge again"):
        find_judge(str(folder), cfg)


def test_cots_are_sampled_with_an_export_and_a_run(runs: Runs, merged: Exported, elsewhere: Tiny) -> None:
    def texts(judge: object) -> list[str]:
        products, _ = elsewhere.run(f"judge='{judge}'", "run.name=cots", "generation.n_cot=1", config="generate_cot")
        return [str(text) for text in pq.read_table(products["generate"].path / "cots.parquet").column("cot").to_pylist()]

    assert texts(merged.folder) == texts(runs.folder) == texts(runs.products["stage2"].path)


def test_a_run_is_compared_to_and_started_from(runs: Runs, elsewhere: Tiny) -> None:
    """Also where what is made goes into the folder of that very run."""
    products, lines = elsewhere.run(
        f"judge='{runs.folder}'", "stages=[generate,stage2,predict,evaluate]", "stage2.init_from=stage1", f"compare_to='{runs.folder}'",
        "run.name=tiny2", "evaluation.benchmarks=[test]",
    )  # fmt: skip
    stage = runs.products["stage2"].path
    assert {Path(path).name for path in products["stage2"].manifest["parents"].values()} == {products["generate"].path.name, stage.name}
    assert any(line.startswith(f"judge: {runs.folder} is seed 0, {stage.name}") for line in lines)
    assert metrics_of(run_judge(elsewhere.root / "runs" / "tiny2" / "seed0"))
