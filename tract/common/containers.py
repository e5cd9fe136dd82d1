"""What plain containers of JSON and YAML hold: mappings, lists and scalars. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def canonical(content: Any) -> Any:
    """The content with whole floats as integers, tuples as lists and keys as text: equal where it means the same, as JSON too."""
    if isinstance(content, Mapping):
        return {str(name): canonical(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [canonical(value) for value in content]
    return int(content) if isinstance(content, float) and content.is_integer() else content


def not_finite_in(content: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """(dotted key, number) of each NaN and infinity.

    Args:
        content: mappings, lists, tuples and scalars. key: of the content itself; empty for none.
    """
    if isinstance(content, float) and not math.isfinite(content):
        yield key, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from not_finite_in(value, f"{key}.{name}".lstrip("."))
    elif isinstance(content, (list, tuple)):
        for place, value in enumerate(content):
            yield from not_finite_in(value, f"{key}[{place}]")
