"""What the estimate of a run depends on: sizes of the model, bytes of its numbers, who holds what, and what is computed at a time.

All sizes are bytes; widths and elements are numbers of values.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
# 4 bits, and of the scales of nf4 with double quantisation 0.127 bits more.
NF4_BYTES = 4.127 / 8


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One of a model's equal layers.

    Attributes:
        frozen, trained: elements of its parameters. frozen_linear, trained_linear: those of matrices among them.
        norms, trained_norms: widths of what its norms read, and of those with trained weights.
        inputs: widths of what trained matrices read, each tensor once. readings: the same, once for each matrix that reads it.
        ranks: of its adapters, added up.
        query, keys: widths of queries, and of keys (values have as many). heads: of the queries.
        between: widths of what lies between the matrices of the feed-forward block, added up.
    """

    frozen: int
    trained: int
    frozen_linear: int
    trained_linear: int
    norms: int
    trained_norms: int
    inputs: int
    readings: int
    ranks: int
    query: int
    keys: int
    heads: int
    between: int

    @property
    def matrices(self) -> int:
        """Elements of all matrices."""
        return self.frozen_linear + self.trained_linear


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model with its adapter.

    Attributes:
        layers: how many equal layers. layer: the largest of them.
        frozen, trained: elements of all parameters. head: elements of the LM head's matrix. head_trained: whether it is.
        hidden, vocabulary: sizes.
    """

    layers: int
    layer: LayerFacts
    frozen: int
    trained: int
    head: int
    head_trained: bool
    hidden: int
    vocabulary: int

    @property
    def elements(self) -> int:
        """Of all parameters."""
        return self.frozen + self.trained

    @property
    def outside(self) -> int:
        """Elements of the parameters that belong to no layer: embeddings, head, last norm."""
        return self.elements - self.layers * (self.layer.frozen + self.layer.trained)


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of a number.

    Attributes:
        frozen, trained: of the parameters, as they are kept; the frozen ones' may be a mean. master: of the copy that a
            strategy keeps of each trained one, else 0. optimizer: of all states of a trained one.
        gradient: of a trained one's.
        compute: of what a matrix product gives. stream: of the sum that goes from layer to layer. read: of what a trained matrix
            reads. own_readings: whether each trained matrix reads a cast of its own.
    """

    frozen: float
    trained: int
    master: int
    optimizer: float
    gradient: int
    compute: int
    stream: int
    read: int
    own_readings: bool


@dataclass(frozen=True, slots=True)
class Strategy:
    """Who holds what.

    Attributes:
        kind: "whole" (one device), "ddp", "zero2", "zero3" or "fsdp". devices: in all. nodes: machines.
        offload_weights, offload_optimizer: whether shares lie in the machine's memory.
        bucket: elements of a buffer of gradients to reduce. live: elements that ZeRO-3 may keep gathered.
    """

    kind: str
    devices: int
    nodes: int = 1
    offload_weights: bool = False
    offload_optimizer: bool = False
    bucket: int = 0
    live: int = 0

    @property
    def weight_shares(self) -> int:
        """Over how many devices weights are spread."""
        return self.devices if self.kind in ("zero3", "fsdp") else 1

    @property
    def optimizer_shares(self) -> int:
        """Over how many devices gradients and optimizer are spread."""
        return self.devices if self.kind in ("zero2", "zero3", "fsdp") else 1


@dataclass(frozen=True, slots=True)
class MicroBatchSize:
    """The largest micro-batch of a device.

    Attributes:
        tokens: in the model. reads: positions that the LM head looks at.
    """

    tokens: int
    reads: int


@dataclass(frozen=True, slots=True)
class Compute:
    """How the model is run.

    Attributes:
        checkpointing: whether a layer's inside is computed again in the backward pass.
        attention: as ``model.attn_implementation`` says. gpu: whether on one.
        chunk: the most logits that are held at a time. foreach: whether the optimizer treats all weights at once.
    """

    checkpointing: bool
    attention: str
    gpu: bool
    chunk: int
    foreach: bool


@dataclass(frozen=True, slots=True)
class SamplingLoad:
    """What is sampled at a time.

    Attributes:
        sequences: CoTs. prompts: those that they belong to. prompt_tokens: of the longest prompt. cot_tokens: the most of a CoT.
        prefill: tokens of prompts that go through the model at once. growth: factor by which places for tokens are made.
    """

    sequences: int
    prompts: int
    prompt_tokens: int
    cot_tokens: int
    prefill: int
    growth: float
