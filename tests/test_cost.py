"""What a 7B pipeline costs by arithmetic: bytes and hours by hand, and the headers of the experiments say what was computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cost
import pytest
import torch
from composing import CONF, composed
from shapes import MISTRAL_7B, SMALL, write_shape
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tract.config.schema import BATCH_SIZES
from tract.pipeline.validation import validate

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "cost.json"


@pytest.fixture(scope="module")
def found() -> Any:
    return json.loads(RESULT.read_text(encoding="utf-8"))


def test_a_sampling_step_by_hand() -> None:
    """2 layers, keys of 8 numbers, 100 parameters; 3 sequences of 10 + 4 / 2 tokens: keys and values of each, in bfloat16."""
    facts: Any = SimpleNamespace(layers=2, layer=SimpleNamespace(keys=8), elements=100)
    counts = cost.Counts(rows=1, prompt=10, cot=4, whole=16, longest=16)
    assert cost.step_bytes(facts, counts, 3) == 2 * 100 + 3 * 12 * (2 * 2 * 8) * 2


def test_rows_are_counted_as_they_are_trained_on(tmp_path: Path) -> None:
    """Two rows of a small Mistral: whole is prompt, CoT, cue, score and end of turn."""
    row = {
        "orig_instruction": "Name a colour.", "orig_response": "Red.", "orig_reference_answer": "Blue.", "orig_criteria": "Is it one?",
        "instruction": "Grade it.", "output": "",
        **{f"orig_score{score}_description": f"It is {score}." for score in range(1, 6)}, "orig_score": "4",
    }  # fmt: skip
    rows = [{**row, "orig_feedback": f"{text} So the overall score is 4."} for text in ("It is a colour.", "It is a very good colour.")]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({**each, "instruction": f"Grade {n}."}) + "\n" for n, each in enumerate(rows)), encoding="utf-8")
    given = [f"paths.cache={tmp_path}/cache", *write_shape(tmp_path / "small", SMALL), "batch.global_batch_size=1"]
    cfg = cost.configured(str(data), tmp_path / "shape", given)
    result = cost.costs(cfg, rows=200.0)
    counts, tokenizer = result["counts"], AutoTokenizer.from_pretrained(tmp_path / "small")
    assert counts["rows"] == 2
    # " So the overall score is ", the score and the end of turn.
    tail = len(tokenizer.encode("So the overall score is 4", add_special_tokens=False)) + 1
    assert counts["whole"] == counts["prompt"] + counts["cot"] + tail
    assert result["fit"]["tokens"] == pytest.approx(200 * cfg.train.max_epochs * counts["whole"])
    hf, vllm = (result["sampling"][name] for name in ("hf", "vllm"))
    assert hf["tokens"] == vllm["tokens"] == pytest.approx(200 * counts["cot"])
    assert vllm["hours"] < hf["hours"]
    assert [BATCH_SIZES[name] for name in ("hf", "vllm")] == [16, 256]


def test_the_shape_is_that_of_mistral_7b(tmp_path: Path, found: Any) -> None:
    write_shape(tmp_path, MISTRAL_7B)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 7_241_732_096  # of its model card
    assert found["model"]["parameters"] - parameters == 32 * 8 * (2 * 8192 + 2 * 5120 + 3 * 18432)  # LoRA of rank 8 on all linear layers


def test_the_header_says_what_was_computed(found: Any) -> None:
    header = " ".join(line.strip("# ") for line in (CONF / "experiment" / "tract_mistral.yaml").read_text().splitlines() if line[:1] == "#")
    counts, fit = found["counts"], found["fit"]
    for text in (
        f"on {counts['rows']} GPT-4 annotations",
        f"{counts['prompt']:.0f} tokens of prompt, {counts['cot']:.0f} of CoT, {counts['whole']:.0f} with cue and score",
        f"for {found['rows']:,.0f} such rows",
        f"{fit['tokens']:.2e} tokens (2 epochs), {fit['flops']:.2e} FLOPs, {fit['hours']:.1f} hours".replace("e+0", "e").replace("e+", "e"),
        f"weights ({found['model']['bytes'] / 1e9:.1f} GB)",
        f"{found['steps']['16']['ms']:.1f} ms with 16 sequences (hf), {found['steps']['256']['ms']:.1f} ms with 256 (vLLM)",
        f"at least {found['sampling']['hf']['hours']:.1f} and {found['sampling']['vllm']['hours']:.1f} hours",
    ):
        assert text in header
    assert "assumed" not in header
    cfg = validate(composed(["experiment=tract_mistral"]))
    assert cfg.train.max_epochs == found["epochs"]


@pytest.mark.parametrize(("name", "billions"), [("llama", 8.0), ("gemma", 4.0), ("qwen", 4.0)])
def test_other_headers_scale_it_by_parameters(name: str, billions: float, found: Any) -> None:
    header = (CONF / "experiment" / f"tract_{name}.yaml").read_text()
    hours = found["fit"]["hours"] * billions / 7.2
    said = re.search(r"(\d\.\d) hours\n", header)
    assert said is not None
    assert float(said[1]) == pytest.approx(hours, abs=0.11)
