"""The fit stage: fine-tunes the base model on judge examples and writes adapter or weights, tokenizer and layout."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import Product, write_config
from tract.artifacts.run_folder import StageFolder
from tract.common.distributed import rank_info
from tract.common.durable import write_json
from tract.config.ignored_fields import OF_STAGES
from tract.config.schema import Config
from tract.data.datamodule import JudgeDataModule
from tract.data.generated_cots.file import COTS_FILE
from tract.data.steps import Limits
from tract.inference.hf.sequences import packs, shares_prompts, warn_of_rows
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.models.loading import load_model
from tract.models.locating import model_fingerprint
from tract.models.saving import save_judge
from tract.pipeline.identity.keys import code_digests, key_fields, named_code
from tract.pipeline.stages.prepare import Prepared, limits_that_matter, prepare, prepare_generated
from tract.pipeline.stages.stage import IGNORED_CODE, REPORTED_CODE, run_stage
from tract.pipeline.tracking.loggers import build_loggers, close_loggers
from tract.pipeline.tracking.tracker import Tracker
from tract.training.library_messages import silence_library_logs
from tract.training.preview import preview
from tract.training.schedule import build_scheduler, total_steps, warmup_steps
from tract.training.trainer import TrainerFactory, run_training

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
        start: product of the fit stage whose weights training starts from; None starts from the base model.
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
        """Trains, or resumes an interrupted training."""
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
        TractError: for any fault that the user can fix.
    """
    return run_stage(FitStage(cfg, resolved), cfg, force=bool({"stage1", "all"} & set(cfg.force))).path


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
        ranks=rank_info().world_size,
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


def trainer_factory(cfg: Config) -> TrainerFactory:
    """Makes Lightning's trainer with the arguments of ``cfg.trainer``; the others are given when it is called."""
    made: TrainerFactory = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    return made


def _train(stage: FitStage, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
    """Trains and writes the judge: weights, tokenizer and layout; returns facts for the manifest."""
    cfg, data = stage.cfg, stage.data
    started, first = time.perf_counter(), rank_info().is_first
    module, datamodule = build(cfg, data, stage.start.path if stage.start else None)
    if first:
        _write_description(stage, folder, datamodule, module.objective)
    loggers = [*build_loggers(cfg, folder.working), *tracker.loggers()] if first else []
    status = "failed"
    try:
        training, weights = run_training(cfg, trainer_factory(cfg), module, datamodule, loggers, folder.working)
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
        "training": {**training, "seconds_of_last_process": round(time.perf_counter() - started, 1)},
    }


def _write_description(stage: FitStage, folder: StageFolder, datamodule: JudgeDataModule, objective: Objective) -> None:
    """Writes the configuration, and preview.txt with one training item token by token."""
    write_config(folder.working, stage.resolved)
    data = stage.data
    shown = preview(datamodule.train_set.item(data.tokens.first_with_all(data.rows["train"])), data.layout, objective)
    agreement = f"agreement of raters: {data.agreement.sentence()}" if data.agreement is not None else ""
    facts = "".join(f"\n{said}\n" for said in (data.raters(), agreement, data.ratings_in_training(), data.scores_in_cots()) if said)
    (folder.working / "preview.txt").write_text(shown + facts, encoding="utf-8")
    log.info("%s: %s; preview.txt shows it token by token", stage.name, shown.partition("\n")[0])
