"""How much a fit stage will train on: tokens, steps and the largest micro-batch, known from the data before any weight is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tract.config.schema import Config
from tract.data.arrow_columns import arrow_column
from tract.data.datamodule import JudgeDataModule
from tract.data.steps import LengthSampler, Limits, StepSampler
from tract.inference.hf.sequences import packs, shares_prompts
from tract.method.objective import Objective
from tract.pipeline.dry_run.facts import MicroBatchSize
from tract.pipeline.dry_run.flops import Amount
from tract.pipeline.stages.prepare import Prepared
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

    def __len__(self) -> int:
        """N."""
        return len(self.prompts)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[n] int64, tokens in the model."""
        return self.prompts * (1 if self.shared else self.examples) + self.own

    def with_cots(self, n_cot: int) -> Items:
        """The same prompts with ``n_cot`` continuations, each as long as the annotated ones of its prompt are on average."""
        own, ce_tokens = (np.ceil(counts * n_cot / np.maximum(self.examples, 1)).astype(np.int64) for counts in (self.own, self.ce_tokens))
        return Items(self.prompts, own, ce_tokens, np.full_like(self.examples, n_cot), self.shared)

    def amount(self, nodes: int) -> Amount:
        """All items together; a token sees those before it on its own path. ``nodes``: places of an example where its score is read."""
        one = self.own / np.maximum(self.examples, 1)
        of_prompts = self.prompts * (self.prompts + 1) / 2 * (1 if self.shared else self.examples)
        pairs = of_prompts + self.own * (self.prompts + (one + 1) / 2)
        return Amount(float(self.tokens.sum()), float(pairs.sum()), float((self.ce_tokens + nodes * self.examples).sum()))


@dataclass(frozen=True)
class Workload:
    """A fit stage's work.

    Attributes:
        total_steps, steps_per_epoch: optimizer steps. micro_batches: of a step on each device.
        mean_tokens, most_tokens: of a step. micro: the largest micro-batch of a device.
        step: an average step. validation: one validation. validations: how many. validation_batches: micro-batches of one.
    """

    total_steps: int
    steps_per_epoch: int
    micro_batches: int
    mean_tokens: float
    most_tokens: int
    micro: MicroBatchSize
    step: Amount
    validation: Amount
    validations: int
    validation_batches: int


def items_of(cfg: Config, data: Prepared, split: str) -> Items:
    """The items of a split."""
    rows = data.rows[split]
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return Items(nothing, nothing, nothing, nothing, shares_prompts(cfg))
    supervised = Objective(**vars(cfg.objective)).supervised_kinds
    shared = shares_prompts(cfg)
    counts = JudgeDataModule(
        data.tokens, rows, [], data.layout, supervised,
        share_prompts=shared, ratings=split == "train", rows=not packs(cfg.model), global_batch_size=1, limits=Limits(1, None),
        seed=cfg.seed, num_workers=0,
    ).train_sampler  # fmt: skip
    lengths = np.asarray(pc.list_value_length(arrow_column(data.tokens.dataset, "prompt_ids")), dtype=np.int64)
    prompts = lengths[np.asarray(rows, dtype=np.int64)]
    own = counts.lengths - prompts * (1 if shared else counts.examples)
    return Items(prompts, own, counts.ce_tokens, counts.examples, shared)


def workload(cfg: Config, train: Items, val: Items, nodes: int, devices: int, longest: int = 0) -> Workload:
    """What a fit stage does with its items on so many devices.

    Args:
        nodes: places of an example where its score is read. longest: tokens that a micro-batch has at least, where the items'
            lengths are assumed.

    Raises:
        ConfigError: if the training split is smaller than one step, or the warm-up longer than the training.
    """
    limits = Limits(cfg.batch.micro_batch_size, cfg.batch.max_tokens_per_micro_batch, padded=not packs(cfg.model))
    counts = train.tokens, train.ce_tokens, train.examples
    sampler = StepSampler(*counts, global_batch_size=cfg.batch.global_batch_size, limits=limits, seed=cfg.seed, ranks=devices)
    steps = total_steps(cfg.train, sampler.steps_per_epoch)
    warmup_steps(cfg.scheduler, steps)
    micro, most = _largest(sampler, cfg.train.max_epochs, steps, nodes)
    if longest > micro.tokens:
        micro = MicroBatchSize(longest, math.ceil(micro.reads * longest / micro.tokens))
    return Workload(
        total_steps=steps,
        steps_per_epoch=sampler.steps_per_epoch,
        micro_batches=sampler.micro_batches_per_step,
        mean_tokens=float(train.tokens.sum()) / sampler.steps_per_epoch,
        most_tokens=most,
        micro=micro,
        step=train.amount(nodes).times(1 / sampler.steps_per_epoch),
        validation=val.amount(nodes),
        validations=(math.ceil(steps / cfg.train.validate_every_steps) + cfg.train.validate_base_model) if len(val) else 0,
        validation_batches=len(LengthSampler(val.tokens, val.ce_tokens, val.examples, limits=limits, ranks=devices)),
    )


def _largest(sampler: StepSampler, epochs: int, steps: int, nodes: int) -> tuple[MicroBatchSize, int]:
    """The largest micro-batch, and tokens of the largest step. Rank 0 gets the heaviest part of each step, and gets it first."""
    largest, most, seen = MicroBatchSize(0, 0), 0, 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order = np.random.default_rng([sampler.seed, epoch]).permutation(len(sampler.lengths))
        for number, micro in enumerate(sampler):
            step, part = divmod(number, sampler.micro_batches_per_step)
            if part:
                continue
            if seen == min(steps, _STEPS_SEEN):
                return largest, most
            seen += 1
            items, whole = list(micro.items), order[step * sampler.global_batch_size :][: sampler.global_batch_size]
            most = max(most, int(sampler.lengths[whole].sum()))
            if (tokens := int(sampler.lengths[items].sum())) > largest.tokens:
                largest = MicroBatchSize(tokens, int(sampler.ce_tokens[items].sum() + nodes * sampler.examples[items].sum()))
    return largest, most
