"""A dry run of the pipeline: its plan, and for each stage the report of what it would need."""

from __future__ import annotations

from omegaconf import DictConfig

from tract.artifacts.products import Product, open_product
from tract.config.schema import Config
from tract.config.vocabulary import FIT_STAGES
from tract.pipeline.backend_choice import decided
from tract.pipeline.checks import check_before_start
from tract.pipeline.dry_run.fit_plan import plan_of
from tract.pipeline.dry_run.report import dry_run
from tract.pipeline.plan import is_forced, planned_stages, stage_inputs
from tract.pipeline.stage_tasks import StageTask, build_stage, stage_config
from tract.pipeline.stages.stage import folder_of, outdated
from tract.pipeline.validation import typed


def dry_run_pipeline(cfg: Config, resolved: DictConfig) -> None:
    """Logs what the stages of a pipeline would need, and makes no folder.

    Args:
        cfg: the typed configuration. resolved: the same as composed.

    Raises:
        TractError: if the data cannot be used, or a stage does not fit the device.
    """
    plan = planned_stages(cfg)
    check_before_start(cfg, resolved, plan)
    resolved = decided(resolved, plan)
    cfg = typed(resolved)
    fits = [name for name in plan if name in FIT_STAGES]
    generated = _complete_products(cfg, resolved, plan).get("generate") if "stage2" in fits else None
    plans = [plan_of(name, typed(stage_config(resolved, name)), generated) for name in fits or ["stage1"]]
    dry_run(plans, len(fits), [name for name in plan if name in ("generate", "predict")], cfg)


def _complete_products(cfg: Config, resolved: DictConfig, plan: list[str]) -> dict[str, Product]:
    """The products before stage 2 that are there already and would be used."""
    found: dict[str, Product] = {}
    for name in plan[: plan.index("stage2")]:
        folder = folder_of(build_stage(StageTask(name, stage_inputs(name, cfg, found), False), resolved), cfg, force=False)
        if is_forced(name, cfg) or not folder.is_complete or outdated(folder, cfg):
            break
        found[name] = open_product(folder.path)
    return found
