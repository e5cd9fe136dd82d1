"""The rubric of a mapping: ``criteria`` and ``descriptions``, as Python, JSON or YAML hold them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tract.common.errors import DataError
from tract.text.schema import Rubric

_EXAMPLE = 'write {"criteria": "...", "descriptions": {"1": "...", "2": "..."}}'
# A text with more brackets is no rubric, and YAML would take long over it.
_MOST_NESTED = 100
_DESCRIBED_KEY = re.compile(r"score[_ ]?([+-]?[0-9]+(?:\.[0-9]+)?)[_ ]desc(?:ription)?")
_MAPPING = re.compile(r"\s*(?:```\w*\s*|---\s*\n)?(?:\{|[\"']?(?:criteria|descriptions|score\w*_desc\w*)[\"']?[ \t]*:)", re.IGNORECASE)
_BOTH_KEYS = re.compile(r"[\"']?criteria[\"']?\s*:[\s\S]*(?:descriptions|score\w*_description)[\"']?\s*:", re.IGNORECASE)


def rubric_from_mapping(given: Mapping[Any, Any]) -> Rubric:
    """The rubric of a mapping with ``criteria``, and perhaps ``descriptions`` or prometheus-eval's ``score1_description``, ....

    Raises:
        DataError: if a key is missing, unknown, or of another kind.
    """
    described = {name: match[1] for name in given if (match := _DESCRIBED_KEY.fullmatch(str(name)))}
    if unknown := [name for name in given if name not in ("criteria", "descriptions") and name not in described]:
        raise DataError(f"rubric.{unknown[0]}: unknown; accepted are criteria, descriptions (or score1_description, ...)")
    if "criteria" not in given:
        raise DataError("rubric.criteria: is missing; give the question that the score answers")
    descriptions = given.get("descriptions")
    if described and descriptions is not None:
        raise DataError(f"rubric.{next(iter(described))}: is given beside descriptions; give one of them")
    if described:
        descriptions = {label: given[name] for name, label in described.items()}
    if descriptions is not None and not isinstance(descriptions, Mapping):
        raise DataError(f"rubric.descriptions: found a {type(descriptions).__name__}; a mapping of score to text is accepted")
    _refuse_booleans(given["criteria"], descriptions or {})
    return Rubric(given["criteria"], descriptions or {})


def _refuse_booleans(criteria: object, descriptions: Mapping[Any, Any]) -> None:
    for label in descriptions:
        if isinstance(label, bool):
            raise DataError(f"rubric.descriptions: found the score {json.dumps(label)}; a number is accepted{quoting(label)}")
    for where, value in (("criteria", criteria), *((f"descriptions.{label}", text) for label, text in descriptions.items())):
        if isinstance(value, bool):
            raise DataError(f"rubric.{where}: found {json.dumps(value)}; text is accepted{quoting(value)}")


def quoting(value: object) -> str:
    """What to do where YAML has made true or false of a word; "" for any other value."""
    return "; YAML reads yes, no, on and off as true and false: quote it, e.g. 'yes'" if isinstance(value, bool) else ""


def repeated_key(text: str) -> str | None:
    """A key that occurs twice in one mapping of a YAML or JSON text, of which a reader would keep the last; 1 and 1.0 are the same."""
    return _repeated(yaml.compose(text, Loader=yaml.SafeLoader))


def _repeated(node: yaml.Node | None) -> str | None:
    if isinstance(node, yaml.MappingNode):
        keys = [_number_or_text(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        own = next((str(key) for place, key in enumerate(keys) if key in keys[:place]), None)
        return own or next((found for _, value in node.value if (found := _repeated(value))), None)
    return None


def _number_or_text(key: str) -> float | str:
    try:
        return float(key)
    except ValueError:
        return key


def mapping_of(text: str) -> Mapping[Any, Any] | None:
    """What a text of JSON or YAML holds, or None where it is neither.

    Raises:
        DataError: if it has the keys of a rubric and cannot be read, or one of them occurs twice.
    """
    if not _MAPPING.match(text) or "criteria" not in text.lower() or text.count("{") + text.count("[") > _MOST_NESTED:
        return None
    body = re.sub(r"^```\w*|```$", "", text.strip()).strip()
    try:
        found = json.loads(body) if body.startswith("{") else None
    except ValueError:
        found = None
    try:
        found = yaml.safe_load(body) if found is None else found
        twice = repeated_key(body) if isinstance(found, dict) else None
    except (yaml.YAMLError, ValueError, RecursionError):
        found = twice = None
    if not isinstance(found, dict) or not (body.startswith("{") or {"criteria", "descriptions"} <= set(found) or _keyed(found)):
        if _BOTH_KEYS.search(text):
            raise DataError(f"rubric: looks like JSON or YAML with criteria and descriptions, but cannot be read as such; {_EXAMPLE}")
        return None
    if twice:
        raise DataError(f"rubric: the key {twice} stands twice; each may stand once")
    return found


def _keyed(found: Mapping[Any, Any]) -> bool:
    return "criteria" in found and any(_DESCRIBED_KEY.fullmatch(str(name)) for name in found)
