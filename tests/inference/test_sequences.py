"""Models in which packed rows are not exact, as folders: a row for each sequence in all stages, or one line before data are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import config_of
from tiny_pipeline import Tiny, made
from transformers import AutoModelForCausalLM

from tract import Judge
from tract.common.errors import ConfigError
from tract.inference.hf import sequences
from tract.judge.requests import GradeRequest
from tract.models.saving import save_judge
from tract.models.small_model import small_copy
from tract.text.layout import SequenceLayout

ROWS = ("falcon_h1", "mpt", "nemotron_h", "recurrent_gemma")  # were wrong without a word
PACKED = ("gemma2", "gpt_oss")  # were told to set eager, and then to set tree
MIXED = ("qwen3_5_text", "granitemoehybrid", "stablelm", "bloom")  # ended in a traceback


@pytest.fixture(autouse=True)
def _nothing_warned_of() -> None:
    sequences._WARNED.clear()


@pytest.fixture(scope="module")
def folder_of(tiny_tokenizer: Any, tiny_layout: SequenceLayout, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of an architecture -> the folder of a small model, as transformers writes it."""

    def made_folder(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        model: Any = small_copy(config_of(name))
        with torch.no_grad():  # so that it goes on writing
            model.get_output_embeddings().weight[tiny_layout.end_id] = 0
        save_judge(model, tiny_tokenizer, folder)
        return folder

    return made_folder


def _overrides(folder: Path, *more: str) -> list[str]:
    return [f"model.name_or_path={folder}", "model.package=null", "model.random_init=false", "adapter=full", *more]


def _warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if "a row of its own" in line or "transformers' generate" in line]


FEW = ("data.source.n_questions=12", "data.max_train_items=4", "data.source.n_ood_questions=0", "evaluation.benchmarks=[test]")


@pytest.mark.slow
def test_a_pipeline_of_rows_makes_every_stage_with_one_warning(folder_of: Any, tmp_path: Path) -> None:
    _, lines = Tiny(tmp_path).run(*_overrides(folder_of("mpt"), *FEW))
    assert made(lines)[:4] == ["stage1", "generate", "stage2", "predict"]
    assert len(_warnings(lines)) == 1, _warnings(lines)


def test_micro_batches_move_no_number_of_rows(folder_of: Any, tmp_path: Path) -> None:
    """As conf/train.yaml says of batch.max_tokens_per_micro_batch."""
    values = []
    for tokens in ("null", "400"):
        few = (*FEW, "stages=[stage1]", "batch.micro_batch_size=null", f"batch.max_tokens_per_micro_batch={tokens}")
        products, _ = Tiny(tmp_path / tokens).run(*_overrides(folder_of("falcon_h1"), *few))
        values.append(products["stage1"].manifest["training"]["final_metrics"]["val/ce"])
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("name", [*ROWS, *PACKED, *(pytest.param(name, marks=pytest.mark.slow) for name in MIXED)])
def test_a_judge_writes_and_scores_as_transformers_alone(name: str, folder_of: Any) -> None:
    """Greedy feedback beside transformers' ``generate``, the score beside its logits; no option is needed."""
    folder = folder_of(name)
    with Judge.from_pretrained(folder, temperature=0, repetition_penalty=1.0, max_cot_tokens=8, dtype="float32") as judge:
        works = [judge._work(GradeRequest(instruction="Add 2 and 3.", response=text), None)[0] for text in ("5", "six", "It is 5.")]
        judgements = [judgement for work in works for judgement in judge._worker.submit(work).result()]
    attention = {"gemma2": "eager"}.get(name)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    for work, judgement in zip(works, judgements, strict=True):
        layout, cot, ids = work.reading.layout, list(judgement.cot_ids), torch.tensor([work.prompt.prompt_ids])
        written = plain.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, eos_token_id=None)
        tokens = written[0, ids.shape[1] :].tolist()
        assert tokens[: len(cot)] == cot
        assert len(cot) == 8 or tokens[len(cot)] in layout.encoder.control_ids  # it ends its turn
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([[*work.prompt.prompt_ids, *cot, *layout.cue_ids]])).logits[0, -1]
        expected = torch.softmax(logits.float(), dim=-1)[[own[0] for own in layout.score_ids]]
        torch.testing.assert_close(torch.tensor(judgement.probabilities), expected, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_a_judge_is_one_line_before_data_are_read(folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("bert")
    monkeypatch.setattr("tract.pipeline.stages.fit.prepare", lambda cfg: pytest.fail("data are read"))
    with pytest.raises(ConfigError, match=r"^model\.name_or_path: in BertLMHeadModel tokens see later ones.*choose a causal") as refused:
        Tiny(tmp_path).run(*_overrides(folder))
    assert "\n" not in str(refused.value)


def test_the_dry_run_says_which_path_a_model_takes(folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name, said in (
        ("gemma2", "Gemma2ForCausalLM: packed rows, CoTs from a live cache (exact)"),
        ("mpt", "each sequence is a row of its own"),
    ):
        _, lines = Tiny(tmp_path / name).run(*_overrides(folder_of(name)), "dry_run=true")
        assert any(said in line for line in lines), lines


def test_weights_are_looked_at_where_the_architecture_tells_nothing(
    folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a model with code of its own: packed until its weights show that this is not exact."""
    monkeypatch.setattr(sequences, "examine", lambda *_, **__: None)
    monkeypatch.setattr(sequences, "_FOUND", {})
    products, lines = Tiny(tmp_path).run(*_overrides(folder_of("mpt"), *FEW, "stages=[stage1,generate]"))
    assert len(_warnings(lines)) == 1, lines
    assert set(products) == {"stage1", "generate"}
