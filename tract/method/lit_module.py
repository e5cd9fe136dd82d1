"""``TractLitModule``: wires model, objective and metrics to Lightning. It holds no formula."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tract.data.batches import JudgeBatch
from tract.method.checkpoint_state import CheckpointState
from tract.method.finite_checks import FiniteChecks
from tract.method.objective import Objective, ObjectiveParts, objective_parts, step_shares
from tract.method.predictors import score_pairs
from tract.method.score_losses import score_loss_of
from tract.method.split_metrics import SplitMetrics
from tract.method.step_record import StepRecord
from tract.models.packed_forward import log_probs_at
from tract.models.sharding import Build, elements_of, shape_of
from tract.models.tree_attention import PackedSegments
from tract.text.score_grid import ScoreGrid, ScoreTrie

log = logging.getLogger(__name__)

ParamGroups = Iterable[dict[str, Any]]


class TractLitModule(L.LightningModule):
    """Trains a judge with the TRACT objective (arXiv 2503.04381).

    ``shared_step`` serves training, validation and test: it returns the CoT's cross-entropy and the loss of the score as parts; lambda and
    the normalization over the whole optimizer step are applied by ``objective.step_shares``. ``FiniteChecks`` stops all ranks together at
    the first loss, gradient, weight or optimizer state that is not finite.

    Args:
        build_model: makes the base model with its adapter, see ``tract.models.sharding.Build``; called in ``configure_model``.
        trie: the decisions between the scores in this tokenizer.
        grid: the scores.
        objective: terms and weights.
        build_optimizer: makes the optimizer from parameter groups.
        build_scheduler: makes the schedule from (optimizer, number of optimizer steps); stepped every optimizer step.
        accumulate: micro-batches of an optimizer step.
        total_steps: optimizer steps of the whole training. Asking the trainer for it would set its loaders up before a
            checkpoint is restored, and the place in the epoch would be lost.
    """

    # The base weights come from the base model again, so a checkpoint holds the trained ones alone.
    strict_loading = False

    def __init__(
        self,
        build_model: Build,
        trie: ScoreTrie,
        grid: ScoreGrid,
        objective: Objective,
        build_optimizer: Callable[[ParamGroups], Optimizer],
        build_scheduler: Callable[[Optimizer, int], LRScheduler],
        accumulate: int,
        total_steps: int,
    ) -> None:
        super().__init__()
        self._build_model = build_model
        self.trie = trie
        self.objective = objective
        self._score_loss = score_loss_of(objective.score_loss)
        self._build_optimizer = build_optimizer
        self._build_scheduler = build_scheduler
        self.accumulate = accumulate
        self.total_steps = total_steps
        # No buffer: a strategy that stores the model in half precision would round the scores with it.
        self.grid_values = torch.tensor(grid.values, dtype=torch.float32)
        self.model: nn.Module | None = None
        self.step_record = StepRecord()
        self.finite_checks = FiniteChecks(self, self.step_record)
        self.stage = "training"  # the stage's name, for errors
        self.validation_metrics: dict[str, float | None] = {}  # None where one is undefined
        self.validated_at = -1  # optimizer steps before the last validation
        self._checkpoint_state = CheckpointState()
        self._evaluated = nn.ModuleDict({name: SplitMetrics(name) for name in ("val", "test")})

    def configure_model(self) -> None:
        """Builds the weights, once; a strategy that spreads them over ranks has a ``create`` for it."""
        if self.model is None:
            create = getattr(self.trainer.strategy, "create", None) if self.has_trainer else None
            self.model = create(self._build_model) if create else self._build_model()
            sizes = [(elements_of(p), p.requires_grad) for p in self.model.parameters()]
            trained = sum(size for size, is_trained in sizes if is_trained)
            log.info("model: %s of %s parameters are trained", f"{trained:,}", f"{sum(size for size, _ in sizes):,}")

    def shared_step(self, batch: JudgeBatch) -> ObjectiveParts:
        """Parts of the objective for a micro-batch, for training, validation and test alike."""
        assert self.model is not None, "configure_model has not run"
        self.grid_values = self.grid_values.to(batch.input_ids.device)
        nodes, tokens = score_pairs(self.trie, batch.input_ids.device)
        reads = batch.score_reads[:, nodes]  # [M, K] -> [M, P]
        log_probs = log_probs_at(
            self.model,
            batch.input_ids,
            batch.position_ids,
            PackedSegments(batch.runs),
            batch.read_positions,
            rows=torch.cat([batch.target_rows, reads.flatten()]),
            tokens=torch.cat([batch.target_ids, tokens.expand_as(reads).flatten()]),
        )
        of_targets, of_scores = log_probs.split([batch.target_ids.numel(), reads.numel()])
        return objective_parts(
            of_targets,
            of_scores.view_as(reads),
            batch.scores,
            self.trie,
            self.grid_values,
            score_loss=self._score_loss,
            normalize=self.objective.normalize,
        )

    def training_step(self, batch: JudgeBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the step's loss."""
        shares = step_shares(self.shared_step(batch), batch.totals, self.objective)
        self.step_record.add(batch, shares)
        return shares["loss"] * (0 if batch.is_padding else self._undo_averages)

    @property
    def _undo_averages(self) -> int:
        """The shares add up to the step's loss, but the gradient is averaged over micro-batches and ranks: this is the factor between."""
        if not self.has_trainer:
            return self.accumulate
        # Lightning divides by the number of micro-batches, and DeepSpeed once more.
        own_division = self.accumulate if self.trainer.strategy.handles_gradient_accumulation else 1
        return self.accumulate * own_division * self.trainer.world_size

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer over what is trained; weight decay for matrices only."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if len(shape_of(p)) >= 2]},
            {"params": [p for p in trained if len(shape_of(p)) < 2], "weight_decay": 0.0},
        ]
        optimizer = self._build_optimizer([group for group in groups if group["params"]])
        scheduler = self._build_scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Logs the step and refuses to apply a gradient that is not finite."""
        self.step_record.before_update(self, optimizer)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's step, then what DeepSpeed knows only after it; both before anything is saved."""
        super().optimizer_step(*args, **kwargs)
        self.step_record.after_update(self)

    def on_validation_epoch_start(self) -> None:
        """Begins a validation run, with weights that are finite."""
        self._begin_evaluation("val")

    def validation_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the validation metrics."""
        self._evaluate_batch("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics, and keeps them with the step that they belong to."""
        self.validation_metrics = self._log_evaluated("val")
        self.validated_at = self.global_step

    def on_test_epoch_start(self) -> None:
        """Begins a test run, with weights that are finite."""
        self._begin_evaluation("test")

    def test_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the test metrics."""
        self._evaluate_batch("test", batch)

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_evaluated("test")

    def _begin_evaluation(self, name: str) -> None:
        self.finite_checks.check_weights()
        self._evaluated[name].reset()  # type: ignore[operator]

    def _evaluate_batch(self, name: str, batch: JudgeBatch) -> None:
        self._evaluated[name].update(self.shared_step(batch), batch)  # type: ignore[operator]

    def _log_evaluated(self, name: str) -> dict[str, float | None]:
        values, bad = self._evaluated[name].compute()  # type: ignore[operator]
        if bad:
            self.finite_checks.refuse_items("validation" if name == "val" else name, bad)
        for key, value in values.items():  # those of all ranks
            if value is not None:
                self.log(key, value, prog_bar=key.endswith(("pearson_r", "/rmse")))
        return values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only the trained weights, if they and the optimizer's state are finite, and adds ``CheckpointState``."""
        self.finite_checks.check_weights()
        self.finite_checks.check_optimizers()
        self._checkpoint_state.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint has all trained weights, and takes over ``CheckpointState``."""
        self._checkpoint_state.load(self, checkpoint)

    def on_train_start(self) -> None:
        """Sets the random numbers to where the checkpoint left them; what is set up before may draw some."""
        self.finite_checks.check_weights()
        self._checkpoint_state.restore_random_numbers()

    def on_train_end(self) -> None:
        """Checks the weights, so that none is exported that is not finite."""
        self.finite_checks.check_weights()

    @property
    def has_trainer(self) -> bool:
        """Whether a trainer runs this module; ``trainer`` raises where none does."""
        return self._trainer is not None

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, of the same shape. Every rank must call it."""
        if not self.has_trainer:
            return values
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total

    def trained_names(self) -> list[str]:
        """Names of the parameters that are trained."""
        return [name for name, p in self.named_parameters() if p.requires_grad]
