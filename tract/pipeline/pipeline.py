"""The pipeline: stage 1, CoT generation, stage 2, prediction, evaluation; complete stages are reused, heavy ones run apart on GPUs.

    stage1   -> adapter or weights          from the base model and annotated CoTs
    generate -> cots.parquet                from stage1 (or the judge that is given)
    stage2   -> adapter or weights          from the base model and generated CoTs
    predict  -> judgements                  from the last fit stage (or the judge that is given), and the judge compared to
    evaluate -> metrics, tables, report     from predictions

Each reads the folders of its parents and writes its own; nothing else passes between them.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from tract.artifacts.judges import with_exact_judges
from tract.artifacts.products import Product, open_product
from tract.artifacts.run_folder import StageFolder
from tract.common import signals
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.config.vocabulary import FIT_STAGES
from tract.pipeline.backend_choice import check_at_hand, decided
from tract.pipeline.checks import check_before_start, make_writable_folder
from tract.pipeline.commands import is_job, next_commands
from tract.pipeline.identity.keys import named_code
from tract.pipeline.identity.loaded_code import at_start, check_unchanged, hashes
from tract.pipeline.launching.launch import check_devices, follow, follows, isolated, leading, processes, run_job
from tract.pipeline.plan import evaluated_judge, is_forced, is_wanted, planned_stages, stage_inputs
from tract.pipeline.run_record import recorded
from tract.pipeline.stage_tasks import PRODUCT_FILE, StageTask, build_stage, plain_container, stage_modules
from tract.pipeline.stages.stage import complete_product, folder_of, label_of, outdated, run_stage
from tract.pipeline.tracking.offline_runs import offline_runs, sync_command
from tract.pipeline.validation import typed, validate

log = logging.getLogger(__name__)


def run(resolved: DictConfig) -> float | None:
    """Runs the pipeline; returns the metric that the configuration wants to be optimised, if it names one that is defined."""
    products = run_pipeline(resolved)
    if "evaluate" not in products:
        return None
    from tract.pipeline.sweeps.sweep_objective import optimized_metric

    return optimized_metric(typed(resolved), products["evaluate"])


def run_pipeline(resolved: DictConfig) -> dict[str, Product]:
    """Runs the stages that the configuration asks for; returns the products of those that were needed.

    Raises:
        TractError: for anything that the user can fix.
        SystemExit: if a stage in a process of its own failed; it has said why.
    """
    at_start()
    cfg = validate(resolved)
    named_code(plain_container(resolved))  # is kept as it is now, as the package's files are
    if follows():
        if not cfg.dry_run:
            follow()
        return {}
    resolved = with_exact_judges(resolved, cfg)
    cfg = typed(resolved)
    if cfg.dry_run:
        from tract.pipeline.dry_run.report import dry_run_pipeline

        dry_run_pipeline(cfg, resolved)
        return {}
    check_devices(cfg)
    make_writable_folder("paths.runs", cfg.paths.runs)
    make_writable_folder("paths.cache", cfg.paths.cache)
    plan = planned_stages(cfg)
    asked, resolved = resolved, decided(resolved, plan)
    cfg = typed(resolved)
    signals.set_forced([name for name in plan if is_forced(name, cfg) and is_wanted(name, cfg)])
    check_before_start(cfg, asked, plan)
    products: dict[str, Product] = {}
    with recorded(resolved, cfg, products), leading():
        for name in plan:
            if name == "evaluate":
                products[name] = _evaluate(cfg, resolved, products)
                _log_results(cfg, products)
            else:
                task = StageTask(name, stage_inputs(name, cfg, products), is_forced(name, cfg))
                products[name] = _obtain(task, resolved, wanted=is_wanted(name, cfg))
    _log_sync_command(cfg, products)
    return products


def _evaluate(cfg: Config, resolved: DictConfig, products: dict[str, Product]) -> Product:
    """Evaluates the judge, beside the one it is compared to."""
    from tract.pipeline.stages.evaluate import check_comparable

    other = None
    if cfg.compare_to is not None:
        spec = cfg.compare_to if cfg.compare_to != "stage1" or "stage1" not in products else str(products["stage1"].path)
        task = StageTask("predict", {"judge": spec}, is_forced("predict", cfg), compared=True)
        # The judge itself, where the base model is evaluated and compared to.
        if spec != evaluated_judge(cfg, products):
            other = _obtain(task, resolved, wanted=is_wanted("predict", cfg))
            check_comparable(products["predict"], other)
    inputs = {"predicted": str(products["predict"].path), **({"other": str(other.path)} if other else {})}
    return _obtain(StageTask("evaluate", inputs, is_forced("evaluate", cfg)), resolved, wanted=True)


def _free_memory() -> None:
    """Gives back what a stage in this process held, before the next one loads a model of its own."""
    gc.collect()  # trainers and models are rings of references
    with suppress(OSError, AttributeError):  # glibc's, which by itself keeps the pages of what was freed between what lives on
        ctypes.CDLL(None).malloc_trim(0)


def _obtain(task: StageTask, resolved: DictConfig, *, wanted: bool) -> Product:
    """The product of a task: reused if it is there, else made, if that is wanted. Nothing else of the task is left in memory."""
    stage = build_stage(task, resolved)
    cfg = typed(resolved)
    force = task.force and wanted
    folder = folder_of(stage, cfg, force=force)
    if not force and (product := complete_product(folder, cfg)) is not None:
        log.info("%s: reused, %s (same configuration, inputs and code)", label_of(stage), folder.path)
        return product
    if not wanted:
        raise _missing_product_error(task, folder, cfg)
    check_at_hand(task.stage, cfg)
    check_unchanged(task.stage, lambda: stage_modules(task.stage))
    if task.stage != "evaluate" and isolated(cfg):
        return _run_in_subprocess(task, resolved)
    with _warnings_to_log():
        product = run_stage(stage, cfg, force=force)
    del stage
    _free_memory()
    return product


@contextmanager
def _warnings_to_log() -> Iterator[None]:
    """Lets a stage that runs in this process warn as one in a process of its own: into the log, by filters that end with it."""
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)


def _missing_product_error(task: StageTask, folder: StageFolder, cfg: Config) -> ConfigError:
    add = f"add it, as in stages=[{task.stage},...]"
    if changes := outdated(folder, cfg):
        return ConfigError(
            f"run.on_version_change: {task.stage} is to be redone, since it was made with other versions ({', '.join(changes)}), but "
            f"stages= or from= leave it out; {add}, or set run.on_version_change=reuse"
        )
    return ConfigError(
        f"stages: {task.stage} is needed, but it is not complete ({folder.path} does not exist); {add}, or run the whole pipeline "
        f"first{_or_a_judge(task, cfg)}"
    )


def _or_a_judge(task: StageTask, cfg: Config) -> str:
    return (
        "; or name a judge that is there, judge=RUN_FOLDER_OR_MODEL or judge=base" if task.stage in FIT_STAGES and cfg.judge is None else ""
    )


def _run_in_subprocess(task: StageTask, resolved: DictConfig) -> Product:
    """Runs a task in processes of its own."""
    # It was absent when this process looked for it, so whoever made it has done so since, and has hashed what they wrote.
    code = {"files": hashes(), "named": named_code(plain_container(resolved))}
    return open_product(run_job({**asdict(task), "code": code}, resolved, processes(typed(resolved)), PRODUCT_FILE), just_made=True)


def _log_results(cfg: Config, products: Mapping[str, Product]) -> None:
    """Logs the short table of the evaluation, and after a training what to try next."""
    from tract.pipeline.stages.evaluate import REPORT_FILE, read_short_table

    product = products["evaluate"]
    log.info("results:\n\n%s\n\n  report: %s", read_short_table(product), product.path / REPORT_FILE)
    if any(stage in products for stage in FIT_STAGES) and not is_job():
        log.info("what to try next:\n%s", "\n".join(f"  {command}" for command in next_commands(cfg, evaluated_judge(cfg, products))))


def _log_sync_command(cfg: Config, products: Mapping[str, Product]) -> None:
    """Logs the command that uploads the W&B runs that were logged offline."""
    # Parents too: of the two judges that an evaluation compares, one is no stage of the pipeline.
    parents = [Path(place) for product in products.values() for place in product.manifest.get("parents", {}).values()]
    keys = [*(str(product.manifest["key"]) for product in products.values()), *(place.name.rpartition("-")[2] for place in parents)]
    if folders := offline_runs(cfg, keys):
        log.info("W&B: this run was logged offline; with a key, this uploads it:\n  %s", sync_command(cfg, folders))
