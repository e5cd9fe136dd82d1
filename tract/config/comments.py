"""The files of conf with the comments beside their keys, which are the meaning of these; for the help and docs/configuration.md."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tract.config.schema import YAML_NAMES, Config, types_of_keys

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class File:
    """A YAML file of conf.

    Attributes:
        path: where it is. header: its first block of comments, line by line.
        comments: dotted key -> the comment above it and beside it.
        values: dotted key -> value; sections that hold keys are absent. bases: the options of its group that it starts from.
        chosen: group -> the option of it that the file chooses.
    """

    path: Path
    header: tuple[str, ...]
    comments: dict[str, str]
    values: dict[str, Any]
    bases: tuple[str, ...]
    chosen: dict[str, str]


def read(path: Path) -> File:
    """A file with its comments."""
    return File(path, *_parsed(path.read_text(encoding="utf-8")))


@cache
def _parsed(text: str) -> tuple[tuple[str, ...], dict[str, str], dict[str, Any], tuple[str, ...], dict[str, str]]:
    """What a file holds, in the order of the attributes of ``File``."""
    lines = text.splitlines()
    after_header = first_where(lines, lambda line: not line.startswith("#"))
    header = [line[1:].removeprefix(" ") for line in lines[:after_header] if not line.startswith("# @package")]
    loader = Loader(text)
    root = loader.get_single_node()
    comments = dict(_comments(root, lines, "", after_header)) if isinstance(root, yaml.MappingNode) else {}
    content = loader.construct_document(root) if root else {}
    entries = content.get("defaults", [])
    bases = [entry for entry in entries if isinstance(entry, str) and not re.search(r"^_self_$|[/ @]", entry)]
    chosen = {
        re.sub(r"^(override )?/?", "", group): option for entry in entries if isinstance(entry, dict) for group, option in entry.items()
    }
    named = ((key.removeprefix("hydra.sweeper.params."), value) for key, value in leaves(content))  # what a sweep varies, as it is named
    values = {key: value for key, value in named if not re.match(r"(defaults|hydra)(\.|$)", key)}
    return tuple(header), comments, values, tuple(bases), chosen


def first_where(lines: list[str], wanted: Any) -> int:
    """The number of the first line that is wanted; that of all lines if none is."""
    return next((number for number, line in enumerate(lines) if wanted(line)), len(lines))


def _comments(node: yaml.MappingNode, lines: list[str], prefix: str, free: int) -> Iterator[tuple[str, str]]:
    """Dotted key and comment; ``free`` is the first line that is no part of what stands before."""
    for name, value in node.value:
        key, number = f"{prefix}{name.value}", name.start_mark.line
        above: list[str] = []
        while number - 1 - len(above) >= free and lines[number - 1 - len(above)].lstrip().startswith("#"):
            above.insert(0, lines[number - 1 - len(above)].strip().lstrip("#").strip())
        beside = re.search(r"\s# (.*)$", lines[number][value.end_mark.column :]) if value.end_mark.line == number else None
        words = [*above, *([beside[1]] if beside else [])]
        if words:
            yield key, " ".join(words)
        if isinstance(value, yaml.MappingNode):
            yield from _comments(value, lines, f"{key}.", number + 1)
        free = _line_behind(value)


def _line_behind(node: yaml.Node) -> int:
    """The first line behind a value; the end of a block collection as YAML sees it is the next token, comments included."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _line_behind(last[1] if isinstance(node, yaml.MappingNode) else last)
    of_block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return int(node.end_mark.line) + (not of_block)


def leaves(node: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is no section with keys."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@cache
def _comments_of_fields(kind: type) -> dict[str, str]:
    """Name of a field in YAML -> the comment beside it."""
    found = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE)
    return {YAML_NAMES.get(name, name): comment for name, comment in found if not comment.startswith('"')}


@cache
def field_of(key: str) -> tuple[Any, str]:
    """The type of a dotted key and the comment beside it; (None, "") for what the typed configuration does not hold."""
    kind: Any = Config
    comment = ""
    for name in key.split("."):
        if not is_dataclass(kind):
            return None, ""
        kind_of = types_of_keys(kind)
        if name not in kind_of:
            return None, ""
        comment, kind = _comments_of_fields(typing.cast(type, kind)).get(name, ""), kind_of[name]
    return kind, comment


def groups_of(conf: Path, files: Sequence[Path] | None = None) -> dict[str, dict[str, File]]:
    """Group -> option -> file; ``_base`` is among them where a group has one.

    Args:
        conf: the folder of the configuration. files: those of its files that count; None for all.
    """
    found = [path for path in (sorted(conf.rglob("*.yaml")) if files is None else files) if path.parent != conf]
    holders = {path.parent for path in found}
    groups: dict[str, dict[str, File]] = {}
    for path in found:
        group = next(folder for folder in reversed([path.parent, *path.parents]) if folder in holders)  # the outermost one with files
        groups.setdefault(group.relative_to(conf).as_posix(), {})[path.relative_to(group).with_suffix("").as_posix()] = read(path)
    return dict(sorted(groups.items()))


def chain(options: dict[str, File], name: str) -> list[File]:
    """A file and those of its group that it starts from, the nearest first."""
    return [options[name], *(file for base in options[name].bases if base in options for file in chain(options, base))]
