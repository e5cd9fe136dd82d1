"""The folder that a job of a multirun gets: short, safe, the same for the same job, and another for every other one."""

from __future__ import annotations

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tract.pipeline.sweeps.job_variant import FIXED_KEYS, fixed_keys, is_taken, set_variant, variant_of


@pytest.mark.parametrize(
    ("overrides", "fixed", "expected"),
    [
        (["experiment=quick", "seed=1", "objective.lambda=0.1"], "experiment", "objective.lambda=0.1"),
        (["experiment=quick", "+ablation=ce_both", "seed=1"], "experiment", "ce_both"),
        (["objective.lambda=1", "+ablation=ce_both", "optimizer.lr=1e-05"], "", "ce_both+objective.lambda=1+optimizer.lr=1e-05"),
        (["experiment=quick", "seed=1"], "experiment", None),
        (["run.name=a", "seed=1", "paths.runs=/tmp/a"], "", None),
        (["experiment=quick", "seed=1"], "", None),  # the level above is called so
        (["experiment=other", "objective=tract"], "", "other+objective=tract"),
        (["+ablation=multirun"], "", "ablation=multirun"),
        (["+ablation=seed0"], "", "ablation=seed0"),
    ],
)
def test_a_variant_is_what_is_swept(overrides: list[str], fixed: str, expected: str | None) -> None:
    assert variant_of(overrides, fixed.split(), "quick") == expected
    assert variant_of(overrides[::-1], fixed.split(), "quick") == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("'a b/c'", "data.path=a-b-c-"),
        ("[test,ood]", "data.path=test-ood-"),
        ("0.00012345678901", "data.path=0.0001235-"),
        ("${oc.env:HOME}", "data.path=oc.env-HOME-"),
        ("x" * 300, "data.path=" + "x" * 62 + "-"),
        ("é", "data.path=-"),
        ("1e+5", "data.path=1e5-"),
        ("a+b=c", "data.path=a-b-c-"),
    ],
)
def test_what_is_shortened_or_replaced_ends_with_a_hash(value: str, shown: str) -> None:
    found = variant_of([f"data.path={value}"], (), "quick")
    assert found is not None
    assert found.startswith(shown)
    assert re.fullmatch(r"[0-9a-f]{6}", found.removeprefix(shown))
    assert re.fullmatch(r"[A-Za-z0-9_.+=-]+", found)
    assert found == variant_of([f"data.path={value}"], (), "quick")


def test_no_two_jobs_have_one_folder() -> None:
    jobs = [
        ["a=1", "b=2"], ["a='1,b=2'", "b=2"], ["a=1", "b='2,b=2'"], ["a='x y'", "b=2"], ["a=x/y", "b=2"], ["a=x-y", "b=2"],
        ["a=1+b", "b=2"], ["a=1e+5", "b=2"], ["a=1e5", "b=2"], ["/a@b=1", "b=2"], ["/a/b=1", "b=2"],
        ["a=0.1234567", "b=2"], ["a=0.1234568", "b=2"], ["a=0.1235", "b=2"], ["a=" + "y" * 99, "b=2"], ["a=" + "y" * 99, "b=3"],
    ]  # fmt: skip
    names = [variant_of(job, (), "quick") for job in jobs]
    assert len(set(names)) == len(jobs)


def test_keys_that_all_jobs_share_are_found_as_hydra_reads_them() -> None:
    given = ["experiment=quick", "seed=0,1", "+ablation=choice(tract,ce_both)", "evaluation.benchmarks=[val, test]", "++run.tags=[a]",
             "objective.lambda=range(1,3)", "~scheduler.kwargs", "optimizer.lr=interval(1e-5,1e-3)", "data.path='a,b'"]  # fmt: skip
    assert OverridesParser.create().parse_overrides(given)
    assert fixed_keys(given).split() == ["experiment", "evaluation.benchmarks", "run.tags", "scheduler.kwargs", "data.path"]


def test_a_variant_of_the_user_s_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIXED_KEYS, "experiment")
    cfg = OmegaConf.create({"run": {"name": "quick", "variant": "mine"}})
    set_variant(cfg, ["experiment=other", "seed=0", "objective.lambda=2"])
    assert cfg.run.variant == "mine"
    cfg.run.variant = None
    set_variant(cfg, ["experiment=other", "seed=0", "objective.lambda=2"])
    assert cfg.run.variant == "objective.lambda=2"
    assert is_taken("records")
    assert not is_taken("seeds")
