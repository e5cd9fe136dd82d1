"""What a prompt may have: no request that is made about it is longer than the model's context, and a budget says what it rests on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    Phi3Config,
)

from tract.common.errors import ConfigError
from tract.inference.engines.engine import Ask, EngineRequests, Reply
from tract.inference.judgement import Prompt
from tract.inference.prompt_budget import prompt_budget, tokens_behind
from tract.inference.sampling import Sampling
from tract.models.locating import stated_context
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

GRIDS = {"five": ("1", "2", "3", "4", "5"), "ten": tuple(str(k) for k in range(1, 11)), "halves": ("1.0", "1.5", "2.0", "10.5")}
CONTEXT, MAX_COT = 400, 60


@pytest.fixture(params=GRIDS)
def layout(request: pytest.FixtureRequest, tiny_layout: SequenceLayout) -> SequenceLayout:
    grid = ScoreGrid(GRIDS[request.param])
    return SequenceLayout(tiny_layout.tokenizer, tiny_layout.scaffold, tiny_layout.end_id, tiny_layout.cue, grid)


class Longest:
    """An engine whose CoTs are as long as they may be, and end with the cue or not; it keeps the longest sequence that is asked for."""

    def __init__(self, layout: SequenceLayout, *, with_cue: bool) -> None:
        self.layout = layout
        self.with_cue = with_cue
        self.most = 0

    async def complete(self, ask: Ask) -> Reply:
        self.most = max(self.most, len(ask.ids) + ask.max_tokens)
        words = self.layout.cot_ids("z" * ask.max_tokens)[: ask.max_tokens]
        if self.with_cue and ask.stop is not None:
            cue = list(self.layout.cue_ids)
            words = [*words[: max(0, ask.max_tokens - len(cue))], *cue][: ask.max_tokens]
        return Reply(tuple(words), False, dict.fromkeys(ask.logprob_ids, -5.0))

    async def close(self) -> None:
        return


@pytest.mark.parametrize("with_cue", [True, False])
@pytest.mark.parametrize("free", [True, False])
def test_no_request_about_the_longest_prompt_is_longer_than_the_context(layout: SequenceLayout, with_cue: bool, free: bool) -> None:
    budget = prompt_budget(CONTEXT, MAX_COT, layout, "a model")
    assert budget is not None
    assert budget + tokens_behind(layout, MAX_COT) == CONTEXT
    engine = Longest(layout, with_cue=with_cue)
    requests = EngineRequests(engine, layout, Sampling(1.0, 1.0, 1.0, MAX_COT), 0)
    prompt = Prompt("a", 0, tuple(layout.cot_ids("q" * budget)))
    assert len(prompt.prompt_ids) == budget
    judgement = asyncio.run(requests.sampled(prompt, 0, free))
    assert len(judgement.cot_ids) == MAX_COT
    assert budget + MAX_COT < engine.most <= CONTEXT
    # Training's tree of prompt, longest CoT, cue, score, end and branches is no deeper.
    assert max(layout.tree(prompt.prompt_ids, [(judgement.cot_ids, 0)]).position_ids) < CONTEXT


def test_a_budget_of_nothing_is_refused_with_what_to_do(tiny_layout: SequenceLayout) -> None:
    least = tokens_behind(tiny_layout, 100)
    assert prompt_budget(least + 1, 100, tiny_layout, "a model") == 1
    message = rf"generation.max_cot_tokens: a CoT of 100 tokens, with {least - 100} for cue and score, leaves no room for a prompt in the"
    for context in (least, 10):
        with pytest.raises(ConfigError, match=rf"{message} context of a model \({context} tokens\); lower it, or take a model with"):
            prompt_budget(context, 100, tiny_layout, "a model")
    assert prompt_budget(None, 10**9, tiny_layout, "a model") is None


def _longrope(context: int, before: int) -> Phi3Config:
    """Phi 3 as released: other frequencies for the whole of a batch in which a sequence is longer than in pre-training."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    return Phi3Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=64, vocab_size=512,
        pad_token_id=0, max_position_embeddings=context, original_max_position_embeddings=before,
        rope_parameters={**rope, "original_max_position_embeddings": before},
    )  # fmt: skip


def test_up_to_the_stated_context_a_sequence_is_the_same_beside_a_longer_one() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_longrope(256, 24)).eval()
    short, long = torch.arange(10, 22)[None], torch.arange(40, 70)[None]
    with torch.no_grad():
        alone = model(input_ids=short).logits
        for length, same in ((24, True), (30, False)):
            beside = model(input_ids=torch.cat([torch.cat([short, short[:, -1:].expand(-1, length - 12)], 1), long[:, :length]])).logits
            assert torch.allclose(beside[:1, :12], alone, atol=1e-5) == same


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (LlamaConfig(max_position_embeddings=777), 777),
        (GPT2Config(n_positions=777), 777),
        (FalconConfig(max_position_embeddings=777), 777),
        (Gemma3Config(text_config={"max_position_embeddings": 777}), 777),
        (MptConfig(max_seq_len=777), 777),
        (BloomConfig(), None),  # ALiBi
        (MambaConfig(), None),  # a state-space model
        (_longrope(131072, 4096), 4096),
    ],
)
def test_the_context_is_what_the_configuration_states(config: Any, context: int | None) -> None:
    assert stated_context(config) == context
