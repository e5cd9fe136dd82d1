"""What the estimate of a dry run needs to know of a configured model: it is built without weights, and only looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from tract.config.devices import ZERO, ZERO_OPTIMIZERS
from tract.config.schema import Config
from tract.models.loading import load_model
from tract.models.log_probs import CHUNK_ELEMENTS
from tract.models.sharding import tie_weights
from tract.models.tokenizers import load_tokenizer
from tract.models.tree_attention import TREE
from tract.pipeline.dry_run.facts import NF4_BYTES, Compute, LayerFacts, ModelFacts, Storage, Strategy
from tract.pipeline.launching.launch import processes

log = logging.getLogger(__name__)

HALF = ("bf16-mixed", "bf16-true", "16-mixed", "16-true")
# Arguments of ``DeepSpeedStrategy`` and of DeepSpeed's configuration, where the trainer does not give them: their own defaults.
_BUCKET, _LIVE = 200_000_000, 1_000_000_000


@dataclass(frozen=True)
class Described:
    """A model as it is trained.

    Attributes:
        facts: its sizes. frozen_bytes, trained_bytes: of a parameter as loaded, on average. stream_bytes: of the embeddings'.
    """

    facts: ModelFacts
    frozen_bytes: float
    trained_bytes: int
    stream_bytes: int


def describe_model(cfg: Config) -> Described:
    """The sizes of the configured model with its adapter; no weight is read or made.

    Raises:
        ConfigError: if the model's configuration cannot be read.
    """
    load_tokenizer(cfg.model)  # what has to be unpacked first, once, is not possible below
    with torch.device("meta"):
        model = load_model(cfg.model, cfg.adapter, seed=cfg.seed, empty=True)
    tie_weights(model)
    return described(model, four_bit=cfg.adapter.kind == "qlora")


def described(model: nn.Module, *, four_bit: bool) -> Described:
    """The same of a model that is there, with or without memory. ``four_bit``: its frozen matrices are to be quantised."""
    layers = layers_of(model)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    widest = max(layers, key=_elements)
    parameters = list(model.parameters())
    packed = {id(module.weight) for module in _matrices(model) if four_bit and module is not head and not module.weight.requires_grad}
    frozen = [(p.numel(), NF4_BYTES if id(p) in packed else p.element_size()) for p in parameters if not p.requires_grad]
    trained = [p for p in parameters if p.requires_grad]
    facts = ModelFacts(
        layers=len(layers),
        layer=_layer_facts(widest, model),
        frozen=sum(number for number, _ in frozen),
        trained=sum(p.numel() for p in trained),
        head=head.weight.numel(),
        head_trained=head.weight.requires_grad,
        hidden=head.weight.shape[1],
        vocabulary=head.weight.shape[0],
    )
    frozen_bytes = sum(number * size for number, size in frozen) / max(facts.frozen, 1)
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return Described(facts, frozen_bytes, trained[0].element_size(), embeddings.weight.element_size())


def _elements(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The equal layers of a text model: the members of its longest list of modules."""
    lists = [list(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and "vision" not in name]
    return max(lists, key=len)


def _matrices(module: nn.Module) -> Iterator[nn.Linear]:
    return (each for each in module.modules() if isinstance(each, nn.Linear))


def _layer_facts(layer: nn.Module, model: nn.Module) -> LayerFacts:
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    norms = [
        (_norm_width(name, p, heads, kv_heads), p.requires_grad) for name, p in layer.named_parameters() if p.dim() == 1 and "norm" in name
    ]
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    readings, inputs, between = _matrix_widths(layer)
    matrices = [(module.weight.numel(), module.weight.requires_grad) for module in _matrices(layer)]
    return LayerFacts(
        frozen=_elements(layer) - trained,
        trained=trained,
        frozen_linear=sum(number for number, is_trained in matrices if not is_trained),
        trained_linear=sum(number for number, is_trained in matrices if is_trained),
        norms=sum(width for width, _ in norms),
        trained_norms=sum(width for width, is_trained in norms if is_trained),
        inputs=inputs,
        readings=readings,
        ranks=sum(p.shape[0] for name, p in layer.named_parameters() if ".lora_A." in name),
        query=heads * size,
        keys=kv_heads * size,
        heads=heads,
        between=between,
    )


def _norm_width(name: str, weight: nn.Parameter, heads: int, kv_heads: int) -> int:
    """Values of a token that a norm reads; one of queries or keys works on each head by itself."""
    repeated = heads if "q_norm" in name else kv_heads if "k_norm" in name else 1
    return weight.numel() * repeated


def _matrix_widths(layer: nn.Module) -> tuple[int, int, int]:
    """(widths that trained matrices read; the same, each tensor once; widths between the feed-forward block's matrices).

    In a block the last matrix reads what the block has made, and all others read what comes in.
    """
    readings = inputs = between = 0
    for _, block in layer.named_children():
        bases = _bases(block)
        if not bases:
            continue
        *first, last = bases
        trained = [width for width, _, is_trained in first if is_trained]
        readings += sum(trained) + last[0] * last[2]
        inputs += max(trained, default=0) + last[0] * last[2]
        if not any("q_proj" in name or "qkv" in name for name, _ in block.named_modules()):
            out = sum(made for _, made, _ in first)
            # A gated block's product has two factors: the second one, and what the activation makes of the first.
            between = max(between, out + (last[0] if out >= 2 * last[0] else 0))
    return readings, inputs, between


def _bases(block: nn.Module) -> list[tuple[int, int, bool]]:
    """(width in, width out, whether it or an adapter of it is trained) of a block's own matrices, in their order."""
    own = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear) and "lora_" not in name}
    adapted = {name.partition(".lora_")[0] for name, _ in block.named_parameters() if ".lora_" in name}
    return [
        (m.in_features, m.out_features, m.weight.requires_grad or name.removesuffix(".base_layer") in adapted) for name, m in own.items()
    ]


def strategy_of(cfg: Config) -> Strategy:
    """How the configured trainer spreads the model."""
    node = cfg.trainer.get("strategy")
    devices, nodes = processes(cfg), int(cfg.trainer.get("num_nodes", 1))
    if not isinstance(node, Mapping):
        return Strategy("ddp" if devices > 1 else "whole", devices, nodes)
    if node.get("_target_") == ZERO:
        weights = bool(node.get("offload_parameters", False))
        return Strategy(
            f"zero{node.get('stage', 2)}", devices, nodes, weights, bool(node.get("offload_optimizer", False)),
            bucket=int(node.get("reduce_bucket_size", _BUCKET)), live=_LIVE,
        )  # fmt: skip
    if str(node.get("_target_")).endswith(".FSDP"):
        offload = bool(node.get("offload", False))
        return Strategy("fsdp", devices, nodes, offload, offload)
    return Strategy("ddp", devices, nodes)


def storage_of(cfg: Config, model: Described, strategy: Strategy) -> Storage:
    """In how many bytes the configured training keeps and computes its numbers."""
    precision = str(cfg.trainer.get("precision", "32-true"))
    half, zero = precision in HALF, strategy.kind.startswith("zero")
    frozen, trained, stream = model.frozen_bytes, model.trained_bytes, model.stream_bytes
    if precision == "64-true":
        frozen, trained, stream = 8, 8, 8
    elif precision in ("bf16-true", "16-true") or (zero and half):  # all of it is cast, adapters too
        frozen, trained, stream = min(frozen, 2), 2, 2
    elif strategy.kind == "fsdp" and half:  # cast when they are gathered
        stream = 2
    compute = 2 if half else 8 if precision == "64-true" else max(2, stream)
    # Under autocast each trained matrix casts what it reads where that has another dtype; beside frozen weights of another dtype
    # PEFT casts it to the adapter's before.
    own = (half and stream != 2) or (trained != stream and not zero)
    return Storage(
        frozen=frozen,
        trained=trained,
        master=4 if zero else 0,
        optimizer=states_per_number(cfg) * (4 if zero else trained),
        gradient=trained,
        compute=compute,
        stream=stream,
        read=compute if half else trained,
        own_readings=own,
    )


def states_per_number(cfg: Config) -> float:
    """How many numbers the configured optimizer keeps for each that it trains, found by a step of it."""
    if str(cfg.optimizer.get("_target_")) == ZERO_OPTIMIZERS[-1]:
        return 2.0  # compiled at its first use, so it is not tried
    return _states(repr(sorted(cfg.optimizer.items())), lambda: instantiate(cfg.optimizer))


_STATES: dict[str, float] = {}


def _states(key: str, build: Any) -> float:
    if key not in _STATES:
        weight = nn.Parameter(torch.zeros(64, 64))
        optimizer = build()([weight])
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        kept = [state for state in optimizer.state[weight].values() if isinstance(state, torch.Tensor) and state.numel() > 1]
        _STATES[key] = sum(state.numel() for state in kept) / weight.numel()
    return _STATES[key]


def compute_of(cfg: Config) -> Compute:
    """How the configured training runs the model."""
    gpu = on_gpu(cfg)
    return Compute(
        checkpointing=cfg.model.gradient_checkpointing,
        attention=cfg.model.attn_implementation or TREE,
        gpu=gpu,
        chunk=CHUNK_ELEMENTS,
        foreach=gpu and not cfg.optimizer.get("fused", False),
    )


def on_gpu(cfg: Config) -> bool:
    """Whether the configured trainer works on GPUs."""
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    return accelerator in ("gpu", "cuda", "mps") or (accelerator == "auto" and torch.cuda.is_available())
