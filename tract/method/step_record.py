"""What an optimizer step adds up over its micro-batches and ranks: its values to log, and which examples it holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tract.data.batches import JudgeBatch
from tract.method.objective import STEP_VALUES


class StepRecord:
    """The micro-batches of this rank since the last optimizer step, and the log of the step that they make up.

    Attributes:
        values: [6] float32 for each micro-batch: its shares of ``STEP_VALUES``, zeros for padding.
        item_ids: the ids of the examples of each micro-batch. last_item_ids: the same of the step before.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.item_ids: list[list[str]] = []
        self.last_item_ids: list[list[str]] = []

    def add(self, batch: JudgeBatch, shares: dict[str, Tensor]) -> None:
        """Records a micro-batch with what ``step_shares`` returns for it."""
        self.values.append(torch.stack([shares[key].detach() for key in STEP_VALUES]) * (not batch.is_padding))
        self.item_ids.append([] if batch.is_padding else list(batch.item_ids))

    def before_update(self, module: Any, optimizer: Optimizer) -> None:
        """Checks and logs the step. All ranks must call it.

        Args:
            module: the ``TractLitModule``. optimizer: that is about to update the weights.

        Raises:
            TrainingError: if a value of the step is not finite.
        """
        has_deepspeed = _deepspeed_engine(module) is not None
        if has_deepspeed and len(self.values) < module.accumulate:
            return  # DeepSpeed calls this after each micro-batch
        values = dict(zip(STEP_VALUES, module.sum_over_ranks(torch.stack(self.values).sum(dim=0)), strict=True))
        if not has_deepspeed:
            values["grad_norm"] = _total_norm([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        module.finite_checks.check_step(values)
        if module.objective.ce_weight == 0:
            del values["ce"], values["ce_loss"]
        for key, value in values.items():
            module.log(f"train/{key}", value, prog_bar=key == "loss")
        module.log("train/lr", optimizer.param_groups[0]["lr"])
        self.values.clear()
        if not has_deepspeed:
            self._begin_step()

    def after_update(self, module: Any) -> None:
        """Checks and logs the norm of DeepSpeed's gradient, which is known only after the update. All ranks must call it.

        Raises:
            TrainingError: if the norm is not finite.
        """
        engine = _deepspeed_engine(module)
        if engine is None or self.values:
            return
        norm = torch.tensor(float(engine.get_global_grad_norm() or 0.0))
        module.finite_checks.check_step({"grad_norm": norm})
        module.log("train/grad_norm", norm)
        self._begin_step()

    def _begin_step(self) -> None:
        self.last_item_ids, self.item_ids = self.item_ids, []


def _deepspeed_engine(module: Any) -> Any:
    return getattr(module.trainer.strategy, "deepspeed_engine", None)


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of the whole gradient, also where it is spread over ranks (DTensor)."""
    norm: Any = torch.nn.utils.get_total_norm(gradients)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
