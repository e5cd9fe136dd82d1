"""``TractLitModule``: wires model, objective and metrics to Lightning. It holds no formula."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tract.common.errors import TrainingError
from tract.common.finite import largest, listed, not_finite
from tract.common.ranks import all_gather_object, rank_info
from tract.data.batches import JudgeBatch
from tract.method.objective import Objective, ObjectiveParts, loss_shares, objective_parts, score_loss_of
from tract.method.predictors import score_pairs
from tract.method.split_metrics import SplitMetrics
from tract.models.packed_forward import log_probs_at
from tract.models.sharding import Build, elements_of, own_share, shape_of
from tract.models.tree_attention import PackedSegments
from tract.text.score_grid import ScoreGrid, ScoreTrie

log = logging.getLogger(__name__)

# What is summed over the micro-batches and ranks of a step, and logged.
_STEP_VALUES = ("loss", "ce_loss", "score_loss", "ce", "squared_error", "score_mass")
_NAMED_WEIGHTS = 3  # the most weights that an error names; the others are counted

ParamGroups = Iterable[dict[str, Any]]


class TractLitModule(L.LightningModule):
    """Trains a judge with the TRACT objective.

    Nothing that is not finite gets through: loss and gradient are looked at before each optimizer step, weights before they are
    trained, validated or saved. All ranks stop together.

    ``shared_step`` serves training, validation and test: it returns the CoT's cross-entropy and the loss of the score
    as parts; lambda and the normalisation over the whole optimizer step are applied by ``objective``.

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
        self._step_parts: list[Tensor] = []  # [6] each, see _STEP_VALUES; of the micro-batches since the last optimizer step
        self._step_items: list[list[str]] = []  # ids of the examples of each of these
        self._last_items: list[list[str]] = []  # and of the step before
        self._sound_at = -1  # optimizer steps before the weights were last found to be finite
        self.stage = "training"  # the stage's name, for errors
        self.validation_metrics: dict[str, float | None] = {}  # None where one is undefined
        self.validated_at = -1  # optimizer steps before the last validation
        self._random_state: dict[str, Tensor] | None = None  # of a checkpoint, until training starts
        self._evaluated = nn.ModuleDict({name: SplitMetrics(name) for name in ("val", "test")})

    # The base weights come from the base model again, so a checkpoint holds the trained ones alone.
    strict_loading = False

    def configure_model(self) -> None:
        """Builds the weights, once; a strategy that spreads them over ranks has a ``create`` for it."""
        if self.model is None:
            create = getattr(self._trainer.strategy, "create", None) if self._trainer else None
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
        parts = self.shared_step(batch)
        ce_loss, score_loss = loss_shares(parts, batch.totals, self.objective)
        share = {
            "loss": ce_loss + score_loss,
            "ce_loss": ce_loss,
            "score_loss": score_loss,
            "ce": parts.ce_sum / max(batch.totals.ce_tokens, 1),
            "squared_error": parts.squared_error.sum() / batch.totals.examples,
            "score_mass": parts.score_mass.sum() / batch.totals.examples,
        }
        self._step_parts.append(torch.stack([share[key].detach() for key in _STEP_VALUES]) * (not batch.is_padding))
        self._step_items.append([] if batch.is_padding else list(batch.item_ids))
        return (ce_loss + score_loss) * (not batch.is_padding) * self._undo_averages

    @property
    def _undo_averages(self) -> int:
        """The shares add up to the step's loss, but micro-batches and ranks are averaged over on the way to the gradient."""
        if self._trainer is None:
            return self.accumulate
        # Lightning divides by the number of micro-batches, and DeepSpeed once more.
        own_division = self.accumulate if self.trainer.strategy.handles_gradient_accumulation else 1
        return self.accumulate * own_division * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Logs the step and refuses to apply a gradient that is not finite."""
        engine = self._deepspeed_engine
        if engine is not None and len(self._step_parts) < self.accumulate:
            return  # DeepSpeed is asked after each micro-batch
        own = torch.stack(self._step_parts)
        step = dict(zip(_STEP_VALUES, self._summed(own.sum(dim=0)), strict=True))
        if engine is None:
            step["grad_norm"] = _total_norm([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        # The only time in a step that anything waits for the device.
        if not bool(torch.isfinite(torch.stack([value.to(own.device) for value in step.values()])).all()):
            self.check_weights(after_step=True)  # where they are the cause, they are told
            self._refuse_step(step, own)
        if self.objective.ce_weight == 0:
            del step["ce"], step["ce_loss"]
        for key, value in step.items():
            self.log(f"train/{key}", value, prog_bar=key == "loss")
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        self._step_parts.clear()
        if engine is None:
            self._next_step()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's step; DeepSpeed tells the norm of the gradient only behind it, so before anything is saved."""
        super().optimizer_step(*args, **kwargs)
        engine = self._deepspeed_engine
        if engine is None or self._step_parts:
            return
        norm = torch.tensor(float(engine.get_global_grad_norm() or 0.0))
        if not torch.isfinite(norm):
            self._refuse_step({"grad_norm": norm}, torch.zeros(0, 1))
        self.log("train/grad_norm", norm)
        self._next_step()

    def _next_step(self) -> None:
        self._last_items, self._step_items = self._step_items, []

    @property
    def _deepspeed_engine(self) -> Any:
        return getattr(self.trainer.strategy, "deepspeed_engine", None)

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        if self._trainer is None:
            return values
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total

    def _refuse_step(self, step: dict[str, Tensor], own: Tensor) -> None:
        """Says what is not finite in a step. All ranks must call it.

        Args:
            step: the values of the whole step. own: [micro-batches, values] of this rank.

        Raises:
            TrainingError: always.
        """
        values = ", ".join(f"{key} {value.item():g}" for key, value in step.items() if not torch.isfinite(value))
        bad = [ids for ids, finite in zip(self._step_items, torch.isfinite(own).all(dim=1).tolist(), strict=False) if not finite]
        named = all_gather_object(([name for ids in self._step_items for name in ids], [name for ids in bad for name in ids]))
        everyone, suspects = ([name for rank in named for name in rank[place]] for place in (0, 1))
        among = f"; among these, not finite by themselves: {listed(suspects)}" if 0 < len(suspects) < len(everyone) else ""
        raise TrainingError(
            f"{self.stage}, optimizer step {self.global_step + 1}: loss or gradient is not finite ({values}); its examples were "
            f"{listed(everyone)}{among}; {self._last_checkpoint()}; lower optimizer.lr, set trainer.precision=32-true, or look "
            "at these examples, then run the same command again"
        )

    def check_weights(self, *, after_step: bool = False) -> None:
        """Refuses weights that are not finite: all of them at the first call, then those that are trained. All ranks must call it.

        Args:
            after_step: also where no optimizer step was taken since the last time.

        Raises:
            TrainingError: naming weights, the step behind which they were found, and its examples.
        """
        steps = self.global_step if self._trainer is not None else 0
        if steps == self._sound_at and not after_step:
            return
        weights = [(name, own_share(p)) for name, p in self.named_parameters() if p.requires_grad or self._sound_at < 0]
        bad = (~torch.isfinite(largest(share for _, share in weights))).float()
        if not bool(self._summed(bad.to(self.device))):
            self._sound_at = steps
            return
        names = sorted({name.removeprefix("model.") for rank in all_gather_object(not_finite(weights)) for name in rank})
        found = f"{self.stage}: {len(names)} weights are not finite, e.g. {listed(names, _NAMED_WEIGHTS)}"
        if self._sound_at < 0:
            raise TrainingError(
                f"{found}, before the first step from here (optimizer step {steps + 1}); {self._last_checkpoint()}; look at the files of "
                "model.name_or_path and of the judge that training starts from, and set trainer.precision=32-true if they are sound"
            )
        items = [name for rank in all_gather_object(self._last_items) for ids in rank for name in ids]
        raise TrainingError(
            f"{found}, behind optimizer step {steps}; they were finite behind step {self._sound_at}; the examples of step {steps} were "
            f"{listed(items)}; {self._last_checkpoint()}; lower optimizer.lr, or set trainer.precision=32-true and "
            "model.dtype=float32, then run the same command again"
        )

    def _last_checkpoint(self) -> str:
        """The checkpoint that a run would go on from; each was looked at before it was written."""
        # By what is there: Lightning's callback takes a name down before it writes the file.
        folders = [callback.dirpath for callback in self.trainer.checkpoint_callbacks] if self._trainer is not None else []  # type: ignore[attr-defined]
        steps = {path.stem.rpartition("=")[2]: path for folder in folders if folder for path in Path(folder).glob("*=*.ckpt")}
        if not (known := [int(step) for step in steps if step.isdecimal()]):
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {steps[str(max(known))]} (optimizer step {max(known)})"

    def on_validation_epoch_start(self) -> None:
        """Begins a validation run, with weights that are finite."""
        self.check_weights()
        self._evaluated["val"].reset()  # type: ignore[operator]

    def validation_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the validation metrics."""
        self._evaluate_batch("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics, and keeps them with the step that they belong to."""
        self.validation_metrics = self._log_evaluated("val")
        self.validated_at = self.global_step

    def on_test_epoch_start(self) -> None:
        """Begins a test run, with weights that are finite."""
        self.check_weights()
        self._evaluated["test"].reset()  # type: ignore[operator]

    def test_step(self, batch: JudgeBatch, batch_idx: int) -> None:
        """Updates the test metrics."""
        self._evaluate_batch("test", batch)

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_evaluated("test")

    def _evaluate_batch(self, name: str, batch: JudgeBatch) -> None:
        parts = self.shared_step(batch)  # also where it does not count: the ranks go through the model together
        if not batch.is_padding:
            self._evaluated[name].update(parts, batch)  # type: ignore[operator]

    def _log_evaluated(self, name: str) -> dict[str, float | None]:
        values, bad = self._evaluated[name].compute()  # type: ignore[operator]
        if bad:
            raise TrainingError(
                f"{self.stage}, {'validation' if name == 'val' else name} behind optimizer step {self.global_step}: log-probabilities or "
                f"scores are not finite for {listed(bad)}; {self._last_checkpoint()}; set trainer.precision=32-true, or look at "
                "these examples, then run the same command again"
            )
        for key, value in values.items():  # those of all ranks
            if value is not None:
                self.log(key, value, prog_bar=key.endswith(("pearson_r", "/rmse")))
        return values

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

    def trained_names(self) -> list[str]:
        """Names of the parameters that are trained."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only the trained weights, and each rank's state of the random numbers (dropout).

        Raises:
            TrainingError: if a weight, or the optimizer's state, is not finite; nothing is written then.
        """
        self.check_weights()
        self._check_optimizer()
        trained = set(self.trained_names())
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        random_state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random_state["cuda"] = torch.cuda.get_rng_state()
        checkpoint["random_states"] = all_gather_object(random_state)
        checkpoint["micro_batches_per_step"] = self.accumulate
        checkpoint["validation"] = {"at": self.validated_at, "metrics": self.validation_metrics}

    def _check_optimizer(self) -> None:
        """Refuses moments that are not finite: they would stop a weight for ever, or break it in the next step."""
        optimizers: Any = self.trainer.optimizers if self._trainer is not None else []
        states = [state for optimizer in optimizers for state in getattr(optimizer, "state", {}).values() if isinstance(state, dict)]
        moments = [own_share(value) for state in states for value in state.values() if isinstance(value, Tensor)]
        bad = (~torch.isfinite(largest(moments))).float()
        if bool(self._summed(bad.to(self.device))):
            raise TrainingError(
                f"{self.stage}: the optimizer's state is not finite behind optimizer step {self.global_step}; {self._last_checkpoint()}; "
                "set train.gradient_clip_norm, or lower optimizer.lr, then run the same command again"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the weights, remembers the state of the random numbers, and counts on in today's micro-batches.

        Raises:
            TrainingError: if the checkpoint lacks a trained weight.
        """
        # A strategy that spreads weights has checked and loaded them itself.
        missing = set(self.trained_names()) - set(checkpoint["state_dict"]) if "state_dict" in checkpoint else set()
        if missing:
            raise TrainingError(f"checkpoint: lacks {len(missing)} trained weights, e.g. {min(missing)}; it belongs to another run")
        self.validated_at, self.validation_metrics = checkpoint["validation"]["at"], dict(checkpoint["validation"]["metrics"])
        states, ranks = checkpoint["random_states"], rank_info()
        if len(states) == ranks.size:
            self._random_state = states[ranks.rank]
        else:
            log.info("resuming a run of %d processes with %d: dropout draws other random numbers from here on", len(states), ranks.size)
        _recount(checkpoint.get("loops", {}), checkpoint["micro_batches_per_step"], self.accumulate)

    def on_train_start(self) -> None:
        """Sets the random numbers to where the checkpoint left them; what is set up before may draw some."""
        self.check_weights()
        if self._random_state is None:
            return
        torch.set_rng_state(self._random_state["cpu"].cpu())
        if torch.cuda.is_available() and "cuda" in self._random_state:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu())
        self._random_state = None

    def on_train_end(self) -> None:
        """Nothing is exported that is not finite."""
        self.check_weights()


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of the whole gradient, also where it is spread over ranks (DTensor)."""
    norm: Any = torch.nn.utils.get_total_norm(gradients)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole


def _recount(loops: dict[str, Any], then: int, now: int) -> None:
    """Turns Lightning's counts of micro-batches into those of another number of them in a step."""
    if then == now or not loops:
        return
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        for name, count in counts.items():
            counts[name] = count // then * now
