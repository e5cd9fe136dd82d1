"""QLoRA with the real bitsandbytes, which runs on CPUs: what is quantised, what is trained, and that the judge is what was trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bitsandbytes.nn.modules as bnb_modules
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from judge_items import TRACT, batch_of, gradient, make_items, make_module
from small_models import family_folder, gguf_file, overrides_of, tiny_folder
from torch import nn

from tract.artifacts.judges import find_judge
from tract.config.schema import AdapterConfig, ModelConfig
from tract.inference.hf.packed_linear import pack_linears
from tract.judge.backends import BackendOptions, start_worker
from tract.models.loading import load_judge, load_model
from tract.models.locating import in_folder
from tract.models.saving import save_judge
from tract.models.sharding import elements_of
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.backends import hf_judge
from tract.text.layout import SequenceLayout

QLORA = AdapterConfig("qlora", 4, 8.0, 0.0, ["all-linear"], None)
IDS = torch.tensor([[2, 4, 52, 334, 446, 75, 368]])


@pytest.fixture(scope="module")
def base(tiny_model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """The tiny model as a folder, in bfloat16 and with checkpointing, as options for large models have it."""
    cfg = tiny_folder(tiny_model_config, tmp_path_factory.mktemp("base"))
    return dataclasses.replace(cfg, dtype="bfloat16", gradient_checkpointing=True)


def quantised(model: nn.Module) -> list[Linear4bit]:
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_matrices_have_4_bits_and_everything_else_is_float32(base: ModelConfig) -> None:
    model = load_model(base, QLORA, seed=0)
    layers = quantised(model)
    assert len(layers) == 2 * 7
    assert {(layer.weight.dtype, layer.weight.quant_state.quant_type, layer.compute_dtype) for layer in layers} == {
        (torch.uint8, "nf4", torch.bfloat16)
    }
    others = {p.dtype for p in model.parameters() if p.dtype != torch.uint8}
    assert others == {torch.float32}
    assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
    whole = load_model(base, dataclasses.replace(QLORA, kind="lora"), seed=0)
    assert sum(map(elements_of, model.parameters())) == sum(map(elements_of, whole.parameters()))


def test_checkpointing_is_not_reentrant(base: ModelConfig) -> None:
    """PEFT's preparation once set it to torch's default, by which a layer whose input needs no gradient gets none."""
    model = load_model(base, QLORA, seed=0)
    found = [module._gradient_checkpointing_func for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    assert found
    assert {repr(getattr(function, "keywords", None)) for function in found} == {repr({"use_reentrant": False})}


def test_checkpointing_changes_no_gradient(base: ModelConfig, tiny_layout: SequenceLayout) -> None:
    batch = batch_of(make_items(tiny_layout, 1), tiny_layout, TRACT)
    cfg = dataclasses.replace(base, dtype="float32")
    modules = [make_module(dataclasses.replace(cfg, gradient_checkpointing=on), tiny_layout, adapter=QLORA) for on in (True, False)]
    with_it, without = (gradient(module, [batch]) for module in modules)
    assert torch.equal(with_it, without)
    # B is zero at first, so all of the gradient is B's.
    names = [name for name, p in modules[0].named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(names) == 2 * 7
    assert all("lora_B" in name for name in names)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_judge_computes_what_was_trained(base: ModelConfig, tiny_model_config: ModelConfig, dtype: str, tmp_path: Path) -> None:
    """Embeddings, norms and head of a judge were once left in bfloat16, where training has them in float32."""
    cfg = dataclasses.replace(base, dtype=dtype)
    trained = load_model(cfg, QLORA, seed=0)
    with torch.no_grad():
        for name, p in trained.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    save_judge(trained, load_tokenizer(tiny_model_config), tmp_path)
    judge = load_judge(cfg, tmp_path, four_bit=True, seed=0)
    expected = logits_of(trained.eval())
    assert torch.equal(logits_of(judge), expected)
    again = load_model(cfg, QLORA, seed=0, init_from=tmp_path).eval()
    assert torch.equal(logits_of(again), expected)
    whole = logits_of(load_judge(cfg, tmp_path, four_bit=False, seed=0)).float()
    assert 1e-3 < (whole - expected).abs().max() < 1, "nothing was quantised"
    pack_linears(judge)  # as at work
    torch.testing.assert_close(logits_of(judge), expected)


def test_evaluation_leaves_the_weights_as_they_are(base: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes would round the scales once more, and take the gradient from what is trained on.

    Other CPUs are told here that they are such.
    """
    monkeypatch.setattr(bnb_modules, "has_avx512bf16", lambda: True)
    assert Linear4bit(64, 64).support_avx512bf16_for_cpu, "bitsandbytes has another name for it now"
    model = load_model(base, QLORA, seed=0)
    before = [layer.weight.data.clone() for layer in quantised(model)]
    logits_of(model.eval())
    assert all(torch.equal(layer.weight.data, weight) for layer, weight in zip(quantised(model), before, strict=True))
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in quantised(model))
    inputs = torch.zeros(1, 3, 64).requires_grad_()
    model.train()(inputs_embeds=inputs, use_cache=False).logits.sum().backward()
    assert inputs.grad is not None
    assert not quantised(load_judge(base, None, four_bit=True, seed=0))[0].support_avx512bf16_for_cpu


@pytest.mark.parametrize("backend", ["pipeline", "judge"])
def test_a_judge_on_4_bit_weights_is_made_on_the_device_that_was_asked_for(
    backend: str, base: ModelConfig, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers by itself takes the first GPU that it sees, also where a CPU, or another GPU, was asked for."""
    asked, made_on = torch.device("cpu", 0), []

    def load(*_: Any, **__: Any) -> nn.Module:
        made_on.append(torch.get_default_device())
        return nn.Linear(1, 1)

    monkeypatch.setattr("tract.inference.hf.sequences.load_judge", load)
    monkeypatch.setattr("tract.inference.backends.apply_sequence_path", lambda model, *_, **__: model)
    if backend == "pipeline":
        cfg, _ = tiny_config(*overrides_of(Path(base.name_or_path)))
        monkeypatch.setattr("tract.pipeline.backends._device", lambda _: asked)
        monkeypatch.setattr("tract.inference.backends.hf_judge_of", lambda _: lambda *_, **__: None)
        hf_judge(dataclasses.replace(find_judge("base", cfg), four_bit=True), cfg)
    else:
        monkeypatch.setattr("tract.inference.hf.worker.LocalWorker", lambda *_, **__: None)
        settings = SimpleNamespace(seed=0, name="base", dtype="float32", max_length=None)
        files: Any = SimpleNamespace(model=base, weights=None, four_bit=True, seed=0, layout=None, extra_body={}, settings=settings)
        options = BackendOptions(str(asked), 1, None, None, "vllm", "NO_KEY", 60.0, 2, {}, Path())
        start_worker("hf", files, options)
    assert made_on == [asked]


def test_what_a_gguf_file_holds_is_quantised_too(tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    """The same as of its dequantised weights, whether it is unpacked into a folder or never kept."""
    own = family_folder(tiny_model_config, tmp_path / "own", "llama", head_dim=16)
    gguf_file(load_judge(own, None, four_bit=False, seed=0), tmp_path / "small.gguf")
    packed = dataclasses.replace(in_folder(own, tmp_path / "small.gguf"), unpacked=None)
    plain = load_judge(packed, None, four_bit=False, seed=0)
    save_judge(plain, load_tokenizer(tiny_model_config), tmp_path / "plain")
    expected = load_judge(in_folder(packed, tmp_path / "plain"), None, four_bit=True, seed=0)
    found = load_judge(packed, None, four_bit=True, seed=0)
    assert len(quantised(found)) == 2 * 7
    assert torch.equal(logits_of(found), logits_of(expected))
    assert not torch.equal(logits_of(found), logits_of(plain))
    model = load_model(packed, QLORA, seed=0)
    assert torch.equal(logits_of(model.eval()), logits_of(expected))
