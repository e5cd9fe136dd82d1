"""Batches: token trees packed behind each other, what is read where, and shared prompts."""

from __future__ import annotations

import pytest
import torch
from judge_items import TRACT, batch_of, make_items

from tract.data.batches import JudgeBatch, TrainingItem
from tract.models.tree_attention import visible_in
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.token_tree import SegmentRun


def test_rows_are_packed_without_padding(tiny_layout: SequenceLayout) -> None:
    items = [TrainingItem("a", [10, 11], [([20, 21, 22], 4)], 5.0), TrainingItem("b", [10], [([20], 0)], 1.0)]
    batch = batch_of(items, tiny_layout, TRACT)
    cue, end = list(tiny_layout.cue_ids), tiny_layout.end_id
    long = [10, 11, 20, 21, 22, *cue, *tiny_layout.score_ids[4], end]
    short = [10, 20, *cue, *tiny_layout.score_ids[0], end]
    assert batch.input_ids.tolist() == [long + short]
    assert batch.position_ids.tolist() == [[*range(len(long)), *range(len(short))]]
    assert batch.runs == (SegmentRun(0, len(long), ()), SegmentRun(len(long), len(long) + len(short), ()))
    assert batch.trained_tokens == len(long) + len(short)
    assert batch.scores.tolist() == [5.0, 1.0]
    # The score is read at the last cue token of each example.
    reads = batch.read_positions[batch.score_reads].flatten().tolist()
    assert reads == [5 + len(cue) - 1, len(long) + 2 + len(cue) - 1]
    # What is predicted from a position is the token after it.
    assert batch.input_ids[0, batch.read_positions[batch.target_rows] + 1].tolist() == batch.target_ids.tolist()


@pytest.mark.parametrize("share_prompts", [True, False])
def test_annotations_of_an_item_share_its_prompt_or_repeat_it(tiny_layout: SequenceLayout, share_prompts: bool) -> None:
    items = make_items(tiny_layout, 2, annotations=3)
    batch = batch_of(items, tiny_layout, TRACT, share_prompts=share_prompts)
    prompts = sum(len(item.prompt_ids) for item in items)
    assert batch.trained_tokens - batch.input_ids.shape[1] == (2 * prompts if share_prompts else 0)
    assert batch.item_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.targets.shape == (2,)
    assert batch.totals.examples == 6
    assert batch.scores.shape == (6,)


def test_targets_are_the_same_with_and_without_shared_prompts(tiny_layout: SequenceLayout) -> None:
    def content(batch: JudgeBatch) -> tuple[list[int], list[int], list[float]]:
        return batch.target_ids.tolist(), batch.target_kinds.tolist(), batch.scores.tolist()

    items = make_items(tiny_layout, 3, annotations=2)
    shared, alone = (batch_of(items, tiny_layout, TRACT, share_prompts=share) for share in (True, False))
    assert content(shared) == content(alone)


def test_moving_a_batch_moves_its_tensors_and_keeps_the_rest(tiny_layout: SequenceLayout) -> None:
    batch = batch_of(make_items(tiny_layout, 2), tiny_layout, TRACT)
    moved = batch.to(torch.device("meta"))
    assert moved.input_ids.device.type == "meta"
    assert batch.input_ids.device.type == "cpu"
    assert moved.item_ids == batch.item_ids
    assert moved.totals == batch.totals


@pytest.mark.parametrize("labels", [("1", "2", "3"), ("1", "1.5", "2")])
def test_runs_show_each_token_its_own_path(tiny_layout: SequenceLayout, labels: tuple[str, ...]) -> None:
    """Token by token: a query sees exactly the tokens that lie on the path from the prompt to it."""
    layout = SequenceLayout(tiny_layout.tokenizer, tiny_layout.scaffold, tiny_layout.end_id, tiny_layout.cue, ScoreGrid(labels))
    tree = layout.tree([10, 11], [([20], 1), ([21, 22], 0)])
    assert not tree.is_chain
    size = len(tree.input_ids)
    seen = visible_in(tree.runs, size)

    def on_path(query: int, key: int) -> bool:
        segment = tree.segment_ids[query]
        while segment != -1:
            if tree.segment_ids[key] == segment:
                return key <= query
            segment = tree.parents[segment]
        return False

    assert seen.tolist() == [[on_path(query, key) for key in range(size)] for query in range(size)]


def test_a_single_continuation_is_one_run_and_others_see_the_prompt(tiny_layout: SequenceLayout) -> None:
    first, second = ([20, 21], 1), ([22], 0)
    assert tiny_layout.tree([10, 11, 12], [first]).is_chain
    tree = tiny_layout.tree([10, 11, 12], [first, second])
    tail = len(tiny_layout.cue_ids) + len(tiny_layout.score_ids[1]) + 1
    assert tree.runs == [SegmentRun(0, 3 + 2 + tail, ()), SegmentRun(3 + 2 + tail, len(tree.input_ids), ((0, 3),))]
