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
from torchmetrics import MeanMetric, MetricCollection

from tract.attention import TokenRuns
from tract.data.batches import JudgeBatch
from tract.errors import TrainingError
from tract.forward import log_probs_at
from tract.metrics import judge_metrics
from tract.objective import Objective, ObjectiveParts, loss_shares, objective_parts
from tract.predictors import score_pairs
from tract.score_grid import ScoreGrid, ScoreTrie

log = logging.getLogger(__name__)

ParamGroups = Iterable[dict[str, Any]]


class TractLitModule(L.LightningModule):
    """Trains a judge with the TRACT objective.

    ``shared_step`` serves training, validation and test: it returns the CoT's cross-entropy and the squared error of the
    expected score as parts; lambda and the normalisation over the whole optimizer step are applied by ``objective``.

    Args:
        build_model: makes the seed LLM with its adapter; called in ``configure_model``.
        trie: the decisions between the scores in this tokenizer.
        grid: the scores.
        objective: terms and weights.
        build_optimizer: makes the optimizer from parameter groups.
        build_scheduler: makes the schedule from (optimizer, number of optimizer steps); stepped every optimizer step.
        accumulate: micro-batches of an optimizer step.
        total_steps: optimizer steps of the whole training. Asking the trainer for it would set its loaders up before a
            checkpoint is restored, and the place in the epoch would be lost.
    """

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
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
        self._build_optimizer = build_optimizer
        self._build_scheduler = build_scheduler
        self.accumulate = accumulate
        self.total_steps = total_steps
        self.register_buffer("grid_values", torch.tensor(grid.values, dtype=torch.float32), persistent=False)
        self.model: nn.Module | None = None
        self._step_parts: list[dict[str, Tensor]] = []  # of the micro-batches since the last optimizer step
        self._step_items: list[str] = []
        self.validation_metrics: dict[str, float] = {}
        self.validated_at = -1  # optimizer steps before the last validation
        self._random_state: dict[str, Tensor] | None = None  # of a checkpoint, until training starts
        self._evaluated = nn.ModuleDict({name: _EvaluationMetrics(name) for name in ("val", "test")})

    # The base weights come from the seed LLM again, so a checkpoint holds the trained ones alone.
    strict_loading = False
    grid_values: Tensor

    def configure_model(self) -> None:
        """Builds the weights, once; sharding strategies shard them here."""
        if self.model is None:
            self.model = self._build_model()
            trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            log.info("model: %s of %s parameters are trained", f"{trained:,}", f"{sum(p.numel() for p in self.model.parameters()):,}")

    def shared_step(self, batch: JudgeBatch) -> ObjectiveParts:
        """Parts of the objective for a micro-batch, for training, validation and test alike."""
        assert self.model is not None, "configure_model has not run"
        nodes, tokens = score_pairs(self.trie, batch.input_ids.device)
        reads = batch.score_reads[:, nodes]  # [M, K] -> [M, P]
        log_probs = log_probs_at(
            self.model,
            batch.input_ids,
            batch.position_ids,
            TokenRuns(batch.runs),
            batch.read_positions,
            rows=torch.cat([batch.target_rows, reads.flatten()]),
            tokens=torch.cat([batch.target_ids, tokens.expand_as(reads).flatten()]),
        )
        of_targets, of_scores = log_probs.split([batch.target_ids.numel(), reads.numel()])
        return objective_parts(
            of_targets, of_scores.view_as(reads), batch.scores, self.trie, self.grid_values, normalize=self.objective.normalize
        )

    def training_step(self, batch: JudgeBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the step's loss."""
        parts = self.shared_step(batch)
        ce_loss, score_loss = loss_shares(parts, batch.totals, self.objective)
        self._step_parts.append(
            {
                "loss": (ce_loss + score_loss).detach(),
                "ce_loss": ce_loss.detach(),
                "score_loss": score_loss.detach(),
                "ce": parts.ce_sum.detach() / max(batch.totals.ce_tokens, 1),
                "squared_error": parts.squared_error.detach().sum() / batch.totals.examples,
                "score_mass": parts.score_mass.detach().sum() / batch.totals.examples,
            }
        )
        self._step_items.extend(batch.item_ids)
        # The shares add up to the step's loss, but Lightning divides each by the number of micro-batches.
        return (ce_loss + score_loss) * self.accumulate

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Logs the step and refuses to apply a gradient that is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        step = {key: torch.stack([parts[key] for parts in self._step_parts]).sum() for key in self._step_parts[0]}
        step["grad_norm"] = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(torch.stack([step["loss"], step["grad_norm"]])).all():
            raise TrainingError(self._not_finite(step))
        if self.objective.ce_weight == 0:
            del step["ce"], step["ce_loss"]
        for key, value in step.items():
            self.log(f"train/{key}", value, prog_bar=key == "loss")
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        self._step_parts.clear()
        self._step_items.clear()

    def _not_finite(self, step: dict[str, Tensor]) -> str:
        values = ", ".join(f"{key} {step[key].item():g}" for key in ("ce", "squared_error", "score_mass", "grad_norm"))
        return (
            f"optimizer step {self.global_step + 1}: loss or gradient is not finite ({values}); its examples were "
            f"{', '.join(self._step_items)}; lower optimizer.lr, set trainer.precision=32-true, or look at these examples"
        )

    def on_validation_epoch_start(self) -> None:
        """Begins a validation run."""
        self._evaluated["val"].reset()  # type: ignore[operator]

    def validation_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the validation metrics."""
        self._evaluated["val"].update(self.shared_step(batch), batch)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics, and keeps them with the step that they belong to."""
        self.validation_metrics = {key: value.item() for key, value in self._log_evaluated("val").items()}
        self.validated_at = self.global_step

    def on_test_epoch_start(self) -> None:
        """Begins a test run."""
        self._evaluated["test"].reset()  # type: ignore[operator]

    def test_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the test metrics."""
        self._evaluated["test"].update(self.shared_step(batch), batch)  # type: ignore[operator]

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_evaluated("test")

    def _log_evaluated(self, name: str) -> dict[str, Tensor]:
        values: dict[str, Tensor] = self._evaluated[name].compute()  # type: ignore[operator]
        for key, value in values.items():  # torchmetrics has already gathered over ranks
            self.log(key, value, prog_bar=key.endswith(("pearson_r", "/rmse")))
        return values

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer over what is trained; weight decay for matrices only."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.dim() >= 2]},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = self._build_optimizer([group for group in groups if group["params"]])
        scheduler = self._build_scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def trained_names(self) -> list[str]:
        """Names of the parameters that are trained."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only the trained weights, and the state of the random numbers (dropout)."""
        trained = set(self.trained_names())
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the weights and remembers the state of the random numbers.

        Raises:
            TrainingError: if the checkpoint lacks a trained weight.
        """
        missing = set(self.trained_names()) - set(checkpoint["state_dict"])
        if missing:
            raise TrainingError(f"checkpoint: lacks {len(missing)} trained weights, e.g. {min(missing)}; it belongs to another run")
        self._random_state = checkpoint["random_state"]

    def on_train_start(self) -> None:
        """Sets the random numbers to where the checkpoint left them; what is set up before may draw some."""
        if self._random_state is None:
            return
        torch.set_rng_state(self._random_state["cpu"].cpu())
        if torch.cuda.is_available() and "cuda" in self._random_state:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu())
        self._random_state = None


class _EvaluationMetrics(nn.Module):
    """Metrics of RAIL on given CoTs: an item's predictions are averaged and compared with its target."""

    def __init__(self, split: str) -> None:
        super().__init__()
        self.split = split
        self.agreement: MetricCollection = judge_metrics(f"{split}/")
        self.means = nn.ModuleDict({name: MeanMetric() for name in ("ce", "squared_error", "score_mass")})

    def reset(self) -> None:
        """Forgets everything."""
        self.agreement.reset()
        for mean in self.means.values():
            mean.reset()  # type: ignore[operator]

    def update(self, parts: ObjectiveParts, batch: JudgeBatch) -> None:
        """Takes a micro-batch in."""
        counts = torch.bincount(batch.item_index, minlength=len(batch.targets))
        sums = torch.zeros_like(batch.targets).index_add_(0, batch.item_index, parts.expected_score)
        self.agreement.update(sums / counts, batch.targets)
        self.means["squared_error"].update(parts.squared_error)  # type: ignore[operator]
        self.means["score_mass"].update(parts.score_mass)  # type: ignore[operator]
        if parts.ce_tokens:
            self.means["ce"].update(parts.ce_sum / parts.ce_tokens, weight=parts.ce_tokens)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """All values under their keys."""
        means = {name: mean for name, mean in self.means.items() if mean.update_called}
        return {**self.agreement.compute(), **{f"{self.split}/{name}": mean.compute() for name, mean in means.items()}}  # type: ignore[operator]
