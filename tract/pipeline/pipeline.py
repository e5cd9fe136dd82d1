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
import errno
import gc
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tract.artifacts.judge_location import BASE
from tract.artifacts.judges import find_judge, with_exact_judges
from tract.artifacts.products import Product, open_product
from tract.artifacts.run_folder import StageFolder
from tract.common import signals
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.config.vocabulary import AUTO, FIT_STAGES, STAGES
from tract.pipeline.backend_choice import check_at_hand, decided
from tract.pipeline.benchmarks import check_benchmarks
from tract.pipeline.commands import is_job, next_commands
from tract.pipeline.identity.keys import code_digests, named_code
from tract.pipeline.identity.loaded_code import at_start, changed_error, check_hashes, check_unchanged, hashes
from tract.pipeline.launching.launch import check_devices, follow, follows, isolated, leading, processes, run_job
from tract.pipeline.run_record import recorded
from tract.pipeline.stages.stage import Stage, complete_product, folder_of, label_of, outdated, run_stage
from tract.pipeline.tracking.tracker import offline_runs, sync_command
from tract.pipeline.validation import typed, validate

log = logging.getLogger(__name__)

PRODUCT_FILE = "product.txt"  # where a stage's own process says what it made
_CHANGEABLE = ("objective", "optimizer", "scheduler", "batch", "train")


@dataclass(frozen=True)
class StageTask:
    """A stage to run, in words that another process understands.

    Attributes:
        stage: its name. inputs: role -> folder of a parent's product, or how a judge is called. force: rebuild it.
        compared: whether it predicts for the judge that the run's own one is compared to.
    """

    stage: str
    inputs: Mapping[str, str]
    force: bool
    compared: bool = False


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
        TractError: for anything that the user can mend.
        SystemExit: if a stage in a process of its own failed; it has said why.
    """
    at_start()
    cfg = validate(resolved)
    named_code(_plain(resolved))  # is kept as it is now, as the package's files are
    if follows():
        if not cfg.dry_run:
            follow()
        return {}
    resolved = with_exact_judges(resolved, cfg)
    cfg = typed(resolved)
    if cfg.dry_run:
        _dry_run(cfg, resolved)
        return {}
    check_devices(cfg)
    _make_place("paths.runs", cfg.paths.runs)
    _make_place("paths.cache", cfg.paths.cache)
    plan = _plan(cfg)
    asked, resolved = resolved, decided(resolved, plan)
    cfg = typed(resolved)
    signals.set_forced([name for name in plan if _forced(name, cfg) and _wanted(name, cfg)])
    _check_ahead(cfg, asked, plan)
    products: dict[str, Product] = {}
    with recorded(resolved, cfg, products), leading():
        for name in plan:
            if name == "evaluate":
                products[name] = _evaluate(cfg, resolved, products)
                continue
            inputs = _inputs(name, cfg, products)
            products[name] = _obtain(StageTask(name, inputs, _forced(name, cfg)), resolved, wanted=_wanted(name, cfg))
    _tell_offline(cfg, products)
    return products


def _tell_offline(cfg: Config, products: Mapping[str, Product]) -> None:
    """Says how W&B gets the runs that were logged without it."""
    # Parents too: of the two judges that an evaluation compares, one is no stage of the pipeline.
    parents = [Path(place) for product in products.values() for place in product.manifest.get("parents", {}).values()]
    keys = [*(str(product.manifest["key"]) for product in products.values()), *(place.name.rpartition("-")[2] for place in parents)]
    if folders := offline_runs(cfg, keys):
        log.info("W&B: this run was logged offline; with a key, this uploads it:\n  %s", sync_command(cfg, folders))


def _make_place(key: str, folder: str) -> None:
    """Makes a folder to write to.

    Raises:
        ConfigError: if it cannot be made, or not be written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    except OSError as error:  # a full disk among them, which is told as one
        raise ConfigError(f"{key}: cannot write to {folder!r} ({error.strerror}); give a folder that can be made and written to") from error


def _dry_run(cfg: Config, resolved: DictConfig) -> None:
    """Says what the stages would need, and makes no folder."""
    from tract.pipeline.dry_run.fit_plan import plan_of
    from tract.pipeline.dry_run.report import dry_run

    plan = _plan(cfg)
    _check_ahead(cfg, resolved, plan)
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
        folder = folder_of(build_stage(StageTask(name, _inputs(name, cfg, found), False), resolved), cfg, force=False)
        if _forced(name, cfg) or not folder.is_complete or outdated(folder, cfg):
            break
        found[name] = open_product(folder.path)
    return found


def _check_ahead(cfg: Config, resolved: DictConfig, plan: list[str]) -> None:
    """Refuses what would otherwise be refused only after data are read, or after the training."""
    _check_models(cfg, plan)
    if "stage2" in plan:
        _check_stage2(resolved)
    if "predict" in plan and cfg.judge is None:
        check_benchmarks(cfg)
    if "evaluate" not in plan or cfg.compare_to is None:
        return
    if cfg.compare_to != "stage1":
        assert find_judge(cfg.compare_to, cfg).fingerprint  # its files are there
    elif "stage1" not in plan:
        raise ConfigError("compare_to: 'stage1' is no stage of this pipeline; give seed, the folder of a run or a judge, a model, or null")


def _check_models(cfg: Config, plan: list[str]) -> None:
    """Refuses models that cannot be trained, or not be sampled from in this process."""
    from tract.inference.hf.sequences import path_of

    here = cfg.generation.backend in ("hf", AUTO) and any(name in plan for name in ("generate", "predict"))
    if any(name in plan for name in FIT_STAGES) or (here and cfg.judge in (None, BASE)):
        path_of(cfg.model)
    others = [spec for spec in (cfg.judge, cfg.compare_to if "evaluate" in plan else None) if spec not in (None, BASE, "stage1")]
    for spec in others if here else ():
        path_of(find_judge(str(spec), cfg).model)


def _plan(cfg: Config) -> list[str]:
    """The stages that are wanted, and those whose products they need, in order."""
    own = STAGES if cfg.judge is not None else tuple(cfg.pipeline)
    wanted = [name for name in own if _wanted(name, cfg) and (name != "stage1" or cfg.judge is None)]
    needed = set(wanted)
    for name in reversed(own):
        if name in needed:
            needed |= set(_parents(name, cfg, own))
    return [name for name in own if name in needed]


def _wanted(name: str, cfg: Config) -> bool:
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
        fits = [stage for stage in own if stage in FIT_STAGES and (cfg.judge is None or (stage == "stage2" and _wanted(stage, cfg)))]
        return fits[-1:]
    needs = {"generate": ["stage1"], "stage2": ["generate"], "evaluate": ["predict"]}.get(name, [])
    if name == "stage2" and cfg.stage2.init_from == "stage1":
        needs = [*needs, "stage1"]
    return [stage for stage in needs if stage != "stage1" or cfg.judge is None]


def _forced(name: str, cfg: Config) -> bool:
    return name in cfg.force or "all" in cfg.force


def _inputs(name: str, cfg: Config, products: Mapping[str, Product]) -> dict[str, str]:
    if name == "stage1":
        return {}
    if name == "generate":
        return {"judge": cfg.judge or str(products["stage1"].path)}
    if name == "stage2":
        start = {} if cfg.stage2.init_from == BASE else {"start": cfg.judge or str(products["stage1"].path)}
        return {"generated": str(products["generate"].path), **start}
    return {"judge": _judged(cfg, products)}


def _judged(cfg: Config, products: Mapping[str, Product]) -> str:
    """The judge to evaluate: of the last fit stage, else the one that is given, else the base model."""
    fits = [stage for stage in FIT_STAGES if stage in products and (stage == "stage2" or cfg.judge is None)]
    own = STAGES if cfg.judge is not None else tuple(cfg.pipeline)
    last = _parents("final", cfg, own)
    if last and last[0] in fits:
        return str(products[last[0]].path)
    return cfg.judge or BASE


def _evaluate(cfg: Config, resolved: DictConfig, products: dict[str, Product]) -> Product:
    """Evaluates the judge, beside the one it is compared to."""
    from tract.pipeline.stages.evaluate import REPORT_FILE, check_comparable, read_short_table

    other = None
    if cfg.compare_to is not None:
        spec = cfg.compare_to if cfg.compare_to != "stage1" or "stage1" not in products else str(products["stage1"].path)
        task = StageTask("predict", {"judge": spec}, _forced("predict", cfg), compared=True)
        # The judge itself, where the base model is evaluated and compared to.
        if spec != _judged(cfg, products):
            other = _obtain(task, resolved, wanted=_wanted("predict", cfg))
            check_comparable(products["predict"], other)
    inputs = {"predicted": str(products["predict"].path), **({"other": str(other.path)} if other else {})}
    product = _obtain(StageTask("evaluate", inputs, _forced("evaluate", cfg)), resolved, wanted=True)
    log.info("results:\n\n%s\n\n  report: %s", read_short_table(product), product.path / REPORT_FILE)
    if any(stage in products for stage in FIT_STAGES) and not is_job():
        log.info("what to try next:\n%s", "\n".join(f"  {command}" for command in next_commands(cfg, _judged(cfg, products))))
    return product


def stage_config(resolved: DictConfig, stage: str) -> DictConfig:
    """The configuration of one stage: that of the pipeline, with the sections that ``stage2`` changes.

    Raises:
        ConfigError: if the changed configuration is not sound.
    """
    changed = resolved.copy()
    with open_dict(changed):
        changed.stage = stage
        if stage == "stage2":
            for section in _CHANGEABLE:
                changed[section] = OmegaConf.merge(changed[section], resolved.stage2[section])
    return changed


def build_stage(task: StageTask, resolved: DictConfig) -> Stage:
    """The stage of a task, of a configuration that ``run_pipeline`` has checked; nothing heavy is loaded.

    Raises:
        TractError: if an input is missing or damaged.
    """
    config = stage_config(resolved, task.stage)
    cfg = typed(config)
    inputs = task.inputs
    # Each is imported where it is wanted: Lightning alone takes seconds, and the process of a stage that samples needs none of it.
    if task.stage in FIT_STAGES:
        from tract.pipeline.stages.fit import FitStage

        parents = {role: open_product(Path(inputs[role])) for role in ("generated", "start") if role in inputs}
        return FitStage(cfg, config, parents.get("generated"), parents.get("start"))
    if task.stage == "generate":
        from tract.pipeline.stages.generate import GenerateStage

        return GenerateStage(cfg, config, find_judge(inputs["judge"], cfg))
    if task.stage == "predict":
        from tract.pipeline.stages.predict import PredictStage

        return PredictStage(cfg, config, find_judge(inputs["judge"], cfg), compared=task.compared)
    from tract.pipeline.stages.evaluate import EvaluateStage

    other = open_product(Path(inputs["other"])) if "other" in inputs else None
    return EvaluateStage(cfg, config, open_product(Path(inputs["predicted"])), other)


def stage_modules(stage: str) -> list[str]:
    """All modules of the package that a stage may import."""
    return list(code_digests("tract.pipeline.stages.fit" if stage in FIT_STAGES else f"tract.pipeline.stages.{stage}", ignored_fields=()))


def _check_stage2(resolved: DictConfig) -> None:
    try:
        validate(stage_config(resolved, "stage2"))
    except ConfigError as error:
        raise ConfigError(f"with the changes of stage2: {error}") from None


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
        raise _not_wanted(task, folder, cfg)
    check_at_hand(task.stage, cfg)
    check_unchanged(task.stage, lambda: stage_modules(task.stage))
    if task.stage != "evaluate" and isolated(cfg):
        return _run_apart(task, resolved)
    with _own_warnings():
        product = run_stage(stage, cfg, force=force)
    del stage
    _free_memory()
    return product


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Lets a stage that runs in this process warn as one in a process of its own: into the log, by filters that end with it."""
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)


def _not_wanted(task: StageTask, folder: StageFolder, cfg: Config) -> ConfigError:
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


def _run_apart(task: StageTask, resolved: DictConfig) -> Product:
    """Runs a task in processes of its own."""
    # It was absent when this process looked for it, so whoever made it has done so since, and has hashed what they wrote.
    code = {"files": hashes(), "named": named_code(_plain(resolved))}
    return open_product(run_job({**asdict(task), "code": code}, resolved, processes(typed(resolved)), PRODUCT_FILE), just_made=True)


def check_code(task: StageTask, resolved: DictConfig, code: Mapping[str, Any]) -> None:
    """Refuses a task in a process of its own whose code is not that of the pipeline which began it.

    Args:
        code: the hashes of the package's files, and the digests of the user's modules that the configuration names, there.

    Raises:
        ConfigError: naming the files or modules.
    """
    check_hashes(task.stage, code["files"], lambda: stage_modules(task.stage))
    now = named_code(_plain(resolved))
    if changed := sorted(name for name in now.keys() | code["named"].keys() if now.get(name) != code["named"].get(name)):
        raise changed_error(task.stage, changed)


def _plain(resolved: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(resolved, resolve=True)
    return dict(plain)
