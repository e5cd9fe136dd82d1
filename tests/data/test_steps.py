"""Steps: every item once an epoch, totals of the whole step, and continuing in the middle of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from tract.common.errors import ConfigError
from tract.data.steps import LengthSampler, Limits, MicroBatch, StepLoader, StepSampler, cut_step, partition

LENGTHS = np.array([50, 10, 90, 30, 70, 20, 100, 40, 80, 60])
CE_TOKENS = [10 * (i + 1) for i in range(10)]
EXAMPLES = [1 + i % 3 for i in range(10)]


def _sampler(global_batch_size: int = 4, limits: Limits = Limits(2, None), seed: int = 0, **ranks: int) -> StepSampler:  # noqa: B008
    return StepSampler(LENGTHS, CE_TOKENS, EXAMPLES, global_batch_size=global_batch_size, limits=limits, seed=seed, **ranks)


def _steps(sampler: StepSampler) -> list[list[int]]:
    """The items of each step, whatever the cut."""
    batches, size = list(sampler), sampler.micro_batches_per_step
    steps = [batches[k : k + size] for k in range(0, len(batches), size)]
    return [sorted(item for batch in step if not batch.is_padding for item in batch.items) for step in steps]


def test_every_item_comes_once_an_epoch_and_the_last_step_takes_the_rest() -> None:
    sampler = _sampler()
    batches = list(sampler)
    assert sorted(item for batch in batches for item in batch.items) == list(range(10))
    assert [len(batch.items) for batch in batches] == [2, 2, 2, 2, 1, 1]
    assert len(sampler) == 6
    assert sampler.steps_per_epoch == 3


@pytest.mark.parametrize("limits", [Limits(1, None), Limits(2, None), Limits(None, 100), Limits(None, 150), Limits(4, 190)])
def test_totals_are_those_of_the_step_and_the_cut_does_not_change_the_step(limits: Limits) -> None:
    whole, cut = _sampler(limits=Limits(None, None)), _sampler(limits=limits)
    assert whole.micro_batches_per_step == 1
    assert cut.micro_batches_per_step > 1
    assert _steps(cut) == _steps(whole)
    for step in whole:
        assert step.totals.ce_tokens == sum(CE_TOKENS[item] for item in step.items)
        assert step.totals.examples == sum(EXAMPLES[item] for item in step.items)
        assert {batch.totals for batch in cut if batch.items[0] in step.items} == {step.totals}


def test_a_step_of_several_ranks_is_the_step_of_one() -> None:
    """And at any time the ranks hold about equally many tokens."""
    alone = _sampler(limits=Limits(None, None))
    ranks = [_sampler(limits=Limits(None, 120), ranks=2, rank=rank) for rank in range(2)]
    assert {len(list(sampler)) for sampler in ranks} == {len(ranks[0])}
    for step, *cuts in zip(_steps(alone), *map(_steps, ranks), strict=True):
        assert sorted(item for cut in cuts for item in cut) == step
    for a, b in list(zip(*ranks, strict=True))[: -2 * 2]:
        assert abs(LENGTHS[list(a.items)].sum() - LENGTHS[list(b.items)].sum()) <= 40


@given(st.lists(st.integers(1, 400), min_size=4, max_size=60), st.integers(1, 8), st.integers(1, 500), st.integers(0, 3))
def test_no_micro_batch_exceeds_the_budget_but_a_single_long_item(lengths: list[int], items: int, budget: int, epoch: int) -> None:
    items = min(items, len(lengths))
    sampler = StepSampler(lengths, lengths, lengths, global_batch_size=items, limits=Limits(None, budget), seed=1)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert batch.items
        assert len(batch.items) == 1 or sum(lengths[item] for item in batch.items) <= budget
    if sampler.micro_batches_per_step > 1:
        longest = np.sort(lengths)[::-1][:items]
        fewer = cut_step(longest, sampler.micro_batches_per_step - 1)
        assert not Limits(None, budget).fits(fewer, longest), "one micro-batch less would have done"


def test_a_step_is_cut_into_about_equal_parts() -> None:
    lengths = np.array([90, 10, 80, 20, 70, 30, 60, 40])
    parts = cut_step(lengths, 4)
    assert [int(lengths[part].sum()) for part in parts] == [100] * 4
    assert sorted(item for part in parts for item in part) == list(range(8))
    assert [len(part) for part in cut_step(np.array([5, 4]), 3)] == [1, 1, 0]


def test_validation_goes_by_length_within_the_limits() -> None:
    batches = list(LengthSampler(LENGTHS, CE_TOKENS, EXAMPLES, limits=Limits(3, 150)))
    assert [list(LENGTHS[list(batch.items)]) for batch in batches] == [[100], [90], [80, 70], [60, 50, 40], [30, 20, 10]]
    assert sum(batch.totals.examples for batch in batches) == sum(EXAMPLES)
    assert list(LengthSampler([], [], [], limits=Limits(None, None))) == []


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = _sampler(), _sampler(), _sampler(seed=1)
    assert list(first) == list(again)
    assert list(first) == list(first)
    assert list(first) != list(other)
    first.set_epoch(1)
    assert list(first) != list(again)


def test_fewer_items_than_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch.global_batch_size: 16 is more than the 10 items"):
        _sampler(global_batch_size=16)


def test_a_step_must_be_whole_micro_batches() -> None:
    with pytest.raises(ConfigError, match=r"batch.global_batch_size: 4 is not a multiple of batch.micro_batch_size=3"):
        _sampler(limits=Limits(3, None))


class _Echo(Dataset[MicroBatch]):
    def __getitem__(self, micro: MicroBatch) -> MicroBatch:  # type: ignore[override]
        return micro


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("taken", [1, 3])
def test_a_loader_continues_where_another_stopped(taken: int, num_workers: int) -> None:
    whole = list(StepLoader(_Echo(), _sampler(), num_workers))
    stopped = StepLoader(_Echo(), _sampler(), num_workers)
    batches = iter(stopped)
    begun = [next(batches) for _ in range(taken)]
    state = stopped.state_dict()
    fresh = StepLoader(_Echo(), _sampler(), num_workers)
    fresh.load_state_dict(state)
    rest = iter(fresh)
    # Like a trainer that counts: it stops at the last batch and never asks for one more.
    assert begun + [next(rest) for _ in range(len(whole) - taken)] == whole
    assert list(fresh) == whole, "the next epoch begins at its start"


def test_state_after_a_whole_epoch_begins_the_next_one_at_its_start() -> None:
    loader = StepLoader(_Echo(), _sampler(), 0)
    whole = list(loader)
    fresh = StepLoader(_Echo(), _sampler(), 0)
    fresh.load_state_dict(loader.state_dict())
    assert list(fresh) == whole


def test_a_place_in_the_epoch_is_the_same_step_with_another_number_of_micro_batches() -> None:
    """Of a run on one process, whose steps have two micro-batches, that goes on on two, where they have one."""
    alone, two = _sampler(), [_sampler(ranks=2, rank=rank) for rank in range(2)]
    assert (alone.micro_batches_per_step, two[0].micro_batches_per_step) == (2, 1)
    steps = _steps(alone)
    stopped = StepLoader(_Echo(), alone, 0)
    batches = iter(stopped)
    for _ in range(2):
        next(batches)
    for sampler in two:
        StepLoader(_Echo(), sampler, 0).load_state_dict(stopped.state_dict())
    assert [sorted([*a, *b]) for a, b in zip(*map(_steps, two), strict=True)] == steps[1:]


def test_every_rank_has_as_many_micro_batches_and_those_that_fill_up_do_not_count() -> None:
    """Ten items in steps of four: the last step has two items for four ranks."""
    ranks = [list(_sampler(limits=Limits(None, None), ranks=4, rank=rank)) for rank in range(4)]
    assert {len(batches) for batches in ranks} == {3}
    assert [not batches[-1].is_padding for batches in ranks] == [True, True, False, False]
    fillers = {batches[-1].items for batches in ranks[2:]}
    assert len(fillers) == 1
    assert fillers < {batches[-1].items for batches in ranks}, "one of the step's own items"


def test_ranks_validate_each_item_once_and_equally_often() -> None:
    ranks = [LengthSampler(LENGTHS, CE_TOKENS, EXAMPLES, limits=Limits(3, 150), ranks=3, rank=rank) for rank in range(3)]
    batches = [list(sampler) for sampler in ranks]
    assert {len(of_rank) for of_rank in batches} == {len(sampler) for sampler in ranks} == {2}
    assert sorted(item for of_rank in batches for batch in of_rank if not batch.is_padding for item in batch.items) == list(range(10))


def test_parts_are_dealt_evenly() -> None:
    shares = partition([90, 10, 80, 20, 70, 30], 2)
    assert sorted(place for share in shares for place in share) == list(range(6))
    assert abs(sum([90, 10, 80, 20, 70, 30][place] for place in shares[0]) - 150) <= 10
    assert partition([], 3) == [[], [], []]


def test_rows_that_are_filled_up_count_as_the_longest() -> None:
    """One item of 4,000 tokens beside forty of 100 would fill 41 rows of 4,000."""
    lengths = np.array([4000, *[100] * 40])
    together, longest_alone = [list(range(41))], [[0], list(range(1, 41))]
    assert Limits(None, 8000).fits(together, lengths)
    assert not Limits(None, 8000, padded=True).fits(together, lengths)
    assert Limits(None, 8000, padded=True).fits(longest_alone, lengths)
