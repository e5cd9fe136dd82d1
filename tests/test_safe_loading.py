"""Nothing that is loaded can run code: pickles of weights, code beside a model, adapters; and no unsafe loader in the sources."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from tracked_files import tracked

from tract.common.errors import ConfigError, DataError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.adapters import lora_config
from tract.models.engine_files import serving_files
from tract.models.loading import load_judge, load_model
from tract.models.locating import in_folder
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
LORA = AdapterConfig(kind="lora", rank=4, alpha=8.0, dropout=0.0, target_modules=["all-linear"], exclude_modules=None)


class Evil:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The folder that an unpickled ``Evil`` makes: never there at the end of a test."""
    mark = tmp_path / "code-was-run"
    yield mark
    assert not mark.exists()


def as_zip(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def folder(tiny_model_config: ModelConfig, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A model as others publish it."""
    folder = tmp_path / "model"
    model: Any = load_judge(tiny_model_config, None, four_bit=False, seed=0)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(tiny_model_config: ModelConfig, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_judge(load_model(tiny_model_config, LORA, seed=0), tiny_tokenizer, folder)
    return folder


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


def test_the_pickle_of_these_tests_works(tmp_path: Path) -> None:
    """Else they would show nothing."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()
    torch.load(io.BytesIO(as_zip(Evil(tmp_path / "zipped"))), weights_only=False)
    assert (tmp_path / "zipped").is_dir()


# Weights that are pickled


def test_pickled_weights_that_are_weights_are_loaded(folder: Path, tiny_model_config: ModelConfig) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    loaded = dict(load_judge(in_folder(tiny_model_config, folder), None, four_bit=False, seed=0).named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("seal", [pickle.dumps, as_zip])
def test_pickled_weights_run_nothing(seal: Any, folder: Path, mark: Path, tiny_model_config: ModelConfig) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(seal({**weights, "evil": Evil(mark)}))
    with pytest.raises(ConfigError) as refused:
        load_judge(in_folder(tiny_model_config, folder), None, four_bit=False, seed=0)
    one_line(refused, "model.name_or_path: pytorch_model.bin in ", "holds more than weights", "as safetensors")


@pytest.mark.parametrize("seal", [pickle.dumps, as_zip])
def test_a_pickled_adapter_runs_nothing(seal: Any, adapter: Path, mark: Path, tiny_model_config: ModelConfig) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(seal({"evil": Evil(mark)}))
    with pytest.raises(ConfigError) as refused:
        load_judge(tiny_model_config, adapter, four_bit=False, seed=0)
    one_line(refused, "judge: adapter_model.bin in ", "holds more than weights", "as safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_junk(name: str, folder: Path, tiny_model_config: ModelConfig) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"PK\x03\x04 no archive" * 9)
    with pytest.raises(ConfigError) as refused:
        load_judge(in_folder(tiny_model_config, folder), None, four_bit=False, seed=0)
    one_line(refused, "model.name_or_path: ", str(folder))


def test_an_adapter_that_is_junk(adapter: Path, tiny_model_config: ModelConfig) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"junk" * 9)
    with pytest.raises(ConfigError) as refused:
        load_judge(tiny_model_config, adapter, four_bit=False, seed=0)
    one_line(refused, "judge: cannot load ", str(adapter))


# Adapters


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x",
         "tokenizer_name_or_path": "somewhere", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"megatron_config": {"x": 1}, "megatron_core": "antigravity"},
    ],
)  # fmt: skip
def test_adapters_that_make_peft_load_more_are_refused(changes: dict[str, Any], adapter: Path, tiny_model_config: ModelConfig) -> None:
    edited(adapter / "adapter_config.json", **changes)
    with pytest.raises(ConfigError, match=r"judge: .*adapter_config.json is of the kind .*; a LoRA adapter is accepted"):
        load_judge(tiny_model_config, adapter, four_bit=False, seed=0)


def test_the_base_model_that_an_adapter_names_is_not_loaded(adapter: Path, tiny_model_config: ModelConfig) -> None:
    edited(adapter / "adapter_config.json", base_model_name_or_path="../../elsewhere", auto_mapping={"parent_library": "antigravity"})
    assert lora_config(adapter).r == 4
    assert not load_judge(tiny_model_config, adapter, four_bit=False, seed=0).training


# Paths in a model's folder


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/tmp/elsewhere.safetensors", "sub/../../elsewhere.safetensors", 3])
def test_an_index_of_weights_keeps_to_its_folder(name: object, folder: Path, tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    os.replace(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    cfg = in_folder(tiny_model_config, folder)
    with pytest.raises(DataError, match=r"the name .* is refused, .*; only files of the folder itself are accepted"):
        load_judge(cfg, None, four_bit=False, seed=0)
    with pytest.raises(DataError, match=r"the name .* is refused"):
        serving_files(cfg, None, merge=False, seed=0, cache=tmp_path / "cache")


def test_sharded_weights_are_loaded(folder: Path, tiny_model_config: ModelConfig) -> None:
    weights = load_file(folder / "model.safetensors")
    os.replace(folder / "model.safetensors", folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "part.safetensors")})
    )
    loaded = dict(load_judge(in_folder(tiny_model_config, folder), None, four_bit=False, seed=0).named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


# Code that comes with a model

CODE = """
import os
os.makedirs({mark!r}, exist_ok=True)
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own-llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(folder: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "modeling_own.py").write_text(CODE.format(mark=str(mark)))
    auto_map = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edited(folder / "config.json", model_type="own-llama", architectures=["OwnModel"], auto_map=auto_map)
    return folder


@pytest.mark.parametrize("random_init", [False, True])
def test_code_of_a_model_is_not_run_and_nobody_is_asked(
    random_init: bool, with_code: Path, tiny_model_config: ModelConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    cfg = replace(in_folder(tiny_model_config, with_code), random_init=random_init)
    for load in (
        lambda: load_judge(cfg, None, four_bit=False, seed=0),
        lambda: load_model(cfg, LORA, seed=0),
        lambda: load_model(cfg, LORA, seed=0, empty=True),
        lambda: serving_files(cfg, None, merge=False, seed=0, cache=tmp_path / "cache"),
    ):
        with pytest.raises(ConfigError) as refused:
            load()
        one_line(refused, "model.trust_remote_code: ", str(with_code), "comes with Python code of its own, which is not run")


def test_code_of_a_tokenizer_is_not_run(folder: Path, mark: Path, tiny_model_config: ModelConfig) -> None:
    (folder / "tokenization_own.py").write_text(f"import os\nos.makedirs({str(mark)!r})\n")
    edited(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]},
    )
    with pytest.raises(ConfigError, match=r"^model.trust_remote_code: .* comes with Python code of its own, which is not run"):
        load_tokenizer(in_folder(tiny_model_config, folder))


def test_allowed_code_is_run_with_one_warning_each_time(
    with_code: Path, tiny_model_config: ModelConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one test that lets it run."""
    cfg = replace(in_folder(tiny_model_config, with_code), trust_remote_code=True)
    for number in (1, 2):  # the tokenizer is kept, so the second time it is not loaded
        load_tokenizer(cfg)
        assert type(load_judge(cfg, None, four_bit=False, seed=0)).__name__ == "OwnModel"
        said = [record for record in caplog.records if "trust_remote_code" in record.getMessage()]
        assert len(said) == number
        assert said[-1].levelno == logging.WARNING
        assert said[-1].getMessage() == f"model.trust_remote_code=true: Python code of {with_code} may run in this process (this folder)"
    assert (tmp_path / "code-was-run").is_dir()
    (tmp_path / "code-was-run").rmdir()


@pytest.mark.parametrize(
    ("revision", "said"), [("abc123", "revision abc123"), (None, "no revision is pinned, so its code may change: set model.revision")]
)
def test_the_warning_names_repository_and_revision(
    revision: str | None, said: str, tiny_model_config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = replace(in_folder(tiny_model_config, "someone/own-model"), trust_remote_code=True, revision=revision)
    with pytest.raises(ConfigError):  # there is no network
        load_judge(cfg, None, four_bit=False, seed=0)
    assert [message for message in caplog.messages if "trust_remote_code" in message] == [
        f"model.trust_remote_code=true: Python code of someone/own-model may run in this process ({said})"
    ]


# Data sets of the hub


def test_a_loading_script_of_a_data_set_is_not_run(tmp_path: Path, mark: Path) -> None:
    """The library has no such scripts any more, and no argument of ours would allow them."""
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"import os\nos.makedirs({str(mark)!r})\n")
    with pytest.raises(Exception, match=r"scripts are no longer supported"):
        datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


# The sources

SOURCES = [*(ROOT / "tract").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").glob("*.py"), *ROOT.glob("*.py")]
# What of pickle may be used, and where: exceptions, and the reader that refuses what is no metadata.
PICKLE = {
    "checkpoints.py": {"UnpicklingError"},
    "locating.py": {"UnpicklingError"},
    "safe_unpickling.py": {"UnpicklingError", "Unpickler"},
}
MODULES = ("marshal", "shelve", "dill", "cloudpickle", "joblib")
CALLS = ("eval", "exec", "compile_command", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")


def problems(tree: ast.AST, name: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            yield from (f"pickle.{alias.name}" for alias in node.names if alias.name not in PICKLE.get(name, ()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and node.attr not in PICKLE.get(name, ()):
            yield f"pickle.{node.attr}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (module for module in modules if module.split(".")[0] in MODULES)
            yield from (f"{alias.name} as {alias.asname}" for alias in node.names if alias.name in ("pickle", "yaml") and alias.asname)
        if isinstance(node, ast.Call):
            yield from call_problems(node)


def call_problems(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in CALLS or called.rpartition(".")[2] in CALLS[3:] or called in ("yaml.load", "yaml.load_all"):
        yield called
    if called in ("torch.load", "np.load", "numpy.load") and (given.get("weights_only") != "True" if called == "torch.load" else False):
        yield f"{called} without weights_only=True"
    if given.get("allow_pickle", "False") != "False" or given.get("weights_only", "True") not in ("True", "weights_only"):
        yield f"{called}: {given}"
    if given.get("shell", "False") != "False" or called in ("os.system", "os.popen"):
        yield f"{called}: a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_loads_what_could_run(path: Path) -> None:
    assert list(problems(ast.parse(path.read_text(encoding="utf-8")), path.name)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle; pickle.load(f)", "from pickle import loads", "import pickle as p", "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f)", "yaml.unsafe_load(f)", "eval(x)", "exec(x)", "import marshal", "import shelve", "import joblib",
        "np.load(f, allow_pickle=True)", "subprocess.run(x, shell=True)", "os.system(x)", "from yaml import full_load; full_load(f)",
    ],
)  # fmt: skip
def test_the_check_of_the_sources_finds(source: str) -> None:
    assert list(problems(ast.parse(source), "x.py"))


def test_every_model_file_of_the_configuration_says_false() -> None:
    found = {path.name: path.read_text() for path in tracked(ROOT / "conf", "*.yaml") if "trust_remote_code" in path.read_text()}
    assert set(found) == {"_base.yaml"}
    assert "\ntrust_remote_code: false\n" in found["_base.yaml"]
