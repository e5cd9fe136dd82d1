"""Every architecture is trained and judged as transformers computes it, each sequence alone, or refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import NAMES, NO_COPY, REFUSED, config_of
from judge_items import TRACT, batch_of, gradient, relative_error, totals_of
from reference import examples_of, loss_shares
from test_attention import _module
from torch import nn

from tract.attention import TREE
from tract.data.batches import Item
from tract.errors import ConfigError
from tract.forward import exact_attention, plain_logits, use_rows
from tract.generation.judgement import Prompt
from tract.generation.paths import SequencePath, examine
from tract.generation.rows import hf_judge_of, without_cache
from tract.generation.sampling import Sampling
from tract.layout import SequenceLayout
from tract.small_model import NoSmallCopyError, small_copy

TOLERANCE = 2e-4
COT_TOKENS = 5


def _items() -> list[Item]:
    """Not those of the check itself: other ids and lengths, three continuations, prompts longer than the windows."""
    draw = torch.Generator().manual_seed(3)

    def ids(count: int) -> list[int]:
        return torch.randint(40, 500, (count,), generator=draw).tolist()

    return [Item("a", ids(21), [(ids(9), 0), (ids(4), 3), (ids(6), 4)], 2.0), Item("b", ids(11), [(ids(13), 2)], 3.0)]


def _loaded(config: Any, path: SequencePath, *, packed: bool) -> nn.Module:
    """A small copy as a stage would load it."""
    if packed:
        return small_copy(config, TREE)
    model = small_copy(config, exact_attention(config))
    use_rows(model)
    if not path.cached:
        without_cache(model)
    return model


def _check_training(config: Any, path: SequencePath, layout: SequenceLayout) -> None:
    """Loss and gradient of a step are those of the plain way, each example alone."""
    items, reference = _items(), small_copy(config, exact_attention(config))
    totals = totals_of(items, layout, TRACT)
    plain = [loss_shares(reference, layout, [example], 0, totals.ce_tokens, totals.examples) for example in examples_of(items)]
    torch.stack(plain).sum().backward()
    module = _module(_loaded(config, path, packed=path.packed), layout)
    module.model.eval()  # type: ignore[union-attr]
    found = gradient(module, [batch_of(items, layout, TRACT, totals)])
    named = {name for name, p in module.model.named_parameters() if p.grad is not None}  # type: ignore[union-attr]
    expected = torch.cat([p.grad.flatten() for name, p in reference.named_parameters() if p.grad is not None and name in named])
    loss = sum(float(parts[0]) for parts in module._step_parts)
    assert loss == pytest.approx(float(sum(plain)), rel=TOLERANCE)
    assert relative_error(found, expected) < TOLERANCE


def _check_judging(config: Any, path: SequencePath, layout: SequenceLayout) -> None:
    """Greedy feedback and the score probabilities behind it are those of the plain way, without any cache."""
    reference = small_copy(config, exact_attention(config))
    model = _loaded(config, path, packed=path.packed and path.live)
    judge = hf_judge_of(model)(model, layout, Sampling(0.0, 1.0, 1.0, COT_TOKENS), 0, None)
    prompts = [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(_items())]
    made = judge.judge(prompts, 1, rows=4, without_cot=False, free=False)
    assert [judgement.id for judgement in made] == ["a", "b"]
    for prompt, judgement in zip(prompts, made, strict=True):
        ids = list(prompt.prompt_ids)
        with torch.no_grad():
            for token in judgement.cot_ids:
                assert int(plain_logits(reference, torch.tensor([ids]))[0, -1].argmax()) == token
                ids.append(token)
            behind = plain_logits(reference, torch.tensor([[*ids, *layout.cue_ids]]))[0, -1]
        expected = torch.softmax(behind.float(), dim=-1)[[own[0] for own in layout.score_ids]]
        torch.testing.assert_close(torch.tensor(judgement.probabilities), expected, atol=TOLERANCE, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_causal_language_model_is_exact_or_refused(name: str, tiny_layout: SequenceLayout) -> None:
    """A new one of a new release is tried by itself; what cannot be made small has to be named, with why."""
    if name in NO_COPY:
        with pytest.raises((NoSmallCopyError, Exception)):
            small_copy(config_of(name))
        pytest.skip(f"cannot be made small: {NO_COPY[name]}")
    config = config_of(name)
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]) as refused:
            examine(config)
        assert "\n" not in str(refused.value)
        return
    path = examine(config)
    assert path is not None, f"{name} cannot be made small; say why in tests/architectures.py, or teach tract.small_model its sizes"
    _check_training(config, path, tiny_layout)
    _check_judging(config, path, tiny_layout)
