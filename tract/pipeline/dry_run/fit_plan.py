"""A fit stage as a dry run sees it: its items, and what it would need under any configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.data.generated_cots.file import COTS_FILE
from tract.pipeline.dry_run.memory import MemoryPart, training_memory
from tract.pipeline.dry_run.model_facts import Described, compute_of, describe_model, storage_of, strategy_of
from tract.pipeline.dry_run.workload import Items, Workload, items_of, workload
from tract.pipeline.stages.prepare import Prepared, prepare, prepare_generated


@dataclass(frozen=True)
class FitPlan:
    """A fit stage before anything is loaded.

    Attributes:
        name: of the stage. cfg: its configuration. data: examples and token ids.
        train, val: items. nodes: places of an example where its score is read.
        longest: tokens of a micro-batch of the longest items that there can be, where lengths are assumed; else 0.
        assumed: what is, in words, or "".
    """

    name: str
    cfg: Config
    data: Prepared
    train: Items
    val: Items
    nodes: int
    longest: int
    assumed: str


def plan_of(name: str, cfg: Config, generated: Product | None) -> FitPlan:
    """What a fit stage is made from; stage 2's CoTs are assumed where they are not generated yet.

    Raises:
        TractError: if the data cannot be used.
    """
    real = name == "stage2" and generated is not None
    data = prepare_generated(cfg, *generated.file(COTS_FILE)) if real and generated else prepare(cfg, ratings=name != "stage2")
    train, val = items_of(cfg, data, "train"), items_of(cfg, data, "val")
    longest, assumed = 0, ""
    if name == "stage2" and not real:
        n_cot, mixed = cfg.generation.n_cot, cfg.stage2.cots == "mixed"
        most = int(train.examples.max()) * mixed + n_cot
        train, val = (items.with_cots(n_cot + mixed * round(float(items.examples.mean() if len(items) else 0))) for items in (train, val))
        # A longer sequence is left out of training.
        behind = np.minimum(cfg.generation.max_cot_tokens + data.layout.max_tail_tokens, data.lengths.training - train.prompts)
        together = 1 if cfg.batch.max_tokens_per_micro_batch else cfg.batch.micro_batch_size or cfg.batch.global_batch_size
        longest = int((train.prompts * (1 if train.shared else most) + most * behind).max()) * together
        assumed = (
            f"its CoTs are not generated yet: {n_cot} of each prompt, as long as the annotated ones, are assumed; for memory, "
            f"a micro-batch whose CoTs have generation.max_cot_tokens={cfg.generation.max_cot_tokens}"
        )
    return FitPlan(name, cfg, data, train, val, len(data.layout.trie.paths), longest, assumed)


def needs(plan: FitPlan, cfg: Config) -> tuple[Workload, list[MemoryPart]]:
    """What the stage does, and what a device holds for it, under a configuration that may differ from the plan's own.

    Raises:
        ConfigError: if the configuration does not go with the data or the model.
    """
    model, strategy = described_once(cfg), strategy_of(cfg)
    work = workload(cfg, plan.train, plan.val, plan.nodes, strategy.devices, plan.longest)
    return work, training_memory(model.facts, storage_of(cfg, model, strategy), strategy, work.micro, compute_of(cfg))


def described_once(cfg: Config) -> Described:
    """``describe_model``, once for each model and adapter: building even an empty one takes seconds."""
    key = repr((cfg.model, cfg.adapter))
    if key not in _DESCRIBED:
        _DESCRIBED[key] = describe_model(cfg)
    return _DESCRIBED[key]


_DESCRIBED: dict[str, Described] = {}


def total(parts: list[MemoryPart]) -> float:
    """Bytes of a device."""
    return sum(part.device for part in parts)


def hosted(parts: list[MemoryPart]) -> float:
    """Bytes of each machine's memory."""
    return sum(part.host for part in parts)
