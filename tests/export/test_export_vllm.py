"""An export in the real vLLM engine, on a CPU: the judgements of the Hugging Face backend. Run: make test-vllm."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from exported_runs import Questions, exported_judge

sys.path.append(str(Path(__file__).resolve().parents[1] / "generation"))
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_judges import GREEDY, assert_agree, judge_all, judge_on, settings_of

from tract.export.exporting import Exported
from tract.generation.hf import HFJudge
from tract.generation.vllm_engine import VLLMEngine

# An engine's start alone takes minutes on a busy machine.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_an_export_is_served_as_it_is(merged: Exported, questions: Questions) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    model = AutoModelForCausalLM.from_pretrained(merged.folder).eval()
    layout, prompts = exported_judge(model, tokenizer, merged.folder).layout, questions.prompts[:2]
    expected = HFJudge(model, layout, GREEDY, 0, None).judge(prompts, 1, rows=4, without_cot=True, free=True)
    expected.sort(key=lambda judgement: (judgement.row, judgement.sample))
    engine = VLLMEngine(settings_of(str(merged.folder)))
    loop = asyncio.new_event_loop()
    try:
        found = judge_all(judge_on(engine, layout, GREEDY, loop), prompts, 1)
    finally:
        loop.run_until_complete(engine.close())
        loop.close()
    assert assert_agree(model, found, expected, prompts, layout.grid) <= 1
