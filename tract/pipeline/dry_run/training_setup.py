"""How the configured training spreads the model over devices, and in how many bytes it keeps and computes numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from hydra.utils import instantiate
from torch import nn

from tract.config.devices import ZERO, ZERO_OPTIMIZERS
from tract.config.schema import Config
from tract.models.precisions import STORED, arithmetic_of
from tract.pipeline.dry_run.model_facts import ModelFacts
from tract.pipeline.launching.launch import processes

# Argument of ``DeepSpeedStrategy``, where the trainer does not give it: its own default.
_BUCKET = 200_000_000


@dataclass(frozen=True, slots=True)
class Strategy:
    """Who holds what.

    Attributes:
        kind: "whole" (one device), "ddp", "zero2", "zero3" or "fsdp". devices: in all. nodes: machines.
        offload_weights, offload_optimizer: whether shares lie in the machine's memory.
        bucket: elements of a buffer of gradients to reduce.
    """

    kind: str
    devices: int
    nodes: int = 1
    offload_weights: bool = False
    offload_optimizer: bool = False
    bucket: int = 0

    @property
    def weight_shares(self) -> int:
        """Over how many devices weights are spread."""
        return self.devices if self.kind in ("zero3", "fsdp") else 1

    @property
    def optimizer_shares(self) -> int:
        """Over how many devices gradients and optimizer are spread."""
        return self.devices if self.kind in ("zero2", "zero3", "fsdp") else 1


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A configured training of a model.

    Attributes:
        strategy: who holds what.
        frozen, trained: bytes of a parameter, as they are kept; the frozen ones' may be a mean. Gradients are as the trained ones.
        master: bytes of the copy that a strategy keeps of each trained one, else 0. optimizer: of all states of a trained one.
        compute: bytes of what a matrix product gives. stream: of the sum that goes from layer to layer. read: of what a trained
            matrix reads. own_readings: whether each trained matrix reads a cast of its own.
        checkpointing: whether a layer's inside is computed again in the backward pass. eager: whether attention is.
        gpu: whether on one. foreach: whether the optimizer treats all weights at once.
    """

    strategy: Strategy
    frozen: float
    trained: int
    master: int
    optimizer: float
    compute: int
    stream: int
    read: int
    own_readings: bool
    checkpointing: bool
    eager: bool
    gpu: bool
    foreach: bool


def strategy_of(cfg: Config) -> Strategy:
    """How the configured trainer spreads the model."""
    node = cfg.trainer.get("strategy")
    devices, nodes = processes(cfg), int(cfg.trainer.get("num_nodes", 1))
    if not isinstance(node, Mapping):
        return Strategy("ddp" if devices > 1 else "whole", devices, nodes)
    if node.get("_target_") == ZERO:
        weights, optimizer = bool(node.get("offload_parameters", False)), bool(node.get("offload_optimizer", False))
        return Strategy(f"zero{node.get('stage', 2)}", devices, nodes, weights, optimizer, int(node.get("reduce_bucket_size", _BUCKET)))
    if str(node.get("_target_")).endswith(".FSDP"):
        offload = bool(node.get("offload", False))
        return Strategy("fsdp", devices, nodes, offload, offload)
    return Strategy("ddp", devices, nodes)


def setup_of(cfg: Config, model: ModelFacts, strategy: Strategy) -> TrainingSetup:
    """In how many bytes the configured training keeps and computes its numbers, under a strategy."""
    precision = precision_of(cfg)
    arithmetic, zero, gpu = arithmetic_of(precision), strategy.kind.startswith("zero"), on_gpu(cfg)
    half = arithmetic is not None and arithmetic.itemsize == 2
    frozen, trained, stream = model.frozen_bytes, model.trained_bytes, model.stream_bytes
    if arithmetic and (precision in STORED or (zero and half)):  # all of it is cast, adapters too, but what is packed in 4 bits
        trained = stream = arithmetic.itemsize
        frozen = arithmetic.itemsize if frozen >= 2 else frozen
    elif strategy.kind == "fsdp" and half:  # cast when they are gathered
        stream = 2
    compute = arithmetic.itemsize if arithmetic else max(2, stream)
    return TrainingSetup(
        strategy=strategy,
        frozen=frozen,
        trained=trained,
        master=4 if zero else 0,
        optimizer=_states_per_number(cfg) * (4 if zero else trained),
        compute=compute,
        stream=stream,
        read=compute if half else trained,
        # Under autocast each trained matrix casts what it reads where that has another dtype; beside frozen weights of another
        # dtype PEFT casts it to the adapter's before.
        own_readings=(half and stream != 2) or (trained != stream and not zero),
        checkpointing=cfg.model.gradient_checkpointing,
        eager=cfg.model.attn_implementation == "eager",
        gpu=gpu,
        foreach=gpu and not cfg.optimizer.get("fused", False),
    )


def _states_per_number(cfg: Config) -> float:
    """How many numbers the configured optimizer keeps for each that it trains, found by a step of it."""
    if str(cfg.optimizer.get("_target_")) == ZERO_OPTIMIZERS[-1]:
        return 2.0  # compiled at its first use, so it is not tried
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = instantiate(cfg.optimizer)([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [state for state in optimizer.state[weight].values() if isinstance(state, torch.Tensor) and state.numel() > 1]
    return sum(state.numel() for state in kept) / weight.numel()


def precision_of(cfg: Config) -> str:
    """The configured trainer's precision, as Lightning names it."""
    return str(cfg.trainer.get("precision", "32-true"))


def on_gpu(cfg: Config) -> bool:
    """Whether the configured trainer works on GPUs."""
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    return accelerator in ("gpu", "cuda", "mps") or (accelerator == "auto" and torch.cuda.is_available())
