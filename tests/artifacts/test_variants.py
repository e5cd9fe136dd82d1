"""Runs that differ in nothing but the seed are one variant; labels are short and tell variants apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import config_of

from tract.apps.compare.curves import curves_of
from tract.artifacts.runs import RecordedRun, flat
from tract.artifacts.variants import Variant, differing_keys, labels_of, setting, variants_of


def run_of(place: int = 0, finished: str = "", **changes: Any) -> RecordedRun:
    return RecordedRun(flat(config_of(**changes)), Path(f"evaluate-{finished}"), finished, (0, place))


def variants(*runs: RecordedRun) -> tuple[Variant, ...]:
    return variants_of(runs)[0]


def labels(*runs: RecordedRun) -> list[str]:
    return [variant.label for variant in variants(*runs)]


def test_seeds_of_a_configuration_are_one_variant() -> None:
    (variant,) = variants(*(run_of(seed=seed) for seed in (2, 0, 1)))
    assert list(variant.runs) == [0, 1, 2]
    assert "seed" not in variant.settings
    assert variant.label == "tract"


@pytest.mark.parametrize(
    "changes",
    [
        {"run__tags": ["x"]}, {"run__subprocess_stages": False}, {"paths__runs": "elsewhere"}, {"trainer__devices": 4},
        {"stages": ["evaluate"]},
        {"force": ["all"]}, {"from": "stage2"}, {"logger__wandb__name": "x"}, {"data__num_workers": 3}, {"compare_to": None},
        {"evaluation__predictors": ["rail"]}, {"evaluation__resamples": 3}, {"generation__batch_size": 3}, {"dry_run": False},
        {"optimized_metric": "val/rmse"},
    ],
)  # fmt: skip
def test_what_moves_no_number_makes_no_variant(changes: dict[str, Any]) -> None:
    assert len(variants(run_of(seed=0), run_of(seed=1, **changes))) == 1


@pytest.mark.parametrize(
    "changes",
    [{"objective__lambda": 0.5}, {"trainer__precision": "bf16"}, {"evaluation__n_cot": 2}, {"run__name": "x"}, {"stage2__objective__a": 1}],
)
def test_what_moves_a_number_makes_one(changes: dict[str, Any]) -> None:
    assert len(variants(run_of(seed=0), run_of(seed=1, **changes))) == 2


def test_equal_numbers_are_equal_whatever_their_type() -> None:
    assert len(variants(run_of(seed=0, objective__lambda=1), run_of(seed=1, objective__lambda=1.0))) == 1


def test_keys_that_follow_the_seed_make_no_variant() -> None:
    assert len(variants(*(run_of(seed=seed, data__source__seed=seed) for seed in (0, 1, 2)))) == 1
    # Those of another name need not have such a key, or fix it.
    assert (
        len(variants(run_of(seed=0), run_of(seed=1, data__source__seed=1), run_of(seed=0, run__name="b"), run_of(seed=1, run__name="b")))
        == 2
    )
    # One run says that it does not follow.
    assert (
        len(variants(run_of(seed=0, data__source__seed=0), run_of(seed=1, data__source__seed=1), run_of(seed=2, data__source__seed=0))) == 2
    )


def test_of_two_runs_of_a_variant_and_seed_the_newer_counts_and_the_other_is_told() -> None:
    runs = [run_of(finished="2026-01-02"), run_of(finished="2026-01-01"), run_of(seed=1)]
    (variant,), left_out = variants_of(runs)
    assert variant.runs[0].finished == "2026-01-02"
    assert [out.what for out in left_out] == ["tract seed=0"]
    assert "is newer and has the same configuration" in left_out[0].why


def test_labels_are_ablations_where_these_tell_all_apart() -> None:
    assert labels(run_of(run__ablation="tract"), run_of(1, run__ablation="ce_only", objective__lambda=0)) == ["tract", "ce_only"]
    # A run without an ablation is called by its name.
    assert labels(run_of(), run_of(1, run__ablation="ce_only", objective__lambda=0)) == ["tract", "ce_only"]


def test_labels_are_names_where_these_do() -> None:
    assert labels(run_of(run__name="a"), run_of(1, run__name="b")) == ["a", "b"]
    assert labels(run_of(run__name="a", run__ablation="x"), run_of(1, run__name="b", run__ablation="x")) == ["a", "b"]


def test_labels_name_the_keys_that_differ() -> None:
    sweep = [run_of(k, objective__lambda=weight) for k, weight in enumerate((0.0, 0.1, 10.0))]
    assert labels(*sweep) == ["objective.lambda=0", "objective.lambda=0.1", "objective.lambda=10"]
    # What most of them have is not said; an ablation of another name needs no keys, however many differ.
    more = run_of(3, objective__lambda=0.1, evaluation__n_cot=5)
    other = run_of(4, run__ablation="zero_shot", pipeline=["predict"], objective__ce_weight=3, compare_to=None)
    assert labels(*sweep, more, other) == [
        "tract objective.lambda=0", "tract", "tract objective.lambda=10", "tract evaluation.n_cot=5", "zero_shot",
    ]  # fmt: skip


def test_labels_of_a_grid_name_both_keys() -> None:
    grid = [
        run_of(2 * i + j, objective__lambda=weight, evaluation__n_cot=n)
        for i, weight in enumerate((0.5, 2.0))
        for j, n in enumerate((1, 5))
    ]
    assert labels(*grid) == [f"evaluation.n_cot={n} objective.lambda={weight}" for weight in ("0.5", "2") for n in (1, 5)]


def test_labels_stay_short_and_differ_whatever_differs() -> None:
    texts = [{"run.name": "a", **{f"k{i}": "x" * 50 + str(n) for i in range(20)}} for n in range(3)]
    found = labels_of(texts)
    assert len(set(found)) == 3
    assert all(len(label) < 100 for label in found)
    assert found == labels_of(texts)
    assert labels_of([{"run.name": "a\n\x1b[31mb", "k": 1}]) == ["a [31mb"]


def test_settings_are_shown_in_one_short_text() -> None:
    assert setting("a", {"a": 0.10}) == "a=0.1"
    assert setting("a", {"a": 1000000}) == "a=1000000"
    assert setting("a", {"a": True}) == "a=true"
    assert setting("a", {"a": None}) == "a=null"
    assert setting("a", {"a": ["x", 1]}) == 'a=["x", 1]'
    assert setting("a", {}) == "a=absent"
    assert len(setting("a", {"a": "y" * 99})) == 26


def test_variants_of_one_place_are_ordered_by_size_not_by_text() -> None:
    runs = [run_of(objective__lambda=weight) for weight in (10.0, 2.0, 0.1)]
    assert [variant.settings["objective.lambda"] for variant in variants(*runs)] == [0.1, 2.0, 10.0]


def test_differing_keys_are_those_of_the_variants() -> None:
    assert differing_keys([{"a": 1, "b": 2}, {"a": 1.0, "b": 3, "c": None}]) == ["b", "c"]


def test_a_curve_joins_variants_that_differ_in_one_number_alone() -> None:
    points = [run_of(k, run__name=f"l{weight}", objective__lambda=weight) for k, weight in enumerate((1.0, 0.0, 0.1))]
    ce_only = run_of(3, run__ablation="ce_only", objective__lambda=0.0, objective__ce_on_score=True)
    (curve,) = curves_of(variants(*points, ce_only))
    assert curve.key == "objective.lambda"
    (line,) = curve.lines
    assert line.points == ((0.0, "l0.0"), (0.1, "l0.1"), (1.0, "l1.0"))
    assert line.label == ""


def test_a_curve_has_a_line_for_each_setting_of_the_rest() -> None:
    grid = [run_of(objective__lambda=weight, evaluation__n_cot=n) for weight in (0.5, 2.0) for n in (1, 5)]
    by_key = {curve.key: curve for curve in curves_of(variants(*grid))}
    assert set(by_key) == {"objective.lambda", "evaluation.n_cot"}
    assert [line.label for line in by_key["objective.lambda"].lines] == ["evaluation.n_cot=1", "evaluation.n_cot=5"]


def test_truth_values_and_texts_make_no_curve() -> None:
    assert curves_of(variants(run_of(objective__ce_on_score=True), run_of(objective__ce_on_score=False))) == ()
    assert curves_of(variants(run_of(trainer__precision="a"), run_of(trainer__precision="b"))) == ()


@pytest.mark.parametrize(("judge", "untrained"), [("base", True), (None, True), ("runs/tract", False)])
def test_a_base_model_is_not_trained(judge: str | None, untrained: bool) -> None:
    assert Variant("x", {"judge": judge, "pipeline": ["predict", "evaluate"]}, {}).is_untrained == untrained
