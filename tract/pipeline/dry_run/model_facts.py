"""The sizes of a configured model, which is built without weights and only looked at, and the floating-point operations they make.

Widths and elements are numbers of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tract.config.schema import Config
from tract.models.loading import load_model
from tract.models.sharding import tie_weights
from tract.models.tokenizers import load_tokenizer

# 4 bits, and of the scales of nf4 with double quantisation 0.127 bits more.
NF4_BYTES = 4.127 / 8
# A fused attention backward makes five products where the forward makes two.
_BACKWARD_OF_ATTENTION = 2.5
_DESCRIBED: dict[str, ModelFacts] = {}


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One of a model's equal layers.

    Attributes:
        frozen, trained: elements of its matrices; the few of norms and biases are left out. norms: widths of what its norms read.
        inputs: widths of what trained matrices read, each tensor once. readings: the same, once for each matrix that reads it.
        query, keys: widths of queries, and of keys (values have as many). heads: of the queries.
        between: widths of what lies between the matrices of the feed-forward block, added up.
    """

    frozen: int
    trained: int
    norms: int
    inputs: int
    readings: int
    query: int
    keys: int
    heads: int
    between: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model with its adapter, as it is trained.

    Attributes:
        layers: how many equal layers. layer: the largest of them.
        frozen, trained: elements of all parameters. head: elements of the LM head's matrix. head_trained: whether it is.
        hidden, vocabulary: sizes.
        frozen_bytes, trained_bytes: bytes of a parameter as loaded, on average. stream_bytes: of the embeddings'.
    """

    layers: int
    layer: LayerFacts
    frozen: int
    trained: int
    head: int
    head_trained: bool
    hidden: int
    vocabulary: int
    frozen_bytes: float
    trained_bytes: int
    stream_bytes: int

    @property
    def elements(self) -> int:
        """Elements of all parameters."""
        return self.frozen + self.trained


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What goes through the model.

    Attributes:
        tokens: in all. reads: positions that the LM head looks at. pairs: of tokens that see each other.
    """

    tokens: float
    reads: float
    pairs: float = 0.0


def describe_model(cfg: Config) -> ModelFacts:
    """The sizes of the configured model with its adapter; no weight is read or made. Each model and adapter is built once.

    Raises:
        ConfigError: if the model's configuration cannot be read.
    """
    key = repr((cfg.model, cfg.adapter))
    if key not in _DESCRIBED:
        load_tokenizer(cfg.model)  # what has to be unpacked first, once, is not possible below
        with torch.device("meta"):
            model = load_model(cfg.model, cfg.adapter, seed=cfg.seed, empty=True)
        tie_weights(model)
        _DESCRIBED[key] = described(model, four_bit=cfg.adapter.kind == "qlora")
    return _DESCRIBED[key]


def described(model: nn.Module, *, four_bit: bool) -> ModelFacts:
    """The same of a model that is there, with or without memory. ``four_bit``: its frozen matrices are to be quantised."""
    lists = [list(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and "vision" not in name]
    layers = max(lists, key=len)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    packed = {id(module.weight) for module in _matrices(model) if four_bit and module is not head and not module.weight.requires_grad}
    frozen = [(p.numel(), NF4_BYTES if id(p) in packed else p.element_size()) for p in model.parameters() if not p.requires_grad]
    trained = [p for p in model.parameters() if p.requires_grad]
    elements = sum(number for number, _ in frozen)
    return ModelFacts(
        layers=len(layers),
        layer=_layer_facts(max(layers, key=lambda layer: sum(p.numel() for p in layer.parameters())), model),
        frozen=elements,
        trained=sum(p.numel() for p in trained),
        head=head.weight.numel(),
        head_trained=head.weight.requires_grad,
        hidden=head.weight.shape[1],
        vocabulary=head.weight.shape[0],
        frozen_bytes=sum(number * size for number, size in frozen) / max(elements, 1),
        trained_bytes=trained[0].element_size(),
        stream_bytes=embeddings.weight.element_size(),
    )


def _matrices(module: nn.Module) -> Iterator[nn.Linear]:
    return (each for each in module.modules() if isinstance(each, nn.Linear))


def _layer_facts(layer: nn.Module, model: nn.Module) -> LayerFacts:
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    norms = 0
    for name, weight in layer.named_parameters():
        if weight.dim() == 1 and "norm" in name:  # one of queries or keys works on each head by itself
            norms += weight.numel() * (heads if "q_norm" in name else kv_heads if "k_norm" in name else 1)
    readings, inputs, between = _matrix_widths(layer)
    return LayerFacts(
        frozen=sum(matrix.weight.numel() for matrix in _matrices(layer) if not matrix.weight.requires_grad),
        trained=sum(matrix.weight.numel() for matrix in _matrices(layer) if matrix.weight.requires_grad),
        norms=norms,
        inputs=inputs,
        readings=readings,
        query=heads * size,
        keys=kv_heads * size,
        heads=heads,
        between=between,
    )


def _matrix_widths(layer: nn.Module) -> tuple[int, int, int]:
    """(widths that trained matrices read; the same, each tensor once; widths between the feed-forward block's matrices).

    In a block the last matrix reads what the block has made, and all others read what comes in.
    """
    readings = inputs = between = 0
    for _, block in layer.named_children():
        adapted = {name.partition(".lora_")[0] for name, _ in block.named_parameters() if ".lora_" in name}
        own = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear) and "lora_" not in name}
        if not own:
            continue
        read = [m.in_features * (m.weight.requires_grad or name.removesuffix(".base_layer") in adapted) for name, m in own.items()]
        readings += sum(read)
        inputs += max(read[:-1], default=0) + read[-1]
        if not any("q_proj" in name or "qkv" in name for name, _ in block.named_modules()):
            *first, last = own.values()
            out = sum(matrix.out_features for matrix in first)
            # A gated block's product has two factors: the second one, and what the activation makes of the first.
            between = max(between, out + (last.in_features if out >= 2 * last.in_features else 0))
    return readings, inputs, between


def forward_flops(model: ModelFacts, counts: TokenCounts) -> float:
    """A forward pass: 2 for each weight of a matrix and token, 4 for each head dimension and pair of tokens."""
    matrices = 2 * model.layers * (model.layer.frozen + model.layer.trained)
    return counts.tokens * matrices + counts.pairs * _flops_per_pair(model) + counts.reads * 2 * model.head


def training_flops(model: ModelFacts, counts: TokenCounts, *, checkpointing: bool) -> float:
    """Forward and backward: 4 for each weight and token of a frozen matrix, whose own gradient nobody needs, 6 of a trained one.

    With gradient checkpointing the layers' forward pass is computed once more.
    """
    layer, again = model.layer, 1 if checkpointing else 0
    matrices = model.layers * ((4 + 2 * again) * layer.frozen + (6 + 2 * again) * layer.trained)
    attention = (1 + _BACKWARD_OF_ATTENTION + again) * _flops_per_pair(model)
    head = (6 if model.head_trained else 4) * model.head
    return counts.tokens * matrices + counts.pairs * attention + counts.reads * head


def _flops_per_pair(model: ModelFacts) -> float:
    return 4.0 * model.layer.query * model.layers
