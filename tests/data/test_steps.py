"""Steps: every item once an epoch, totals of the whole step, and continuing in the middle of an epoch."""

from __future__ import annotations

import pytest
from torch.utils.data import Dataset

from tract.data.steps import MicroBatch, StepLoader, StepSampler
from tract.errors import ConfigError

CE_TOKENS = [10 * (i + 1) for i in range(10)]
EXAMPLES = [1 + i % 3 for i in range(10)]


def _sampler(items_per_step: int = 4, micro_batch_size: int = 2, shuffle: bool = True, seed: int = 0) -> StepSampler:
    return StepSampler(CE_TOKENS, EXAMPLES, items_per_step=items_per_step, micro_batch_size=micro_batch_size, seed=seed, shuffle=shuffle)


def test_every_item_comes_once_an_epoch_and_the_last_step_takes_the_rest() -> None:
    sampler = _sampler()
    batches = list(sampler)
    assert sorted(item for batch in batches for item in batch.items) == list(range(10))
    assert [len(batch.items) for batch in batches] == [2, 2, 2, 2, 2]
    assert len(sampler) == 5
    assert sampler.steps_per_epoch == 3


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_totals_are_those_of_the_step_and_the_cut_does_not_change_the_step(micro_batch_size: int) -> None:
    whole = list(_sampler(micro_batch_size=4))
    cut = list(_sampler(micro_batch_size=micro_batch_size))
    assert [item for batch in cut for item in batch.items] == [item for batch in whole for item in batch.items]
    for step in whole:
        assert step.totals.ce_tokens == sum(CE_TOKENS[item] for item in step.items)
        assert step.totals.examples == sum(EXAMPLES[item] for item in step.items)
        assert {batch.totals for batch in cut if batch.items[0] in step.items} == {step.totals}


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = _sampler(), _sampler(), _sampler(seed=1)
    assert list(first) == list(again)
    assert list(first) == list(first)
    assert list(first) != list(other)
    first.set_epoch(1)
    assert list(first) != list(again)
    assert list(_sampler(shuffle=False, micro_batch_size=4))[0].items == (0, 1, 2, 3)


def test_fewer_items_than_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch.items_per_step: 16 is more than the 10 items"):
        _sampler(items_per_step=16)


def test_a_step_must_be_whole_micro_batches() -> None:
    with pytest.raises(ConfigError, match=r"batch.items_per_step: 4 is not a multiple of batch.micro_batch_size=3"):
        _sampler(micro_batch_size=3)


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
    fresh.load_state_dict({"micro_batches_done": len(whole)})
    assert list(fresh) == whole
