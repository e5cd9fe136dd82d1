"""Attention over packed token trees: equal, forward and backward, to sequences of their own, for every family and attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from judge_items import TRACT, batch_of, gradient, make_items, relative_error, totals_of
from test_gradients import FULL, LORA, make_module
from test_modeling import FAMILIES, _family
from torch import Tensor

from tract.attention import TREE, TokenRuns
from tract.config import ModelConfig
from tract.errors import ConfigError
from tract.forward import log_probs_at, logits_at, use_tree_attention
from tract.layout import Run, SequenceLayout
from tract.lit_module import TractLitModule
from tract.score_grid import ScoreGrid

TOLERANCE = 1e-5


def _module(model: Any, layout: SequenceLayout) -> TractLitModule:
    module = TractLitModule(
        lambda: model.train(), layout.trie, layout.grid, TRACT, lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer), accumulate=1, total_steps=1,
    )  # fmt: skip
    module.configure_model()
    return module


def _loss_and_gradient(module: TractLitModule, items: Any, layout: SequenceLayout, *, share_prompts: bool) -> tuple[float, Tensor]:
    """Shared: one micro-batch of trees. Not shared: a micro-batch for each example."""
    totals = totals_of(items, layout, TRACT)
    if share_prompts:
        batches = [batch_of(items, layout, TRACT, totals)]
    else:
        alone = [dataclasses.replace(item, continuations=[continuation]) for item in items for continuation in item.continuations]
        batches = [batch_of([item], layout, TRACT, totals) for item in alone]
    made = gradient(module, batches)
    loss = sum(float(parts[0]) for parts in module._step_parts)
    module._step_parts.clear()
    return loss, made


@pytest.mark.parametrize("labels", [("1", "2", "3", "4", "5"), tuple(str(n) for n in range(1, 11))], ids=["to_five", "to_ten"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prompts_give_loss_and_gradient_of_separate_sequences(family: str, labels: tuple[str, ...], tiny_tokenizer: Any) -> None:
    """All weights, float32, also with sliding windows shorter than the prompts and scores of two tokens."""
    layout = SequenceLayout.build(
        tiny_tokenizer, system=False, cue=" So the overall score is ", grid=ScoreGrid(labels), chat_template_kwargs={}
    )
    items = make_items(layout, 3, annotations=3)
    module = _module(_family(family), layout)
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
    _, by_runs = _loss_and_gradient(_module(_family(family), tiny_layout), items, tiny_layout, share_prompts=True)
    _, by_masks = _loss_and_gradient(_module(_family(family, attention), tiny_layout), items, tiny_layout, share_prompts=True)
    assert relative_error(by_masks, by_runs) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral-with-window", "gemma3_text"])
def test_flex_attention_gives_the_same_logits(family: str) -> None:
    """Forward only: on a CPU it has no backward."""
    runs = TokenRuns([Run(0, 6, ()), Run(6, 9, ((0, 4),)), Run(9, 20, ())])
    ids, positions = torch.arange(10, 30)[None], torch.tensor([[0, 1, 2, 3, 4, 5, 4, 5, 6, *range(11)]])
    with torch.no_grad():
        by_runs, by_blocks = (
            logits_at(_family(family, attention), ids, positions, torch.tensor([5, 8, 19]), runs=runs)
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
        plain, ours = (_family(family, attention)(input_ids=ids, attention_mask=mask).logits for attention in ("sdpa", TREE))
    torch.testing.assert_close(ours[mask.bool()], plain[mask.bool()])


def test_keys_that_a_tree_does_not_show_move_nothing(tiny_layout: SequenceLayout) -> None:
    """The gradient of one continuation's logits by another's embeddings is zero."""
    model = _family("llama")
    runs = TokenRuns([Run(0, 6, ()), Run(6, 9, ((0, 4),))])
    embedded: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, output: embedded.append(output.requires_grad_()) or output)
    logits = logits_at(model, torch.arange(10, 19)[None], torch.tensor([[0, 1, 2, 3, 4, 5, 4, 5, 6]]), torch.tensor([8]), runs=runs)
    (by_embedding,) = torch.autograd.grad(logits.sum(), embedded)
    assert (by_embedding[0].norm(dim=1) > 0).tolist() == [True] * 4 + [False] * 2 + [True] * 3


def test_capped_attention_is_refused_and_works_with_masks(tiny_layout: SequenceLayout) -> None:
    """Gemma 2 caps attention logits and final logits."""
    from test_modeling import SIZES
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("gemma2", **SIZES)
    ids = torch.arange(10, 20)[None]
    places, rows, tokens = torch.tensor([3, 9]), torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=TREE)
    with pytest.raises(ConfigError, match=r"tree knows neither capped attention logits nor sinks; set it to eager"):
        logits_at(model, ids, torch.arange(10)[None], places, runs=TokenRuns([Run(0, 10, ())]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        found = log_probs_at(model, ids, torch.arange(10)[None], TokenRuns([Run(0, 10, ())]), places, rows, tokens)
        expected = torch.log_softmax(model(input_ids=ids).logits[0, places], dim=-1)[rows, tokens]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["cohere", "granite"])
def test_models_that_scale_their_logits_are_found_out(family: str) -> None:
    """What the head returns is then not what the softmax sees."""
    from test_modeling import SIZES
    from transformers import AutoConfig, AutoModelForCausalLM

    scale = {"cohere": {"logit_scale": 0.3}, "granite": {"logits_scaling": 4.0}}[family]
    config = AutoConfig.for_model(family, **{name: value for name, value in SIZES.items() if name != "head_dim"}, **scale)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=TREE).eval()
    ids, places = torch.arange(10, 20)[None], torch.tensor([3, 9])
    rows, tokens = torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    with torch.no_grad():
        expected = torch.log_softmax(model(input_ids=ids).logits[0, places], dim=-1)[rows, tokens]
        for _ in range(2):  # found out, and remembered
            found = log_probs_at(model, ids, torch.arange(10)[None], TokenRuns([Run(0, 10, ())]), places, rows, tokens)
            torch.testing.assert_close(found, expected)


def test_an_attention_that_the_runs_do_not_reach_is_an_error() -> None:
    model = _family("llama")
    for layer in model.model.layers:
        layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ConfigError, match=r"tree does not reach the attention of LlamaForCausalLM; set it to sdpa or eager"):
        logits_at(model, torch.arange(10, 20)[None], torch.arange(10)[None], torch.tensor([3]), runs=TokenRuns([Run(0, 10, ())]))


def test_any_model_can_be_set_to_tree_attention_for_judging() -> None:
    model = _family("mistral", "sdpa")
    use_tree_attention(model)
    runs = TokenRuns([Run(0, 10, ())])
    logits_at(model, torch.arange(10, 20)[None], torch.arange(10)[None], torch.tensor([3]), runs=runs)
    assert runs.used
