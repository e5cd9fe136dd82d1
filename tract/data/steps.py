"""Which examples make up each optimizer step, and how a step is cut into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tract.errors import ConfigError
from tract.objective import StepTotals


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The items of one forward and backward pass, and what the optimizer step that it belongs to holds in all."""

    items: tuple[int, ...]
    totals: StepTotals


class StepSampler(Sampler[MicroBatch]):
    """Deals the items of an epoch to optimizer steps and each step to micro-batches.

    An item is one prompt with its continuations. The order depends on seed and epoch alone; the last step of an epoch
    takes what is left. Every micro-batch carries the totals of its step, so that the objective's normalisation does not
    depend on the cut.

    Args:
        ce_tokens: [n] tokens under cross-entropy of each item. examples: [n] continuations of each item.
        items_per_step: items of an optimizer step.
        micro_batch_size: items of a micro-batch.
        seed: of the order. shuffle: whether the order changes with the epoch; else items come as they are.

    Raises:
        ConfigError: if there are fewer items than one step takes, or a step is not a whole number of micro-batches.
    """

    def __init__(
        self, ce_tokens: Sequence[int], examples: Sequence[int], *, items_per_step: int, micro_batch_size: int, seed: int, shuffle: bool
    ) -> None:
        if items_per_step % micro_batch_size:
            raise ConfigError(
                f"batch.items_per_step: {items_per_step} is not a multiple of batch.micro_batch_size={micro_batch_size}; change one of them"
            )
        if shuffle and len(ce_tokens) < items_per_step:
            raise ConfigError(
                f"batch.items_per_step: {items_per_step} is more than the {len(ce_tokens)} items of the training split; "
                "lower it or give more data"
            )
        self.ce_tokens = np.asarray(ce_tokens, dtype=np.int64)
        self.examples = np.asarray(examples, dtype=np.int64)
        self.items_per_step = items_per_step
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0  # micro-batches that the next iteration passes over, when a run is resumed

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        full, rest = divmod(len(self.ce_tokens), self.items_per_step)
        return full * (self.items_per_step // self.micro_batch_size) + math.ceil(rest / self.micro_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self.ce_tokens) / self.items_per_step)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[MicroBatch]:
        """The micro-batches of the current epoch; those before ``start`` are passed over, once."""
        n = len(self.ce_tokens)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(n) if self.shuffle else np.arange(n)
        # Used up at once: a trainer may leave an iterator before its end, and the next epoch begins at its start.
        start, self.start = self.start, 0
        number = 0
        for first in range(0, n, self.items_per_step):
            step = order[first : first + self.items_per_step]
            totals = StepTotals(int(self.ce_tokens[step].sum()), int(self.examples[step].sum()))
            for cut in range(0, len(step), self.micro_batch_size):
                if number >= start:
                    yield MicroBatch(tuple(int(i) for i in step[cut : cut + self.micro_batch_size]), totals)
                number += 1


class StepLoader(DataLoader[Any]):
    """A loader over a ``StepSampler`` that can be stopped and continued in the middle of an epoch.

    Lightning keeps ``state_dict`` in its checkpoints and gives it back on resume.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepSampler, num_workers: int) -> None:
        # A generator of its own: an iterator draws a number when it begins, and from the global generator that would shift
        # dropout in a run that is continued in the middle of an epoch.
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),
        )
        self._steps = sampler
        self._done = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the current epoch that were not yet taken."""
        self._done = self._steps.start
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many micro-batches of the epoch were taken."""
        return {"micro_batches_done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues after the micro-batches that were taken; a finished epoch begins anew."""
        done = state["micro_batches_done"]
        self._steps.start = 0 if done >= len(self._steps) else done
