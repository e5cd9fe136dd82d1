"""The plan of a pipeline: which stages are wanted, which of the others they need, and what each reads."""

from __future__ import annotations

from collections.abc import Mapping

from tract.artifacts.judge_location import BASE
from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.config.vocabulary import FIT_STAGES, STAGES


def planned_stages(cfg: Config) -> list[str]:
    """The stages that are wanted, and those whose products they need, in order."""
    own = STAGES if cfg.judge is not None else tuple(cfg.pipeline)
    wanted = [name for name in own if is_wanted(name, cfg) and (name != "stage1" or cfg.judge is None)]
    needed = set(wanted)
    for name in reversed(own):
        if name in needed:
            needed |= set(_parents(name, cfg, own))
    return [name for name in own if name in needed]


def is_wanted(name: str, cfg: Config) -> bool:
    """Whether the configuration asks for a stage, so that it may be made; others are only reused."""
    if cfg.stages is not None:
        return name in cfg.stages
    if cfg.from_stage is not None:
        return STAGES.index(name) >= STAGES.index(cfg.from_stage)
    return name in cfg.pipeline


def _parents(name: str, cfg: Config, own: tuple[str, ...]) -> list[str]:
    if name == "predict" and cfg.compare_to == "stage1" and "stage1" in own:
        return [*_parents("final", cfg, own), "stage1"]
    if name in ("predict", "final"):
        # A judge that is given is the one to evaluate, unless a stage 2 follows it.
        fits = [stage for stage in own if stage in FIT_STAGES and (cfg.judge is None or (stage == "stage2" and is_wanted(stage, cfg)))]
        return fits[-1:]
    needs = {"generate": ["stage1"], "stage2": ["generate"], "evaluate": ["predict"]}.get(name, [])
    if name == "stage2" and cfg.stage2.init_from == "stage1":
        needs = [*needs, "stage1"]
    return [stage for stage in needs if stage != "stage1" or cfg.judge is None]


def is_forced(name: str, cfg: Config) -> bool:
    """Whether a stage is to be rebuilt although its product is there."""
    return name in cfg.force or "all" in cfg.force


def stage_inputs(name: str, cfg: Config, products: Mapping[str, Product]) -> dict[str, str]:
    """What a stage reads, by role: folders of its parents' products, or how a judge is called."""
    if name == "stage1":
        return {}
    if name == "generate":
        return {"judge": cfg.judge or str(products["stage1"].path)}
    if name == "stage2":
        start = {} if cfg.stage2.init_from == BASE else {"start": cfg.judge or str(products["stage1"].path)}
        return {"generated": str(products["generate"].path), **start}
    return {"judge": evaluated_judge(cfg, products)}


def evaluated_judge(cfg: Config, products: Mapping[str, Product]) -> str:
    """The judge to evaluate: of the last fit stage, else the one that is given, else the base model."""
    fits = [stage for stage in FIT_STAGES if stage in products and (stage == "stage2" or cfg.judge is None)]
    own = STAGES if cfg.judge is not None else tuple(cfg.pipeline)
    last = _parents("final", cfg, own)
    if last and last[0] in fits:
        return str(products[last[0]].path)
    return cfg.judge or BASE
