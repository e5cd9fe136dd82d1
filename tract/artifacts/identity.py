"""What a stage's product was made from, and what differs between two of them. Pure."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tract.common.containers import canonical

_ABSENT = object()
_SHOWN_CHARACTERS = 40  # of a value in a line about a difference


@dataclass(frozen=True)
class StageIdentity:
    """Everything that can change a product.

    Attributes:
        stage: its name.
        config: the configuration that moves a number, see ``material``, with the fingerprints of the data.
        parents: role -> fingerprint of the product that is read in this role.
        code: module -> digest, see ``code_digests``.
    """

    stage: str
    config: dict[str, Any]
    parents: dict[str, str]
    code: dict[str, str]

    @property
    def key(self) -> str:
        """10 hex characters of the SHA-256 over all of it."""
        return hashlib.sha256(_canonical_json(self.to_dict()).encode()).hexdigest()[:10]

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StageIdentity:
        """The identity that ``to_dict`` wrote.

        Raises:
            KeyError, TypeError, ValueError: if the content is none.
        """
        return cls(str(content["stage"]), dict(content["config"]), dict(content["parents"]), dict(content["code"]))


def _canonical_json(value: Any) -> str:
    """Canonical JSON: in sections without types, 1 and 1.0 are the same."""
    return json.dumps(canonical(value), sort_keys=True)


def differences(old: StageIdentity, new: StageIdentity, at_most: int | None = 5) -> list[str]:
    """What changed from ``old`` to ``new``, a short line each; beyond ``at_most`` lines, the last one counts the rest."""
    lines = list(_differences(old, new))
    if at_most is None or len(lines) <= at_most:
        return lines
    return [*lines[:at_most], f"and {len(lines) - at_most} more"]


def _differences(old: StageIdentity, new: StageIdentity) -> Iterator[str]:
    if old.stage != new.stage:
        yield f"stage: {old.stage} -> {new.stage}"
    before, after = dict(_values_by_path(old.config)), dict(_values_by_path(new.config))
    for path in sorted({*before, *after}):
        was, now = before.get(path, _ABSENT), after.get(path, _ABSENT)
        if was is _ABSENT or now is _ABSENT or _canonical_json(was) != _canonical_json(now):
            shown = _shown_pair(was, now)
            yield f"{'.'.join(path)}: " + ("changed" if shown[0] == shown[1] else " -> ".join(shown))
    yield from (f"parent {role} {how}" for role, how in _changed_names(old.parents, new.parents))
    yield from (f"code of {module} {how}" for module, how in _changed_names(old.code, new.code))


def _values_by_path(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _values_by_path(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


def _shown_pair(was: Any, now: Any) -> tuple[str, str]:
    """Both values for a line; of long texts that begin alike, e.g. prompt scaffolds, what stands around the first difference."""
    shown = _shown_value(was), _shown_value(now)
    if shown[0] != shown[1] or not (isinstance(was, str) and isinstance(now, str)):
        return shown
    start = max(0, len(os.path.commonprefix([was, now])) - _SHOWN_CHARACTERS // 4)
    return _shown_value("..." + was[start:]), _shown_value("..." + now[start:])


def _shown_value(value: Any) -> str:
    text = "(absent)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _changed_names(old: dict[str, str], new: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, "added" if name not in old else "removed" if name not in new else "changed"
