"""What is loaded from an export, by transformers or PEFT alone, is the run's own judge."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_runs import Questions, Runs, exported_judge
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tract.apps.export.exporting import Exported, export
from tract.apps.export.options import ExportOptions
from tract.apps.export.weights import generation_config, write_whole
from tract.artifacts.judge_settings import read_settings
from tract.artifacts.judges import find_judge
from tract.artifacts.products import read_manifest, write_manifest
from tract.artifacts.run_judges import run_judge
from tract.common.errors import ConfigError
from tract.inference.hf.judge import HFJudge
from tract.inference.sampling import Sampling
from tract.models.loading import load_judge
from tract.pipeline.stages.predict import read_predictions

IDS = torch.tensor([[2, 4, 52, 334, 446, 75, 368]])


def plain(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) as anybody loads them."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def test_a_merged_adapter_gives_the_scores_of_the_run(
    runs: Runs, merged: Exported, questions: Questions, own_judge: Callable[[Path], HFJudge]
) -> None:
    own, found = own_judge(runs.products["stage2"].path), exported_judge(*plain(merged.folder), merged.folder)
    expected = questions.read(own)
    torch.testing.assert_close(questions.read(found), expected, rtol=0, atol=1e-5)
    # Neither stage 1 nor the base model would pass.
    assert (questions.read(own_judge(runs.products["stage1"].path)) - expected).abs().max() > 1e-3
    drawn = [[(j.cot_ids, j.finish, j.forced_decode, j.raw_output) for j in questions.judged(judge)] for judge in (found, own)]
    assert drawn[0] == drawn[1]


def test_the_scores_are_those_of_the_run_s_own_predictions(runs: Runs, merged: Exported, questions: Questions) -> None:
    _, judgements = read_predictions(runs.products["predict"])["test"]
    by_cot = {(judgement.row, judgement.sample): judgement.probabilities for judgement in judgements}
    expected = [by_cot[prompt.row, sample] for prompt, given in zip(questions.prompts, questions.cots, strict=True) for sample, _ in given]
    found = questions.read(exported_judge(*plain(merged.folder), merged.folder))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


def test_whole_weights_give_the_scores_of_the_run(
    runs: Runs, questions: Questions, own_judge: Callable[[Path], HFJudge], tmp_path: Path
) -> None:
    exported = export(runs.whole, tmp_path / "judge", ExportOptions())
    assert not exported.settings.adapter
    torch.testing.assert_close(
        questions.read(exported_judge(*plain(exported.folder), exported.folder)), questions.read(own_judge(runs.whole)), rtol=0, atol=1e-5
    )
    saved, written = load_file(runs.whole / "model.safetensors"), load_file(exported.folder / "model.safetensors")
    assert saved.keys() == written.keys()
    assert all(torch.equal(saved[name], written[name]) for name in saved)


def test_plain_transformers_have_the_logits_of_the_judge(runs: Runs, merged: Exported) -> None:
    judge = find_judge(str(runs.products["stage2"].path), runs.cfg)
    own = logits_of(load_judge(judge.model, judge.weights, four_bit=False, seed=judge.seed))
    model, tokenizer = plain(merged.folder)
    torch.testing.assert_close(logits_of(model), own)
    assert (logits_of(load_judge(judge.model, None, four_bit=False, seed=judge.seed)) - own).abs().max() > 1e-3
    assert tokenizer.chat_template == judge.tokenizer.chat_template
    assert tokenizer.pad_token == judge.tokenizer.pad_token
    text = "Grade this: é <|end|> 1.5\n\n"
    assert tokenizer.encode(text) == judge.tokenizer.encode(text)


def test_peft_loads_an_adapter_with_its_base(
    runs: Runs, adapter: Exported, questions: Questions, own_judge: Callable[[Path], HFJudge]
) -> None:
    assert {path.name for path in adapter.folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "judge_config.json"}
    assert not list(adapter.folder.glob("model*.safetensors"))
    model = AutoPeftModelForCausalLM.from_pretrained(adapter.folder)
    found = exported_judge(model, AutoTokenizer.from_pretrained(adapter.folder), adapter.folder)
    own = own_judge(runs.products["stage2"].path)
    torch.testing.assert_close(questions.read(found), questions.read(own), rtol=0, atol=1e-5)
    assert adapter.settings.adapter
    saved, written = (load_file(folder / "adapter_model.safetensors") for folder in (runs.products["stage2"].path, adapter.folder))
    assert saved.keys() == written.keys()
    assert all(torch.equal(saved[name], written[name]) for name in saved)


def test_the_settings_give_themselves_back_and_the_layout_of_the_run(runs: Runs, merged: Exported) -> None:
    settings = read_settings(merged.folder / "judge_config.json")
    assert settings == merged.settings
    own = run_judge(runs.folder)
    assert settings.layout == own.layout.to_dict()
    assert (settings.prompt, settings.sampling, settings.dtype) == (own.settings.prompt, own.settings.sampling, "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype_on_request(runs: Runs, merged: Exported, dtype: str, tmp_path: Path) -> None:
    exported = export(runs.folder, tmp_path / "judge", ExportOptions(dtype=dtype))
    assert exported.settings.dtype == exported.dtype == json.loads((exported.folder / "config.json").read_text())["dtype"] == dtype
    weights = load_file(exported.folder / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {f"torch.{dtype}"}
    whole = load_file(merged.folder / "model.safetensors")
    assert all(torch.equal(weights[name], whole[name].to(weights[name].dtype)) for name in whole)


def test_the_generation_config_draws_as_the_judge_does(runs: Runs, merged: Exported, adapter: Exported) -> None:
    judge = run_judge(runs.folder)
    for folder in (merged.folder, adapter.folder):
        found = json.loads((folder / "generation_config.json").read_text())
        sampling = judge.settings.sampling
        assert {name: found[name] for name in ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty")} == {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,  # transformers' own 50 would cut what top_p leaves
            "repetition_penalty": sampling.repetition_penalty,
        }
        assert found["eos_token_id"] == [judge.layout.end_id]
        assert found["max_new_tokens"] == sampling.max_cot_tokens + judge.layout.max_tail_tokens
    assert json.loads((merged.folder / "config.json").read_text())["use_cache"] is True


def test_a_greedy_judge_has_a_valid_generation_config(runs: Runs, tmp_path: Path) -> None:
    config = generation_config(run_judge(runs.folder).layout, Sampling(0.0, 0.9, 1.03, 5), None)
    config.save_pretrained(tmp_path)  # strict: it refuses a temperature beside do_sample=false
    assert json.loads((tmp_path / "generation_config.json").read_text())["do_sample"] is False


def test_weights_that_do_not_fit_a_dtype_are_refused(runs: Runs, tmp_path: Path) -> None:
    stage = tmp_path / "stage1-copy"
    shutil.copytree(runs.whole, stage)
    weights = load_file(stage / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e6
    save_file(weights, stage / "model.safetensors", metadata={"format": "pt"})
    write_manifest(stage, {**read_manifest(stage)[0]}, read_manifest(stage)[1])
    with pytest.raises(ConfigError, match="--dtype: the weights do not fit float16; use float32 or bfloat16"):
        export(stage, tmp_path / "judge", ExportOptions(dtype="float16"))
    assert not (tmp_path / "judge").exists()
    assert export(stage, tmp_path / "judge", ExportOptions(dtype="bfloat16")).dtype == "bfloat16"


def test_a_merged_qlora_judge_says_that_its_base_was_quantised(
    runs: Runs, merged: Exported, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="tract"):
        write_whole(replace(run_judge(runs.folder), four_bit=True), None, tmp_path)
    assert [record for record in caplog.records if "trained on a quantised base model (QLoRA)" in record.getMessage()]
    # What is written is the adapter on the whole weights.
    found, expected = load_file(tmp_path / "model.safetensors"), load_file(merged.folder / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_process_without_tract_loads_and_generates(merged: Exported, adapter: Exported) -> None:
    script = (
        "import sys, transformers, peft\n"
        "whole = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "adapted = peft.AutoPeftModelForCausalLM.from_pretrained(sys.argv[2])\n"
        "chat = [{'role': 'user', 'content': 'Grade it.'}]\n"
        "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "greedy = {'do_sample': False, 'temperature': None, 'top_p': None, 'top_k': None, 'repetition_penalty': 1.0, 'max_new_tokens': 9}\n"
        "texts = [model.generate(**ids, **greedy).tolist() for model in (whole, adapted)]\n"
        "assert texts[0] == texts[1], texts\n"
        "assert len(texts[0][0]) > ids['input_ids'].shape[1]\n"
        "assert not any(name.partition('.')[0] == 'tract' for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(merged.folder), str(adapter.folder)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
