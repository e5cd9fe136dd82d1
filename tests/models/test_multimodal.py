"""Models with a vision part (google/gemma-3-4b-it, -12b-it): their text model is the judge, and the rest stays as it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_items import FULL, LORA, TRACT, batch_of, gradient, make_items, make_module
from safetensors.torch import load_file
from small_models import gemma_with_vision, overrides_of
from transformers import AutoModelForCausalLM

from tract.artifacts.judges import find_judge
from tract.config.schema import AdapterConfig, Config, ModelConfig
from tract.models.loading import load_judge, load_model
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.dry_run.model_facts import describe_model
from tract.pipeline.stages.fit import fit
from tract.text.layout import SequenceLayout

TinyConfig = Callable[..., tuple[Config, Any]]
IDS = torch.tensor([[2, 4, 52, 334, 446, 75, 368]])
# The pattern of conf/adapter/lora.yaml.
ADAPTED = dataclasses.replace(LORA, exclude_modules=".*(vision|multi_modal).*")


@pytest.fixture(scope="module")
def gemma(tiny_model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return gemma_with_vision(tiny_model_config, tmp_path_factory.mktemp("gemma") / "gemma-3-small")


def is_text(name: str) -> bool:
    return ".vision_tower." not in name and ".multi_modal_projector." not in name


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("adapter", [FULL, ADAPTED], ids=["full", "lora"])
def test_what_a_text_goes_through_is_trained_and_nothing_else(
    adapter: AdapterConfig, gemma: ModelConfig, tiny_layout: SequenceLayout
) -> None:
    """Each trained weight gets a gradient, so DDP finds none unused; no other one asks for any."""
    module = make_module(gemma, tiny_layout, adapter=adapter)
    assert type(
        getattr(module.model, "base_model", None) and module.model.get_base_model() if adapter is ADAPTED else module.model
    ).__name__ == ("Gemma3ForConditionalGeneration")
    gradient(module, [batch_of(make_items(tiny_layout, 1), tiny_layout, TRACT)])
    assert module.model is not None
    touched = {name for name, p in module.model.named_parameters() if p.grad is not None}
    trained = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert touched == trained
    expected = {name for name, _ in module.model.named_parameters() if is_text(name) and (adapter is FULL or ".lora_" in name)}
    assert trained == expected
    assert not [name for name, _ in module.model.named_parameters() if ".lora_" in name and not is_text(name)]


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_it_is_trained_and_loaded_again_as_a_judge(adapter: str, gemma: ModelConfig, tiny_config: TinyConfig) -> None:
    """All weights of the exported folder, so that anybody can load it: the vision part as it was, and none made up."""
    cfg, resolved = tiny_config(
        *overrides_of(Path(gemma.name_or_path)),
        f"adapter={adapter}",
        "train.max_steps=2",
        "train.keep_weights=last",
        "data.max_val_items=1",
    )
    folder = fit(cfg, resolved)
    before = load_judge(gemma, None, four_bit=False, seed=0)
    judge = find_judge(str(folder), cfg)
    after = load_judge(judge.model, judge.weights, four_bit=False, seed=0)
    own, found = before.state_dict(), after.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own if not is_text(name))
    assert not torch.equal(
        found["model.language_model.layers.0.mlp.up_proj.weight"], own["model.language_model.layers.0.mlp.up_proj.weight"]
    )
    assert not torch.equal(logits_of(after), logits_of(before))
    again = load_model(cfg.model, cfg.adapter, seed=0, init_from=folder).eval()
    torch.testing.assert_close(logits_of(again), logits_of(after))
    if adapter == "full":
        assert load_file(folder / "model.safetensors").keys() == load_file(Path(gemma.name_or_path) / "model.safetensors").keys()
        torch.testing.assert_close(logits_of(AutoModelForCausalLM.from_pretrained(folder)), logits_of(after))
    assert json.loads((folder / "manifest.json").read_text())["training"]["trained_parameters"] == sum(
        p.numel() for name, p in again.named_parameters() if p.requires_grad
    )


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_its_sizes_are_those_of_the_text_model(adapter: str, gemma: ModelConfig, tiny_config: TinyConfig) -> None:
    """As the dry run sees it: no weight is read, and the vision part is frozen."""
    cfg, _ = tiny_config(*overrides_of(Path(gemma.name_or_path)), f"adapter={adapter}")
    facts = describe_model(cfg)
    model = load_model(cfg.model, cfg.adapter, seed=0)
    assert facts.layers == 2
    assert facts.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert facts.frozen == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert facts.layer.query == 4 * 32
    if adapter == "full":
        assert facts.frozen == sum(p.numel() for name, p in model.named_parameters() if not is_text(name)) > 0


def test_a_judge_of_all_weights_saves_and_loads_without_training(gemma: ModelConfig, tmp_path: Path) -> None:
    model = load_model(gemma, FULL, seed=0)
    save_judge(model, load_tokenizer(gemma), tmp_path)
    assert torch.equal(logits_of(load_judge(gemma, tmp_path, four_bit=False, seed=0)), logits_of(model.eval()))
