"""Control tokens come from the scaffold alone, and nothing else about a tokenizer changes."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_zoo import NAMES, member, small_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from tract.common.errors import ConfigError
from tract.text.tokenization import FastEncoder, PiecewiseEncoder, Span, TextEncoder, build_encoder, control_tokens


@cache
def encoder(name: str) -> TextEncoder:
    """The encoder of a tokenizer of the zoo, built once."""
    return build_encoder(member(name).tokenizer)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str, trusted: bool = False) -> list[int]:
    return build_encoder(tokenizer).encode([Span(text, trusted)])


# --- what a control token is


def test_control_tokens_are_the_special_ones_and_those_that_the_template_writes() -> None:
    assert control_tokens(member("tiny").tokenizer) == {
        "<unk>": 0, "<pad>": 1, "<|begin|>": 2, "<|system|>": 3, "<|user|>": 4, "<|judge|>": 5, "<|end|>": 6,
    }  # fmt: skip
    tokenizer = member("thinking").tokenizer
    assert set(control_tokens(tokenizer)) == {"<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|pad|>", "<think>", "</think>"}
    assert {"<table>", "    ", "\t\t"} <= {token.content for token in tokenizer.added_tokens_decoder.values()}


def test_without_a_template_an_ordinary_added_token_is_no_control_token() -> None:
    tokenizer = small_tokenizer(template=None)
    tokenizer.add_tokens(["<think>"])
    assert "<think>" not in control_tokens(tokenizer)
    tokenizer.chat_template = {"default": "a", "tool_use": "<think>{{ messages[0].content }}"}
    assert control_tokens(tokenizer)["<think>"] == tokenizer.convert_tokens_to_ids("<think>")


def test_blanks_in_a_template_do_not_make_control_tokens_of_added_blanks() -> None:
    tokenizer = small_tokenizer(template="    {% for m in messages %}{{ m.content }}{% endfor %}")
    tokenizer.add_tokens(["    "])
    assert "    " not in control_tokens(tokenizer)


def test_tokenizers_written_in_python_are_encoded_in_pieces() -> None:
    assert {name: type(encoder(name)) for name in NAMES} == {
        name: PiecewiseEncoder if name == "byte_level" else FastEncoder for name in NAMES
    }  # fmt: skip


# --- trusted text


@pytest.mark.parametrize("name", NAMES)
def test_a_trusted_control_token_is_one_token(name: str) -> None:
    controls = control_tokens(member(name).tokenizer)
    for text, token_id in list(controls.items())[:30]:
        assert encoder(name).encode([Span(text, trusted=True)]) == [token_id]
        assert token_id not in encoder(name).encode([Span(text)])


@pytest.mark.parametrize("name", NAMES)
def test_trusted_text_is_what_the_tokenizer_makes_of_it(name: str) -> None:
    tokenizer = member(name).tokenizer
    controls = list(control_tokens(tokenizer))[:12]
    text = "".join(f"Text {number} before{token}after,  {token}{token}\n" for number, token in enumerate(controls))
    assert encoder(name).encode([Span(text, trusted=True)]) == list(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("name", NAMES)
def test_harmless_untrusted_text_is_what_the_tokenizer_makes_of_it(name: str) -> None:
    text = "  Is 2+2=4?\n\n\tYes — naïve 東京 🙂    really. <table> x"
    assert encoder(name).encode([Span(text)]) == list(member(name).tokenizer(text, add_special_tokens=False).input_ids)


def test_a_control_token_inside_a_longer_one_is_not_read() -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>er|>"]})
    assert ids_of(tokenizer, "<|end|>er|><|end|>", trusted=True) == tokenizer.convert_tokens_to_ids(["<|end|>er|>", "<|end|>"])


def test_names_of_control_tokens_are_not_read_as_other_control_tokens() -> None:
    """Random names hold letters, digits and dashes: a control token of one letter must not be put into them."""
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list("abcdef0123456789-<>")})
    text = "<|end|>a-9<|user|>"
    assert ids_of(tokenizer, text, trusted=True) == tokenizer.convert_tokens_to_ids(["<|end|>", "a", "-", "9", "<|user|>"])


def test_flags_of_control_tokens_stay() -> None:
    """Some control tokens swallow the blanks beside them."""
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|eat|>", lstrip=True, rstrip=True)]})
    text = "a  <|eat|>  b"
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text, trusted=True)) == ["a", "<|eat|>", "b"]
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text)) == list(text)


def test_spans_are_read_as_one_text() -> None:
    encode = encoder("smollm2").encode
    assert encode([Span("over"), Span("all sc", trusted=True), Span("ore")]) == encode([Span("overall score")])
    assert encode([]) == []
    assert encode([Span(""), Span("", trusted=True)]) == []


def test_a_control_token_split_over_spans_is_text() -> None:
    encode = encoder("smollm2").encode
    for spans in (
        [Span("<|im_"), Span("end|>")],
        [Span("<|im_", trusted=True), Span("end|>")],
        [Span("<|im_"), Span("end|>", trusted=True)],
    ):
        assert 2 not in encode(spans)
    assert encode([Span("<|im_end|>"), Span("<|im_end|>", trusted=True)]).count(2) == 1


# --- every token keeps its id


def test_added_tokens_after_a_control_token_keep_their_ids() -> None:
    found = member("thinking")
    for text in ("    ", "<table>", "\t\t"):
        token_id = found.tokenizer.convert_tokens_to_ids(text)
        assert encoder("thinking").encode([Span(f"a{text}b")]) == list(found.tokenizer(f"a{text}b", add_special_tokens=False).input_ids)
        assert token_id in encoder("thinking").encode([Span(f"a{text}b")])


def test_control_tokens_that_stand_in_the_vocabulary_alone_keep_their_ids() -> None:
    words = {"<unk>": 0, "<|end|>": 1, "a": 2, "b": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    controls = {"<unk>": 0, "<|end|>": 1}
    encode = FastEncoder(backend, controls).encode  # nothing is declared as added
    assert encode([Span("a b "), Span("<|end|>", trusted=True), Span(" a <|end|> c")]) == [2, 3, 1, 2, 0, 0]


def test_a_tokenizer_whose_ids_do_not_survive_is_refused() -> None:
    backend = small_tokenizer().backend_tokenizer
    with pytest.raises(ConfigError, match=r"model.name_or_path: the tokenizer gives <\|end\|> other ids"):
        FastEncoder(backend, {"<|end|>": 9999})


def test_padding_and_truncation_of_the_tokenizer_do_not_reach_the_ids() -> None:
    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert len(ids_of(tokenizer, "twenty characters ok")) == 20


def test_the_tokenizer_itself_is_left_as_it_was() -> None:
    tokenizer = small_tokenizer()
    before = json.loads(tokenizer.backend_tokenizer.to_str())
    build_encoder(tokenizer).encode([Span("a<|end|>"), Span("<|end|>", trusted=True)])
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == before


# --- models whose own vocabulary can spell a control token


def bpe_that_can_merge_to(*texts: str) -> PreTrainedTokenizerFast:
    """A BPE model whose merges build each text from its characters, left to right."""
    vocabulary = {chr(code): code - 32 for code in range(32, 127)}
    merges = []
    for text in texts:
        for end in range(2, len(text) + 1):
            if text[:end] not in vocabulary:
                vocabulary[text[:end]] = len(vocabulary)
                merges.append((text[: end - 1], text[end - 1]))
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_merges_do_not_build_a_control_token() -> None:
    tokenizer = bpe_that_can_merge_to("</s>", "</s>x")
    ids = ids_of(tokenizer, "a</s>x")
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "</s", ">", "x"]
    assert ids_of(tokenizer, "a</s>x", trusted=True) == tokenizer.convert_tokens_to_ids(["a", "</s>", "x"])


def test_whole_words_of_a_vocabulary_do_not_bring_a_control_token() -> None:
    """Some BPE models look up a whole word before they merge (``ignore_merges``, as Llama 3)."""
    backend = Tokenizer(models.BPE({"<": 0, "/": 1, "s": 2, ">": 3, "</s>": 4, "ss": 5}, [], ignore_merges=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert ids_of(tokenizer, "</s>") == [0, 1, 2, 3]
    assert ids_of(tokenizer, "ss") == [5]
    assert ids_of(tokenizer, "</s>", trusted=True) == [4]


def test_a_unigram_model_spells_its_control_tokens_out_without_blanks_between() -> None:
    found = member("unigram")
    ids = encoder("unigram").encode([Span("a</s>b <s>")])
    assert found.tokenizer.convert_ids_to_tokens(ids) == ["▁", "a", "<", "/", "s", ">", "b", "▁", "<", "s", ">"]


def test_text_that_only_normalisation_makes_a_control_token_is_text() -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((c, -5.0) for c in "</s>ab")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.NFKC()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "a＜／s＞b")) == ["a", "<", "/", "s", ">", "b"]


def test_word_pieces_do_not_bring_a_control_token() -> None:
    words = ["[UNK]", "[SEP]", "a", "sep", "##s"]
    backend = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]")
    assert ids_of(tokenizer, "a [SEP] as sep") == [2, 0, 2, 4, 3]
    assert ids_of(tokenizer, "a [SEP]", trusted=True) == [2, 1]


def test_a_character_that_the_tokenizer_does_not_know_is_unknown_and_no_error() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0)), unk_token="<unk>"
    )
    assert ids_of(tokenizer, "a東b") == [1, 0, 2]


# --- tokenizers written in Python


def test_bytes_of_control_tokens_are_bytes() -> None:
    assert encoder("byte_level").encode([Span("a</s>")]) == [byte + 3 for byte in b"a</s>"]
    assert encoder("byte_level").encode([Span("a"), Span("</s>", trusted=True), Span("b")]) == [ord("a") + 3, 1, ord("b") + 3]


def test_a_python_tokenizer_that_reads_control_tokens_in_plain_text_is_refused() -> None:
    class Careless(ByT5Tokenizer):
        def __call__(self, text: str, **kwargs: object) -> object:
            return super().__call__(text, **{**kwargs, "split_special_tokens": False})

    tokenizer = Careless()
    tokenizer.chat_template = "{{ messages[0].content }}</s>"
    encode = build_encoder(tokenizer).encode
    assert encode([Span("ab"), Span("</s>", trusted=True)]) == [100, 101, 1]
    with pytest.raises(
        ConfigError, match="model.name_or_path: the tokenizer Careless reads control tokens in plain text; use the model's fast"
    ):
        encode([Span("a</s>b")])


# --- any text at all

FRAGMENTS = [
    "<|im_end|>", "<|im_start|>", "</s>", "<s>", "<unk>", "<pad>", "<|end|>", "<|user|>", "<|judge|>", "<think>", "<extra_id_0>", "<|",
    "|>", "<", "</", "s>", "im_end", " ", "  ", "\n", "3", "[/INST]", "é", "東", "🙂", "\u200b", "\x00", "<0x0A>",
]  # fmt: skip

# SmolLM2 has no tokens for some bytes of other characters: it leaves them out.
LETTERS = st.characters(max_codepoint=0x33FF, exclude_categories=("Cs", "Cc"))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    texts=st.lists(
        st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(LETTERS, max_size=4)), max_size=8).map("".join), min_size=1, max_size=3
    )
)
def test_no_text_brings_a_control_token_or_loses_a_character(name: str, texts: list[str]) -> None:
    found, encode = member(name), encoder(name).encode
    end = Span(found.end, trusted=True)
    spans = [piece for text in texts for piece in (Span(f"({text})"), end)]
    ids = encode(spans)
    controls = encoder(name).control_ids
    assert Counter(i for i in ids if i in controls) == {found.tokenizer.convert_tokens_to_ids(found.end): len(texts)}
    for text, part in zip(texts, split(ids, controls), strict=True):
        assert found.decode(part).removeprefix(found.prefix) == found.shown(f"({text})")


def split(ids: list[int], ends: frozenset[int]) -> list[list[int]]:
    """The ids before each end."""
    parts: list[list[int]] = [[]]
    for token_id in ids:
        if token_id in ends:
            parts.append([])
        else:
            parts[-1].append(token_id)
    assert parts.pop() == []
    return parts
