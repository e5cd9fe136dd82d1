"""Secrets as "***": what leaves the process (files, loggers, the log) is masked, what runs keeps the values.

A secret is the value of a name that says so, what looks like a key that some service gives out, and the value of an environment
variable whose name says so.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "***"

# Words of a name that say it alone, at any place.
_WORDS = frozenset(
    ("password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "authorization", "apikey", "accesskey",
     "privatekey", "secretkey", "authtoken", "accesstoken", "bearer", "cookie", "cookies")
)  # fmt: skip
# Words that make a secret of "key" after them; "key" alone is the name of many harmless things.
_KEYS = frozenset(
    ("api", "access", "private", "secret", "auth", "account", "encryption", "signing", "service", "license", "ssh", "wandb", "openai",
     "anthropic", "hf", "aws", "azure", "kaggle", "openrouter", "gemini")
)  # fmt: skip
# Words before "token" that make a token of text of it.
_TEXT_TOKENS = frozenset(
    ("pad", "eos", "bos", "unk", "sep", "cls", "mask", "image", "audio", "video", "stop", "start", "end", "begin", "special", "score",
     "next", "new", "first", "last", "max", "min", "per", "num", "added", "decoder", "prompt", "answer", "turn", "control", "cue",
     "of", "by", "a")
)  # fmt: skip
# And of "tokens", which mostly are a number.
_SECRET_TOKENS = frozenset(("auth", "access", "api", "refresh", "bearer", "hf", "hub"))
# Last words of names whose values say where or of what kind a secret is, not the secret.
_ABOUT = frozenset(
    ("env", "path", "file", "dir", "folder", "name", "id", "ids", "type", "kind", "count", "size", "length", "limit", "index", "url", "uri",
     "sock", "class", "policy", "required", "enabled", "ttl", "expiry")
)  # fmt: skip
# Parameters of a URL that sign it.
_SIGNATURES = frozenset(("sig", "signature", "key", "x-amz-signature", "x-amz-credential", "x-amz-security-token"))

# What services give out. Each begins so that it is not found within a word.
_SHAPES = re.compile(
    r"""(?x)
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | (?<![A-Za-z0-9]) (?:
        hf_[A-Za-z0-9]{20,}
        | sk-(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{16,}
        | (?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}
        | glpat-[A-Za-z0-9_-]{16,}
        | xox[abprs]-[A-Za-z0-9-]{10,}
        | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])
        | AIza[A-Za-z0-9_-]{35}
        | wandb_v1_[A-Za-z0-9_]{20,}
        | eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*
    )
    """,
    re.DOTALL,
)
_BEARER = re.compile(r"\b([Bb]earer|BEARER)(\s+)(?:(?=\S*\d)[A-Za-z0-9+/=._~-]{8,}|[A-Za-z0-9+/=._~-]{16,})")
_BASIC = re.compile(r"\b(Basic)(\s+)(?=\S*\d)(?=\S*[A-Z])(?=\S*[a-z])[A-Za-z0-9+/]{8,}={0,2}")
_USER = re.compile(r"(?<=://)[^\s/'\"<>?#]+(?=@)")
_PARAMETER = re.compile(r"(?<=[?&;])([A-Za-z0-9_.-]+)=([^&#\s'\"<>]+)")
# An override, or an entry of a printed mapping.
_SETTING = re.compile(r"""([A-Za-z_][A-Za-z0-9_.@/-]*)(=|["']\s*:\s*)("[^"]*"|'[^']*'|\$\{[^{}]*\}|[^\s,;&}\])'"]+)""")
# What only names a variable or another key; a default in it would be a value.
_NAMED_ELSEWHERE = re.compile(r"\$\{[^{},]*\}")
# Shorter values of variables occur in other texts by chance.
_SHORTEST = 8


def names_secret(name: str) -> bool:
    """Whether a name, of a key or an environment variable, says that its value is a secret.

    ``pad_token`` and ``max_cot_tokens`` do not, nor does ``api_key_env``, which holds the name of a variable.
    """
    # Of snake_case and camelCase, without numbers at their ends.
    found = (word.lower().rstrip("0123456789") for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])", name))
    words = [word for word in found if word]
    if not words or words[-1] in _ABOUT:
        return False
    if not _WORDS.isdisjoint(words) or words[-1] == "auth":
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] in ("key", "keys"):
        return before in _KEYS
    return (words[-1] == "token" and before not in _TEXT_TOKENS) or (words[-1] == "tokens" and before in _SECRET_TOKENS)


def masked(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """A plain container with "***" in the place of all secrets; containers are new, everything else is the same.

    Args:
        value: mappings, lists, tuples and scalars. environment: None for the process's own.
    """
    known = _secret_values(os.environ if environment is None else environment)
    return _masked(value, known, "")


def masked_text(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text, such as a line of a log, with "***" in the place of all secrets.

    Args:
        environment: None for the process's own.
    """
    return _masked_text(text, _secret_values(os.environ if environment is None else environment))


def secret_keys(value: Any, environment: Mapping[str, str] | None = None) -> list[str]:
    """The dotted keys of a plain container whose values ``masked`` changes."""
    return list(_changed_keys(value, masked(value, environment), ""))


def _changed_keys(value: Any, shown: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _changed_keys(inner, shown[name], f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _changed_keys(inner, shown[number], f"{key}[{number}]")
    elif value != shown:
        yield key


class MaskedFormatter(logging.Formatter):
    """Lines of a log without secrets; arguments are those of ``logging.Formatter``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return masked_text(super().format(record))


def _secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Secret values of variables, the longest first, since one may be part of another."""
    found = {value for name, value in environment.items() if names_secret(name) and len(value) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _masked(value: Any, known: Iterable[str], name: str) -> Any:
    """The value without secrets; ``name`` is the innermost key around it that says that it is one, empty for none."""
    if isinstance(value, Mapping):
        return {key: _masked(inner, known, str(key) if names_secret(str(key)) else name) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        inner = [_masked(entry, known, name) for entry in value]
        return inner if isinstance(value, list) else tuple(inner)
    if isinstance(value, str):
        if not name:
            return _masked_text(value, known)
        return value if not value or _NAMED_ELSEWHERE.fullmatch(value) else MASK
    # A token that is a number is one of text.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return MASK if name and is_number and "token" not in name.lower() else value


def _masked_text(text: str, known: Iterable[str]) -> str:
    for value in known:
        text = text.replace(value, MASK)
    text = _SHAPES.sub(MASK, text)
    for header in (_BEARER, _BASIC):
        text = header.sub(rf"\1\2{MASK}", text)
    if "://" in text:
        text = _USER.sub(MASK, text)
    if "://" in text or "?" in text:
        text = _PARAMETER.sub(_masked_parameter, text)
    return _SETTING.sub(_masked_setting, text)


def _masked_parameter(found: re.Match[str]) -> str:
    name, value = found.groups()
    return f"{name}={MASK if names_secret(name) or name.lower() in _SIGNATURES else value}"


def _masked_setting(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    if not names_secret(re.split(r"[./@]", name)[-1]) or _NAMED_ELSEWHERE.fullmatch(value.strip("'\"")):
        return found[0]
    return f"{name}{between}{MASK}"
