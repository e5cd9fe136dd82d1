"""Trains the tiny judge on however many ranks torchrun has started, and writes the first step's gradient and the last weights.

python -m torch.distributed.run --nproc-per-node=2 tests/support/rank_worker.py FOLDER TRAINER ADAPTER,... TOKENS... KEY=VALUE...
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from tract.common.distributed import init_process_group, rank_info
from tract.models.sharding import whole_weights
from tract.pipeline.stages.fit import build, trainer_factory
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import typed, validate
from tract.training.library_messages import silence_library_logs
from tract.training.trainer import build_trainer

CONF = Path(__file__).resolve().parents[2] / "conf"
# 16 training items of very different lengths in steps of 5: the fourth has but one, for two ranks.
OVERRIDES = (
    "model=tiny", "data.source.n_questions=16", "data.source.n_ood_questions=0", "data.val_fraction=0.25", "data.test_fraction=0.25",
    "data.max_train_items=16", "logger=none", "trainer.enable_progress_bar=false", "batch.global_batch_size=5", "train.max_steps=5",
    "train.max_epochs=2", "train.keep_weights=last", "train.gradient_clip_norm=0.5", "optimizer.lr=0.01", "optimizer.weight_decay=0.1",
    "trainer.accelerator=cpu", "trainer.precision=32-true",
)  # fmt: skip


class FirstGradient(L.Callback):
    """Keeps the whole gradient of the first step, before it is clipped."""

    def __init__(self) -> None:
        self.gradient: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        module: Any = pl_module
        if trainer.global_step == 0 and len(module.step_record.values) in (0, module.accumulate):
            self.gradient = {name: _gradient(p) for name, p in module.named_parameters() if p.requires_grad}


def _gradient(p: nn.Parameter) -> torch.Tensor:
    if p.grad is None:
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(p).detach().clone()
    whole = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
    return whole.detach().clone()


def train(folder: Path, trainer_name: str, max_tokens_per_micro_batch: str, adapter: str, more: list[str]) -> dict[str, Any]:
    places = [f"paths.runs={folder}/runs", f"paths.cache={folder}/cache"]
    devices = [f"trainer={trainer_name}", f"trainer.devices={rank_info().world_size}", f"adapter={adapter}"]
    offloads = ["optimizer=cpu_adamw"] if trainer_name.endswith("_offload") else []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        resolved = compose(
            "train", [*OVERRIDES, *places, *devices, *offloads, f"batch.max_tokens_per_micro_batch={max_tokens_per_micro_batch}", *more]
        )
    validate(resolved)
    cfg = typed(resolved)
    L.seed_everything(0, verbose=False)
    module, datamodule = build(cfg, prepare(cfg))
    recorder = FirstGradient()
    trainer = build_trainer(cfg, trainer_factory(cfg), [recorder], [], folder, module.accumulate, validates=False)
    trainer.fit(module, datamodule=datamodule)
    assert module.model is not None
    return {
        "gradient": recorder.gradient,
        "weights": whole_weights(module.model),
        "accumulate": module.accumulate,
        "logged": {key: value.item() for key, value in trainer.callback_metrics.items()},
        "own_elements": sum(_own(p) for p in module.model.parameters()),
        "elements": sum(getattr(p, "ds_numel", p.numel()) for p in module.model.parameters()),
    }


def _own(p: nn.Parameter) -> int:
    """Elements of this rank's share. ZeRO-3 also keeps small parameters whole once they were used; its shares are counted."""
    if hasattr(p, "ds_tensor"):
        return int(p.ds_tensor.numel())
    return int((p.to_local() if hasattr(p, "to_local") else p).numel())


def main(folder: Path, trainer_name: str, adapters: list[str], given: list[str]) -> None:
    budgets, more = ([text for text in given if ("=" in text) == is_override] for is_override in (False, True))
    silence_library_logs()
    with init_process_group(gpu=False, timeout_s=120):
        for adapter, budget in product(adapters, budgets):
            result = train(folder, trainer_name, budget, adapter, more)
            if rank_info().is_first:
                torch.save(result, folder / f"{trainer_name}-{adapter}-{rank_info().world_size}-{budget}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), sys.argv[4:])
