"""Which accepted names a mistyped one may have meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import SequenceMatcher

_CLOSE = 0.7  # of 1.0, equal; as difflib measures it
_MOST = 3  # names that are suggested


def near_names(name: str, accepted: Collection[str], most: int = _MOST) -> list[str]:
    """The accepted names that are spelled much like a name, or have a part that is, the nearest first.

    ``mistrl`` is near ``mistral_7b_instruct``, whose first part is spelled so; what is as near as the best is listed with it.
    """
    scored = [(_likeness(name.lower(), each.lower()), each) for each in accepted]
    best = max((score for score, _ in scored), default=(0.0, 0.0))
    if best[0] < _CLOSE:
        return []
    near = [(score, each) for score, each in scored if score[0] >= max(_CLOSE, best[0] - 0.05)]
    return [each for _, each in sorted(near, key=lambda found: (-found[0][0], -found[0][1]))][:most]


def did_you_mean(name: str, accepted: Collection[str]) -> str:
    """The text " (did you mean X or Y?)" to append to what was found, or "" where nothing accepted is near."""
    near = near_names(name, accepted)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _likeness(name: str, accepted: str) -> tuple[float, float]:
    """(of the whole or of its most similar part, of the whole)."""
    whole = _ratio(name, accepted)
    parts = [part for part in re.split(r"[_./\- ]", accepted) if len(part) > 2]
    return max([whole, *(0.98 * _ratio(name, part) for part in parts)]), whole


def _ratio(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second).ratio()
