"""``TractLitModule`` with the real trainer: steps, logs, overfitting, and stopping on what is not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import lightning as L
import pytest
import torch
from judge_items import TRACT, batch_of, make_items, totals_of
from test_gradients import CE_ONLY, FULL, REGRESSION_ONLY, make_module
from torch.utils.data import DataLoader

from tract.config import ModelConfig
from tract.data.batches import Item, JudgeBatch
from tract.errors import TrainingError
from tract.layout import SequenceLayout
from tract.lit_module import TractLitModule
from tract.metrics import judge_metrics
from tract.objective import Objective


def fit(
    module: TractLitModule,
    batches: Sequence[JudgeBatch],
    *,
    epochs: int = 1,
    clip: float | None = None,
    val: Sequence[JudgeBatch] | None = None,
) -> L.Trainer:
    """Trains on the given micro-batches, all of them in one optimizer step an epoch."""
    module.accumulate = len(batches)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=len(batches), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=clip, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, _loader(batches), _loader(val) if val else None)
    return trainer


def _loader(batches: Sequence[JudgeBatch]) -> DataLoader[Any]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def _cut(items: list[Item], layout: SequenceLayout, objective: Objective, size: int) -> list[JudgeBatch]:
    totals = totals_of(items, layout, objective)
    return [batch_of(items[k : k + size], layout, objective, totals) for k in range(0, len(items), size)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_step_of_the_trainer_does_not_depend_on_the_cut(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, size: int) -> None:
    """Weights after one SGD step: 8 micro-batches of 1, 4 of 2, 2 of 4, against 1 of 8."""
    items = make_items(tiny_layout, 8)

    def weights(size: int) -> torch.Tensor:
        module = make_module(tiny_model_config, tiny_layout)
        start = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
        fit(module, _cut(items, tiny_layout, TRACT, size))
        return torch.cat([p.detach().flatten() for p in module.parameters()]) - start

    moved, whole = weights(size), weights(8)
    assert whole.norm() > 0
    assert float((moved - whole).norm() / whole.norm()) <= 1e-4  # a difference of float32 weights loses digits


def test_overfit(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    """The tiny model on 4 examples brings the CoT's cross-entropy below 0.05 and the squared error below 0.01."""
    torch.manual_seed(0)
    module = make_module(tiny_model_config, tiny_layout)
    module._build_optimizer = lambda groups: torch.optim.AdamW(groups, lr=5e-3, weight_decay=0.0)
    items = make_items(tiny_layout, 4)
    trainer = fit(module, _cut(items, tiny_layout, TRACT, 4), epochs=250, clip=1.0)
    ce, squared_error = trainer.callback_metrics["train/ce"].item(), trainer.callback_metrics["train/squared_error"].item()
    assert ce < 0.05
    assert squared_error < 0.01


def test_logged_values_are_raw_and_weighted_and_add_up(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    objective = dataclasses.replace(TRACT, ce_weight=0.5, score_loss_weight=3.0)
    items = make_items(tiny_layout, 4)
    module = make_module(tiny_model_config, tiny_layout, objective)
    with torch.no_grad():
        parts = module.shared_step(batch_of(items, tiny_layout, objective))
    logged = {key: value.item() for key, value in fit(module, _cut(items, tiny_layout, objective, 2)).callback_metrics.items()}
    assert logged["train/ce"] == pytest.approx(parts.ce_sum.item() / parts.ce_tokens, rel=1e-5)
    assert logged["train/squared_error"] == pytest.approx(parts.squared_error.mean().item(), rel=1e-5)
    assert logged["train/score_mass"] == pytest.approx(parts.score_mass.mean().item(), rel=1e-5)
    assert logged["train/ce_loss"] == pytest.approx(0.5 * logged["train/ce"], rel=1e-5)
    assert logged["train/score_loss"] == pytest.approx(3.0 * logged["train/squared_error"], rel=1e-5)
    assert logged["train/loss"] == pytest.approx(logged["train/ce_loss"] + logged["train/score_loss"], rel=1e-5)
    assert logged["train/lr"] == pytest.approx(0.1 / 3, rel=1e-5)  # ConstantLR begins at a third
    assert logged["train/grad_norm"] > 0


def test_regression_only_logs_no_cross_entropy(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    logged = fit(
        make_module(tiny_model_config, tiny_layout, REGRESSION_ONLY), _cut(make_items(tiny_layout, 2), tiny_layout, REGRESSION_ONLY, 2)
    )
    assert "train/squared_error" in logged.callback_metrics
    assert not [key for key in logged.callback_metrics if key.startswith("train/ce")]


@pytest.mark.parametrize("objective", [TRACT, CE_ONLY], ids=["tract", "ce_only"])
def test_validation_averages_an_items_annotations_and_equals_a_loop(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, objective: Objective
) -> None:
    items = make_items(tiny_layout, 6, annotations=2)
    module = make_module(tiny_model_config, tiny_layout, objective)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)
    found = trainer.validate(module, _loader(_cut(items, tiny_layout, objective, 2)), verbose=False)[0]
    module.eval()
    predictions, ce_sum, ce_tokens = [], 0.0, 0
    for item in items:
        with torch.no_grad():
            parts = module.shared_step(batch_of([item], tiny_layout, objective))
        predictions.append(parts.expected_score.mean())
        ce_sum, ce_tokens = ce_sum + parts.ce_sum.item(), ce_tokens + parts.ce_tokens
    reference = judge_metrics("val/")
    reference.update(torch.stack(predictions), torch.tensor([item.target for item in items]))
    for key, value in reference.compute().items():
        assert found[key] == pytest.approx(value.item(), abs=1e-5), key
    assert found["val/ce"] == pytest.approx(ce_sum / ce_tokens, rel=1e-5)


def test_test_uses_the_same_step_under_its_own_keys(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    module = make_module(tiny_model_config, tiny_layout)
    batches = _cut(make_items(tiny_layout, 4), tiny_layout, TRACT, 2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)
    val = trainer.validate(module, _loader(batches), verbose=False)[0]
    test = trainer.test(module, _loader(batches), verbose=False)[0]
    assert {key.replace("test/", "val/"): value for key, value in test.items()} == val


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    items = make_items(tiny_layout, 4)
    module = make_module(tiny_model_config, tiny_layout)
    batches = _cut(items, tiny_layout, TRACT, 2)
    batches[1] = dataclasses.replace(batches[1], scores=torch.full_like(batches[1].scores, float("nan")))
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(
        TrainingError,
        match="optimizer step 1: loss or gradient is not finite .*squared_error nan.*rubric_check-7-q2-r0, rubric_check-7-q3-r0",
    ):
        fit(module, batches)
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


def test_checkpoints_hold_the_trained_weights_and_refuse_a_stranger(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    module = make_module(tiny_model_config, tiny_layout, adapter=dataclasses.replace(FULL, kind="lora"))
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == set(module.trained_names())
    module.on_load_checkpoint(checkpoint)
    checkpoint["state_dict"].popitem()
    with pytest.raises(TrainingError, match="checkpoint: lacks 1 trained weights"):
        module.on_load_checkpoint(checkpoint)


def test_random_numbers_go_on_after_a_checkpoint(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    module = make_module(tiny_model_config, tiny_layout)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    expected = torch.rand(3)
    module.on_load_checkpoint(checkpoint)
    module.on_train_start()
    assert torch.equal(torch.rand(3), expected)


def test_weight_decay_is_for_matrices_only(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    module = make_module(tiny_model_config, tiny_layout)
    module._build_optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.0, weight_decay=0.1)
    trainer = fit(module, _cut(make_items(tiny_layout, 2), tiny_layout, TRACT, 2))
    decay = {id(p): group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert {decay[id(p)] for p in module.parameters() if p.dim() >= 2} == {0.1}
    assert {decay[id(p)] for p in module.parameters() if p.dim() < 2} == {0.0}
