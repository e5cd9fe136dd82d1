"""Which examples make up each optimizer step, and how a step is cut into micro-batches."""

from __future__ import annotations

import heapq
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from tract.common.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Totals of a whole optimizer step, over all its micro-batches and ranks.

    Attributes:
        ce_tokens: tokens under cross-entropy. examples: (CoT, score) pairs and ratings.
    """

    ce_tokens: int
    examples: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The items of one forward and backward pass, and the totals of its optimizer step.

    Attributes:
        items: indices of the items in their split. totals: of the whole optimizer step.
        is_padding: it repeats an item of its step, so that every rank has a forward and a backward pass at the same time; it adds
            nothing to loss, gradient and metrics.
    """

    items: tuple[int, ...]
    totals: StepTotals
    is_padding: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a micro-batch; a single item that is longer than ``tokens`` is a micro-batch by itself.

    Attributes:
        items: the most items; None for any number. tokens: the most tokens, shared ones counted once; None for any number.
        padded: whether items are rows padded to the longest one, so that each has as many tokens as that one.
    """

    items: int | None
    tokens: int | None
    padded: bool = False

    def fits(self, parts: Sequence[Sequence[int]], lengths: NDArray[np.int64]) -> bool:
        """Whether each part is within the limits; ``lengths`` [n] int64 are tokens of the items that parts index."""
        return all(len(part) <= 1 or self._fits_part(lengths[list(part)]) for part in parts)

    def _fits_part(self, lengths: NDArray[np.int64]) -> bool:
        enough_items = self.items is None or len(lengths) <= self.items
        return enough_items and (self.tokens is None or self._tokens_of(lengths) <= self.tokens)

    def _tokens_of(self, lengths: NDArray[np.int64]) -> int:
        return int(lengths.max()) * len(lengths) if self.padded else int(lengths.sum())


def cut_step(lengths: NDArray[np.int64], parts: int, most: int | None = None) -> list[list[int]]:
    """Partitions the items of a step into parts of about equal length: the longest item first, each to the shortest part so far.

    Args:
        lengths: [n] int64, tokens of each item. parts: their number; those beyond n stay empty. most: items of a part at most.

    Returns:
        Indices into ``lengths``, ascending within a part; the longest part first.
    """
    loads = [(0, number) for number in range(parts)]
    filled: list[list[int]] = [[] for _ in range(parts)]
    for item in np.argsort(-lengths, kind="stable").tolist():
        load, number = heapq.heappop(loads)
        filled[number].append(item)
        if most is None or len(filled[number]) < most:
            heapq.heappush(loads, (load + int(lengths[item]), number))
    return sorted((sorted(part) for part in filled), key=lambda part: -int(lengths[part].sum()))


def partition(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Indices of costs for each rank, ascending within a rank; the sums of costs are about equal."""
    return cut_step(np.asarray(costs, dtype=np.int64), ranks)


class StepSampler(Sampler[MicroBatch]):
    """Splits the items of an epoch into optimizer steps and each step into micro-batches.

    An item is one prompt with its continuations. Which items make up a step depends on seed and epoch alone; the last step of an
    epoch takes what is left. Every step is cut into the same number of micro-batches on each rank, as few as the longest possible
    step needs to be within the limits, and each micro-batch carries the totals of its step: the objective's normalisation, and so
    the gradient, depends neither on the cut nor on the ranks. Where a step has fewer items than parts, padding
    micro-batches take the place of the missing parts.

    Args:
        lengths: [n] int64, tokens of each item. ce_tokens: [n] int64, of them under cross-entropy. examples: [n] int64, continuations.
        global_batch_size: items of an optimizer step.
        limits: of a micro-batch.
        seed: of the order.
        ranks: processes that share each step. rank: which of them this one is; all get about as many tokens at a time.

    Raises:
        ConfigError: if there are fewer items than one step takes, or a step is not a whole number of micro-batches.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        ce_tokens: ArrayLike,
        examples: ArrayLike,
        *,
        global_batch_size: int,
        limits: Limits,
        seed: int,
        ranks: int = 1,
        rank: int = 0,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.ce_tokens = np.asarray(ce_tokens, dtype=np.int64)
        self.examples = np.asarray(examples, dtype=np.int64)
        if limits.items is not None and global_batch_size % limits.items:
            raise ConfigError(
                f"batch.global_batch_size: {global_batch_size} is not a multiple of "
                f"batch.micro_batch_size={limits.items}; change one of them"
            )
        if len(self.lengths) < global_batch_size:
            raise ConfigError(
                f"batch.global_batch_size: {global_batch_size} is more than the {len(self.lengths)} items of the training split; "
                "lower it or give more data"
            )
        self.global_batch_size = global_batch_size
        self.limits = limits
        self.seed = seed
        self.ranks, self.rank = ranks, rank
        self.epoch = 0
        self.start = 0  # micro-batches that the next iteration skips, when a run is resumed
        # The longest step that there can be; where it fits, each step does.
        self._longest = np.sort(self.lengths)[::-1][:global_batch_size].copy()
        self.micro_batches_per_step = self._micro_batches_per_step()

    def _micro_batches_per_step(self) -> int:
        """The fewest micro-batches of a rank with which the longest possible step is within the limits."""
        most = math.ceil(self.global_batch_size / self.ranks)
        for count in range(1, most):
            if self.limits.fits(cut_step(self._longest, count * self.ranks, self._most(count)), self._longest):
                return count
        return most

    def _most(self, count: int) -> int | None:
        """The most items of a part if a step has ``count`` micro-batches on each rank; more parts than needed may hold fewer."""
        room = None if self.limits.items is None else self.limits.items * count * self.ranks
        return self.limits.items if room is not None and room >= self.global_batch_size else None

    def __len__(self) -> int:
        """Micro-batches of an epoch on this rank."""
        return self.steps_per_epoch * self.micro_batches_per_step

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self.lengths) / self.global_batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[MicroBatch]:
        """The micro-batches of the current epoch; those before ``start`` are skipped, once."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        # Used up at once: a trainer may leave an iterator before its end, and the next epoch begins at its start.
        start, self.start = self.start, 0
        begun, skipped = divmod(start, self.micro_batches_per_step)
        for first in range(begun * self.global_batch_size, len(order), self.global_batch_size):
            step = order[first : first + self.global_batch_size]
            totals = StepTotals(int(self.ce_tokens[step].sum()), int(self.examples[step].sum()))
            shortest = int(np.argmin(self.lengths[step]))
            for part in self._cut(self.lengths[step])[skipped:]:
                yield MicroBatch(tuple(int(i) for i in step[part or [shortest]]), totals, is_padding=not part)
            skipped = 0

    def _cut(self, lengths: NDArray[np.int64]) -> list[list[int]]:
        """This rank's micro-batches of a step, as indices into it; the last ones are empty if there are more than items."""
        count = self.micro_batches_per_step * self.ranks
        parts = cut_step(lengths, count, self._most(self.micro_batches_per_step))
        if not self.limits.fits(parts, lengths):
            # Partitioning may fail where it succeeds for longer items. Each item takes the place that the item of the same rank by
            # length took in the longest possible step, so no part is longer than there.
            order = np.argsort(-lengths, kind="stable")
            pattern = cut_step(self._longest, count, self._most(self.micro_batches_per_step))
            parts = [sorted(int(order[k]) for k in part if k < len(order)) for part in pattern]
        # Longest first and in turn: at any time the ranks work on parts of about equal length.
        return parts[self.rank :: self.ranks]


class LengthSampler(Sampler[MicroBatch]):
    """All items in micro-batches by length, the longest first: for validation, which has no steps.

    Args:
        lengths, ce_tokens, examples: [n] as for ``StepSampler``. limits: of a micro-batch.
        ranks: processes that share the items. rank: which of them this one is; all get as many micro-batches, if need be with
            padding ones.
    """

    def __init__(
        self, lengths: ArrayLike, ce_tokens: ArrayLike, examples: ArrayLike, *, limits: Limits, ranks: int = 1, rank: int = 0
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._ce_tokens = np.asarray(ce_tokens, dtype=np.int64)
        self._examples = np.asarray(examples, dtype=np.int64)
        self.ranks, self.rank = ranks, rank
        self._parts: list[list[int]] = []
        for item in np.argsort(-self.lengths, kind="stable").tolist():
            if self._parts and limits.fits([[*self._parts[-1], item]], self.lengths):
                self._parts[-1].append(item)
            else:
                self._parts.append([item])

    def __len__(self) -> int:
        """Micro-batches of this rank."""
        return math.ceil(len(self._parts) / self.ranks)

    def __iter__(self) -> Iterator[MicroBatch]:
        """The micro-batches; each is a step by itself."""
        own = self._parts[self.rank :: self.ranks]
        for place in range(len(self)):
            part = own[place] if place < len(own) else self._parts[-1]
            totals = StepTotals(int(self._ce_tokens[part].sum()), int(self._examples[part].sum()))
            yield MicroBatch(tuple(part), totals, is_padding=place >= len(own))


def ignore_stop_signals(worker: int) -> None:
    """Makes a loader process ignore SIGINT and SIGTERM: its loader ends it, after the step that a stopped run finishes.

    Args:
        worker: its number, which ``DataLoader`` gives.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class StepLoader(DataLoader[Any]):
    """A loader over a ``StepSampler`` that can be stopped and continued in the middle of an epoch.

    Lightning keeps ``state_dict`` in its checkpoints and gives it back on resume. The number of micro-batches of a step is kept too, since
    another number of ranks cuts a step into another number of them.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepSampler, num_workers: int) -> None:
        # Its own generator: an iterator draws a number when it begins, and from the global generator that would shift
        # dropout in a run that is continued in the middle of an epoch.
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_stop_signals,
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
        """How many micro-batches of the epoch were taken, and how many a step has."""
        return {"micro_batches_done": self._done, "micro_batches_per_step": self._steps.micro_batches_per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues after the micro-batches that were taken; a finished epoch begins again."""
        now, then = self._steps.micro_batches_per_step, state["micro_batches_per_step"]
        done = state["micro_batches_done"]
        if now != then:
            assert done % then == 0, "a checkpoint is written after a whole step"
            done = done // then * now
        self._steps.start = 0 if done >= len(self._steps) else done
