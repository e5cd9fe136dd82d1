"""``TractLitModule`` with the real trainer: steps, logs, overfitting, and stopping on what is not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from judge_items import CE_ONLY, FULL, REGRESSION_ONLY, TRACT, batch_of, make_items, make_module, totals_of
from torch.utils.data import DataLoader

from tract.common.errors import TrainingError
from tract.config.schema import ModelConfig
from tract.data.batches import JudgeBatch, TrainingItem
from tract.method.lit_module import TractLitModule
from tract.method.metrics import judge_metrics
from tract.method.objective import Objective
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.training.callbacks.checkpoints import AtomicCheckpointIO, OptimizerStepCheckpoint
from tract.training.strategies.precision import own_precision


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


def _cut(items: list[TrainingItem], layout: SequenceLayout, objective: Objective, size: int) -> list[JudgeBatch]:
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


@pytest.mark.kills
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
    reference = judge_metrics(torch.stack(predictions), torch.tensor([item.target for item in items]))
    for name, value in reference.items():
        assert found[f"val/{name}"] == pytest.approx(value, abs=1e-5), name
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


class _Planted(L.Callback):
    """Puts a number into a weight, or into a gradient, at one optimizer step (counted from 1)."""

    def __init__(self, value: float, *, at: int, gradient: bool = False) -> None:
        self.value, self.at, self.gradient = value, at, gradient

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.gradient and trainer.global_step + 1 == self.at:
            next(p for p in pl_module.parameters() if p.requires_grad).grad.flatten()[0] = self.value  # type: ignore[union-attr]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not self.gradient and trainer.global_step == self.at:
            with torch.no_grad():
                next(p for p in trainer.lightning_module.parameters() if p.requires_grad).flatten()[0] = self.value


class _Moment(L.Callback):
    """Puts infinity into a second moment of Adam behind an optimizer step."""

    def __init__(self, *, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.at:
            next(iter(trainer.optimizers[0].state.values()))["exp_avg_sq"].flatten()[0] = float("inf")


def _fit_planted(
    module: TractLitModule, batches: Sequence[JudgeBatch], folder: Path, *planted: L.Callback, clip: float | None = None, **more: Any
) -> None:
    """Six steps of one micro-batch each; a checkpoint behind every second one."""
    saves = OptimizerStepCheckpoint(dirpath=folder, filename="last-{step}", every_n_train_steps=2, save_on_train_epoch_end=False)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=6, logger=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=clip,
        num_sanity_val_steps=0, default_root_dir=str(folder), callbacks=[*planted, saves], plugins=[AtomicCheckpointIO()], **more,
    )  # fmt: skip
    module.total_steps = 99
    trainer.fit(module, _loader(batches), _loader(batches[:1]) if more.get("val_check_interval") else None)


def _finite_checkpoints(folder: Path) -> list[str]:
    found = sorted(folder.glob("*.ckpt"))
    for path in found:
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values()), path
    return [path.name for path in found]


@pytest.fixture
def one_by_one(tiny_layout: SequenceLayout) -> list[JudgeBatch]:
    """Six micro-batches, each a whole step."""
    return [batch_of([item], tiny_layout, TRACT) for item in make_items(tiny_layout, 6)]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_names_step_examples_and_checkpoint(
    tiny_model_config: ModelConfig,
    tiny_layout: SequenceLayout,
    one_by_one: list[JudgeBatch],
    tmp_path: Path,
    value: float,
    clip: float | None,
) -> None:
    """The loss is finite; clipping by an infinite norm would have made all of it 0."""
    module = make_module(tiny_model_config, tiny_layout)
    with pytest.raises(TrainingError) as error:
        _fit_planted(module, one_by_one, tmp_path, _Planted(value, at=4, gradient=True), clip=clip)
    text = str(error.value)
    assert text.startswith(
        f"training, optimizer step 4: loss or gradient is not finite (grad_norm {value}); its examples were rubric_check-7-q3-r0"
    )
    assert f"the last good checkpoint is {tmp_path}/last-step=2.ckpt (optimizer step 2)" in text
    assert _finite_checkpoints(tmp_path) == ["last-step=2.ckpt"]
    assert "\n" not in text


def test_a_squared_error_that_overflows_stops(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch]
) -> None:
    far = dataclasses.replace(one_by_one[0], scores=torch.full_like(one_by_one[0].scores, 1e20))
    with pytest.raises(TrainingError, match="optimizer step 1: .*squared_error inf.*there is no checkpoint yet"):
        fit(make_module(tiny_model_config, tiny_layout), [far])


def test_logits_that_are_not_finite_stop_training(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch]
) -> None:
    """An infinite logit of one token: the softmax has no value then. The model is not taken for one that changes its logits."""
    module = make_module(tiny_model_config, tiny_layout)
    module.configure_model()
    norm: Any = module.model.model.norm  # type: ignore[union-attr]
    norm.register_forward_hook(lambda _, args, hidden: hidden * float("inf"))
    with pytest.raises(TrainingError, match="optimizer step 1: .*ce nan.*squared_error nan.*score_mass nan"):
        fit(module, one_by_one[:1])
    assert not getattr(module.model, "_tract_changes_logits", False)


def test_an_infinite_learning_rate_is_told_by_the_weights(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch], tmp_path: Path
) -> None:
    """Found in the step behind it, by its loss, and told by its cause: weights, and the examples of the step that broke them."""
    module = make_module(tiny_model_config, tiny_layout)
    module._build_optimizer = lambda groups: torch.optim.SGD(groups, lr=float("inf"))
    with pytest.raises(TrainingError) as error:
        _fit_planted(module, one_by_one, tmp_path)
    text = str(error.value)
    assert "weights are not finite, e.g. " in text
    assert "behind optimizer step 1; they were finite behind step 0; the examples of step 1 were rubric_check-7-q0-r0; " in text
    assert "there is no checkpoint yet; lower optimizer.lr" in text
    assert _finite_checkpoints(tmp_path) == []


def test_a_checkpoint_is_never_written_with_weights_that_are_not_finite(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch], tmp_path: Path
) -> None:
    """Broken behind step 4, right before its checkpoint."""
    with pytest.raises(
        TrainingError, match=r"behind optimizer step 4; they were finite behind step 2; .*last-step=2.ckpt \(optimizer step 2\)"
    ):
        _fit_planted(make_module(tiny_model_config, tiny_layout), one_by_one, tmp_path, _Planted(float("nan"), at=4))
    assert _finite_checkpoints(tmp_path) == ["last-step=2.ckpt"]


def test_nor_with_moments_that_are_not_finite(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch], tmp_path: Path
) -> None:
    """An infinite second moment: all weights are finite, but one would never move again."""
    module = make_module(tiny_model_config, tiny_layout)
    module._build_optimizer = lambda groups: torch.optim.AdamW(groups, lr=1e-3)
    with pytest.raises(TrainingError, match="the optimizer's state is not finite behind optimizer step 2; there is no checkpoint yet"):
        _fit_planted(module, one_by_one, tmp_path, _Moment(at=2))
    assert _finite_checkpoints(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_validation_that_is_not_finite_becomes_no_metric(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = _cut(make_items(tiny_layout, 4), tiny_layout, TRACT, 2)
    module = make_module(tiny_model_config, tiny_layout)
    whole = module.shared_step

    def broken(batch: JudgeBatch) -> Any:
        parts = whole(batch)
        if batch.item_ids[0].endswith("q2-r0"):
            parts.expected_score[0] = value
        return parts

    monkeypatch.setattr(module, "shared_step", broken)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)
    with pytest.raises(
        TrainingError, match="validation behind optimizer step 0: .* not finite for rubric_check-7-q2-r0; there is no checkpoint"
    ):
        trainer.validate(module, _loader(batches), verbose=False)
    assert not [key for key in trainer.callback_metrics if key.startswith("val/")]


def test_frozen_weights_that_are_not_finite_stop_before_the_first_step(
    tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, one_by_one: list[JudgeBatch]
) -> None:
    """An embedding that no example uses: no loss would ever tell."""
    module = make_module(tiny_model_config, tiny_layout, adapter=dataclasses.replace(FULL, kind="lora"))
    module.configure_model()
    with torch.no_grad():
        module.model.get_input_embeddings().weight[-1, 0] = float("nan")  # type: ignore[union-attr, operator]
    with pytest.raises(
        TrainingError, match=r"weights are not finite, e.g. .*embed_tokens.weight, before the first step .*model.name_or_path"
    ):
        fit(module, one_by_one[:1])


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_grid_values_and_rotary_frequencies_stay_as_they_are_in_half_precision(
    tiny_model_config: ModelConfig, tiny_tokenizer: Any, precision: str
) -> None:
    """0.1 is no number of bfloat16; a score that is off by a 500th would be trained and read."""
    layout = SequenceLayout.build(tiny_tokenizer, system=False, cue=" Score: ", grid=ScoreGrid(("0.1", "0.7")), chat_template_kwargs={})
    module = make_module(tiny_model_config, layout)
    module.configure_model()
    plugin = own_precision(precision)
    assert plugin is not None
    plugin.convert_module(module)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16 if precision == "bf16-true" else torch.float16}
    assert torch.equal(module.grid_values, torch.tensor([0.1, 0.7]))
    rotary: Any = module.model.model.rotary_emb  # type: ignore[union-attr]
    assert rotary.inv_freq.dtype == torch.float32
    metrics: Any = module._evaluated["val"]
    metrics._predictions.append(torch.tensor([1.0, 2.0]))
    metrics._targets.append(torch.tensor([2.001, 2.002]))
    assert metrics.compute()[0]["val/rmse"] == pytest.approx(0.707815, rel=1e-5), "bfloat16 would say 0.707"
