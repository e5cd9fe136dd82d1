"""The code that a pipeline began with, and the refusal of a stage that would run half of an edit.

Python reads a module when it is first imported, and a stage in a process of its own reads all of them again. So what a long pipeline
runs would depend on when a file was saved. Here the package's files are read once, when the pipeline begins: identities are computed from
them, and a stage whose code is another one by now is refused before it makes anything.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from tract.common.errors import ConfigError
from tract.pipeline.identity.code_digest import code_digest

_ROOT = Path(__file__).resolve().parents[3]
_PACKAGE = "tract"
_SHOWN = 3  # the most names in a message


@cache
def at_start() -> Mapping[Path, bytes]:
    """The files of the package, as they were when this process first asked."""
    return {path: path.read_bytes() for path in sorted((_ROOT / _PACKAGE).rglob("*.py"))}


def source_of(path: Path) -> bytes:
    """A file of the package as it was at the start; any other as it is."""
    source = at_start().get(path) if path.is_relative_to(_ROOT / _PACKAGE) else None
    return path.read_bytes() if source is None else source


def hashes() -> dict[str, str]:
    """File, relative to the package's parent -> SHA-256, for another process; of a file that was only reworded since, as it is now."""
    changed = _changed()
    found = {}
    for path, source in at_start().items():
        found[path.relative_to(_ROOT).as_posix()] = hashlib.sha256(source if path in changed else path.read_bytes()).hexdigest()
    return found


def check_unchanged(stage: str, modules: Callable[[], Iterable[str]]) -> None:
    """Refuses a stage whose code was edited since the pipeline began; comments, docstrings and texts of messages may change.

    Args:
        stage: its name. modules: tells what it runs; asked only if any file was edited.

    Raises:
        ConfigError: naming the files.
    """
    if changed := _changed():
        _refuse_changed(stage, changed, modules)


def check_hashes(stage: str, expected: Mapping[str, str], modules: Callable[[], Iterable[str]]) -> None:
    """The same in a stage's own process, by the ``hashes`` of the one that started it."""
    now = {path.relative_to(_ROOT).as_posix(): hashlib.sha256(source).hexdigest() for path, source in at_start().items()}
    if changed := {_ROOT / name for name in now.keys() | expected.keys() if now.get(name) != expected.get(name)}:
        loaded = [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]
        _refuse_changed(stage, changed, lambda: [*modules(), *loaded])


def _refuse_changed(stage: str, changed: Iterable[Path], modules: Callable[[], Iterable[str]]) -> None:
    run = {name.replace(".", "/") for name in modules()}
    names = sorted(path.relative_to(_ROOT).as_posix() for path in changed)
    if mattering := [name for name in names if name.removesuffix(".py").removesuffix("/__init__") in run]:
        raise changed_error(stage, mattering)


def changed_error(stage: str, names: Sequence[str]) -> ConfigError:
    """What is said of files or modules that changed since the pipeline began."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return ConfigError(
        f"{stage}: {shown} changed since this command was given, so the stage would run part of an edit; run the same command again (in a "
        "notebook, after a restart of its kernel): stages whose code is the same are reused. To edit while a pipeline runs, use a second "
        "checkout (git worktree add)"
    )


def _changed() -> set[Path]:
    """The files whose code is another one now than at the start, or that are gone."""
    return {path for path, source in at_start().items() if not _has_same_code(path, source)}


def _has_same_code(path: Path, source: bytes) -> bool:
    try:
        now = path.read_bytes()
    except OSError:
        return False
    return now == source or _digest_of_source(now) == _digest_of_source(source)


def _digest_of_source(source: bytes) -> str | None:
    """None for half a file, which is equal to no other: the one at the start could be read."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    return code_digest(tree, list(ast.walk(tree)))
