"""Perturbed benchmarks through the whole evaluation: what is judged, what is paired, and what the report says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_pipeline import Tiny, made, metrics, records

from tract.text.perturbations import ATTACK, PERTURBATIONS


@pytest.fixture(scope="module")
def robust(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(pipeline, its products, log): the base model under every perturbation, compared to itself with another seed."""
    tiny = Tiny(tmp_path_factory.mktemp("robust"))
    products, lines = tiny.run(
        "pipeline=[predict,evaluate]", "evaluation.perturbations=[all]", "evaluation.benchmarks=[test]", "judge=base", "compare_to=null",
        config="evaluate",
    )  # fmt: skip
    return tiny, products, lines


def test_each_perturbation_is_judged_on_the_same_items(robust: Any) -> None:
    _, products, _ = robust
    counts = products["predict"].manifest["benchmarks"]
    assert set(counts) == {"test", *(f"test+{name}" for name in PERTURBATIONS)}
    assert counts["test"]["items"] == 6
    rows = records(products["evaluate"].path / "predictions.jsonl")
    ids = {name: {row["id"] for row in rows if row["benchmark"] == name} for name in counts}
    for name, about in counts.items():
        assert ids[name] <= ids["test"]
        if about.get("base"):
            assert about["items"] + about["unchanged"] == 6
    assert counts["test+beg"]["unchanged"] == 0


def test_the_report_holds_the_numbers_of_the_predictions(robust: Any) -> None:
    _, products, _ = robust
    found = metrics(products["evaluate"])
    assert set(found["benchmarks"]) == {"test"}
    numbers = found["robustness"]["base"]["test"]
    rows = records(products["evaluate"].path / "predictions.jsonl")

    def of(benchmark: str, column: str) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for row in rows:
            if row["benchmark"] == benchmark and row["reading"] == "cot":
                values.setdefault(row["id"], []).append(row[column])
        return {item: float(np.mean(found)) for item, found in values.items()}

    for name, about in numbers["perturbations"].items():
        before, after = of("test", "rail"), of(f"test+{name}", "rail")
        worth, now = of("test", "target"), of(f"test+{name}", "target")
        undue = [after[item] - before[item] - (now[item] - worth[item]) for item in after]
        assert about["pairs"] == len(after)
        assert about["predictors"]["rail"]["undue_shift"]["value"] == pytest.approx(float(np.mean(undue)), abs=1e-6)
        assert about["predictors"]["rail"]["undue_size"]["value"] == pytest.approx(float(np.mean(np.abs(undue))), abs=1e-6)
        assert about["true_change"]["value"] == pytest.approx(float(np.mean([now[item] - worth[item] for item in after])))
    attacks = [name for name, about in numbers["perturbations"].items() if about["kind"] == ATTACK]
    shifts = [numbers["perturbations"][name]["predictors"]["rail"]["undue_shift"]["value"] for name in attacks]
    assert numbers["summary"]["rail"]["attack_shift"]["value"] == pytest.approx(float(np.mean(shifts)))
    assert numbers["perturbations"]["one_more_met"]["true_change"]["value"] == 1.0
    assert numbers["consistency"]["rail"]["alpha"]["value"] is not None
    assert numbers["consistency"]["no_cot"]["alpha"]["value"] is None
    # The tiny model never writes the cue, so no free decoding has a pair.
    free = numbers["perturbations"]["beg"]
    assert free["pairs_with_a_failed_draw"]["decode_free"] == free["pairs"]
    assert free["predictors"]["decode_free"]["undue_shift"]["value"] is None


def test_the_tables_and_the_terminal_show_them(robust: Any) -> None:
    _, products, lines = robust
    folder = products["evaluate"].path
    for text in ((folder / "results.md").read_text(), (folder / "report.html").read_text()):
        assert [name for name in PERTURBATIONS if name not in text] == []
        assert "alpha" in text
    assert any("attacks move base by" in line for line in lines)


@pytest.mark.kills
def test_a_perturbation_that_the_prompt_does_not_show_is_told_and_not_measured(robust: Any) -> None:
    tiny, _, _ = robust
    products, lines = tiny.run(
        "prompt=short", "pipeline=[predict,evaluate]", "evaluation.perturbations=[no_reference,rubric_reversed,beg]",
        "evaluation.benchmarks=[test]", "judge=base", "compare_to=null", config="evaluate",
    )  # fmt: skip
    assert made(lines) == ["predict", "evaluate"]
    assert set(metrics(products["evaluate"])["robustness"]["base"]["test"]["perturbations"]) == {"beg"}
    told = [line for line in lines if "applies to no item of test, or its prompt does not show it" in line]
    assert [line.split()[1] for line in told] == ["rubric_reversed", "no_reference"]


@pytest.mark.kills
def test_two_judges_are_compared_on_the_same_attacks(robust: Any) -> None:
    tiny, _, _ = robust
    products, _ = tiny.run("pipeline=[stage1,predict,evaluate]", "evaluation.perturbations=[beg,cue]", "evaluation.benchmarks=[test]")
    found = metrics(products["evaluate"])["robustness"]
    assert set(found) == {"stage1", "base"}
    own, other = found["stage1"]["test"], found["base"]["test"]
    difference = own["differences"]["rail"]["attack_shift"]["value"]
    assert difference == pytest.approx(own["summary"]["rail"]["attack_shift"]["value"] - other["summary"]["rail"]["attack_shift"]["value"])
    assert "paired" in (products["evaluate"].path / "results.md").read_text()
