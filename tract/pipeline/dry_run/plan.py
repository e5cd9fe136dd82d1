"""A fit stage before any weight is loaded: the tokens, steps and micro-batches of its data, and what they need under a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.data.arrow_columns import arrow_column
from tract.data.datamodule import JudgeDataModule
from tract.data.generated_cots.file import COTS_FILE
from tract.data.steps import LengthSampler, Limits, StepSampler
from tract.inference.hf.sequences import packs, shares_prompts
from tract.method.objective import Objective
from tract.pipeline.dry_run.memory import MemoryPart, training_memory
from tract.pipeline.dry_run.model_facts import TokenCounts, describe_model
from tract.pipeline.dry_run.training_setup import setup_of, strategy_of
from tract.pipeline.stages.prepare import Prepared, prepare, prepare_generated
from tract.training.schedule import total_steps, warmup_steps

# Of a long training so many steps are looked at; by then a micro-batch that is longer than all of theirs is unlikely.
_STEPS_SEEN = 10_000


@dataclass(frozen=True)
class Items:
    """Items of a split, [n] int64 each.

    Attributes:
        prompts: tokens of the prompt. own: tokens of all continuations. ce_tokens: those under cross-entropy.
        examples: continuations, ratings among them in training. shared: whether these share the prompt.
    """

    prompts: NDArray[np.int64]
    own: NDArray[np.int64]
    ce_tokens: NDArray[np.int64]
    examples: NDArray[np.int64]
    shared: bool

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[n] int64, tokens in the model."""
        return self.prompts * (1 if self.shared else self.examples) + self.own

    def with_cots(self, n_cot: int) -> Items:
        """The same prompts with ``n_cot`` continuations, each as long as the annotated ones of its prompt are on average."""
        own, ce_tokens = (np.ceil(counts * n_cot / np.maximum(self.examples, 1)).astype(np.int64) for counts in (self.own, self.ce_tokens))
        return Items(self.prompts, own, ce_tokens, np.full_like(self.examples, n_cot), self.shared)

    def counts(self, score_nodes: int, share: float = 1.0) -> TokenCounts:
        """A share of all items; a token sees those before it on its own path. ``score_nodes``: places of an example's score."""
        one = self.own / np.maximum(self.examples, 1)
        of_prompts = self.prompts * (self.prompts + 1) / 2 * (1 if self.shared else self.examples)
        pairs = of_prompts + self.own * (self.prompts + (one + 1) / 2)
        reads = self.ce_tokens + score_nodes * self.examples
        return TokenCounts(float(self.tokens.sum()) * share, float(reads.sum()) * share, float(pairs.sum()) * share)


@dataclass(frozen=True)
class FitPlan:
    """A fit stage before anything is loaded.

    Attributes:
        name: of the stage. cfg: its configuration. data: examples and token ids. train, val: items.
        longest: tokens of a micro-batch of the longest items that there can be, where lengths are assumed; else 0.
        assumed: what is, in words, or "".
    """

    name: str
    cfg: Config
    data: Prepared
    train: Items
    val: Items
    longest: int
    assumed: str

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of both splits."""
        return max(int(items.prompts.max()) for items in (self.train, self.val) if len(items.prompts))


@dataclass(frozen=True)
class Workload:
    """A fit stage's work.

    Attributes:
        total_steps, steps_per_epoch: optimizer steps. micro_batches: of a step on each device.
        most_tokens: of a step. micro: the largest micro-batch of a device.
        step: an average step. validation: one validation. validations: how many. validation_batches: micro-batches of one.
    """

    total_steps: int
    steps_per_epoch: int
    micro_batches: int
    most_tokens: int
    micro: TokenCounts
    step: TokenCounts
    validation: TokenCounts
    validations: int
    validation_batches: int


def plan_of(name: str, cfg: Config, generated: Product | None) -> FitPlan:
    """What a fit stage is made from; stage 2's CoTs are assumed where they are not generated yet.

    Raises:
        TractError: if the data cannot be used.
    """
    real = name == "stage2" and generated is not None
    data = prepare_generated(cfg, *generated.file(COTS_FILE)) if real and generated else prepare(cfg, ratings=name != "stage2")
    train, val = items_of(cfg, data, "train"), items_of(cfg, data, "val")
    if name != "stage2" or real:
        return FitPlan(name, cfg, data, train, val, 0, "")
    n_cot, mixed = cfg.generation.n_cot, cfg.stage2.cots == "mixed"
    most = int(train.examples.max()) * mixed + n_cot
    train, val = (
        items.with_cots(n_cot + mixed * round(float(items.examples.mean() if len(items.examples) else 0))) for items in (train, val)
    )
    # A longer sequence is left out of training.
    after_prompt = np.minimum(cfg.generation.max_cot_tokens + data.layout.max_tail_tokens, data.lengths.training - train.prompts)
    together = 1 if cfg.batch.max_tokens_per_micro_batch else cfg.batch.micro_batch_size or cfg.batch.global_batch_size
    longest = int((train.prompts * (1 if train.shared else most) + most * after_prompt).max()) * together
    assumed = (
        f"its CoTs are not generated yet: {n_cot} of each prompt, as long as the annotated ones, are assumed; for memory, "
        f"a micro-batch whose CoTs have generation.max_cot_tokens={cfg.generation.max_cot_tokens}"
    )
    return FitPlan(name, cfg, data, train, val, longest, assumed)


def items_of(cfg: Config, data: Prepared, split: str) -> Items:
    """The items of a split, counted by the loaders' own sampler."""
    rows = data.rows[split]
    shared = shares_prompts(cfg)
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return Items(nothing, nothing, nothing, nothing, shared)
    supervised = Objective(**vars(cfg.objective)).supervised_kinds
    counts = JudgeDataModule(
        data.tokens, rows, [], data.layout, supervised,
        share_prompts=shared, ratings=split == "train", rows=not packs(cfg.model), global_batch_size=1, limits=Limits(1, None),
        seed=cfg.seed, num_workers=0,
    ).train_sampler  # fmt: skip
    lengths = np.asarray(pc.list_value_length(arrow_column(data.tokens.dataset, "prompt_ids")), dtype=np.int64)
    prompts = lengths[np.asarray(rows, dtype=np.int64)]
    own = counts.lengths - prompts * (1 if shared else counts.examples)
    return Items(prompts, own, counts.ce_tokens, counts.examples, shared)


def needs(plan: FitPlan, cfg: Config) -> tuple[Workload, list[MemoryPart]]:
    """What the stage does, and what a device holds for it, under a configuration that may differ from the plan's own.

    Raises:
        ConfigError: if the configuration does not go with the data or the model, the training split is smaller than one step, or
            the warm-up longer than the training.
    """
    model, strategy = describe_model(cfg), strategy_of(cfg)
    work = _workload(plan, cfg, strategy.devices)
    return work, training_memory(model, setup_of(cfg, model, strategy), work.micro)


def _workload(plan: FitPlan, cfg: Config, devices: int) -> Workload:
    train, val, score_nodes = plan.train, plan.val, len(plan.data.layout.trie.paths)
    limits = Limits(cfg.batch.micro_batch_size, cfg.batch.max_tokens_per_micro_batch, padded=not packs(cfg.model))
    counts = train.tokens, train.ce_tokens, train.examples
    sampler = StepSampler(*counts, global_batch_size=cfg.batch.global_batch_size, limits=limits, seed=cfg.seed, ranks=devices)
    steps = total_steps(cfg.train, sampler.steps_per_epoch)
    warmup_steps(cfg.scheduler, steps)
    micro, most = _largest(sampler, cfg.train.max_epochs, steps, score_nodes)
    if plan.longest > micro.tokens:
        micro = TokenCounts(plan.longest, math.ceil(micro.reads * plan.longest / micro.tokens))
    return Workload(
        total_steps=steps,
        steps_per_epoch=sampler.steps_per_epoch,
        micro_batches=sampler.micro_batches_per_step,
        most_tokens=most,
        micro=micro,
        step=train.counts(score_nodes, 1 / sampler.steps_per_epoch),
        validation=val.counts(score_nodes),
        validations=math.ceil(steps / cfg.train.validate_every_steps) + cfg.train.validate_base_model if len(val.prompts) else 0,
        validation_batches=len(LengthSampler(val.tokens, val.ce_tokens, val.examples, limits=limits, ranks=devices)),
    )


def _largest(sampler: StepSampler, epochs: int, steps: int, score_nodes: int) -> tuple[TokenCounts, int]:
    """The largest micro-batch, and tokens of the largest step. Rank 0 gets the heaviest part of each step, and gets it first."""
    largest, most, left, every = TokenCounts(0, 0), 0, min(steps, _STEPS_SEEN), sampler.micro_batches_per_step
    for epoch in range(min(epochs, math.ceil(left / sampler.steps_per_epoch))):
        sampler.set_epoch(epoch)
        order = np.random.default_rng([sampler.seed, epoch]).permutation(len(sampler.lengths))
        of_steps = np.add.reduceat(sampler.lengths[order], np.arange(0, len(order), sampler.global_batch_size))[:left]
        most = max(most, int(of_steps.max()))
        for micro in islice(sampler, 0, left * every, every):
            items = list(micro.items)
            if (tokens := int(sampler.lengths[items].sum())) > largest.tokens:
                largest = TokenCounts(tokens, int(sampler.ce_tokens[items].sum() + score_nodes * sampler.examples[items].sum()))
        left -= len(of_steps)
    return largest, most
