"""Token ids of text in which only the project's own scaffold may hold control tokens.

A judge reads text written by those it judges. A response that spells ``<|im_end|>`` must reach the model as ordinary
text, while the chat template's own ``<|im_end|>`` must become the control token. So the text of a control token means
nothing to the encoders here; the scaffold is the only place where control tokens are put in, and by another road.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer

from tract.common.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text; control tokens are recognised in it only if ``trusted``."""

    text: str
    trusted: bool = False


class TextEncoder(Protocol):
    """Makes token ids of spans that are read as one text."""

    control_ids: frozenset[int]

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the concatenated spans; ids of control tokens stem from trusted spans only."""
        ...


def build_encoder(tokenizer: Any) -> TextEncoder:
    """The encoder for a Hugging Face tokenizer: exact for fast ones, span by span for those written in Python."""
    controls = control_tokens(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return FastEncoder(backend, controls)
    return PiecewiseEncoder(tokenizer, controls)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Text -> id of every token that steers the model.

    These are the special tokens and those added tokens that the chat template writes (``<think>``, ``<tool_call>``):
    some tokenizers do not mark the latter as special. Other added tokens (runs of blanks, HTML tags) are ordinary text.
    """
    special = set(tokenizer.all_special_ids)
    template = tokenizer.chat_template or ""
    if isinstance(template, dict):
        template = "\n".join(template.values())
    found = {}
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special or token_id in special or (token.content.strip() and token.content in template):
            found[token.content] = token_id
    for token_id in special:
        found[tokenizer.convert_ids_to_tokens(token_id)] = token_id
    return found


class FastEncoder:
    """Encodes with a copy of a fast tokenizer that does not know the texts of the control tokens.

    In the copy each control token has a random name, among the added tokens and in the model's own vocabulary, and
    that name is put into trusted spans in place of the token's text. The copy then splits and encodes the whole text
    as the tokenizer always does, so that ids equal those of ``apply_chat_template`` for harmless text, blanks and
    prefixes included. Every token keeps its id.
    """

    def __init__(self, backend: Tokenizer, controls: dict[str, int]) -> None:
        nonce = secrets.token_hex(16)
        self._names = {text: f"<{nonce}-{token_id}>" for text, token_id in controls.items() if text}
        self._encoder = Tokenizer.from_str(json.dumps(_renamed(json.loads(backend.to_str()), self._names)))
        self._encoder.no_padding()
        self._encoder.no_truncation()
        # Control tokens that stood in the model's vocabulary alone; they keep the id that they have there.
        known = {token.content for token in self._encoder.get_added_tokens_decoder().values()}
        self._encoder.add_special_tokens([AddedToken(name, normalized=False) for name in self._names.values() if name not in known])
        moved = [text for text, name in self._names.items() if self._encoder.token_to_id(name) != controls[text]]
        if moved:
            raise ConfigError(f"model.name_or_path: the tokenizer gives {', '.join(moved)} other ids than its tokenizer.json; save it anew")
        self.control_ids = frozenset(controls.values())
        # Longest first, so that no control token's text is replaced inside that of a longer one.
        self._control_text = re.compile("|".join(re.escape(text) for text in sorted(self._names, key=len, reverse=True)) or r"(?!)")

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the concatenated spans; ids of control tokens stem from trusted spans only."""
        text = "".join(self._rename(span.text) if span.trusted else span.text for span in spans)
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def _rename(self, text: str) -> str:
        return self._control_text.sub(lambda match: self._names[match[0]], text)


def _renamed(state: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The content of a tokenizer.json with tokens renamed wherever text could be matched with them; ids stay."""
    for token in state["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], normalized=False, special=True)
    model = state["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocabulary.items()}
    else:  # unigram: (piece, log-probability) pairs
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [[a, b] for a, b in model["merges"] if not names.keys() & {a, b, a + b}]
    return state


class PiecewiseEncoder:
    """Encodes span by span with a tokenizer that is written in Python (ByT5, for example)."""

    def __init__(self, tokenizer: Any, controls: dict[str, int]) -> None:
        self._tokenizer = tokenizer
        self.control_ids = frozenset(controls.values())
        self._forbidden = self.control_ids - {tokenizer.unk_token_id}

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the spans, each encoded alone; ids of control tokens stem from trusted spans only.

        Raises:
            ConfigError: if the tokenizer cannot be kept from reading control tokens in untrusted text.
        """
        ids: list[int] = []
        for span in spans:
            if not span.text:
                continue
            part = self._tokenizer(span.text, add_special_tokens=False, split_special_tokens=not span.trusted).input_ids
            if not span.trusted and self._forbidden.intersection(part):
                raise ConfigError(
                    f"model.name_or_path: the tokenizer {type(self._tokenizer).__name__} reads control tokens in plain text; "
                    "use the model's fast tokenizer (tokenizer.json)"
                )
            ids.extend(part)
        return ids
