"""Tokenizers of every kind that a judge's text meets, built or found without a network. Each has a chat template."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from composing import composed
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from tract.models.tokenizers import load_tokenizer
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(tuple("12345"))

# Chat templates in our own words; line breaks and the blanks after them are for the reader alone.
_MISTRAL_STYLE = """
{{ bos_token }}{% for turn in messages %}
    {% if turn.role == 'user' %}{{ ' [INST] ' + turn.content + ' [/INST]' }}
    {% elif turn.role == 'assistant' %}{{ turn.content }}{{ eos_token }}
    {% else %}{{ raise_exception('no role ' + turn.role) }}{% endif %}
{% endfor %}"""
_PLAIN_STYLE = """
{% for turn in messages %}
    {% if turn.role == 'user' %}START_Task: {{ turn.content }}.</s>
    {% elif turn.role == 'assistant' %}Verdict:{{ turn.content }}</s>{% endif %}
{% endfor %}
{% if add_generation_prompt %}Verdict:{% endif %}"""
_MARKED_STYLE = """
{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}"""
_HEADER_STYLE = r"""
{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: some day\n\n
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<|eot_id|>
{% for turn in messages %}
    {% if turn.role != 'system' %}<|start_header_id|>{{ turn.role }}<|end_header_id|>\n\n{{ turn.content }}<|eot_id|>{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"""
_CHATML_STYLE = r"""
{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"""
_FOLDING_STYLE = r"""
{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% else %}{% set first = '' %}{% endif %}
{% for turn in messages %}
    {% if turn.role != 'system' %}<start_of_turn>{{ 'model' if turn.role == 'assistant' else turn.role }}\n
    {{ first if turn.role == 'user' else '' }}{{ turn.content }}<end_of_turn>\n{% endif %}
{% endfor %}
{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"""
_THINKING_STYLE = r"""
{% for turn in messages %}
    {% if turn.role == 'assistant' %}<|assistant|>\n<think>\n\n</think>\n\n{{ turn.content }}<|end|>\n
    {% else %}<|{{ turn.role }}|>\n{{ turn.content }}<|end|>\n{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>\n<think>\n\n</think>\n\n{% endif %}"""


def _one_line(template: str) -> str:
    return "".join(line.lstrip() for line in template.splitlines()).replace("\\n", "\n")


@dataclass(frozen=True)
class Member:
    """A tokenizer and what is known of it.

    Attributes:
        has_system_turn: whether the chat template shows a system turn.
        end: the text of the token that ends the judge's turn.
        underscore_is_blank: it writes a blank as U+2581, so that the two cannot be told apart.
        prefix: what decoding shows before text that was encoded alone.
        joins_blank_and_digit: " 3" is one token.
        normal_form: the Unicode form that it brings text into, if any.
    """

    tokenizer: Any
    has_system_turn: bool
    end: str
    underscore_is_blank: bool = False
    prefix: str = ""
    joins_blank_and_digit: bool = False
    normal_form: Literal["NFC"] | None = None

    def shown(self, text: str) -> str:
        """What decoding shows of a text."""
        text = unicodedata.normalize(self.normal_form, text) if self.normal_form else text
        return text.replace("▁", " ") if self.underscore_is_blank else text

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _packaged(name: str) -> Any:
    return load_tokenizer(validate(composed([f"model={name}", "model.unpacked=null"])).model)


def _smollm2() -> Member:
    return Member(_packaged("smollm2_packaged"), has_system_turn=True, end="<|im_end|>")


def _tiny() -> Member:
    return Member(_packaged("tiny"), has_system_turn=True, end="<|end|>")


def _mistral() -> Member:
    """The tokenizer of Mistral-7B-Instruct-v0.2, under a chat template in its style."""
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(spec.origin).parent / "data" / "tokenizer.model.v1", Path(folder, "tokenizer.model"))
        Path(folder, "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True})
        )
        Path(folder, "config.json").write_text(json.dumps({"model_type": "mistral"}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = _one_line(_MISTRAL_STYLE)
    return Member(tokenizer, has_system_turn=False, end="</s>", underscore_is_blank=True)


def _trained_bpe() -> Tokenizer:
    """Byte-level BPE whose corpus makes one token of " 3", and of " So", " the", " is"."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=20, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([f". So the overall score is {score}" for score in range(10) for _ in range(30)], trainer)
    return backend


def _joined() -> Member:
    backend = _trained_bpe()
    backend.add_special_tokens(["<|user|>", "<|system|>", "<|assistant|>", "<|end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = _one_line(_MARKED_STYLE)
    return Member(tokenizer, has_system_turn=True, end="<|end|>", joins_blank_and_digit=True)


def _thinking() -> Member:
    """Control tokens and ordinary added tokens by turns; ``<think>`` is added, written by the template, and not special."""
    backend = _trained_bpe()
    for special, ordinary in (
        ("<|user|>", "    "),
        ("<|system|>", "<table>"),
        ("<|assistant|>", "<think>"),
        ("<|end|>", "</think>"),
        ("<|pad|>", "\t\t"),
    ):
        backend.add_special_tokens([special])
        backend.add_tokens([ordinary])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|pad|>", pad_token="<|pad|>")
    tokenizer.chat_template = _one_line(_THINKING_STYLE)
    return Member(tokenizer, has_system_turn=True, end="<|end|>", joins_blank_and_digit=True)


def _byte_level() -> Member:
    """A tokenizer written in Python: one token per byte."""
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = _one_line(_PLAIN_STYLE).replace("START_", "<extra_id_0>")
    return Member(tokenizer, has_system_turn=False, end="</s>")


def _unigram() -> Member:
    """A unigram model with a prefix blank, whose own vocabulary holds the text of its control tokens."""
    controls = ["<unk>", "<s>", "</s>"]
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    words = ["▁So", "▁the", "▁overall", "▁score", "▁is", "▁Task"]
    # Byte tokens are so unlikely that only bytes without another piece are written by them.
    pieces = [(text, 0.0) for text in controls] + [(text, -5.0) for text in letters] + [(text, -6.0) for text in words]
    pieces += [(f"<0x{byte:02X}>", -100.0) for byte in range(256)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    backend.add_special_tokens(controls)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>")
    tokenizer.chat_template = _one_line(_PLAIN_STYLE).replace("START_", "<s>")
    return Member(tokenizer, has_system_turn=False, end="</s>", underscore_is_blank=True, prefix=" ")


# How Llama 3 and Qwen cut text before they merge: words, up to three digits or each digit alone, marks, blanks.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_CONTROLS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
QWEN_CONTROLS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|vision_start|>",
    "<|fim_prefix|>",
    "<|repo_name|>",
)
QWEN_ORDINARY = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")


def as_llama(backend: Tokenizer) -> Member:
    """A byte-level BPE with Llama 3's pre-tokenizer, control tokens and style of chat template."""
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS.format(digits=3)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(LLAMA_CONTROLS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|finetune_right_pad_id|>"
    )
    tokenizer.chat_template = _one_line(_HEADER_STYLE)
    return Member(tokenizer, has_system_turn=True, end="<|eot_id|>")


def as_qwen(backend: Tokenizer) -> Member:
    """A byte-level BPE with Qwen's normalizer, pre-tokenizer, control tokens and style of chat template, thinking turned off."""
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS.format(digits=1)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(QWEN_CONTROLS))
    backend.add_tokens([AddedToken(text, normalized=False) for text in QWEN_ORDINARY])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = _one_line(_CHATML_STYLE)
    return Member(tokenizer, has_system_turn=True, end="<|im_end|>", normal_form="NFC")


def _bytes_alone() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, [], ignore_merges=True))


def _llama() -> Member:
    return as_llama(_bytes_alone())


def _qwen() -> Member:
    return as_qwen(_bytes_alone())


def _gemma() -> Member:
    """In the style of Gemma: BPE over characters with bytes to fall back on, blanks written as U+2581, tags and line breaks added."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(chr(code) for code in range(33, 127))]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"])
    backend.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "<table>", "<b>", "[multimodal]", "<unused0>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = _one_line(_FOLDING_STYLE)
    return Member(tokenizer, has_system_turn=True, end="<end_of_turn>", underscore_is_blank=True)


_BUILDERS: dict[str, Callable[[], Member]] = {
    "smollm2": _smollm2, "mistral": _mistral, "joined": _joined, "thinking": _thinking,
    "byte_level": _byte_level, "tiny": _tiny, "unigram": _unigram, "llama": _llama, "qwen": _qwen, "gemma": _gemma,
}  # fmt: skip
NAMES = tuple(_BUILDERS)


@cache
def member(name: str) -> Member:
    """A tokenizer of the zoo, built once; do not change it."""
    return _BUILDERS[name]()


# The template of ``small_tokenizer``.
MARKED = _one_line(_MARKED_STYLE)


def small_tokenizer(merges: list[tuple[str, str]] | None = None, template: str | None = MARKED, eos: str | None = "<|end|>") -> Any:
    """A tokenizer of single ASCII characters and the given merges, which cross the borders of words."""
    texts = [chr(code) for code in range(32, 127)] + ["\n"] + ["".join(pair) for pair in merges or []]
    backend = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(texts)}, merges=merges or []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|stop|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


@cache
def template(name: str) -> PromptTemplate:
    """A prompt of conf/prompt."""
    cfg = validate(composed(["model=tiny", f"prompt={name}"]))
    return PromptTemplate(**{**vars(cfg.prompt), "blocks": tuple(cfg.prompt.blocks)})


def layout_for(found: Member, prompt: str) -> SequenceLayout:
    """The layout of a tokenizer under a prompt of conf/prompt."""
    worded = template(prompt)
    return SequenceLayout.build(found.tokenizer, system=bool(worded.system), cue=worded.cue, grid=GRID, chat_template_kwargs={})


# --- vocabularies of real models


def llama_vocabulary() -> Path:
    """Llama 3's, from a package on PyPI."""
    return package_file("llama_models", "llama3/tokenizer.model")


def qwen_vocabulary() -> Path:
    """Qwen's, from a package on PyPI; Qwen 3 differs in its control tokens alone."""
    return package_file("dashscope", "resources/qwen.tiktoken")


def package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed; run `make setup`")
    return Path(spec.origin).parent / name


def converted(path: Path) -> Tokenizer:
    """A byte-pair vocabulary with ranks as a fast tokenizer."""
    return TikTokenConverter(vocab_file=str(path)).converted()
