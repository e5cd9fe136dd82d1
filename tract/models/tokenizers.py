"""Loading the tokenizer of a base model, with the chat template and pad token of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tract.common.errors import ConfigError, PadTokenError
from tract.config.schema import ModelConfig
from tract.models.locating import Checkpoint, from_source, locate, unpacked, warn_of_code

# Reading the tokenizer out of a GGUF file takes seconds, and every stage asks for it several times.
_TOKENIZERS: dict[str, Any] = {}


def load_tokenizer(cfg: ModelConfig) -> Any:
    """The tokenizer with the chat template and pad token of the config; loaded once in a process.

    Raises:
        ConfigError: if it cannot be loaded, or has no pad token and ``model.pad_token`` names none.
    """
    # A dataclass with a dictionary in it has no hash; its text says all there is.
    key = repr(cfg)
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = _load_tokenizer(cfg)
    return _TOKENIZERS[key]


def _load_tokenizer(cfg: ModelConfig) -> Any:
    source = Checkpoint(cfg.tokenizer_name_or_path, None) if cfg.tokenizer_name_or_path else unpacked(cfg, locate(cfg))
    warn_of_code(cfg, source, again=False)
    with from_source("model.tokenizer_name_or_path" if cfg.tokenizer_name_or_path else "model.name_or_path", source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs
        )
    if cfg.chat_template is not None:
        path = Path(cfg.chat_template)
        if not path.is_file():
            raise ConfigError(f"model.chat_template: no file {cfg.chat_template!r}; give the path of a Jinja chat template")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    if cfg.pad_token is not None:
        if cfg.pad_token not in tokenizer.get_vocab():
            raise ConfigError(
                f"model.pad_token: {cfg.pad_token!r} is no token of {cfg.name_or_path!r}; choose {_pad_candidates(tokenizer)}"
            )
        tokenizer.pad_token = cfg.pad_token
    if tokenizer.pad_token_id is None:
        found = f"the tokenizer of {cfg.name_or_path!r} has no pad token"
        message = f"model.pad_token: {found}; set model.pad_token to {_pad_candidates(tokenizer)}"
        raise PadTokenError(message, tokenizer.eos_token or tokenizer.unk_token)
    return tokenizer


def _pad_candidates(tokenizer: Any) -> str:
    own = [repr(token) for token in dict.fromkeys([tokenizer.unk_token, tokenizer.eos_token]) if token]
    return f"one of its tokens, e.g. {' or '.join(own)}" if own else "one of its tokens"
