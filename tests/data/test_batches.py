"""Batches: masks, positions and padding of chains and trees."""

from __future__ import annotations

import pytest
import torch
from judge_items import TRACT, batch_of, make_items

from tract.data.batches import Item, attention_mask
from tract.layout import SequenceLayout
from tract.score_grid import ScoreGrid


def test_rows_are_chains_padded_on_the_right(tiny_layout: SequenceLayout) -> None:
    items = [Item("a", [10, 11], [([20, 21, 22], 4)], 5.0), Item("b", [10], [([20], 0)], 1.0)]
    batch = batch_of(items, tiny_layout, TRACT)
    cue, end = list(tiny_layout.cue_ids), tiny_layout.end_id
    long = [10, 11, 20, 21, 22, *cue, *tiny_layout.score_ids[4], end]
    short = [10, 20, *cue, *tiny_layout.score_ids[0], end]
    assert batch.input_ids.tolist() == [long, short + [1] * 3]
    assert batch.attention_mask.tolist() == [[1] * len(long), [1] * len(short) + [0] * 3]
    assert batch.position_ids[0].tolist() == list(range(len(long)))
    assert batch.tokens == len(long) + len(short)
    assert batch.scores.tolist() == [5.0, 1.0]
    # The score is read at the last cue token of each row.
    reads = batch.read_positions[batch.score_reads].flatten().tolist()
    assert reads == [5 + len(cue) - 1, len(long) + 2 + len(cue) - 1]
    # Row by row: what is predicted from a position is the token after it.
    flat = batch.input_ids.flatten()
    assert flat[batch.read_positions[batch.target_rows] + 1].tolist() == batch.target_ids.tolist()


def test_an_item_with_several_annotations_becomes_several_rows_of_one_item(tiny_layout: SequenceLayout) -> None:
    batch = batch_of(make_items(tiny_layout, 2, annotations=3), tiny_layout, TRACT)
    assert batch.input_ids.shape[0] == 6
    assert batch.item_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.targets.shape == (2,)
    assert batch.totals.examples == 6


def test_moving_a_batch_moves_its_tensors_and_keeps_the_rest(tiny_layout: SequenceLayout) -> None:
    batch = batch_of(make_items(tiny_layout, 2), tiny_layout, TRACT)
    moved = batch.to(torch.device("meta"))
    assert moved.input_ids.device.type == "meta"
    assert batch.input_ids.device.type == "cpu"
    assert moved.item_ids == batch.item_ids
    assert moved.totals == batch.totals


@pytest.mark.parametrize("labels", [("1", "2", "3"), ("1", "1.5", "2")])
def test_tree_mask_shows_each_token_its_own_path(tiny_layout: SequenceLayout, labels: tuple[str, ...]) -> None:
    """Token by token: a query sees exactly the tokens that lie on the path from the prompt to it."""
    layout = SequenceLayout(tiny_layout.tokenizer, tiny_layout.scaffold, tiny_layout.end_id, tiny_layout.cue, ScoreGrid(labels))
    tree = layout.tree([10, 11], [([20], 1), ([21, 22], 0)])
    assert not tree.is_chain
    width = len(tree.input_ids) + 2
    mask = attention_mask([tree], width)[0, 0]

    def on_path(query: int, key: int) -> bool:
        segment = tree.segment_ids[query]
        while segment != -1:
            if tree.segment_ids[key] == segment:
                return key <= query
            segment = tree.parents[segment]
        return False

    for query in range(width):
        for key in range(width):
            real = query < len(tree.input_ids) and key < len(tree.input_ids)
            assert bool(mask[query, key]) == (on_path(query, key) if real else query == key), (query, key)
