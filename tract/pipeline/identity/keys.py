"""What a stage's product depends on: its configuration, the products that it reads, and the code.

The key of an identity names the folder of the product, so that what is equal is found again and what differs is rebuilt.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tract.common.masking import masked
from tract.config.schema import without_added_keys
from tract.pipeline.identity.code_digest import code_digest
from tract.pipeline.identity.loaded_code import source_of
from tract.pipeline.validation import in_yaml_names, typed_node

_ROOT = Path(__file__).resolve().parents[3]
_PACKAGE = "tract"
# Keys that hold dotted paths of functions, one or a list, where no name of a table is given.
NAMED_FUNCTIONS = ("objective.score_loss", "evaluation.predictors")


def key_fields(resolved: DictConfig, sections: Sequence[str], ignored_fields: Sequence[str]) -> dict[str, Any]:
    """The part of a configuration that a stage's product depends on.

    Args:
        resolved: the configuration as composed. It is read through ``Config``, so that 1, 1.0 and "1" are the same where
            the configuration has a type. Secrets are masked.
        sections: dotted names of sections or keys to take. ignored_fields: dotted names to leave out of these; they may be absent.
            Keys that were added later are left out at the value of before, see ``tract.config.schema.ADDED_KEYS``.

    Raises:
        KeyError: if a section does not exist.
    """
    typed: Any = OmegaConf.to_container(typed_node(resolved), resolve=True)
    picked: dict[str, Any] = {}
    for dotted in sections:
        *outer, last = dotted.split(".")
        source, target = typed, picked
        for name in outer:
            source, target = source[name], target.setdefault(name, {})
        target[last] = source[last]
    for dotted in ignored_fields:
        *outer, last = dotted.split(".")
        node: Any = picked
        for name in outer:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    shown: dict[str, Any] = masked(
        without_added_keys(in_yaml_names(picked))
    )  # before it is hashed, so that another token makes no other product
    return shown


def code_digests(module: str, *, ignored_fields: Sequence[str], root: Path = _ROOT) -> dict[str, str]:
    """The code that a module runs: itself and all that it imports from its own top package, directly or not.

    Imports inside functions and under ``TYPE_CHECKING`` count; a package's ``__init__`` belongs to its modules, as Python
    runs it first. What is named only as text, such as a ``_target_`` of the configuration, is not seen here but by ``named_code``.
    A digest leaves out comments, docstrings and layout of the text; it depends on the minor version of Python, whose syntax tree it
    is made of.

    Args:
        module: dotted name. root: the folder that holds its top package.
        ignored_fields: names, or patterns such as ``tract.evaluation.*``, of modules that can move no number; they and what
            only they import are left out.

    Returns:
        Module -> 16 hex characters, sorted.

    Raises:
        ValueError: if there is no such module.
    """
    return dict(_closure(module, tuple(ignored_fields), root))


def named_code(config: Mapping[str, Any]) -> dict[str, str]:
    """The code of a user's own modules that a configuration names by dotted paths: ``_target_``, and the keys of ``NAMED_FUNCTIONS``.

    Of such a module counts what ``code_digests`` says, and what it imports from beside it. Modules of installed libraries are left out,
    as their versions are recorded, and those of this package, as ``code_digests`` has them.

    Args:
        config: plain containers, with the names of YAML.

    Returns:
        Module -> digest, sorted; empty where everything named is of a library.
    """
    found: dict[str, str] = {}
    for dotted in _dotted_names(config):
        for root, module in _own_module(dotted):
            found |= dict(_closure(module, (_PACKAGE, f"{_PACKAGE}.*"), root, siblings=True))
    return dict(sorted(found.items()))


def _dotted_names(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted paths of classes and functions in a configuration."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        inner = (*path, str(name))
        named = value if isinstance(value, list) else [value]
        if name == "_target_" or ".".join(inner) in NAMED_FUNCTIONS:
            yield from (text for text in named if isinstance(text, str) and "." in text)
        for item in named:
            yield from _dotted_names(item, inner)


def _own_module(dotted: str) -> Iterator[tuple[Path, str]]:
    """(folder, module) of the module that a dotted path leads into, if it is the user's; it is found, not imported."""
    top = dotted.partition(".")[0]
    if top == _PACKAGE:
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is not None:
        roots = [Path(place).resolve().parent for place in spec.submodule_search_locations]
    else:
        roots = [Path(spec.origin).resolve().parent] if spec.has_location and spec.origin else []
    for root in roots:
        if any(root.is_relative_to(place) for place in _library_folders()):
            continue
        files = _module_files(root, top)
        if known := [name for name in _with_packages(dotted) if name in files]:
            yield root, known[-1]


@cache
def _library_folders() -> tuple[Path, ...]:
    return tuple(
        Path(path).resolve() for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib", "purelib", "platlib")
    )


@lru_cache
def _closure(module: str, ignored_fields: tuple[str, ...], root: Path, siblings: bool = False) -> tuple[tuple[str, str], ...]:
    """``siblings``: follow imports of other modules in the folder too."""
    files = _module_files(root, module.partition(".")[0])
    if module not in files:
        raise ValueError(f"{module}: there is no such module")
    digests: dict[str, str] = {}
    waiting = {name for name in _with_packages(module) if name in files}
    while waiting:
        name = waiting.pop()
        if any(fnmatchcase(name, pattern) for pattern in ignored_fields):
            continue
        digests[name], imported = _digest_and_imports(files[name], name)
        if siblings:
            for top in {found.partition(".")[0] for found in imported} - {name.partition(".")[0], _PACKAGE}:
                files |= _module_files(root, top)
        waiting |= {found for found in imported if found in files and found not in digests}
    return tuple(sorted(digests.items()))


@cache  # stages share most of their modules
def _digest_and_imports(file: Path, name: str) -> tuple[str, frozenset[str]]:
    """(digest, what may be modules that it imports) of a module."""
    tree = ast.parse(source_of(file))  # what this process runs, whatever was edited since it began
    nodes = list(ast.walk(tree))  # once: the trees are large
    return code_digest(tree, nodes), frozenset(_imported_names(nodes, name, is_package=file.name == "__init__.py"))


def _module_files(root: Path, package: str) -> dict[str, Path]:
    files = [*(root / package).rglob("*.py"), *root.glob(f"{package}.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def _with_packages(name: str) -> Iterator[str]:
    """``a.b.c`` -> a, a.b, a.b.c."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _imported_names(nodes: Sequence[ast.AST], module: str, is_package: bool) -> Iterator[str]:
    """Every dotted name that may be a module which the source imports; an imported function or class is among them too."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            relative = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*relative, *([node.module] if node.module else [])])
            yield from _with_packages(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)
