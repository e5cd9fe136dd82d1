"""What reports call a model: never a pattern or a file of a quantisation."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tract.common.model_name import model_name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("/models/judge", "/models/judge"),
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("models/Qwen3-0.6B-Q8_0.gguf", "Qwen3-0.6B"),
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Llama-3.2-1B-Instruct"),
        ("gemma-3-1b-it-IQ4_XS.gguf", "gemma-3-1b-it"),
        ("Phi-4-mini.f16.gguf", "Phi-4-mini"),
        ("judge_BF16.gguf", "judge"),
        ("judge-v2.gguf", "judge-v2"),  # no quantisation
        ("Q4_0.gguf", "Q4_0"),
    ],
)
def test_names(given: str, name: str) -> None:
    assert model_name(given, None) == name


def packaged(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: str) -> None:
    """A package ``llm_some`` with these files."""
    for name in ("__init__.py", *files):
        (folder / name).touch()
    spec = ModuleSpec("llm_some", None, origin=str(folder / "__init__.py"))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: spec if name == "llm_some" else found(name, *rest))


def test_a_pattern_in_a_package_is_the_file_that_it_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, tmp_path, "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert model_name("*.gguf", "llm_some") == "SmolLM2-135M-Instruct"


@pytest.mark.parametrize("files", [(), ("a.gguf", "b.gguf")], ids=["none", "two"])
def test_a_pattern_that_matches_no_single_file_is_called_after_its_package(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged(monkeypatch, tmp_path, *files)
    assert model_name("*.gguf", "llm_some") == "llm-some"
    assert model_name("*.gguf", "llm_that_is_not_installed") == "llm-that-is-not-installed"


def test_a_folder_in_a_package_keeps_its_place() -> None:
    assert model_name("assets/tiny", "tract") == "tract/assets/tiny"
