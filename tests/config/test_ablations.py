"""The ablations: each differs from TRACT in what it is about, and shares every stage before that through the stage cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from composing import CONF
from omegaconf import DictConfig, OmegaConf
from tiny_overrides import TINY
from tracked_files import tracked

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judges import find_judge
from tract.artifacts.products import Product
from tract.pipeline.backend_choice import decided
from tract.pipeline.stage_tasks import stage_config
from tract.pipeline.stages.fit import FitStage
from tract.pipeline.stages.generate import GenerateStage
from tract.pipeline.stages.predict import PredictStage
from tract.pipeline.validation import validate

Compose = Callable[..., DictConfig]
ABLATIONS = [path.stem for path in tracked(CONF / "ablation", "*.yaml")]
BASES = ("quickstart", "mistral")
WHOLE = ["stage1", "generate", "stage2", "predict", "evaluate"]
ONE_FIT = ["stage1", "predict", "evaluate"]
# Pipeline, and the stages whose products are those of TRACT; "base" is the prediction of the base model that TRACT is compared with.
EXPECTED: dict[str, tuple[list[str], set[str]]] = {
    "ce_both": (WHOLE, {"base"}),
    "ce_only": (ONE_FIT, {"base"}),
    "ce_stage2": (WHOLE, {"stage1", "generate", "base"}),
    "cots4": (WHOLE, {"stage1", "base"}),
    "from_stage1": (WHOLE, {"stage1", "generate", "base"}),
    "mixed_cots": (WHOLE, {"stage1", "generate", "base"}),
    "regression_only": (ONE_FIT, set()),
    "stage1_only": (ONE_FIT, {"stage1", "base"}),
    "tract": (WHOLE, {"stage1", "generate", "stage2", "base"}),
    "zero_shot": (["predict", "evaluate"], {"base"}),
}


class GeneratedStage(FitStage):
    """Stage 2 without generated CoTs at hand: its identity takes them from the fingerprint of their stage."""

    @property
    def data(self) -> Any:
        """Annotated data, which has the same source."""
        return FitStage(self.cfg, self.resolved).data


def keys(resolved: DictConfig) -> dict[str, str]:
    """Stage -> key of its product, each parent standing for itself by its own key; only the stages of the pipeline."""
    resolved = decided(resolved, ())
    cfg = validate(resolved)
    stage1 = FitStage(cfg, stage_config(resolved, "stage1")).identity().key
    seed = find_judge("base", cfg)
    found = {"base": PredictStage(cfg, stage_config(resolved, "predict"), seed).identity().key}
    if "stage1" in cfg.pipeline:
        found["stage1"] = stage1
    if "generate" in cfg.pipeline:
        judge: JudgeFiles = dataclasses.replace(seed, name="stage1", fingerprinted=lambda: stage1)
        found["generate"] = GenerateStage(cfg, stage_config(resolved, "generate"), judge).identity().key
        changed = stage_config(resolved, "stage2")
        start = Product(Path("stage1"), {}, stage1) if cfg.stage2.init_from == "stage1" else None
        generated = Product(Path("generate"), {}, found["generate"])
        found["stage2"] = GeneratedStage(validate(changed), changed, generated, start).identity().key
    return found


@pytest.fixture(scope="module")
def of_tract() -> dict[str, Mapping[str, str]]:
    """The keys of TRACT itself, by base; filled on first use, since they are compared with many times."""
    return {}


def test_every_ablation_is_expected() -> None:
    assert list(EXPECTED) == ABLATIONS
    experiments = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert {f"{name}_{base}" for name in ABLATIONS for base in BASES} <= experiments


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", EXPECTED)
def test_shares_with_tract_what_is_the_same_and_nothing_else(
    name: str, base: str, compose_config: Compose, of_tract: dict[str, Mapping[str, str]]
) -> None:
    pipeline, shared = EXPECTED[name]
    if base not in of_tract:
        of_tract[base] = keys(compose_config(f"experiment=tract_{base}", *TINY))
        assert set(of_tract[base]) == {"base", "stage1", "generate", "stage2"}
    resolved = compose_config(f"experiment={name}_{base}", *TINY)
    assert list(resolved.pipeline) == pipeline
    own = keys(resolved)
    assert {stage for stage, key in own.items() if of_tract[base][stage] == key} == shared


@pytest.mark.parametrize("base", BASES)
def test_cross_entropy_in_both_stages_shares_its_first_stage_with_cross_entropy_alone(base: str, compose_config: Compose) -> None:
    both, alone = (keys(compose_config(f"experiment={name}_{base}", *TINY)) for name in ("ce_both", "ce_only"))
    assert both["stage1"] == alone["stage1"]


def test_cross_entropy_in_stage2_alone_has_the_objective_of_both(compose_config: Compose) -> None:
    """And its first stage the objective of TRACT."""
    ours = compose_config("experiment=ce_stage2_quickstart", *TINY)
    both = compose_config("experiment=ce_both_quickstart", *TINY)
    assert stage_config(ours, "stage2").objective == stage_config(both, "stage2").objective
    assert stage_config(ours, "stage1").objective != stage_config(both, "stage1").objective


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_can_be_added_to_any_experiment(name: str, compose_config: Compose) -> None:
    """The experiment files add a name, nothing else."""
    added, named = compose_config("experiment=tract_mistral", f"+ablation={name}"), compose_config(f"experiment={name}_mistral")
    for cfg in (added, named):
        validate(cfg)
        cfg.run = OmegaConf.create({})
        cfg.logger = OmegaConf.create({})
    assert added == named
