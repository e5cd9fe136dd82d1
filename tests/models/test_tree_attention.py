"""Attention over packed token trees: equal, forward and backward, to sequences of their own, for every family and attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from judge_items import FULL, LORA, TRACT, batch_of, gradient, make_items, make_module, module_of, relative_error, totals_of
from small_models import FAMILIES, SIZES, family_model
from torch import Tensor

from tract.config.schema import ModelConfig
from tract.method.lit_module import TractLitModule
from tract.models.packed_forward import logits_at
from tract.models.tree_attention import TREE, PackedSegments
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.token_tree import SegmentRun

TOLERANCE = 1e-5


def _loss_and_gradient(module: TractLitModule, items: Any, layout: SequenceLayout, *, share_prompts: bool) -> tuple[float, Tensor]:
    """Shared: one micro-batch of trees. Not shared: a micro-batch for each example."""
    totals = totals_of(items, layout, TRACT)
    if share_prompts:
        batches = [batch_of(items, layout, TRACT, totals)]
    else:
        alone = [dataclasses.replace(item, continuations=[continuation]) for item in items for continuation in item.continuations]
        batches = [batch_of([item], layout, TRACT, totals) for item in alone]
    made = gradient(module, batches)
    loss = sum(float(parts[0]) for parts in module.step_record.values)
    module.step_record.values.clear()
    return loss, made


@pytest.mark.parametrize("labels", [("1", "2", "3", "4", "5"), tuple(str(n) for n in range(1, 11))], ids=["to_five", "to_ten"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prompts_give_loss_and_gradient_of_separate_sequences(family: str, labels: tuple[str, ...], tiny_tokenizer: Any) -> None:
    """All weights, float32, also with sliding windows shorter than the prompts and scores of two tokens."""
    layout = SequenceLayout.build(
        tiny_tokenizer, system=False, cue=" So the overall score is ", grid=ScoreGrid(labels), chat_template_kwargs={}
    )
    items = make_items(layout, 3, annotations=3)
    module = module_of(family_model(family), layout)
    alone_loss, alone = _loss_and_gradient(module, items, layout, share_prompts=False)
    shared_loss, shared = _loss_and_gradient(module, items, layout, share_prompts=True)
    assert shared_loss == pytest.approx(alone_loss, rel=TOLERANCE)
    assert alone.norm() > 0
    assert relative_error(shared, alone) <= TOLERANCE


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_shared_prompts_with_adapters_and_gradient_checkpointing(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, adapter: Any, checkpointing: bool
) -> None:
    items = make_items(tiny_layout, 3, annotations=3)
    plain = make_module(tiny_model_config, tiny_layout, adapter=adapter)
    alone_loss, alone = _loss_and_gradient(plain, items, tiny_layout, share_prompts=False)
    module = make_module(dataclasses.replace(tiny_model_config, gradient_checkpointing=checkpointing), tiny_layout, adapter=adapter)
    shared_loss, shared = _loss_and_gradient(module, items, tiny_layout, share_prompts=True)
    assert shared_loss == pytest.approx(alone_loss, rel=TOLERANCE)
    assert relative_error(shared, alone) <= TOLERANCE


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_that_takes_masks_gives_the_same(family: str, attention: str, tiny_layout: SequenceLayout) -> None:
    items = make_items(tiny_layout, 2, annotations=2)
    _, by_runs = _loss_and_gradient(module_of(family_model(family), tiny_layout), items, tiny_layout, share_prompts=True)
    _, by_masks = _loss_and_gradient(module_of(family_model(family, attention), tiny_layout), items, tiny_layout, share_prompts=True)
    assert relative_error(by_masks, by_runs) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral-with-window", "gemma3_text"])
def test_flex_attention_gives_the_same_logits(family: str) -> None:
    """Forward only: on a CPU it has no backward."""
    runs = PackedSegments([SegmentRun(0, 6, ()), SegmentRun(6, 9, ((0, 4),)), SegmentRun(9, 20, ())])
    ids, positions = torch.arange(10, 30)[None], torch.tensor([[0, 1, 2, 3, 4, 5, 4, 5, 6, *range(11)]])
    with torch.no_grad():
        by_runs, by_blocks = (
            logits_at(family_model(family, attention), ids, positions, torch.tensor([5, 8, 19]), runs=runs)
            for attention in (TREE, "flex_attention")
        )
    torch.testing.assert_close(by_blocks, by_runs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_called_without_runs_attends_as_ever(family: str) -> None:
    """Also with padding: generate, or any other user of the model, gets plain causal attention."""
    ids = torch.randint(10, 500, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    with torch.no_grad():
        plain, ours = (family_model(family, attention)(input_ids=ids, attention_mask=mask).logits for attention in ("sdpa", TREE))
    torch.testing.assert_close(ours[mask.bool()], plain[mask.bool()])


def test_keys_that_a_tree_does_not_show_move_nothing(tiny_layout: SequenceLayout) -> None:
    """The gradient of one continuation's logits by another's embeddings is zero."""
    model = family_model("llama")
    runs = PackedSegments([SegmentRun(0, 6, ()), SegmentRun(6, 9, ((0, 4),))])
    embedded: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, output: embedded.append(output.requires_grad_()) or output)
    logits = logits_at(model, torch.arange(10, 19)[None], torch.tensor([[0, 1, 2, 3, 4, 5, 4, 5, 6]]), torch.tensor([8]), runs=runs)
    (by_embedding,) = torch.autograd.grad(logits.sum(), embedded)
    assert (by_embedding[0].norm(dim=1) > 0).tolist() == [True] * 4 + [False] * 2 + [True] * 3


@pytest.mark.parametrize("attention", [TREE, "eager"])
def test_capped_attention_is_that_of_transformers(attention: str) -> None:
    """Gemma 2 caps products and final logits; a call without runs does not pass over the cap either."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("gemma2", **SIZES, attn_logit_softcapping=0.5)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    ids, places = torch.arange(10, 20)[None], torch.tensor([3, 9])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
        model.set_attn_implementation(attention)
        found = logits_at(model, ids, torch.arange(10)[None], places, runs=PackedSegments([SegmentRun(0, 10, ())]))
        torch.testing.assert_close(found, expected[places], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(input_ids=ids).logits[0], expected, rtol=1e-4, atol=1e-4)
        model.set_attn_implementation("sdpa")
        assert (model(input_ids=ids).logits[0] - expected).abs().max() > 1e-2, "the cap moves nothing here"
