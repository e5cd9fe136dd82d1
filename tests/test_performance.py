"""The benchmarks: the plain way computes what the project computes, and every script runs and writes its results."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import precision
import pytest
import torch
from judge_items import FULL, LORA, TRACT, batch_of, gradient, make_items, make_module, relative_error, totals_of
from reference import examples_of, generate_then_rescore, loss_shares

from tract.config.schema import AdapterConfig, ModelConfig
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import Prompt
from tract.inference.sampling import Sampling
from tract.models.loading import load_model
from tract.text.layout import SequenceLayout

ROOT = Path(__file__).resolve().parents[1]
PAD_ID = 1
FEW = ("model=tiny", "data.source.n_questions=12", "data.source.n_ood_questions=0")
# Result files -> script and options of the smallest run.
RUNS = {
    "train_step": ("train_step.py", "--annotations", "3", "--items", "2", "--rounds", "1"),
    "evaluate": ("evaluate.py", "--n-cot", "2", "--items", "2", "--rounds", "1", "--tokens", "4"),
    "memory": ("memory.py", "--annotations", "3", "--items", "2", "--rounds", "1"),
    "overhead": ("overhead.py", "--items", "2", "--steps", "3"),
    "step_profile": ("step_profile.py", "--items", "2", "--n-cot", "2", "--steps", "8"),
    "generate": ("generate.py", "--items", "2", "--rounds", "1", "--tokens", "16"),
    "serve": ("serve.py", "--clients", "4", "--requests", "8", "--rounds", "1", "--tokens", "4"),
    "scaling_data": ("scaling.py", "--tables", "data", "--rows", "100", "--rounds", "1"),
    "scaling_prompt": ("scaling.py", "--tables", "prompt", "--prompts", "64", "--rounds", "1"),
    "scaling_n_cot": ("scaling.py", "--tables", "n_cot", "--cots", "2", "--rounds", "1"),
    "scaling_vocabulary": ("scaling.py", "--tables", "vocabulary", "--vocabularies", "1024", "--rounds", "1"),
}
# With `make test-kills`: many processes each, twenty seconds and more, or parts that other scripts run too.
NOT_IN_CI = (
    "train_step",
    "evaluate",
    "step_profile",
    "memory",
    "serve",
    "overhead",
    "scaling_data",
    "scaling_n_cot",
    "scaling_prompt",
    "scaling_vocabulary",
)


@pytest.mark.parametrize("annotations", [1, 3])
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_the_plain_way_has_the_same_loss_and_gradient(
    adapter: AdapterConfig, annotations: int, tiny_model_config: ModelConfig, tiny_layout: SequenceLayout
) -> None:
    """Padded batches of 4 of its examples beside micro-batches of 2 prompts."""
    items = make_items(tiny_layout, 5, annotations)
    totals = totals_of(items, tiny_layout, TRACT)
    module = make_module(tiny_model_config, tiny_layout, TRACT, adapter)
    batches = [batch_of(items[first : first + 2], tiny_layout, TRACT, totals) for first in range(0, len(items), 2)]
    ours = gradient(module, batches)
    loss = sum(module.training_step(batch, 0).item() for batch in batches) / module.accumulate
    plain = load_model(dataclasses.replace(tiny_model_config, attn_implementation="sdpa"), adapter, seed=3)
    examples = examples_of(items)
    found = 0.0
    for first in range(0, len(examples), 4):
        share = loss_shares(plain, tiny_layout, examples[first : first + 4], PAD_ID, totals.ce_tokens, totals.examples)
        share.backward()
        found += share.item()
    assert found == pytest.approx(loss, rel=1e-5)
    theirs = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
    assert relative_error(theirs, ours) <= 1e-5


def test_the_plain_way_has_the_same_scores(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    """For the CoTs that it sampled itself, in padded batches, behind prompts of very different lengths."""
    items = make_items(tiny_layout, 4)
    plain = load_model(dataclasses.replace(tiny_model_config, attn_implementation="sdpa"), FULL, seed=3).eval()
    torch.manual_seed(0)
    found, sampled = generate_then_rescore(plain, tiny_layout, [item.prompt_ids for item in items], 2, 12, PAD_ID)
    assert sampled.shape == (8, 12)
    judge = HFJudge(load_model(tiny_model_config, FULL, seed=3).eval(), tiny_layout, Sampling(1.0, 0.9, 1.03, 12), seed=0, autocast=None)
    prompts = [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(items)]
    cots = sampled.view(4, 2, 12).tolist()
    judgements = judge.read(prompts, [list(enumerate(given)) for given in cots])
    values = torch.tensor(tiny_layout.grid.values)
    # The plain way leaves the mass outside the grid out, as RAIL does.
    expected = torch.tensor([judgement.probabilities for judgement in judgements]) @ values
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_differences_of_precision_by_hand() -> None:
    """Ten items of five questions: one differs by 0.5, nine by 0.1; what the weights' rounding does is told apart."""
    base = np.arange(10, dtype=np.float64)
    moved = base + np.asarray([0.5] + [0.1] * 9)
    rail = {precision.FLOAT32: base, precision.AGAIN: base, precision.ROUNDED: base, precision.MIXED: moved, precision.TRUE: moved}
    rail[precision.STORED] = -base
    found = precision.compared(rail, [f"q{number // 2}" for number in range(10)])
    weights, both = found[precision.ROUNDED, precision.FLOAT32], found[precision.TRUE, precision.FLOAT32]
    assert weights["mean"].value == 0.0
    assert found[precision.TRUE, precision.ROUNDED]["mean"].value == pytest.approx(0.14)
    assert (both["mean"].value, both["median"].value, both["p95"].value) == (pytest.approx(0.14), pytest.approx(0.1), pytest.approx(0.5))
    assert both["mean"].low == pytest.approx(0.1)  # the question with the large one is not drawn in every resample
    assert both["spearman"].value == pytest.approx(1.0)
    assert found[precision.STORED, precision.FLOAT32]["spearman"].value == pytest.approx(-1.0)


def environment_of(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TRACT_CACHE": str(folder / "cache")}


def run_script(name: str, script: str, options: Sequence[str], folder: Path) -> dict[str, Any]:
    """What a script of ``benchmarks/`` writes with the tiny model."""
    run = [sys.executable, f"benchmarks/{script}", *options, "--out", str(folder), *FEW]
    done = subprocess.run(run, cwd=ROOT, env=environment_of(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert result["benchmark"] == name
    assert {"device", "threads", "torch", "commit", "command"} <= set(result["facts"])
    assert result["rows"]
    for column, value in result["rows"][0].items():
        assert column in done.stdout
        assert not isinstance(value, float) or value >= 0
    return result


@pytest.mark.slow
def test_precision_is_measured(tmp_path: Path) -> None:
    """Batches of one move nothing, bfloat16 something; by item, the table's numbers."""
    result = run_script("precision", "precision.py", ["--items", "3"], tmp_path)
    most = {(row["way"], row["against"]): row["max"] for row in result["rows"]}
    assert most.keys() == {pair[:2] for pair in precision.PAIRS}
    assert most[precision.AGAIN, precision.FLOAT32] < 1e-5 < most[precision.TRUE, precision.FLOAT32]
    rail = {way: np.asarray(values) for way, values in result["by_item"]["rail"].items()}
    assert most == {(way, other): np.abs(rail[way] - rail[other]).max() for way, other in most}


@pytest.mark.slow
@pytest.mark.kills
def test_kinds_of_keys_are_measured(tmp_path: Path) -> None:
    """Padded ones take as many operations for ten prompts as for two."""
    run = [sys.executable, "benchmarks/keys.py", "--tiny", "--prompt", "20", "--rounds", "1", "--out", str(tmp_path)]
    subprocess.run(run, cwd=ROOT, env=environment_of(tmp_path), capture_output=True, check=True)
    rows = json.loads((tmp_path / "keys.json").read_text(encoding="utf-8"))["rows"]
    operations = {(row["prompts"], row["keys"]): row["operations"] for row in rows}
    assert operations[2, "padded"] == operations[10, "padded"] < operations[2, "shared"] < operations[10, "shared"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status, which Linux has")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.kills) if name in NOT_IN_CI else name for name in RUNS])
def test_every_script_runs_and_writes_its_results(name: str, tmp_path: Path) -> None:
    """With the tiny model; the plots are made from what was written."""
    script, *options = RUNS[name]
    run_script(name, script, options, tmp_path)
    plots = [sys.executable, "benchmarks/plots.py", "--results", str(tmp_path), "--out", str(tmp_path / "img")]
    subprocess.run(plots, cwd=ROOT, env=environment_of(tmp_path), capture_output=True, check=True)
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    if name != "serve":  # two rows, of which no figure is drawn
        assert (tmp_path / "img" / f"performance_{name}.png").stat().st_size > 1000
