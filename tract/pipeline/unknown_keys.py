"""What a key that does not exist was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

from tract.common.near_names import near_names
from tract.config.schema import Config, types_of_keys


def unknown_key_message(key: str, accepted: list[str], elsewhere: Sequence[str] = ()) -> str:
    """One line about a key that does not exist, with what was probably meant.

    Args:
        key: the dotted key. accepted: the keys of its section. elsewhere: keys of this name that the typed configuration does not hold.
    """
    name = key.rpartition(".")[2]
    if name in ("lambda_", "score_loss_weight") and "lambda" in accepted:  # names that it has, or had, elsewhere
        meant = ["lambda"]
    else:  # a key of that very name in another section, else the nearest one of this section
        meant = [*_keys_named(name, Config), *elsewhere] or near_names(name, accepted, most=1)
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return f"{key}: unknown key{hint}; accepted are {', '.join(accepted)}"


def _keys_named(name: str, kind: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of the typed configuration that end in a name."""
    for key, hint in types_of_keys(kind).items():
        if key == name:
            yield f"{prefix}{name}"
        if is_dataclass(hint):
            yield from _keys_named(name, hint, f"{prefix}{key}.")
