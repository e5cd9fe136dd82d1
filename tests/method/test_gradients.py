"""Gradient equality in float32: neither packing, shared prompts nor the cut of a step into micro-batches changes the gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from judge_items import (
    CE_ONLY,
    FULL,
    LORA,
    REGRESSION_ONLY,
    TOLERANCE,
    TRACT,
    batch_of,
    gradient,
    make_items,
    make_module,
    relative_error,
    totals_of,
)

from tract.config.schema import AdapterConfig, ModelConfig
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.token_tree import TokenKind


@pytest.fixture(params=[TRACT, CE_ONLY, REGRESSION_ONLY], ids=["tract", "ce_only", "regression_only"])
def objective(request: Any) -> Objective:
    return request.param


def test_packing_changes_nothing(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, objective: Objective) -> None:
    items = make_items(tiny_layout, 8)
    lengths = {len(item.prompt_ids) + len(item.continuations[0][0]) for item in items}
    assert len(lengths) == 8, "the test needs rows of different lengths"
    module = make_module(tiny_model_config, tiny_layout, objective)
    totals = totals_of(items, tiny_layout, objective)
    packed = gradient(module, [batch_of(items, tiny_layout, objective, totals)])
    alone = gradient(module, [batch_of([item], tiny_layout, objective, totals) for item in items])
    assert relative_error(packed, alone) <= TOLERANCE


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_the_cut_into_micro_batches_changes_nothing(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, objective: Objective, adapter: AdapterConfig
) -> None:
    """1 x 8, 2 x 4, 4 x 2 and 8 x 1 (items of a micro-batch x micro-batches)."""
    items = make_items(tiny_layout, 8)
    module = make_module(tiny_model_config, tiny_layout, objective, adapter)
    totals = totals_of(items, tiny_layout, objective)
    whole = gradient(module, [batch_of(items, tiny_layout, objective, totals)])
    assert whole.abs().max() > 1e-4
    for size in (1, 2, 4):
        cut = [batch_of(items[k : k + size], tiny_layout, objective, totals) for k in range(0, 8, size)]
        assert relative_error(gradient(module, cut), whole) <= TOLERANCE, size


def test_gradient_reaches_only_what_is_trained(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    module = make_module(tiny_model_config, tiny_layout, adapter=LORA)
    gradient(module, [batch_of(make_items(tiny_layout, 2), tiny_layout, TRACT)])
    touched = {name for name, p in module.named_parameters() if p.grad is not None}
    assert touched == set(module.trained_names())
    assert touched
    assert all("lora_" in name for name in touched)


def test_gradient_checkpointing_changes_nothing(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    """And it is really on: a model left in evaluation mode would ignore it."""
    batch = batch_of(make_items(tiny_layout, 4), tiny_layout, TRACT)
    plain = gradient(make_module(tiny_model_config, tiny_layout, adapter=LORA), [batch])
    module = make_module(dataclasses.replace(tiny_model_config, gradient_checkpointing=True), tiny_layout, adapter=LORA)
    assert module.model is not None
    assert module.model.training
    assert module.model.is_gradient_checkpointing
    assert relative_error(gradient(module, [batch]), plain) <= TOLERANCE


def test_lambda_0_with_ce_on_the_score_is_plain_hugging_face_ce(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    """Loss and gradient of ``model(input_ids, labels=labels)`` with the prompt and the padding masked."""
    items = make_items(tiny_layout, 4)
    module = make_module(tiny_model_config, tiny_layout, CE_ONLY)
    batch = batch_of(items, tiny_layout, CE_ONLY)
    trees = [tiny_layout.tree(item.prompt_ids, item.continuations) for item in items]
    width = max(len(tree.input_ids) for tree in trees)
    ids = torch.tensor([tree.input_ids + [1] * (width - len(tree.input_ids)) for tree in trees])
    mask = torch.tensor([[1] * len(tree.input_ids) + [0] * (width - len(tree.input_ids)) for tree in trees])
    labels = ids.masked_fill(mask == 0, -100)
    for row, item in enumerate(items):
        labels[row, : len(item.prompt_ids)] = -100
    loss = module.training_step(batch, 0)
    ours = gradient(module, [batch])
    module.zero_grad()
    assert module.model is not None
    plain = module.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    plain.backward()
    theirs = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(loss, plain)
    assert relative_error(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize(
    "labels", [("1", "2", "3", "4", "5"), tuple(str(n) for n in range(1, 11)), ("1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5")]
)
def test_expected_score_in_the_model_is_that_of_whole_sequences(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, labels: tuple[str, ...]
) -> None:
    """Multi-token grids: y_hat from one token tree equals y_hat from a separate full forward for each node of the trie."""
    layout = SequenceLayout(tiny_layout.tokenizer, tiny_layout.scaffold, tiny_layout.end_id, tiny_layout.cue, ScoreGrid(labels))
    items = [
        dataclasses.replace(item, continuations=[(cot, 2 + k) for cot, _ in item.continuations])
        for k, item in enumerate(make_items(layout, 3))
    ]
    module = make_module(tiny_model_config, layout)
    parts = module.shared_step(batch_of(items, layout, TRACT))
    for number, item in enumerate(items):
        stem = [*item.prompt_ids, *item.continuations[0][0], *layout.cue_ids]
        assert parts.expected_score[number].item() == pytest.approx(_slow_expected_score(module, layout, stem), rel=1e-5)


def _slow_expected_score(module: TractLitModule, layout: SequenceLayout, stem: list[int]) -> float:
    """Sum of y p(y), p by the words of the design: the product along the label's tokens, up to where it is decided."""

    def p(path: tuple[int, ...], token: int) -> float:
        assert module.model is not None
        with torch.no_grad():
            logits = module.model(torch.tensor([[*stem, *path]])).logits[0, -1]
        return float(torch.softmax(logits.double(), -1)[token])

    def others_below(ids: tuple[int, ...], path: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [other for other in layout.score_ids if other != ids and other[: len(path)] == path]

    total = 0.0
    for value, ids in zip(layout.grid.values, layout.score_ids, strict=True):
        product = 1.0
        for n in range(len(ids)):
            if others_below(ids, ids[:n]):
                product *= p(ids[:n], ids[n])
        product *= 1 - sum(p(ids, token) for token in {other[len(ids)] for other in others_below(ids, ids)})
        total += value * product
    return total


def test_end_token_and_cue_are_under_cross_entropy_and_the_score_is_not(tiny_layout: SequenceLayout) -> None:
    batch = batch_of(make_items(tiny_layout, 2), tiny_layout, TRACT)
    kinds = batch.target_kinds.tolist()
    assert TokenKind.SCORE not in kinds
    assert kinds.count(TokenKind.END) == 2
    assert kinds.count(TokenKind.CUE) == 2 * len(tiny_layout.cue_ids)
