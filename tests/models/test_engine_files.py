"""A judge as files for another engine: what plain transformers load from them is the judge itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tract.common.errors import ConfigError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.engine_files import ServingFiles, serving_files
from tract.models.loading import load_judge, load_model
from tract.models.saving import save_judge

IDS = torch.tensor([[2, 4, 52, 334, 446, 75, 368]])


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def from_files(files: ServingFiles) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(files.model, dtype=torch.float32)
    AutoTokenizer.from_pretrained(files.tokenizer)
    return logits_of(model)


@pytest.fixture
def adapter(tiny_model_config: ModelConfig, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    model = load_model(tiny_model_config, AdapterConfig("lora", 4, 16.0, 0.0, ["all-linear"], None), seed=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    save_judge(model, tiny_tokenizer, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_random_weights_are_written_once_for_each_seed(tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    files = serving_files(tiny_model_config, None, merge=False, seed=3, cache=tmp_path)
    torch.testing.assert_close(from_files(files), logits_of(load_judge(tiny_model_config, None, four_bit=False, seed=3)))
    assert (files.adapter, files.adapter_rank, files.max_positions) == (None, 0, 8192)
    written = (Path(files.model) / "model.safetensors").stat().st_mtime_ns
    assert serving_files(tiny_model_config, None, merge=False, seed=3, cache=tmp_path) == files
    assert (Path(files.model) / "model.safetensors").stat().st_mtime_ns == written
    assert serving_files(tiny_model_config, None, merge=False, seed=4, cache=tmp_path).model != files.model


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_lies_beside_the_weights_or_in_them(merge: bool, tiny_model_config: ModelConfig, adapter: Path, tmp_path: Path) -> None:
    files = serving_files(tiny_model_config, adapter, merge=merge, seed=0, cache=tmp_path)
    judge, seed = (logits_of(load_judge(tiny_model_config, weights, four_bit=False, seed=0)) for weights in (adapter, None))
    assert (judge - seed).abs().max() > 1e-2
    torch.testing.assert_close(from_files(files), judge if merge else seed)
    assert (files.adapter, files.adapter_rank) == ((None, 0) if merge else (adapter, 4))


def test_another_adapter_is_merged_anew(tiny_model_config: ModelConfig, adapter: Path, tmp_path: Path) -> None:
    first = serving_files(tiny_model_config, adapter, merge=True, seed=0, cache=tmp_path)
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))
    assert serving_files(tiny_model_config, adapter, merge=True, seed=0, cache=tmp_path).model != first.model


def test_whole_weights_are_used_where_they_are(tiny_model_config: ModelConfig, tiny_tokenizer: Any, tmp_path: Path) -> None:
    save_judge(load_judge(tiny_model_config, None, four_bit=False, seed=1), tiny_tokenizer, tmp_path / "whole")
    files = serving_files(tiny_model_config, tmp_path / "whole", merge=True, seed=0, cache=tmp_path)
    assert files.model == files.tokenizer == str(tmp_path / "whole")
    torch.testing.assert_close(from_files(files), logits_of(load_judge(tiny_model_config, None, four_bit=False, seed=1)))


def test_a_model_that_is_not_there(tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    absent = dataclasses.replace(tiny_model_config, name_or_path=str(tmp_path / "absent"), package=None, random_init=False)
    with pytest.raises(ConfigError, match="model.name_or_path: cannot load"):
        serving_files(absent, None, merge=False, seed=0, cache=tmp_path)
