"""The fit stage: fine-tunes the base model on judge examples and writes adapter or weights, tokenizer and layout."""

from __future__ import annotations

import logging
import math
import shutil
import time
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import Product, write_config
from tract.artifacts.run_folder import StageFolder
from tract.common.durable import write_json
from tract.common.errors import ConfigError
from tract.common.ranks import broadcast_from_rank0, rank_info
from tract.config.devices import ZERO, spreads_weights
from tract.config.ignored_fields import OF_STAGES
from tract.config.schema import Config, SchedulerConfig, TrainConfig
from tract.data.datamodule import JudgeDataModule
from tract.data.generated_cots.file import COTS_FILE
from tract.data.steps import Limits
from tract.inference.hf.sequences import packs, shares_prompts, warn_of_rows
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.models.modeling import load_model, model_fingerprint, save_judge
from tract.models.sharding import elements_of, whole_weights
from tract.pipeline.identity.keys import code_digests, key_fields, named_code
from tract.pipeline.stages.prepare import Prepared, limits_that_matter, prepare, prepare_generated
from tract.pipeline.stages.stage import IGNORED_CODE, REPORTED_CODE, run_stage
from tract.pipeline.tracking.loggers import build_loggers, close_loggers
from tract.pipeline.tracking.tracker import Tracker
from tract.training.callbacks import (
    AtomicCheckpointIO,
    BestWeights,
    LookAtSequences,
    Throughput,
    ValidateAtStartAndEnd,
    checkpoints,
    newest_checkpoint,
)
from tract.training.graceful_stop import GracefulStop
from tract.training.preview import preview
from tract.training.steps_bar import StepsBar
from tract.training.strategies import own_precision

log = logging.getLogger(__name__)


# What a fit stage depends on beside its data and parents.
_SECTIONS = (
    "seed", "deterministic", "stage", "model", "adapter", "prompt", "grid", "data", "objective", "optimizer", "scheduler", "batch", "train",
    "trainer",
)  # fmt: skip


@dataclass
class FitStage:
    """Fine-tunes the base model on judge examples: on their annotated CoTs (stage 1), or on generated ones (stage 2).

    Attributes:
        cfg: the typed configuration of this stage. resolved: the same as composed, for the run folder.
        generated: product of a generate stage; None trains on annotated CoTs.
        start: product of the fit stage whose weights training goes on from; None starts from the base model.
    """

    cfg: Config
    resolved: DictConfig
    generated: Product | None = None
    start: Product | None = None

    @property
    def name(self) -> str:
        """stage1 or stage2."""
        return self.cfg.stage

    @cached_property
    def data(self) -> Prepared:
        """Examples, split and token ids."""
        return prepare(self.cfg) if self.generated is None else prepare_generated(self.cfg, *self.generated.file(COTS_FILE))

    def identity(self) -> StageIdentity:
        """Configuration, content of the data, base model, parents and code."""
        parents = {"generate": self.generated, "start": self.start}
        config = key_fields(self.resolved, (*_SECTIONS, *(("stage2.cots", "stage2.filter") if self.generated else ())), OF_STAGES)
        config["data"] |= {"fingerprint": self.data.store.fingerprint, **limits_that_matter(self.data.tokens, self.data.lengths)}
        config["model"]["fingerprint"] = model_fingerprint(self.cfg.model, self.cfg.seed)
        config["model"]["packed"] = packs(self.cfg.model)
        # As rendered: a chat template may print what no key holds.
        config["layout"] = {"scaffold": self.data.layout.to_dict()["scaffold"]}
        return StageIdentity(
            self.name,
            config,
            {role: product.fingerprint for role, product in parents.items() if product is not None},
            {**code_digests("tract.pipeline.stages.fit", ignored_fields=(*IGNORED_CODE, *REPORTED_CODE)), **named_code(config)},
        )

    def make(self, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
        """Trains, or goes on with a training that was cut off."""
        silence_library_logs()
        warn_of_rows(self.cfg.model)
        self.data.report()
        # Dropout differs between ranks, which see different examples.
        L.seed_everything(self.cfg.seed + rank_info().rank, workers=True, verbose=False)
        return _train(self, folder, tracker)


def fit(cfg: Config, resolved: DictConfig) -> Path:
    """Runs stage 1 alone, here; returns the complete folder.

    Args:
        cfg: the typed configuration. resolved: the same as composed, for the run folder.

    Raises:
        TractError: for anything that the user can mend.
    """
    return run_stage(FitStage(cfg, resolved), cfg, force=bool({"stage1", "all"} & set(cfg.force))).path


def silence_library_logs() -> None:
    """Keeps out what libraries print at every start and no user can act on; warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*`tensorboardX` has been removed.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated.*", category=FutureWarning)  # DeepSpeed's calls
    warnings.filterwarnings("ignore", message=".*Initializing zero-element tensors is a no-op.*")  # another rank holds them
    warnings.filterwarnings("ignore", message=".*It is recommended to use .self.log.*sync_dist=True.*")  # each rank has the value of all


def build(cfg: Config, data: Prepared, init_from: Path | None = None) -> tuple[TractLitModule, JudgeDataModule]:
    """The module and the loaders, before any weight is loaded."""
    objective = Objective(**vars(cfg.objective))
    packed = packs(cfg.model)
    datamodule = JudgeDataModule(
        data.tokens,
        data.rows["train"],
        data.rows["val"],
        data.layout,
        objective.supervised_kinds,
        share_prompts=shares_prompts(cfg),
        rows=not packed,
        global_batch_size=cfg.batch.global_batch_size,
        limits=Limits(cfg.batch.micro_batch_size, cfg.batch.max_tokens_per_micro_batch, padded=not packed),
        seed=cfg.seed,
        num_workers=cfg.data.num_workers,
        ranks=rank_info().size,
        rank=rank_info().rank,
    )
    steps = total_steps(cfg.train, datamodule.train_sampler.steps_per_epoch)
    warmup_steps(cfg.scheduler, steps)  # fails here, before the weights are loaded, if it is too long
    module = TractLitModule(
        build_model=partial(load_model, cfg.model, cfg.adapter, seed=cfg.seed, init_from=init_from, rows=not packed),
        trie=data.layout.trie,
        grid=data.layout.grid,
        objective=objective,
        build_optimizer=instantiate(cfg.optimizer, _convert_="all"),  # plain values: they go into checkpoints
        build_scheduler=partial(build_scheduler, cfg=cfg.scheduler),
        accumulate=datamodule.train_sampler.micro_batches_per_step,
        total_steps=steps,
    )
    module.stage = cfg.stage
    return module, datamodule


def total_steps(cfg: TrainConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole training: all epochs, unless ``max_steps`` ends it before."""
    steps = steps_per_epoch * cfg.max_epochs
    return steps if cfg.max_steps == -1 else min(steps, cfg.max_steps)


def warmup_steps(cfg: SchedulerConfig, total_steps: int) -> int:
    """Optimizer steps of the warm-up.

    Raises:
        ConfigError: if they are more than the steps of training.
    """
    steps = cfg.warmup_steps if cfg.warmup_steps is not None else math.ceil((cfg.warmup_fraction or 0.0) * total_steps)
    if steps > total_steps:
        raise ConfigError(f"scheduler.warmup_steps: {steps} steps of warm-up are more than the {total_steps} steps of training; lower it")
    return steps


def build_scheduler(optimizer: Optimizer, total_steps: int, cfg: SchedulerConfig) -> LRScheduler:
    """The learning-rate schedule over ``total_steps`` optimizer steps.

    Raises:
        ConfigError: if the warm-up is longer than the training, or ``scheduler.kwargs`` do not fit.
    """
    warmup = warmup_steps(cfg, total_steps)
    try:
        return get_scheduler(
            cfg.name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps, scheduler_specific_kwargs=cfg.kwargs
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"scheduler: {cfg.name} does not accept kwargs {cfg.kwargs}: {' '.join(str(error).split())}") from error


def _train(stage: FitStage, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
    cfg, data = stage.cfg, stage.data
    begun, first = time.perf_counter(), rank_info().is_first
    module, datamodule = build(cfg, data, stage.start.path if stage.start else None)
    if first:
        _describe(stage, folder, datamodule, module.objective)
    loggers = [*build_loggers(cfg, folder.working), *tracker.loggers()] if first else []
    status = "failed"
    try:
        training, weights = _run_trainer(cfg, module, datamodule, loggers, folder.working)
        status = "success"
    finally:
        close_loggers(loggers, status)
    if not first:
        return {}
    assert module.model is not None
    save_judge(module.model, data.tokenizer, folder.working, weights)
    if not cfg.train.keep_checkpoints:
        shutil.rmtree(folder.working / "checkpoints", ignore_errors=True)
    write_json(folder.working / "layout.json", {**data.layout.to_dict(), "prompt": asdict(data.template)})
    return {
        "parents": {role: str(product.path) for role, product in (("generate", stage.generated), ("start", stage.start)) if product},
        "data": {
            "source": data.store.fingerprint,
            "tokens": data.tokens.fingerprint,
            "counts": data.counts,
            "rater_agreement": None if data.agreement is None else data.agreement.to_dict(),
        },
        "training": {**training, "seconds_of_last_process": round(time.perf_counter() - begun, 1)},
    }


def _describe(stage: FitStage, folder: StageFolder, datamodule: JudgeDataModule, objective: Objective) -> None:
    """The configuration and one training item, for people."""
    write_config(folder.working, stage.resolved)
    data = stage.data
    shown = preview(datamodule.train_set.item(data.tokens.first_with_all(data.rows["train"])), data.layout, objective)
    agreement = f"agreement of raters: {data.agreement.sentence()}" if data.agreement is not None else ""
    facts = "".join(f"\n{said}\n" for said in (data.raters(), agreement, data.ratings_in_training(), data.scores_in_cots()) if said)
    (folder.working / "preview.txt").write_text(shown + facts, encoding="utf-8")
    log.info("%s: %s; preview.txt shows it token by token", stage.name, shown.partition("\n")[0])


def _run_trainer(
    cfg: Config, module: TractLitModule, datamodule: JudgeDataModule, loggers: list[Logger], folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Trains from the start or the newest checkpoint; returns facts for the manifest, and on rank 0 the weights to export."""
    validates = len(datamodule.val_sampler) > 0
    newest, best = checkpoints(cfg.train, folder / "checkpoints", validates=validates)
    edges = ValidateAtStartAndEnd(folder / "seed_metrics.json" if validates and cfg.train.validate_base_model else None)
    leaving = GracefulStop(cfg.stage, folder / "checkpoints")
    bar = [StepsBar(cfg.stage)] if cfg.trainer.get("enable_progress_bar", True) else []
    callbacks = [LookAtSequences(), leaving, Throughput(), newest, *([best] if best else []), edges, *bar]
    trainer = _trainer(cfg, callbacks, loggers, folder, module.accumulate, validates)
    resume: Path | None = broadcast_from_rank0(newest_checkpoint(folder / "checkpoints") if rank_info().is_first else None)
    _announce(cfg, module, datamodule, resume)
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    final = dict(module.validation_metrics)
    items = len(datamodule.val_sampler.lengths)
    _report(edges.seed_values, final, items)
    assert module.model is not None
    exported, weights = _export(cfg, module.model, best, final, items, trainer.global_step)
    if cfg.adapter.kind == "full":  # a judge's folder holds all weights: of a multimodal model those of its vision part too
        weights |= whole_weights(module.model, trained=False)
    facts = {
        "optimizer_steps": trainer.global_step,
        "processes": trainer.world_size,
        "trained_parameters": sum(elements_of(p) for p in module.parameters() if p.requires_grad),
        "resumed": resume is not None,
        "exported": exported,
        "seed_metrics": edges.seed_values,
        "final_metrics": final,
    }
    return facts, weights


def _trainer(cfg: Config, callbacks: list[Callback], loggers: list[Logger], root: Path, accumulate: int, validates: bool) -> L.Trainer:
    build_trainer = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    arguments: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": loggers or False,
        "default_root_dir": str(root),
        "max_epochs": cfg.train.max_epochs,
        "max_steps": cfg.train.max_steps,
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": cfg.train.gradient_clip_norm,
        # In micro-batches, counted over epochs.
        "val_check_interval": cfg.train.validate_every_steps * accumulate if validates else None,
        "check_val_every_n_epoch": None,
        "limit_val_batches": cfg.trainer.get("limit_val_batches", 1.0) if validates else 0,
        "num_sanity_val_steps": 0,
        # The base model is validated first, and weights that are built in inference mode could not be trained.
        "inference_mode": False,
        "use_distributed_sampler": False,
        "plugins": _plugins(cfg),
        "enable_model_summary": False,
    }
    if not _by_deepspeed(cfg) and (precision := own_precision(str(cfg.trainer.get("precision")))) is not None:
        arguments |= {"precision": None, "plugins": [*arguments["plugins"], precision]}
    try:
        trainer: L.Trainer = build_trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: cannot be built with {cfg.trainer}: {' '.join(str(error).split())}") from error
    return trainer


def _by_deepspeed(cfg: Config) -> bool:
    """Whether the strategy is ZeRO, which has a precision of its own."""
    strategy = cfg.trainer.get("strategy")
    return spreads_weights(cfg) and str(strategy and strategy.get("_target_")) == ZERO


def _plugins(cfg: Config) -> list[Any]:
    own_folders = spreads_weights(cfg)  # strategies that do write their checkpoints themselves
    # Said here, since Lightning takes a single process for one of several where SLURM's job has tasks.
    environment = TorchElasticEnvironment() if rank_info().size > 1 else LightningEnvironment()
    return [*([] if own_folders else [AtomicCheckpointIO()]), environment]


def _announce(cfg: Config, module: TractLitModule, datamodule: JudgeDataModule, resume: Path | None) -> None:
    sampler = datamodule.train_sampler
    processes = f" on each of {sampler.ranks} processes" if sampler.ranks > 1 else ""
    batch = f"{cfg.batch.global_batch_size} items in {module.accumulate} micro-batch{'es' * (module.accumulate > 1)}{processes}"
    tokens, supervised = (float(counts.mean()) * cfg.batch.global_batch_size for counts in (sampler.lengths, sampler.ce_tokens))
    budget = cfg.batch.max_tokens_per_micro_batch
    if budget is not None and (long := int((sampler.lengths > budget).sum())):
        found = f"{long} of {len(sampler.lengths)} training items are longer, the longest has {int(sampler.lengths.max())} tokens"
        log.warning("batch.max_tokens_per_micro_batch: %d, but %s; each of them is a micro-batch by itself", budget, found)
    begin = f"resuming from {resume}" if resume else "from the start"
    log.info(
        "%d optimizer steps of %s, about %.0f tokens a step, %.0f supervised; %s", module.total_steps, batch, tokens, supervised, begin
    )


def _report(seed: dict[str, float | None], final: dict[str, float | None], items: int) -> None:
    """Says how the trained judge compares with the base model, on the validation split's annotated CoTs."""
    if final:
        log.info("validation behind the last step, %d items with their CoTs%s:", items, ", before -> after training" if seed else "")
    for key, value in final.items():
        before = f"{_shown(seed[key])} -> " if key in seed else ""
        why = f" ({_alike(items)})" if value is None else ""
        log.info("  %-18s %s%s%s", key, before, _shown(value), why)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:8.4f}"


def _alike(items: int) -> str:
    """Why a correlation is undefined."""
    return "1 item" if items == 1 else f"{items} items, all of one score or of one prediction"


def _export(
    cfg: Config, model: nn.Module, best: BestWeights | None, final: dict[str, float | None], items: int, step: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Which weights are exported, and on rank 0 these weights. Every rank must call it.

    Args:
        best: the best weights of all validations. final: metrics of the last weights, on so many ``items``. step: of these.
    """
    monitor = cfg.train.monitor
    if cfg.train.keep_weights == "best" and best is not None:
        if monitor not in final:
            raise ConfigError(f"train.monitor: {monitor!r} is not among the validation metrics; accepted are {', '.join(sorted(final))}")
        if final[monitor] is None and best.score is None:
            log.warning(
                "train.monitor: %s was undefined in every validation (%s), so no weights are the best: the last ones are exported; "
                "give more validation items (data.max_val_items, data.val_fraction), or set train.monitor=val/rmse",
                monitor,
                _alike(items),
            )
        elif best.beats(final[monitor]):
            weights = best.load() if rank_info().is_first else {}
            return {"weights": "best", "step": best.step, monitor: best.score}, weights
    return {"weights": "last", "step": step, monitor: final.get(monitor)}, whole_weights(model)
