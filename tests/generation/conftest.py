"""A tiny judge that has learned to write feedback and the cue, so that sampled CoTs end in each possible way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from judge_items import TRACT, batch_of, gradient, make_items
from test_gradients import make_module

from tract.config import ModelConfig
from tract.generation.judgement import Prompt
from tract.layout import SequenceLayout
from tract.modeling import save_judge


@pytest.fixture(scope="session")
def talking_model(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> Any:
    """The tiny model, trained on six items until it often reaches the cue."""
    module = make_module(tiny_model_config, tiny_layout)
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-3)
    batch = batch_of(make_items(tiny_layout, 6), tiny_layout, TRACT)
    for _ in range(100):
        gradient(module, [batch])
        optimizer.step()
    assert module.model is not None
    return module.model.eval()


@pytest.fixture(scope="session")
def prompts(tiny_layout: SequenceLayout) -> list[Prompt]:
    """Prompts of very different lengths, also ones that the talking model was not trained on."""
    return [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(make_items(tiny_layout, 8))]


@pytest.fixture(scope="session")
def talking_folder(talking_model: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The talking model as files."""
    path = tmp_path_factory.mktemp("talking")
    model = talking_model.merge_and_unload() if hasattr(talking_model, "merge_and_unload") else talking_model
    save_judge(model, tiny_tokenizer, path)
    return str(path)
