"""Checks the composed YAML and makes the typed configuration of it.

A key that is unknown, missing, of the wrong type or out of range fails here, in one line, before data or weights are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tract.common.errors import ConfigError
from tract.common.user_paths import expanded
from tract.config.arguments import argument_problems
from tract.config.comments import field_of
from tract.config.package import drop_package
from tract.config.schema import YAML_NAMES, Config, types_of_keys
from tract.config.vocabulary import PATHS
from tract.pipeline.config_rules import problems_of
from tract.pipeline.unknown_keys import unknown_key_message

# What ``typed_node`` made: a pipeline asks for the same few some fifty times, and OmegaConf takes a tenth of a second for each.
_MOST_MERGED = 16
_merged: dict[str, DictConfig] = {}
_PYTHON_NAMES = {of_yaml: name for name, of_yaml in YAML_NAMES.items()}
_TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list", dict: "a mapping"}


def validate(cfg: DictConfig) -> Config:
    """The composed YAML as typed configuration; all problems are collected and raised as one.

    Args:
        cfg: is changed in two things alone: ``~`` at the beginning of its paths is replaced by the home folder, and a package of the
            model is dropped where another model is given (``drop_package``).

    Raises:
        ConfigError: naming each key, what was found and what is accepted.
    """
    _expand_home(cfg)
    drop_package(cfg)
    if problems := [*_node_problems(cfg, Config, ""), *_argument_problems(cfg)] or list(_interpolation_problems(cfg)):
        raise ConfigError("; ".join(problems))
    config = typed(cfg)
    if problems := problems_of(config):
        raise ConfigError("; ".join(problems))
    return config


def _argument_problems(cfg: DictConfig) -> Iterator[str]:
    content = OmegaConf.to_container(cfg)
    assert isinstance(content, dict)
    return argument_problems({str(key): value for key, value in content.items()})


def _expand_home(cfg: DictConfig) -> None:
    """Replaces ``~`` in the paths of the configuration; what is no text is told by the checks."""
    for key in PATHS:
        try:
            found = OmegaConf.select(cfg, key)
        except OmegaConfBaseException:
            continue  # an interpolation that leads nowhere, which is told with its key
        if isinstance(found, ListConfig):
            items = OmegaConf.to_container(found)
            assert isinstance(items, list)
            for place, item in enumerate(items):
                if isinstance(item, str) and item.startswith("~"):
                    found[place] = expanded(item, key)
        elif isinstance(found, str) and found.startswith("~"):
            OmegaConf.update(cfg, key, expanded(found, key))


def typed(cfg: DictConfig) -> Config:
    """The typed configuration of composed YAML that ``validate`` has accepted before.

    It imports none of the classes that the configuration names, of which the trainer's alone takes seconds.
    """
    config = OmegaConf.to_object(typed_node(cfg))
    assert isinstance(config, Config)
    return config


def typed_node(cfg: DictConfig) -> DictConfig:
    """The composed YAML merged into the typed configuration, with Python's names of its keys; to be read, not changed."""
    content = OmegaConf.to_container(cfg)
    key = repr(content)
    if (kept := _merged.get(key)) is not None:
        return kept
    node = OmegaConf.merge(OmegaConf.structured(Config), _renamed(content, Config, _PYTHON_NAMES))
    assert isinstance(node, DictConfig)
    if len(_merged) >= _MOST_MERGED:
        _merged.clear()
    _merged[key] = node
    return node


def in_yaml_names(content: dict[str, Any]) -> dict[str, Any]:
    """A part of the typed configuration, as plain containers, with the names that its keys have in YAML."""
    renamed: dict[str, Any] = _renamed(content, Config, YAML_NAMES)
    return renamed


def _renamed(content: Any, kind: Any, names: Mapping[str, str]) -> Any:
    """The content with other names for the keys of dataclasses; below sections that take any key, nothing is renamed."""
    if not is_dataclass(kind) or not isinstance(content, dict):
        return content
    hints = get_type_hints(kind)
    renamed = {}
    for key, value in content.items():
        new = names.get(str(key), str(key))
        renamed[new] = _renamed(value, hints.get(new, hints.get(str(key))), names)
    return renamed


def accepted_keys(key: str) -> list[str]:
    """The keys below a dotted key of the typed configuration; empty where anything is accepted."""
    kind: Any = field_of(key)[0] if key else Config
    return list(types_of_keys(kind)) if is_dataclass(kind) else []


def _node_problems(node: DictConfig, kind: Any, prefix: str) -> Iterator[str]:
    """Unknown, absent and missing keys, and values of the wrong type; one line each."""
    schema = OmegaConf.structured(kind)
    hints = types_of_keys(kind)
    for name in map(str, node):
        if name not in hints:
            yield unknown_key_message(f"{prefix}{name}", list(hints))
    for name, hint in hints.items():
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            yield _missing_message(key)
            continue
        if name not in node:
            yield f"{key}: the whole section is missing" if is_dataclass(hint) else f"{key}: the key is missing; give +{key}=..."
            continue
        try:
            value = node[name]
        except OmegaConfBaseException:
            continue  # an interpolation that leads nowhere, or to a key that is reported itself
        if is_dataclass(hint):
            if isinstance(value, DictConfig):
                yield from _node_problems(value, hint, f"{key}.")
            else:
                yield f"{key}: found {_abbreviated_repr(value)}; a section with the keys {', '.join(types_of_keys(hint))} is accepted"
            continue
        plain = _unresolved(value)
        yield from (_missing_message(f"{key}{inner}") for inner in _missing_below(plain))
        try:
            schema[_PYTHON_NAMES.get(name, name)] = plain
        except (OmegaConfBaseException, ValueError, TypeError):
            yield f"{key}: found {_abbreviated_repr(plain)}; {_type_in_words(hint)} is accepted"


def _unresolved(value: Any) -> Any:
    """Containers without their interpolations resolved."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _missing_below(plain: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(plain, dict):
        for name, value in plain.items():
            yield from _missing_below(value, f"{prefix}.{name}")
    elif plain == MISSING and prefix:
        yield prefix


def _interpolation_problems(cfg: DictConfig) -> Iterator[str]:
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        yield f"{getattr(error, 'full_key', None) or 'interpolation'}: {_first_sentence(error)}"


def _missing_message(key: str) -> str:
    return f"{key}: a value is missing; give {key}=..."


def _abbreviated_repr(value: Any) -> str:
    return repr(_unresolved(value))[:80]


def _type_in_words(hint: Any) -> str:
    """A type as messages name it."""
    optional = [arg for arg in get_args(hint) if arg is not type(None)] if type(None) in get_args(hint) else []
    if optional:
        return f"{_type_in_words(optional[0])} or null"
    if hint == list[str]:
        return "a list of text, e.g. [a,b],"
    return _TYPE_WORDS.get(getattr(hint, "__origin__", hint), str(hint))


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
