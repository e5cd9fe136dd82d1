"""Judges: a run folder, an adapter, a Hugging Face folder or the base model, each with its own layout; errors in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tract.artifacts.identity import StageIdentity
from tract.artifacts.judges import find_judge
from tract.artifacts.products import write_manifest
from tract.common.errors import ConfigError, DataError
from tract.config.schema import Config
from tract.models.loading import load_judge
from tract.pipeline.backends import hf_judge
from tract.pipeline.stages.predict import read_predictions
from tract.pipeline.validation import validate


@pytest.fixture(scope="module")
def cfg(whole: Any) -> Config:
    return validate(whole.tiny.compose())


def copy_of(product: Any, to: Path) -> Path:
    """The folder of a stage elsewhere; links and names play no part."""
    shutil.copytree(product.path, to)
    return to


def sealed(folder: Path) -> Path:
    """A folder that was changed, with a manifest that says so."""
    old = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {"stage": old["stage"]}, StageIdentity.from_dict(old["identity"]))
    return folder


def test_the_seed_model(cfg: Config, whole: Any) -> None:
    judge = find_judge("base", cfg)
    assert (judge.name, judge.weights, judge.four_bit, judge.use_cot) == ("base", None, False, True)
    assert judge.layout.cue == cfg.prompt.cue
    other = find_judge("base", validate(whole.tiny.compose("seed=1")))
    assert other.fingerprint != judge.fingerprint  # other random weights
    reworded = find_judge("base", validate(whole.tiny.compose("prompt=short")))
    assert reworded.fingerprint != judge.fingerprint
    assert find_judge("base", validate(whole.tiny.compose("evaluation.n_cot=5"))).fingerprint == judge.fingerprint


def test_a_run_folder_keeps_its_own_prompt_cue_grid_and_model(whole: Any) -> None:
    other = validate(whole.tiny.compose("prompt=short", "grid=one_to_ten", "model=smollm2_packaged"))
    judge = find_judge(str(whole.products["stage2"].path), other)
    own = validate(whole.tiny.compose())
    assert judge.name == "stage2"
    assert judge.weights == whole.products["stage2"].path
    assert judge.template.blocks == tuple(own.prompt.blocks)
    assert judge.layout.grid.labels == ("1", "2", "3", "4", "5")
    assert judge.model.name_or_path == "assets/tiny"
    assert judge.fingerprint == find_judge(str(whole.products["stage2"].path), own).fingerprint
    assert judge.fingerprint != find_judge(str(whole.products["stage1"].path), own).fingerprint


def test_an_adapter_is_merged_into_half_precision_where_that_is_asked_for(cfg: Config, whole: Any) -> None:
    """The sum is made in float32 and rounded once; scores move by no more than bfloat16 moves them anyway."""
    folder = whole.products["stage1"].path
    model = replace(find_judge(str(folder), cfg).model, dtype="bfloat16")
    exact = load_judge(replace(model, dtype="float32"), folder, four_bit=False, seed=0)
    seed_llm = dict(load_judge(model, None, four_bit=False, seed=0).named_parameters())
    merged, beside = (load_judge(model, folder, four_bit=False, seed=0, merge_half=merge) for merge in (True, False))
    adapter = load_file(folder / "adapter_model.safetensors")
    scale = json.loads((folder / "adapter_config.json").read_text())
    assert not hasattr(merged, "peft_config")
    assert hasattr(beside, "peft_config")
    loaded = dict(merged.named_parameters())
    changed = 0
    for name, down in adapter.items():
        if ".lora_A." in name:
            own = name.removeprefix("base_model.model.").replace(".lora_A", "")
            up = adapter[name.replace(".lora_A.", ".lora_B.")]
            expected = seed_llm[own].float() + scale["lora_alpha"] / scale["r"] * up.float() @ down.float()
            assert torch.equal(loaded[own], expected.bfloat16())
            changed += int((loaded[own] != seed_llm[own]).sum())
    assert changed > 0
    ids = torch.randint(10, 200, (8, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        probabilities = [judge(input_ids=ids).logits[:, -1].float().softmax(-1) for judge in (exact, merged, beside)]
    by_merging, by_half = ((other - probabilities[0]).abs().max() for other in probabilities[1:])
    assert by_merging < 0.01
    assert by_merging < 4 * by_half


def test_other_kinds_of_lora_are_merged_by_their_own_rule(cfg: Config, tmp_path: Path) -> None:
    """DoRA, which scales each row of the sum."""
    model = replace(find_judge("base", cfg).model, dtype="bfloat16")
    seed_llm = load_judge(model, None, four_bit=False, seed=0)
    dora = LoraConfig(r=4, target_modules="all-linear", use_dora=True, init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    get_peft_model(load_judge(model, None, four_bit=False, seed=0), dora).save_pretrained(tmp_path)
    merged, beside = (load_judge(model, tmp_path, four_bit=False, seed=0, merge_half=merge) for merge in (True, False))
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}
    ids = torch.randint(10, 200, (8, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        probabilities = [judge(input_ids=ids).logits[:, -1].float().softmax(-1) for judge in (beside, merged, seed_llm)]
    by_merging, by_adapter = ((other - probabilities[0]).abs().max() for other in probabilities[1:])
    assert by_merging < by_adapter / 4


def test_the_weights_of_a_run_folder_are_loaded(cfg: Config, whole: Any) -> None:
    """The adapter is merged into float32 weights: W + alpha / rank * B A."""
    folder = whole.products["stage1"].path
    judge = find_judge(str(folder), cfg)
    model = hf_judge(judge, cfg).model
    saved = load_file(folder / "adapter_model.safetensors")
    adapter = json.loads((folder / "adapter_config.json").read_text())
    loaded = dict(model.named_parameters())
    seed_llm = dict(load_judge(judge.model, None, four_bit=False, seed=judge.seed).named_parameters())
    for name, down in saved.items():
        if ".lora_A." not in name:
            continue
        up, own = saved[name.replace("lora_A", "lora_B")], name.removeprefix("base_model.model.").replace("lora_A.", "")
        merged = seed_llm[own] + adapter["lora_alpha"] / adapter["r"] * up @ down
        torch.testing.assert_close(loaded[own].data, merged.data, rtol=1e-6, atol=1e-6)
    assert any(tensor.abs().max() > 0 for name, tensor in saved.items() if "lora_B" in name)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_full_weights_are_loaded(whole: Any) -> None:
    full = ["adapter=full", "stages=[stage1]", "optimizer.lr=0.001"]
    product = whole.tiny.run(*full)[0]["stage1"]
    cfg = validate(whole.tiny.compose())
    judge = find_judge(str(product.path), cfg)
    loaded = dict(hf_judge(judge, cfg).model.named_parameters())
    saved = load_file(product.path / "model.safetensors")
    assert saved.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    seed = dict(hf_judge(find_judge("base", cfg), cfg).model.named_parameters())
    assert any(not torch.equal(loaded[name], seed[name]) for name in loaded)


def test_an_adapter_of_peft_goes_on_the_configured_seed_model(cfg: Config, whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(whole.products["stage1"].path / name, folder)
    judge = find_judge(str(folder), cfg)
    assert (judge.name, judge.weights) == ("adapter", folder)
    trained = find_judge(str(whole.products["stage1"].path), cfg)
    one, other = (dict(hf_judge(found, cfg).model.named_parameters()) for found in (judge, trained))
    assert all(torch.equal(one[name], other[name]) for name in other)
    known = judge.fingerprint
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "adapter_model.safetensors")
    assert find_judge(str(folder), cfg).fingerprint != known


def test_a_hugging_face_folder(cfg: Config, tiny_tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "someone-judge"
    hf_judge(find_judge("base", cfg), cfg).model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    judge = find_judge(str(folder), cfg)
    assert judge.name == "someone-judge"
    assert judge.model.random_init is False
    assert judge.model.package is None
    loaded, seed = (dict(hf_judge(found, cfg).model.named_parameters()) for found in (judge, find_judge("base", cfg)))
    assert all(torch.equal(loaded[name], seed[name]) for name in seed)


def test_the_pad_token_of_the_configuration_helps_out(cfg: Config, whole: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """A folder whose tokenizer has none."""
    folder = tmp_path / "no-pad"
    hf_judge(find_judge("base", cfg), cfg).model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "pad_token"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"model.pad_token: the tokenizer of .*no-pad' has no pad token"):
        find_judge(str(folder), cfg)
    judge = find_judge(str(folder), validate(whole.tiny.compose(f"model.pad_token='{tiny_tokenizer.pad_token}'")))
    assert judge.tokenizer.pad_token == tiny_tokenizer.pad_token


@pytest.mark.parametrize("spec", ["./nowhere", "/nowhere/judge", "runs/nowhere/seed0/stage1-0123456789"])
def test_a_folder_that_is_absent(spec: str, cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # elsewhere the message names the runs that are there, such as one of the quickstart
    with pytest.raises(ConfigError, match=f"judge: there is no folder '{spec}'; give the folder of a run"):
        find_judge(spec, cfg)


def test_a_model_that_is_nowhere(cfg: Config) -> None:
    with pytest.raises(ConfigError, match=r"model.name_or_path: .*someone/absent") as refused:
        find_judge("someone/absent", cfg)
    assert "\n" not in str(refused.value)


def test_a_stage_that_is_not_finished(cfg: Config, whole: Any, tmp_path: Path) -> None:
    folder = copy_of(whole.products["stage1"], tmp_path / "stage1-abc.partial")
    (folder / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"judge: .*stage1-abc.partial is not complete yet; run the same training command"):
        find_judge(str(folder), cfg)


def test_a_stage_that_is_no_fit_stage(cfg: Config, whole: Any) -> None:
    message = rf"'generate', which trains no judge; its judge is .*{whole.products['stage1'].path.name}, give that"
    with pytest.raises(ConfigError, match=message):
        find_judge(str(whole.products["generate"].path), cfg)


def test_damaged_weights_are_refused(cfg: Config, whole: Any, tmp_path: Path) -> None:
    folder = copy_of(whole.products["stage1"], tmp_path / "stage1-abc")
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"the content is not what was written; .*force=stage1"):
        find_judge(str(folder), cfg)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("layout.json", "{", "JSONDecodeError"),
        ("layout.json", "{}", "KeyError: 'prompt'"),
        ("layout.json", '{"prompt": {"blocks": [], "colour": "red"}}', "TypeError"),
        ("config.yaml", "- a list", "AssertionError"),
        ("config.yaml", "model: {colour: red}", "colour"),
    ],
)
def test_a_folder_with_other_content_is_no_fit_stage(
    name: str, content: str, message: str, cfg: Config, whole: Any, tmp_path: Path
) -> None:
    folder = copy_of(whole.products["stage1"], tmp_path / "stage1-abc")
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=f"judge: .* is no folder of a fit stage: .*{message}") as refused:
        find_judge(str(sealed(folder)), cfg)
    assert "\n" not in str(refused.value)


def saved_with(folder: Path, **model: Any) -> Path:
    """A run folder whose saved configuration of the model was another."""
    config = OmegaConf.load(folder / "config.yaml")
    for name, value in model.items():
        config.model[name] = value
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def test_a_run_folder_cannot_allow_code_by_itself(whole: Any, cfg: Config, tmp_path: Path) -> None:
    folder = saved_with(copy_of(whole.products["stage1"], tmp_path / "stage1-abc"), trust_remote_code=True)
    with pytest.raises(
        ConfigError, match=r"^model.trust_remote_code: the judge .*stage1-abc was trained with true, .*a folder cannot allow"
    ) as no:
        find_judge(str(folder), cfg)
    assert "\n" not in str(no.value)
    allowed = validate(whole.tiny.compose("model.trust_remote_code=true"))
    assert find_judge(str(folder), allowed).model.trust_remote_code is True
    # Nor is code run for one that was trained without.
    assert find_judge(str(whole.products["stage1"].path), allowed).model.trust_remote_code is False


def test_a_hub_judge_does_not_allow_code_by_itself(cfg: Config, whole: Any, tmp_path: Path, tiny_tokenizer: Any) -> None:
    mark, folder = tmp_path / "code-was-run", tmp_path / "own-judge"
    hf_judge(find_judge("base", cfg), cfg).model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "modeling_own.py").write_text(f"import os\nos.makedirs({str(mark)!r})\n")
    content = {**json.loads((folder / "config.json").read_text()), "model_type": "own", "auto_map": {"AutoConfig": "modeling_own.Own"}}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"^model.trust_remote_code: .*own-judge' comes with Python code of its own, which is not run"):
        hf_judge(find_judge(str(folder), cfg), cfg)
    assert not mark.exists()


def test_a_run_folder_does_not_say_where_files_are_written_or_read(whole: Any, cfg: Config, tmp_path: Path) -> None:
    places = {"unpacked": str(tmp_path / "elsewhere"), "chat_template": "/etc/hostname"}
    folder = saved_with(copy_of(whole.products["stage1"], tmp_path / "stage1-abc"), **places)
    judge = find_judge(str(folder), cfg)
    assert (judge.model.unpacked, judge.model.chat_template) == (cfg.model.unpacked, None)
    assert judge.fingerprint == find_judge(str(whole.products["stage1"].path), cfg).fingerprint


def test_the_names_of_benchmarks_do_not_leave_the_folder(whole: Any) -> None:
    product = whole.products["predict"]
    benchmarks = {"/../../elsewhere": next(iter(product.manifest["benchmarks"].values()))}
    with pytest.raises(DataError, match=r"'items-/../../elsewhere.jsonl' is refused, it leads upwards"):
        read_predictions(replace(product, manifest={**product.manifest, "benchmarks": benchmarks}))


def test_a_gpu_that_is_not_there(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = validate(whole.tiny.compose("trainer.accelerator=gpu"))
    with pytest.raises(ConfigError, match=r"trainer.accelerator: 'gpu' is set but torch finds no GPU; set trainer=cpu"):
        hf_judge(find_judge("base", cfg), cfg)


def test_precision_is_that_of_the_trainer(whole: Any) -> None:
    stored = validate(whole.tiny.compose("trainer.precision=bf16-true"))
    assert {p.dtype for p in hf_judge(find_judge("base", stored), stored).model.parameters()} == {torch.bfloat16}
    mixed = validate(whole.tiny.compose("trainer.precision=bf16-mixed"))
    assert {p.dtype for p in hf_judge(find_judge("base", mixed), mixed).model.parameters()} == {torch.float32}
