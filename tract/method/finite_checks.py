"""Refuses losses, gradients, weights and optimizer states with NaN or infinity, in messages that name the examples and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tract.common.distributed import all_gather_object
from tract.common.errors import TrainingError
from tract.common.finite import largest, listed, not_finite
from tract.method.step_record import StepRecord
from tract.models.sharding import own_share

_NAMED_WEIGHTS = 3  # the most weights that an error names; the others are counted


class FiniteChecks:
    """The checks of a ``TractLitModule``. All ranks must call each of them, so that they stop together.

    Args:
        module: the ``TractLitModule``; without a trainer it is alone. record: of its optimizer steps.
    """

    def __init__(self, module: Any, record: StepRecord) -> None:
        self._module = module
        self._record = record
        self._finite_at = -1  # optimizer steps before the weights were last found to be finite

    def check_step(self, values: dict[str, Tensor]) -> None:
        """Refuses an optimizer step; where the weights are the cause, the error names them.

        Args:
            values: [] float32 each, of the whole step.

        Raises:
            TrainingError: naming the values that are not finite, and the step's examples.
        """
        own = torch.stack(self._record.values) if self._record.values else torch.zeros(0, 1)
        # The only time in a step that anything waits for the device.
        if bool(torch.isfinite(torch.stack([value.to(own.device) for value in values.values()])).all()):
            return
        if self._record.values:
            self.check_weights(after_step=True)
        shown = ", ".join(f"{key} {value.item():g}" for key, value in values.items() if not torch.isfinite(value))
        items = self._record.item_ids
        bad = [ids for ids, finite in zip(items, torch.isfinite(own).all(dim=1).tolist(), strict=False) if not finite]
        named = all_gather_object(([name for ids in items for name in ids], [name for ids in bad for name in ids]))
        everyone, suspects = ([name for rank in named for name in rank[place]] for place in (0, 1))
        among = f"; among these, not finite by themselves: {listed(suspects)}" if 0 < len(suspects) < len(everyone) else ""
        raise TrainingError(
            f"{self._module.stage}, optimizer step {self._module.global_step + 1}: loss or gradient is not finite ({shown}); its examples "
            f"were {listed(everyone)}{among}; {self._last_checkpoint()}; lower optimizer.lr, set trainer.precision=32-true, or look "
            "at these examples, then run the same command again"
        )

    def check_weights(self, *, after_step: bool = False) -> None:
        """Refuses weights: all of them at the first call, then those that are trained.

        Args:
            after_step: check them even if no optimizer step was taken since the last time.

        Raises:
            TrainingError: naming weights, the step after which they were found, and its examples.
        """
        steps = self._module.global_step if self._module.has_trainer else 0
        if steps == self._finite_at and not after_step:
            return
        weights = [(name, own_share(p)) for name, p in self._module.named_parameters() if p.requires_grad or self._finite_at < 0]
        if not self._any_rank((~torch.isfinite(largest(share for _, share in weights))).float()):
            self._finite_at = steps
            return
        names = sorted({name.removeprefix("model.") for rank in all_gather_object(not_finite(weights)) for name in rank})
        found = f"{self._module.stage}: {len(names)} weights are not finite, e.g. {listed(names, _NAMED_WEIGHTS)}"
        if self._finite_at < 0:
            raise TrainingError(
                f"{found}, before the first step from here (optimizer step {steps + 1}); {self._last_checkpoint()}; look at the files of "
                "model.name_or_path and of the judge that training starts from, and set trainer.precision=32-true if they are sound"
            )
        items = [name for rank in all_gather_object(self._record.last_item_ids) for ids in rank for name in ids]
        raise TrainingError(
            f"{found}, behind optimizer step {steps}; they were finite behind step {self._finite_at}; the examples of step {steps} were "
            f"{listed(items)}; {self._last_checkpoint()}; lower optimizer.lr, or set trainer.precision=32-true and "
            "model.dtype=float32, then run the same command again"
        )

    def check_optimizers(self) -> None:
        """Refuses optimizer states: a moment that is not finite freezes a weight for good, or breaks it in the next step.

        Raises:
            TrainingError: naming the step.
        """
        optimizers = self._module.trainer.optimizers if self._module.has_trainer else []
        states = [state for optimizer in optimizers for state in getattr(optimizer, "state", {}).values() if isinstance(state, dict)]
        moments = [own_share(value) for state in states for value in state.values() if isinstance(value, Tensor)]
        if self._any_rank((~torch.isfinite(largest(moments))).float()):
            raise TrainingError(
                f"{self._module.stage}: the optimizer's state is not finite behind optimizer step {self._module.global_step}; "
                f"{self._last_checkpoint()}; set train.gradient_clip_norm, or lower optimizer.lr, then run the same command again"
            )

    def refuse_items(self, split: str, bad: list[str]) -> NoReturn:
        """Refuses the metrics of a split.

        Args:
            split: what messages call it. bad: ids of the items that are not finite, of all ranks.

        Raises:
            TrainingError: always, naming the items.
        """
        raise TrainingError(
            f"{self._module.stage}, {split} behind optimizer step {self._module.global_step}: log-probabilities or scores are not finite "
            f"for {listed(bad)}; {self._last_checkpoint()}; set trainer.precision=32-true, or look at these examples, then run the same "
            "command again"
        )

    def _last_checkpoint(self) -> str:
        """Names the checkpoint that a run would resume from; each was checked before it was written."""
        # By the files: Lightning's callback records a name before it writes the file.
        folders = [callback.dirpath for callback in self._module.trainer.checkpoint_callbacks] if self._module.has_trainer else []
        steps = {path.stem.rpartition("=")[2]: path for folder in folders if folder for path in Path(folder).glob("*=*.ckpt")}
        if not (known := [int(step) for step in steps if step.isdecimal()]):
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {steps[str(max(known))]} (optimizer step {max(known)})"

    def _any_rank(self, bad: Tensor) -> bool:
        """Whether a rank has found anything; ``bad``: [] float32, 1 if this one has."""
        return bool(self._module.sum_over_ranks(bad.to(self._module.device)))
