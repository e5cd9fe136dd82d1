"""The tests' own way to compose gives what Hydra gives."""

from __future__ import annotations

import pytest
from composing import CONF, composed
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException


def of_hydra(overrides: list[str], config: str) -> object:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(config, overrides)


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("train", []),
        ("train", ["experiment=tract_mistral", "objective.lambda=2", "+stage2.optimizer.lr=0.1", "~train.keep_weights", "stages=[stage1]"]),
        ("train", ["trainer=ddp", "+ablation=ce_only", "logger=csv", "++data.extra.key={a: [1, 2]}", "seed=7", "model=tiny"]),
        ("evaluate", ["judge=base", "evaluation.benchmarks=[a.json]", "hydra.job.chdir=true"]),
    ],
)
def test_it_is_what_hydra_composes(config: str, overrides: list[str]) -> None:
    for _ in range(2):  # the second time from files that were read
        assert composed(overrides, config) == of_hydra(overrides, config)


@pytest.mark.parametrize("overrides", [["model=foo"], ["train.max_step=2"], ["+objective.lambda=2"], ["~nothing"], ["a b"], ["x@y=z"]])
def test_it_refuses_what_hydra_refuses(overrides: list[str]) -> None:
    with pytest.raises(HydraException) as ours:
        composed(overrides)
    with pytest.raises(HydraException) as theirs:
        of_hydra(overrides, "train")
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value) == str(theirs.value)


def test_what_is_composed_can_be_changed() -> None:
    first = composed(["model=tiny"])
    first.seed = 99
    assert composed(["model=tiny"]).seed == 0
