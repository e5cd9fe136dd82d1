"""The live cache: prompts shared and never copied, sequences of any prompt and age together, tokens forgotten; and refilled places."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hf_judges import SAMPLING, make_judge
from small_models import FAMILIES, family_model

from tract.inference.hf import live as live_module
from tract.inference.hf import slots
from tract.inference.hf.live import LiveCache, prefill
from tract.inference.hf.shared_keys import SharedKeys
from tract.inference.judgement import Prompt
from tract.text.layout import SequenceLayout

CPU = torch.device("cpu")
PROMPTS = [[11, 12, 13, 14, 15, 16, 17, 18, 19], [21, 22], [31, 32, 33, 34]]


def fresh(model: Any, ids: list[int]) -> torch.Tensor:
    """The logits behind a sequence, by a plain forward pass."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits


@pytest.mark.parametrize("prefill_tokens", [1, 6, 1000])
@pytest.mark.parametrize("padded", [False, True], ids=["shared", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_of_different_prompts_and_ages_go_on_together(
    family: str, padded: bool, prefill_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two CoTs of the first prompt are older than those of the others; some leave, and one forgets its last tokens."""
    monkeypatch.setattr(live_module, "PREFILL_TOKENS", prefill_tokens)
    monkeypatch.setattr(slots, "SPARE_SLOTS", 16)
    model = family_model(family)
    with torch.inference_mode():
        keys, logits = prefill(model, PROMPTS, CPU)
        for row, prompt in enumerate(PROMPTS):
            torch.testing.assert_close(logits[row], fresh(model, prompt), rtol=1e-4, atol=1e-4)
        cache = LiveCache(model, CPU, padded)
        cache.admit([keys[0], keys[0]])
        written = [list(PROMPTS[0]), list(PROMPTS[0])]
        _go_on(cache, model, written, 5)
        cache.admit([keys[1], keys[2], keys[2]])
        written += [list(PROMPTS[1]), list(PROMPTS[2]), list(PROMPTS[2])]
        _go_on(cache, model, written, 40)  # more than the first slots
        stay = [0, 3, 4]
        taken, of_taken = cache.take(stay), [list(written[k]) for k in stay]
        assert taken.own == (45, 40, 40)
        taken.forget([45, 37, 40])
        del of_taken[1][-3:]
        _go_on(taken, model, of_taken, 2)
        # The first cache is as it was; its other sequences leave, and new ones come.
        cache.keep([1, 4])
        cache.admit([keys[1]])
        written = [written[1], written[4], list(PROMPTS[1])]
        _go_on(cache, model, written, 3)
        _go_on(taken, model, of_taken, 1)
    assert (len(taken), len(cache)) == (3, 3)


def _go_on(cache: LiveCache, model: Any, written: list[list[int]], steps: int) -> None:
    for step in range(steps):
        tokens = [(7 * row + 3 * step) % 400 + 10 for row in range(len(written))]
        logits = cache.append(torch.tensor(tokens))
        for ids, token in zip(written, tokens, strict=True):
            ids.append(token)
    for row, ids in enumerate(written):
        torch.testing.assert_close(logits[row], fresh(model, ids), rtol=1e-4, atol=1e-4)


def test_a_prompts_keys_are_held_once_for_all_of_its_cots() -> None:
    model = family_model("llama")
    with torch.inference_mode():
        keys, _ = prefill(model, PROMPTS, CPU)
        cache = LiveCache(model, CPU)
        cache.admit([keys[0]] * 5 + [keys[1]])
        taken = cache.take([1, 2, 5])
    assert [prompt.tokens for prompt in keys] == [9, 2, 4]
    groups = []
    for held in (cache._keys, taken._keys):
        assert isinstance(held, SharedKeys)
        assert {id(prompt) for prompt in held._prompts} == {id(keys[0]), id(keys[1])}
        groups.append(held._prompt_groups)
    assert groups == [[(0, 5), (5, 6)], [(0, 2), (2, 3)]]


def test_places_of_ended_cots_are_taken_by_the_next_prompts(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more rows than allowed, and new prompts begin while older CoTs go on."""
    rows: list[int] = []
    mixed: list[bool] = []
    append = LiveCache.append

    def watched(cache: LiveCache, tokens: torch.Tensor) -> torch.Tensor:
        rows.append(len(tokens))
        mixed.append(len(set(cache.own)) > 1)
        return append(cache, tokens)

    monkeypatch.setattr(LiveCache, "append", watched)
    told: list[int] = []
    judge = make_judge(talking_model, tiny_layout, dataclasses.replace(SAMPLING, max_cot_tokens=30))
    found = judge.judge(prompts, 2, rows=6, without_cot=True, free=False, progress=told.append)
    assert max(rows) <= 6
    assert any(mixed)
    assert sum(told) == len(found) == 3 * len(prompts)
    assert len(told) > 2


def test_a_prompt_with_more_cots_than_rows_is_sampled_by_itself(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    judge = make_judge(talking_model, tiny_layout, dataclasses.replace(SAMPLING, max_cot_tokens=8))
    found = judge.judge(prompts[:2], 3, rows=2, without_cot=False, free=False)
    assert [(judgement.row, judgement.sample) for judgement in found] == [(row, sample) for row in range(2) for sample in range(3)]
    assert judge.judge([], 3, rows=2, without_cot=True, free=False) == []
    assert judge.read([], []) == []
