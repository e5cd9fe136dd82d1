"""Tokenised items of generated tasks, modules of the tiny model and their gradients on them: shared by several test files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tract.config.schema import AdapterConfig, ModelConfig
from tract.data.batches import JudgeBatch, TrainingItem, collate
from tract.data.sources.rubric_check.generator import RubricCheck
from tract.data.steps import StepTotals
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.models.loading import load_model
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptPart, PromptText
from tract.text.schema import JudgeExample

TRACT = Objective(
    ce_weight=1.0,
    score_loss="squared_error",
    score_loss_weight=1.0,
    ce_on_score=False,
    use_cot=True,
    train_on_ratings=True,
    normalize=False,
    score_loss_scaling="step",
)
CE_ONLY = dataclasses.replace(TRACT, score_loss_weight=0.0, ce_on_score=True)
REGRESSION_ONLY = dataclasses.replace(TRACT, ce_weight=0.0, use_cot=False)
FULL = AdapterConfig(kind="full", rank=8, alpha=16.0, dropout=0.0, target_modules=["all-linear"], exclude_modules=None)
LORA = dataclasses.replace(FULL, kind="lora")
TOLERANCE = 1e-5  # of relative_error


def make_module(cfg: ModelConfig, layout: SequenceLayout, objective: Objective = TRACT, adapter: AdapterConfig = FULL) -> TractLitModule:
    """A module with the weights of seed 3."""
    return _configured(lambda: load_model(cfg, adapter, seed=3), layout, objective)


def module_of(model: Any, layout: SequenceLayout) -> TractLitModule:
    """A module around a model."""
    return _configured(lambda: model.train(), layout, TRACT)


def _configured(build: Any, layout: SequenceLayout, objective: Objective) -> TractLitModule:
    module = TractLitModule(
        build, layout.trie, layout.grid, objective, lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer), accumulate=1, total_steps=1,
    )  # fmt: skip
    module.configure_model()
    return module


def make_items(layout: SequenceLayout, count: int, annotations: int = 1) -> list[TrainingItem]:
    """Items of very different lengths: every second prompt has its rubric, every third CoT is cut short."""
    items = []
    for number, example in enumerate(make_rubric_examples(count, annotations)):
        text = example.instruction + "\n" + example.response if number % 2 else example.response
        cots = [annotation.cot[: 40 if number % 3 == 0 else None] for annotation in example.annotations]
        scores = [layout.grid.index(annotation.score) for annotation in example.annotations]
        prompt_ids = layout.prompt_ids(PromptText("", (PromptPart(text),)))
        items.append(
            TrainingItem(
                example.id, prompt_ids, [(layout.cot_ids(c), s) for c, s in zip(cots, scores, strict=True)], float(example.target or 0)
            )
        )
    return items


def make_rubric_examples(count: int, annotations: int = 1) -> list[JudgeExample]:
    """Generated judge tasks, one response of each question."""
    source = RubricCheck(
        n_questions=count, responses_per_question=1, n_ood_questions=0, annotations_per_response=annotations,
        n_constraints=4, cot_noise=0.0, score_noise=0.0, seed=7, kinds=None, wording="varied",
    )  # fmt: skip
    return list(source.examples())


def totals_of(items: Sequence[TrainingItem], layout: SequenceLayout, objective: Objective) -> StepTotals:
    """Counts of a step, taken from the trees token by token."""
    trees = [layout.tree(item.prompt_ids, item.continuations, item.ratings) for item in items]
    tokens = sum(
        kind in objective.supervised_kinds and not tree.is_rating[owner]
        for tree in trees
        for kind, owner in zip(tree.target_kinds, tree.target_continuations, strict=True)
    )
    return StepTotals(tokens, sum(len(tree.score_index) for tree in trees))


def batch_of(
    items: Sequence[TrainingItem],
    layout: SequenceLayout,
    objective: Objective,
    totals: StepTotals | None = None,
    *,
    share_prompts: bool = True,
) -> JudgeBatch:
    """One micro-batch; by itself a whole step unless ``totals`` says otherwise."""
    totals = totals or totals_of(items, layout, objective)
    return collate(items, totals, layout, objective.supervised_kinds, share_prompts=share_prompts)


def gradient(module: TractLitModule, micro_batches: Sequence[JudgeBatch]) -> Tensor:
    """The gradient of one optimizer step as Lightning adds it up: each micro-batch's loss over their number."""
    module.zero_grad()
    module.accumulate = len(micro_batches)
    for number, batch in enumerate(micro_batches):
        (module.training_step(batch, number) / len(micro_batches)).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())
