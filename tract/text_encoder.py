"""Token ids of text in which only the project's own scaffold may hold control tokens.

A judge reads text written by those it judges. A response that spells ``<|im_end|>`` must reach the model as ordinary
text, while the chat template's own ``<|im_end|>`` must become the control token. So the text of a control token means
nothing to the encoders here; the scaffold is the only place where control tokens are put in, and by another road.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer

from tract.errors import ConfigError


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
        return FastEncoder(backend, controls, unk_id=tokenizer.unk_token_id)
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

    In the copy each control token is spelled with a random name, which is put into trusted spans in place of the
    token's text. The tokenizer then splits and encodes the whole text as it always does, so that ids equal those of
    ``apply_chat_template`` for harmless text, blanks and prefixes included.
    """

    def __init__(self, backend: Tokenizer, controls: dict[str, int], unk_id: int | None) -> None:
        state = json.loads(backend.to_str())
        added = {token["content"]: token for token in state["added_tokens"]}
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in controls]
        self._encoder = Tokenizer.from_str(json.dumps(state))
        self._encoder.no_padding()
        self._encoder.no_truncation()
        nonce = secrets.token_hex(16)
        # Longest first, so that no control token's text is replaced inside that of a longer one.
        texts = sorted(controls, key=len, reverse=True)
        self._names = {text: f"<{nonce}-{k}>" for k, text in enumerate(texts)}
        flags = {text: {side: bool(added.get(text, {}).get(side, False)) for side in ("lstrip", "rstrip", "single_word")} for text in texts}
        self._encoder.add_special_tokens(
            [AddedToken(self._names[text], normalized=False, special=True, **flags[text]) for text in texts]
        )
        self._real_id = {self._encoder.token_to_id(name): controls[text] for text, name in self._names.items()}
        self.control_ids = frozenset(controls.values())
        # A tokenizer may answer a character that it does not know with <unk>; that is no control token in the text.
        self._forbidden = self.control_ids - {unk_id}

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the concatenated spans; ids of control tokens stem from trusted spans only."""
        text = "".join(self._rename(span.text) if span.trusted else span.text for span in spans)
        encoding = self._encoder.encode(text, add_special_tokens=False)
        ids: list[int] = []
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self._real_id:
                ids.append(self._real_id[token_id])
            elif token_id in self._forbidden:
                # The model's own vocabulary holds the control token's text (unigram and word-level models): spell it out.
                ids.extend(i for c in text[start:end] for i in self._encoder.encode(c, add_special_tokens=False).ids if i not in self._forbidden)
            else:
                ids.append(token_id)
        return ids

    def _rename(self, text: str) -> str:
        for control, name in self._names.items():
            text = text.replace(control, name)
        return text


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
