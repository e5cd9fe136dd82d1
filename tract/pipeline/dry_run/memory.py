"""Memory of a training or sampling device before anything is loaded: pure arithmetic on a few facts about model and training.

All sizes are bytes; widths and elements are numbers of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tract.inference.hf.live import PREFILL_TOKENS
from tract.models.log_probs import CHUNK_ELEMENTS
from tract.pipeline.dry_run.model_facts import ModelFacts, TokenCounts
from tract.pipeline.dry_run.training_setup import TrainingSetup

GIB = 2**30
# Torch's allocators cannot use again all that they gave out, since tensors of many sizes come and go. Share of the activations;
# measured on a CPU: 1.6 MB per token, of which 1.4 are tensors (docs/performance.md, memory).
FRAGMENTATION = 0.15
# What a process holds beside its tensors. CPU: Python and the libraries, measured. GPU: driver context, kernels and the work space
# of cuBLAS and NCCL, assumed from what is usual on A100 and H100.
PROCESS_BYTES = {"cpu": 0.5 * GIB, "gpu": 1.0 * GIB}
# Elements that ZeRO-3 keeps gathered: DeepSpeed's own stage3_max_live_parameters.
_LIVE = 1_000_000_000
# Copies of a chunk of logits that live at a time: as the product gives them, in float32, the exponentials, their cast.
_LOGIT_COPIES = 4
_GROWTH = 1.5  # by which tract.inference.hf.live adds places for tokens
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """What a part takes: ``device`` bytes of each device, ``host`` bytes of each machine's memory."""

    name: str
    device: float
    host: float = 0.0


def total(parts: Sequence[MemoryPart]) -> float:
    """Bytes of a device."""
    return sum(part.device for part in parts)


def training_memory(model: ModelFacts, setup: TrainingSetup, batch: TokenCounts) -> list[MemoryPart]:
    """What a device holds at the peak of a training step, by part; ``batch``: its largest micro-batch.

    The peak is where the backward pass begins: the gradients of the micro-batches before are there, and all activations. What the
    optimizer's step needs beside its state takes their place later, and in the end what is exported, so the largest of these counts.
    """
    passing = max(
        [MemoryPart("casts of weights", _weight_casts(model, setup)), MemoryPart("activations", _activations(model, setup, batch))],
        [MemoryPart("optimizer step", _optimizer_workspace(model, setup))],
        # A copy to write, in the machine's memory.
        [MemoryPart("copy to export", 0.0 if setup.gpu else model.trained * setup.trained)],
        key=total,
    )
    return [
        *_states(model, setup),
        MemoryPart("gathered weights", _gathered(model, setup)),
        MemoryPart("buffers of gradients", _buffers(model, setup)),
        *passing,
        MemoryPart("margin", FRAGMENTATION * total(passing)),
        MemoryPart("process", PROCESS_BYTES["gpu" if setup.gpu else "cpu"]),
    ]


def _states(model: ModelFacts, setup: TrainingSetup) -> list[MemoryPart]:
    """Weights, gradients and optimizer, each device's share; of what is offloaded the machine holds all of its devices' shares."""
    strategy = setup.strategy

    def placed(name: str, size: float, shares: int, offloaded: bool) -> MemoryPart:
        on_machine = strategy.devices // strategy.nodes
        return MemoryPart(name, 0.0, size / shares * on_machine) if offloaded else MemoryPart(name, size / shares)

    weights = model.frozen * setup.frozen + model.trained * setup.trained
    # ZeRO's masters have gradients in float32 where they lie in the machine's memory; FSDP keeps them in the weights' place.
    gradients = model.trained * (_FLOAT32 if strategy.offload_optimizer else setup.trained)
    optimizer = model.trained * (setup.master + setup.optimizer)
    return [
        placed("weights", weights, strategy.weight_shares, strategy.offload_weights),
        placed("gradients", gradients, strategy.optimizer_shares, strategy.offload_optimizer),
        placed("optimizer", optimizer, strategy.optimizer_shares, strategy.offload_optimizer),
    ]


def _gathered(model: ModelFacts, setup: TrainingSetup) -> float:
    """Weights that a device holds whole for a time, where they are spread."""
    layer = model.layer.frozen + model.layer.trained
    if setup.strategy.weight_shares == 1 and not setup.strategy.offload_weights:
        return 0.0
    if setup.strategy.kind == "zero3":
        # Layers that will be used again soon stay, up to stage3_max_live_parameters.
        return min(model.elements, max(_LIVE, layer, model.head)) * setup.compute
    # FSDP: the layer at work and the next one; embeddings and head stay from forward to backward. And the layer's whole gradient.
    outside = model.elements - model.layers * layer
    return (2 * layer + outside) * setup.compute + model.layer.trained * _FLOAT32


def _buffers(model: ModelFacts, setup: TrainingSetup) -> float:
    if setup.strategy.kind == "ddp":
        return model.trained * setup.trained  # DDP's buckets hold a copy of each gradient
    copies = {"zero2": 2, "zero3": 1}.get(setup.strategy.kind, 0)  # with overlap_comm ZeRO-2 fills one while the other is sent
    return copies * setup.strategy.bucket * setup.compute


def _weight_casts(model: ModelFacts, setup: TrainingSetup) -> float:
    """Copies that autocast makes of matrices in another dtype: the trained ones' live for a whole forward pass."""
    trained = model.layer.trained if setup.trained > setup.compute else 0
    frozen = model.layer.frozen if setup.frozen > setup.compute and not setup.checkpointing else 0
    return model.layers * (trained + frozen) * setup.compute


def _optimizer_workspace(model: ModelFacts, setup: TrainingSetup) -> float:
    """What the optimizer's step needs beside its state, when the activations are gone."""
    if setup.strategy.offload_optimizer:
        return 0.0
    # With masters the gradients are made float32 all at once (Lightning sets one sub-group); foreach holds one copy of a state.
    number = setup.master + (setup.master or setup.trained) * setup.foreach
    return model.trained / setup.strategy.optimizer_shares * number


def _activations(model: ModelFacts, setup: TrainingSetup, batch: TokenCounts) -> float:
    """What a forward pass leaves for the backward pass, and what the backward pass of one layer and the head need beside it."""
    inside = saved_in_layer(model, setup, batch.tokens)
    through = model.hidden * setup.stream * batch.tokens
    kept = model.layers * through + inside if setup.checkpointing else model.layers * inside
    # Beside what it reads, the backward pass of a layer's feed-forward block holds as much again in gradients; those of the stream
    # pass through float32.
    working = batch.tokens * (model.layer.between * setup.compute + 2 * model.hidden * _FLOAT32)
    # The LM head at the positions that are read (``tract.models.log_probs``), and the last norm before it.
    states = batch.tokens * model.hidden * 2 * _FLOAT32 + batch.reads * model.hidden * (setup.compute + 2 * _FLOAT32)
    columns = min(model.vocabulary, max(1, CHUNK_ELEMENTS // max(1, batch.reads)))
    chunk = columns * (batch.reads * _LOGIT_COPIES * _FLOAT32 + model.hidden * setup.compute)
    return kept + working + 2 * through + states + chunk + (model.head * _FLOAT32 if model.head_trained else 0)


def saved_in_layer(model: ModelFacts, setup: TrainingSetup, tokens: float) -> float:
    """What a layer saves of so many tokens for its backward pass, its input included."""
    layer = model.layer
    # The weights of norms are trained where all weights are; their gradient needs the normalised values too.
    norms = layer.norms * (_FLOAT32 + (0 if layer.frozen else setup.stream))
    read = (layer.readings if setup.own_readings else layer.inputs) * setup.read
    # Kernels save queries, keys, values and their result, and a number for each head. On a CPU keys are repeated for the heads that
    # share them.
    attention: float = (2 * layer.query + 2 * (layer.keys if setup.gpu else layer.query)) * setup.compute + _FLOAT32 * layer.heads
    if setup.eager:
        attention += layer.heads * tokens * (_FLOAT32 + (setup.compute if setup.compute < _FLOAT32 else 0))
    return tokens * (norms + read + attention + layer.between * setup.compute)


def sampling_memory(
    model: ModelFacts, weights: float, item_bytes: int, prompts: int, n_cot: int, prompt_tokens: int, cot_tokens: int, *, gpu: bool
) -> list[MemoryPart]:
    """What a device holds while CoTs are sampled: each prompt's keys and values once, and those of each CoT.

    Args:
        model: its sizes. weights: their bytes. item_bytes: of a key's numbers. prompts: at a time. n_cot: CoTs of each.
        prompt_tokens: of the longest prompt. cot_tokens: the most of a CoT. gpu: whether on one.
    """
    layer, sequences, in_prompts = model.layer, prompts * n_cot, prompts * prompt_tokens
    per_token = 2 * layer.keys * model.layers * item_bytes
    # The tokens of a prefill in one layer, their keys of all layers before they are cut into prompts, and float32 logits to draw from.
    at_once = min(in_prompts, max(PREFILL_TOKENS, prompt_tokens))
    inside = at_once * (layer.between * item_bytes + 4 * layer.query * item_bytes + 3 * model.hidden * _FLOAT32 + per_token)
    passing = [
        MemoryPart("keys and values of prompts", in_prompts * per_token),
        MemoryPart("keys and values of CoTs", sequences * cot_tokens * _GROWTH * per_token),
        MemoryPart("work space", max(inside, sequences * model.vocabulary * 4 * _FLOAT32)),
    ]
    margin, process = FRAGMENTATION * total(passing), PROCESS_BYTES["gpu" if gpu else "cpu"]
    return [MemoryPart("weights", weights), *passing, MemoryPart("margin", margin), MemoryPart("process", process)]


def engine_memory(model: ModelFacts, stored: int, longest: int, gpus: int, *, gpu: bool) -> list[MemoryPart]:
    """What an engine (vLLM) needs at the least on each of its GPUs; whatever more it is given becomes cache.

    Args:
        model: its sizes. stored: bytes of a weight, and of a key's number. longest: tokens of the longest sequence.
        gpus: over which the engine spreads weights and cache. gpu: whether on any, or on a CPU.
    """
    keys = 2 * model.layer.keys * model.layers * stored * longest
    return [
        MemoryPart("weights", model.elements * stored / gpus),
        MemoryPart("cache of one sequence", keys / gpus),
        MemoryPart("process", PROCESS_BYTES["gpu" if gpu else "cpu"]),
    ]
