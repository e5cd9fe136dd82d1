"""Memory of a training or sampling device before anything is loaded: pure arithmetic on a few facts about model and strategy.

All sizes are bytes; widths and elements are numbers of values. Rates per token are those of one device's micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from tract.pipeline.dry_run.facts import GIB, Compute, LayerFacts, MicroBatchSize, ModelFacts, SamplingLoad, Storage, Strategy

# Torch's allocators cannot use again all that they gave out, since tensors of many sizes come and go. Share of the activations;
# measured on a CPU: 1.6 MB per token, of which 1.4 are tensors (docs/performance.md, memory).
FRAGMENTATION = 0.15
# What a process holds beside its tensors. CPU: Python and the libraries, measured. GPU: driver context, kernels and the work space
# of cuBLAS and NCCL, assumed from what is usual on A100 and H100.
PROCESS_BYTES = {"cpu": 0.5 * GIB, "gpu": 1.0 * GIB}
# Copies of a chunk of logits that live at a time: as the product gives them, in float32, the exponentials, their cast.
_LOGIT_COPIES = 4
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """What a part takes: ``device`` bytes of each device, ``host`` bytes of each machine's memory."""

    name: str
    device: float
    host: float = 0.0


def training_memory(facts: ModelFacts, storage: Storage, strategy: Strategy, batch: MicroBatchSize, run: Compute) -> list[MemoryPart]:
    """What a device holds at the peak of a training step, by part.

    The peak is where the backward pass begins: the gradients of the micro-batches before are there, and all activations. What the
    optimizer's step needs beside its state takes their place later, and in the end what is exported, so the largest of these counts.
    """
    casts, inside = _weight_casts(facts, storage, run), activations(facts, storage, batch, run)
    step = optimizer_workspace(facts, storage, strategy, run)
    export = 0.0 if run.gpu else facts.trained * storage.trained  # a copy to write, in the machine's memory
    passing = max(
        [MemoryPart("casts of weights", casts), MemoryPart("activations", inside)],
        [MemoryPart("optimizer step", step)],
        [MemoryPart("copy to export", export)],
        key=lambda parts: sum(part.device for part in parts),
    )
    return [
        *_states(facts, storage, strategy),
        MemoryPart("gathered weights", gathered(facts, storage, strategy)),
        MemoryPart("buffers of gradients", _buffers(facts, storage, strategy)),
        *passing,
        MemoryPart("margin", FRAGMENTATION * sum(part.device for part in passing)),
        MemoryPart("process", PROCESS_BYTES["gpu" if run.gpu else "cpu"]),
    ]


def _states(facts: ModelFacts, storage: Storage, strategy: Strategy) -> list[MemoryPart]:
    """Weights, gradients and optimizer, each device's share; of what is offloaded the machine holds all of its devices' shares."""
    on_machine = strategy.devices // strategy.nodes
    weights = (facts.frozen * storage.frozen + facts.trained * storage.trained) / strategy.weight_shares
    gradients = facts.trained * storage.gradient / strategy.optimizer_shares
    optimizer = facts.trained * (storage.master + storage.optimizer) / strategy.optimizer_shares

    def placed(name: str, size: float, offloaded: bool) -> MemoryPart:
        return MemoryPart(name, 0.0, size * on_machine) if offloaded else MemoryPart(name, size)

    # ZeRO's masters have gradients in float32 where they lie in the machine's memory; FSDP keeps them in the weights' place.
    hosted = facts.trained * _FLOAT32 / strategy.optimizer_shares if strategy.offload_optimizer else 0.0
    return [
        placed("weights", weights, strategy.offload_weights),
        placed("gradients", hosted or gradients, strategy.offload_optimizer),
        placed("optimizer", optimizer, strategy.offload_optimizer),
    ]


def gathered(facts: ModelFacts, storage: Storage, strategy: Strategy) -> float:
    """Weights that a device holds whole for a time, where they are spread."""
    layer = facts.layer.frozen + facts.layer.trained
    if strategy.weight_shares == 1 and not strategy.offload_weights:
        return 0.0
    if strategy.kind == "zero3":
        # Layers that will be used again soon stay, up to stage3_max_live_parameters.
        return min(facts.elements, max(strategy.live, layer, facts.head)) * storage.compute
    # FSDP: the layer at work and the next one; embeddings and head stay from forward to backward. And the layer's whole gradient.
    return (2 * layer + facts.outside) * storage.compute + facts.layer.trained * _FLOAT32


def _buffers(facts: ModelFacts, storage: Storage, strategy: Strategy) -> float:
    if strategy.kind == "ddp":
        return facts.trained * storage.gradient  # DDP's buckets hold a copy of each gradient
    copies = {"zero2": 2, "zero3": 1}.get(strategy.kind, 0)  # with overlap_comm ZeRO-2 fills one while the other is sent
    return copies * strategy.bucket * storage.compute


def _weight_casts(facts: ModelFacts, storage: Storage, run: Compute) -> float:
    """Copies that autocast makes of matrices in another dtype: the trained ones' live for a whole forward pass."""
    cast = [(facts.layer.trained_linear, storage.trained), *([] if run.checkpointing else [(facts.layer.frozen_linear, storage.frozen)])]
    return sum(facts.layers * elements * storage.compute for elements, stored in cast if stored > storage.compute)


def optimizer_workspace(facts: ModelFacts, storage: Storage, strategy: Strategy, run: Compute) -> float:
    """What the optimizer's step needs beside its state, when the activations are gone."""
    if strategy.offload_optimizer:
        return 0.0
    share = facts.trained / strategy.optimizer_shares
    number = storage.master or storage.trained
    # With masters the gradients are made float32 all at once (Lightning sets one sub-group); foreach holds one copy of a state.
    return share * ((number if storage.master else 0) + (number if run.foreach else 0))


def activations(facts: ModelFacts, storage: Storage, batch: MicroBatchSize, run: Compute) -> float:
    """What a forward pass leaves for the backward pass, and what the backward pass of one layer and the head need beside it."""
    inside = saved_in_layer(facts.layer, storage, batch, run)
    through = facts.hidden * storage.stream * batch.tokens
    kept = facts.layers * through + inside if run.checkpointing else facts.layers * inside
    # Beside what it reads, the backward pass of a layer's feed-forward block holds as much again in gradients; those of the stream
    # pass through float32.
    working = batch.tokens * (facts.layer.between * storage.compute + 2 * facts.hidden * _FLOAT32)
    return kept + working + 2 * through + _head(facts, storage, batch, run)


def saved_in_layer(layer: LayerFacts, storage: Storage, batch: MicroBatchSize, run: Compute) -> float:
    """What a layer saves for its backward pass, its input included."""
    norms = layer.norms * _FLOAT32 + layer.trained_norms * storage.stream
    read = (layer.readings if storage.own_readings else layer.inputs) * storage.read
    # Kernels save queries, keys, values and their result, and a number for each head. On a CPU keys are repeated for the heads that
    # share them.
    attention = (2 * layer.query + 2 * (layer.keys if run.gpu else layer.query)) * storage.compute + _FLOAT32 * layer.heads
    if run.attention == "eager":
        attention += layer.heads * batch.tokens * (_FLOAT32 + (storage.compute if storage.compute < _FLOAT32 else 0))
    feed_forward = (layer.between + layer.ranks) * storage.compute
    return batch.tokens * (norms + read + attention + feed_forward)


def _head(facts: ModelFacts, storage: Storage, batch: MicroBatchSize, run: Compute) -> float:
    """The LM head at the positions that are read (``tract.models.log_probs``), and the last norm before it."""
    states = batch.tokens * facts.hidden * 2 * _FLOAT32 + batch.reads * facts.hidden * (storage.compute + 2 * _FLOAT32)
    columns = min(facts.vocabulary, max(1, run.chunk // max(1, batch.reads)))
    chunk = columns * (batch.reads * _LOGIT_COPIES * _FLOAT32 + facts.hidden * storage.compute)
    return states + chunk + (facts.head * _FLOAT32 if facts.head_trained else 0)


def sampling_memory(facts: ModelFacts, weights: float, item_bytes: int, work: SamplingLoad, *, gpu: bool) -> list[MemoryPart]:
    """What a device holds while CoTs are sampled: each prompt's keys and values once, and those of each CoT.

    Args:
        facts: of the model. weights: their bytes. item_bytes: of a key's numbers. work: what is sampled. gpu: whether on one.
    """
    layer = facts.layer
    per_token = 2 * layer.keys * facts.layers * item_bytes
    slots = work.cot_tokens * work.growth  # at most
    own = work.sequences * slots * per_token
    prompts = work.prompts * work.prompt_tokens * per_token
    # The tokens of a prefill in one layer, their keys of all layers before they are cut into prompts, and float32 logits to draw from.
    prompt_tokens = work.prompts * work.prompt_tokens
    at_once = min(prompt_tokens, max(work.prefill, work.prompt_tokens))
    inside = at_once * (layer.between * item_bytes + 4 * layer.query * item_bytes + 3 * facts.hidden * _FLOAT32 + per_token)
    drawing = work.sequences * facts.vocabulary * 4 * _FLOAT32
    return [
        MemoryPart("weights", weights),
        MemoryPart("keys and values of prompts", prompts),
        MemoryPart("keys and values of CoTs", own),
        MemoryPart("work space", max(inside, drawing)),
        MemoryPart("margin", FRAGMENTATION * (prompts + own + max(inside, drawing))),
        MemoryPart("process", PROCESS_BYTES["gpu" if gpu else "cpu"]),
    ]


def engine_memory(facts: ModelFacts, weights: float, item_bytes: int, longest: int, gpus: int, *, gpu: bool) -> list[MemoryPart]:
    """What an engine (vLLM) needs at the least on each of its GPUs; whatever more it is given becomes cache.

    Args:
        facts: of the model. weights: their bytes. item_bytes: of a key's numbers. longest: tokens of the longest sequence.
        gpus: over which the engine spreads weights and cache. gpu: whether on any, or on a CPU.
    """
    keys = 2 * facts.layer.keys * facts.layers * item_bytes * longest
    return [
        MemoryPart("weights", weights / gpus),
        MemoryPart("cache of one sequence", keys / gpus),
        MemoryPart("process", PROCESS_BYTES["gpu" if gpu else "cpu"]),
    ]
