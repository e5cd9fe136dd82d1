"""Names that the configuration had in the release before: they still work for one release, with a warning that names the new one.

All of it is in the three tables below. A renamed key stays in its section. Next release: empty the tables, or replace their entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from tract.common.errors import ConfigError

# Old key -> new key.
RENAMED_KEYS = {
    "batch.items_per_step": "batch.global_batch_size",
    "batch.micro_batch_tokens": "batch.max_tokens_per_micro_batch",
    "data.overlong": "data.truncation",
    "train.export": "train.keep_weights",
    "train.validate_seed_model": "train.validate_base_model",
    "stage2.start_from": "stage2.init_from",
    "stage2.batch.items_per_step": "stage2.batch.global_batch_size",
    "stage2.batch.micro_batch_tokens": "stage2.batch.max_tokens_per_micro_batch",
    "stage2.train.export": "stage2.train.keep_weights",
    "stage2.train.validate_seed_model": "stage2.train.validate_base_model",
    "evaluation.fallback": "evaluation.failed_score",
    "logger.wandb.patience_s": "logger.wandb.timeout_s",
    "run.isolate": "run.subprocess_stages",
}
# Key -> (old value, new value).
RENAMED_VALUES = {"judge": ("seed", "base"), "compare_to": ("seed", "base"), "stage2.init_from": ("seed", "base")}
# Old dotted path of a class -> new one.
MOVED_CLASSES = {
    "tract.data.sources.FeedbackCollection": "tract.data.sources.feedback_collection.FeedbackCollection",
    "tract.data.sources.PrometheusEval": "tract.data.sources.prometheus_eval.PrometheusEval",
    "tract.data.mapped_columns.MappedColumns": "tract.data.sources.mapped_columns.MappedColumns",
    "tract.data.rubric_check.RubricCheck": "tract.data.sources.rubric_check.RubricCheck",
    "tract.stages.strategies.ZeRO": "tract.training.strategies.ZeRO",
    "tract.stages.strategies.FSDP": "tract.training.strategies.FSDP",
}

_OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[A-Za-z_][\w.]*)(?:=(?P<value>.*))?", re.DOTALL)
_INTERPOLATION = re.compile(rf"\$\{{({'|'.join(map(re.escape, RENAMED_KEYS))})\}}")


def upgraded(config: Mapping[str, Any], given: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """A configuration with its current names, and a line for each old name that was in it.

    Args:
        config: the whole, as plain containers with YAML's names; it is not changed. Interpolations may stand in it. A value under an old
            key wins over that under the new one, which is the default.
        given: keys that were set by their new names where that wins, as the command line wins over files.
    """
    content = deepcopy(dict(config))
    lines: list[str] = []
    for old, new in RENAMED_KEYS.items():
        section = _section(content, old)
        name = old.rpartition(".")[2]
        if name in section:
            lines.append(_line(old, new))
            value = section.pop(name)
            if new not in given:
                section[new.rpartition(".")[2]] = value
    for key, (old_value, new_value) in RENAMED_VALUES.items():
        section, name = _section(content, key), key.rpartition(".")[2]
        if section.get(name) == old_value:
            lines.append(_line(f"{key}={old_value}", f"{key}={new_value}"))
            section[name] = new_value
    return {key: _upgraded_below(value, key, lines) for key, value in content.items()}, lines


def upgraded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in the folder of an older run, or in its record, with its current names; see ``upgraded``."""
    return upgraded(config)[0]


def upgraded_overrides(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The words of a command line with current names, and a line for each old name among them; flags stay as they are.

    Raises:
        ConfigError: if a key is given by its old name and by its new one.
    """
    renamed: list[str] = []
    lines: list[str] = []
    given: dict[str, str] = {}  # key -> the name that it was given by
    for word in words:
        found = _OVERRIDE.fullmatch(word)
        if found is None:
            renamed.append(word)
            continue
        key = RENAMED_KEYS.get(found["key"], found["key"])
        if key != found["key"]:
            lines.append(_line(found["key"], key))
        first = given.setdefault(key, found["key"])
        if first != found["key"]:
            old = next(name for name in (first, found["key"]) if name != key)
            raise ConfigError(f"{old}: is given together with {key}, its new name; leave {old} out")
        value = None if found["value"] is None else _upgraded_value(key, found["value"], lines)
        renamed.append(f"{found['sign']}{key}" + ("" if value is None else f"={value}"))
    return renamed, lines


def _upgraded_value(key: str, text: str, lines: list[str]) -> str:
    """The value of an override, of which a sweep has several with commas between them."""
    if key in RENAMED_VALUES:
        old, new = RENAMED_VALUES[key]
        text, count = re.subn(rf"(?<![^,(\[\s'\"]){old}(?![^,)\]\s'\"])", new, text)
        if count:
            lines.append(_line(f"{key}={old}", f"{key}={new}"))
    if key.endswith("_target_"):
        for old, new in MOVED_CLASSES.items():
            text, count = re.subn(rf"(?<![\w.]){re.escape(old)}(?![\w.])", new, text)
            if count:
                lines.append(_line(old, new))
    return _upgraded_interpolations(text, lines)


def _upgraded_below(value: Any, name: str, lines: list[str]) -> Any:
    """A value with the new names of classes and in interpolations; ``name`` is the last part of its key."""
    if isinstance(value, dict):
        return {key: _upgraded_below(entry, str(key), lines) for key, entry in value.items()}
    if isinstance(value, list):
        return [_upgraded_below(entry, "", lines) for entry in value]
    if not isinstance(value, str):
        return value
    if name == "_target_" and value in MOVED_CLASSES:
        lines.append(_line(value, MOVED_CLASSES[value]))
        return MOVED_CLASSES[value]
    return _upgraded_interpolations(value, lines)


def _upgraded_interpolations(text: str, lines: list[str]) -> str:
    for old in _INTERPOLATION.findall(text):
        lines.append(_line(f"${{{old}}}", f"${{{RENAMED_KEYS[old]}}}"))
    return _INTERPOLATION.sub(lambda found: f"${{{RENAMED_KEYS[found[1]]}}}", text)


def _section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The section that holds a dotted key; an empty one where there is none."""
    node: Any = content
    for name in key.split(".")[:-1]:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _line(old: str, new: str) -> str:
    return f"{old}: is now {new}; the old name works in this release only"
