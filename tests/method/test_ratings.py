"""Scores without a CoT where CoTs are learned: the squared error trains them, and the cross-entropy covers none of their tokens."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from judge_items import TOLERANCE, TRACT, batch_of, gradient, make_items, make_module, relative_error, totals_of
from torch import Tensor

from tract.config.schema import ModelConfig
from tract.data.batches import TrainingItem
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.token_tree import TokenKind
from tract.training.preview import preview


def rated_items(layout: SequenceLayout, count: int) -> list[TrainingItem]:
    """Items with no rating, one or two; every fourth has ratings alone, and one of its scores twice."""
    ratings: list[list[int]] = [[], [0], [3, 1], [2, 2]]
    items = make_items(layout, count, annotations=2)
    return [
        dataclasses.replace(item, ratings=ratings[k % 4], continuations=[] if k % 4 == 3 else item.continuations)
        for k, item in enumerate(items)
    ]


def with_grid(layout: SequenceLayout, labels: tuple[str, ...]) -> SequenceLayout:
    return SequenceLayout(layout.tokenizer, layout.scaffold, layout.end_id, layout.cue, ScoreGrid(labels))


def plain_loss(module: TractLitModule, items: list[TrainingItem], layout: SequenceLayout) -> Tensor:
    """The objective from one full forward for each example, with softmax and sums as they are written down."""
    assert module.model is not None
    ce, n_tokens, squares = torch.zeros(()), 0, []
    score_ids = torch.tensor([ids[0] for ids in layout.score_ids])
    for item in items:
        no_cot: list[int] = []
        for number, (cot, score) in enumerate([*item.continuations, *((no_cot, rating) for rating in item.ratings)]):
            stem = [*item.prompt_ids, *cot, *layout.cue_ids]
            ids = [*stem, *layout.score_ids[score], layout.end_id]
            log_probs = torch.log_softmax(module.model(torch.tensor([ids])).logits[0].float(), dim=-1)
            probabilities = log_probs[len(stem) - 1, score_ids].exp()
            squares.append((layout.grid.values[score] - (probabilities * torch.tensor(layout.grid.values)).sum()) ** 2)
            if number < len(item.continuations):
                supervised = [place for place in range(len(item.prompt_ids), len(ids)) if place != len(stem)]
                ce = ce - sum((log_probs[place - 1, ids[place]] for place in supervised), start=torch.zeros(()))
                n_tokens += len(supervised)
    return ce / n_tokens + 0.5 * torch.stack(squares).sum() / len(squares)


def test_loss_and_gradient_are_those_of_separate_sequences(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    objective = dataclasses.replace(TRACT, score_loss_weight=0.5)
    items = rated_items(tiny_layout, 4)
    module = make_module(tiny_model_config, tiny_layout, objective)
    batch = batch_of(items, tiny_layout, objective)
    loss, ours = module.training_step(batch, 0), gradient(module, [batch])
    module.zero_grad()
    expected = plain_loss(module, items, tiny_layout)
    expected.backward()
    theirs = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(loss, expected)
    assert relative_error(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("labels", [("1", "2", "3", "4", "5"), tuple(str(n) for n in range(1, 11))])
def test_neither_the_cut_nor_shared_prompts_change_the_gradient(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, labels: tuple[str, ...]
) -> None:
    layout = with_grid(tiny_layout, labels)
    items = rated_items(layout, 8)
    module = make_module(tiny_model_config, layout)
    totals = totals_of(items, layout, TRACT)
    whole = gradient(module, [batch_of(items, layout, TRACT, totals)])
    assert whole.abs().max() > 1e-4
    alone = gradient(module, [batch_of(items, layout, TRACT, totals, share_prompts=False)])
    assert relative_error(alone, whole) <= TOLERANCE
    for size in (1, 2, 4):
        cut = [batch_of(items[k : k + size], layout, TRACT, totals) for k in range(0, 8, size)]
        assert relative_error(gradient(module, cut), whole) <= TOLERANCE, size


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("objective", [TRACT, dataclasses.replace(TRACT, ce_on_score=True)], ids=["tract", "ce_on_score"])
def test_no_token_of_a_rating_is_under_cross_entropy(tiny_layout: SequenceLayout, objective: Objective, share_prompts: bool) -> None:
    items = rated_items(tiny_layout, 4)
    bare = [dataclasses.replace(item, ratings=[]) for item in items]
    batch, without = (batch_of(each, tiny_layout, objective, share_prompts=share_prompts) for each in (items, bare))
    assert batch.target_ids.tolist() == without.target_ids.tolist()
    assert batch.totals.ce_tokens == without.totals.ce_tokens == batch.target_ids.numel()
    assert (batch.totals.examples, without.totals.examples) == (11, 6)
    # Each item's ratings follow its continuations, and are examples of it.
    assert batch.item_index.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    values = tiny_layout.grid.values
    assert batch.scores.tolist()[4] == values[0]
    assert batch.scores.tolist()[-4:] == [values[3], values[1], values[2], values[2]]
    assert batch.score_reads.shape[0] == 11
    tails = [len(items[k].prompt_ids) + len(tiny_layout.cue_ids) + 2 for k in (1, 2, 2, 3, 3)]
    assert batch.trained_tokens - without.trained_tokens == sum(tails)


def test_a_rating_alone_has_a_loss_without_cross_entropy(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    item = rated_items(tiny_layout, 4)[3]
    module = make_module(tiny_model_config, tiny_layout)
    batch = batch_of([item], tiny_layout, TRACT)
    parts = module.shared_step(batch)
    assert (parts.ce_tokens, parts.ce_sum.item()) == (0, 0.0)
    assert parts.squared_error[0].item() == pytest.approx(parts.squared_error[1].item())
    assert module.training_step(batch, 0).item() == pytest.approx(parts.squared_error.mean().item())


def test_a_rating_follows_the_prompt_and_sees_no_cot(tiny_layout: SequenceLayout) -> None:
    tree = tiny_layout.tree([10, 11, 12], [([20, 21], 1)], [4])
    alone = tiny_layout.tree([10, 11, 12], [([], 4)])
    own = len(tree.input_ids) - (len(alone.input_ids) - 3)
    assert tree.input_ids[own:] == alone.input_ids[3:]
    assert tree.position_ids[own:] == alone.position_ids[3:]
    assert tree.is_rating == [False, True]
    assert tree.score_index == [1, 4]
    assert [kind for kind, owner in zip(tree.target_kinds, tree.target_continuations, strict=True) if owner == 1] == [
        *[TokenKind.CUE] * len(tiny_layout.cue_ids), TokenKind.SCORE, TokenKind.END,
    ]  # fmt: skip


def test_the_preview_shows_a_rating_and_what_trains_it(tiny_layout: SequenceLayout) -> None:
    item = rated_items(tiny_layout, 4)[1]
    text = preview(item, tiny_layout, dataclasses.replace(TRACT, ce_on_score=True))
    assert "2 continuation(s), 1 rating(s) without a CoT, target" in text
    first, rating = text.split("a rating without a CoT, after the same prompt\n")
    assert "| score | cross-entropy and squared error" in first
    rows = rating.splitlines()[1:]
    assert len(rows) == len(tiny_layout.cue_ids) + 2
    assert [row.rpartition(" | ")[2] for row in rows] == [*["nothing"] * len(tiny_layout.cue_ids), "squared error", "nothing"]
    assert [row for row in rows if "*" in row.split("|")[0]] == [rows[-2]]
    assert "a rating without a CoT" in preview(rated_items(tiny_layout, 4)[3], tiny_layout, TRACT)


@pytest.mark.parametrize(
    ("changes", "trains"),
    [({}, True), ({"train_on_ratings": False}, False), ({"score_loss_weight": 0.0}, False), ({"use_cot": False}, False)],
)
def test_ratings_are_trained_on_where_the_squared_error_and_cots_are(changes: dict[str, float], trains: bool) -> None:
    assert dataclasses.replace(TRACT, **changes).trains_ratings is trains
