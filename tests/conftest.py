"""Fixtures: the tiny model, its tokenizer, and composed configurations. Everything runs on a CPU without a network."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before any library reads them: no test may ask a hub or a server for anything.
os.environ.update({"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true", "TOKENIZERS_PARALLELISM": "false"})

import pytest
from composing import composed
from hypothesis import settings
from omegaconf import DictConfig
from tiny_pipeline import Tiny

from tract.artifacts.products import Product
from tract.config.schema import Config, ModelConfig
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

# A shared machine may stop for longer than any deadline.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

pytest_plugins = ["made_study"]

ROOT = Path(__file__).resolve().parents[1]
_OF_IMPORTS = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
CUE = " So the overall score is "


def pytest_collection_finish() -> None:
    """Imported modules live to the end: the garbage collections, one after each stage, need not look through them again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Extension modules look at exit for what they leaked."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need GPUs, or vLLM's build for them, say what is missing. Each begins with the level of a fresh root logger."""
    logging.getLogger().setLevel(logging.WARNING)  # where Hydra ran in this process, it has lowered it
    for name, value in _OF_IMPORTS.items():  # a multirun in this process has set them for its jobs
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    needed = 2 if item.get_closest_marker("multigpu") else 1 if item.get_closest_marker("gpu") else 0
    if not needed:
        return
    import torch

    if (found := torch.cuda.device_count()) < needed:
        pytest.skip(f"needs {needed} CUDA device{'s' * (needed > 1)}; torch finds {found or 'none'}")
    if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed: pip install -c constraints.txt -e '.[vllm]'")


@pytest.fixture
def compose_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the training configuration with overrides; runs and cache go to a temporary folder."""

    def run(*overrides: str) -> DictConfig:
        return composed([f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *overrides])

    return run


@pytest.fixture
def tiny_config(compose_config: Callable[..., DictConfig]) -> Callable[..., tuple[Config, DictConfig]]:
    """A small configuration of the tiny model on a few generated tasks, typed and as composed."""

    def run(*overrides: str) -> tuple[Config, DictConfig]:
        small = [] if any(o.startswith("data=") for o in overrides) else ["data.source.n_questions=12", "data.source.n_ood_questions=1"]
        cfg = compose_config(
            "model=tiny", *small, "logger=csv", "trainer.enable_progress_bar=false",
            "batch.global_batch_size=4", "batch.micro_batch_size=2", "batch.max_tokens_per_micro_batch=null",
            "train.max_steps=4", "train.validate_every_steps=2",
            "train.checkpoint_every_steps=2", "train.validate_base_model=false", *overrides,
        )  # fmt: skip
        return validate(cfg), cfg

    return run


@pytest.fixture(scope="session")
def tiny_model_config() -> ModelConfig:
    """The tiny model's configuration."""
    return validate(composed(["model=tiny"])).model


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model_config: ModelConfig) -> Any:
    """The tokenizer shipped for tests."""
    return load_tokenizer(tiny_model_config)


@pytest.fixture(scope="session")
def tiny_layout(tiny_tokenizer: Any) -> SequenceLayout:
    """The layout of the tiny tokenizer with scores 1 to 5."""
    return SequenceLayout.build(tiny_tokenizer, system=False, cue=CUE, grid=ScoreGrid(("1", "2", "3", "4", "5")), chat_template_kwargs={})


@pytest.fixture
def vllm_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make setup` does not install vLLM."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "vllm" or found(name, *rest))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real judge data; skips where it is absent."""
    folder = Path(os.environ.get("TRACT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "vicuna_feedback.jsonl").is_file():
        pytest.skip(f"vicuna_feedback.jsonl is missing in {folder}; set TRACT_SHARED_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def talking_model(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> Any:
    """The tiny model, trained on six items until it often reaches the cue, so that sampled CoTs end in each possible way."""
    import torch
    from judge_items import TRACT, batch_of, gradient, make_items, make_module

    module = make_module(tiny_model_config, tiny_layout)
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-3)
    batch = batch_of(make_items(tiny_layout, 6), tiny_layout, TRACT)
    for _ in range(100):
        gradient(module, [batch])
        optimizer.step()
    assert module.model is not None
    return module.model.eval()


@pytest.fixture(scope="session")
def talking_folder(talking_model: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The talking model as files."""
    from tract.models.saving import save_judge

    path = tmp_path_factory.mktemp("talking")
    model = talking_model.merge_and_unload() if hasattr(talking_model, "merge_and_unload") else talking_model
    save_judge(model, tiny_tokenizer, path)
    return str(path)


@dataclass(frozen=True)
class Whole:
    """The tiny pipeline after its first run: where, its products and its log."""

    tiny: Tiny
    products: dict[str, Product]
    lines: list[str]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """All five stages; tests may run changed pipelines beside it, which reuse what is the same, but change none of its products."""
    tiny = Tiny(tmp_path_factory.mktemp("pipeline"))
    products, lines = tiny.run()
    return Whole(tiny, products, lines)
