"""The folder of an export: it is there as a whole or not at all, and nothing but an earlier export is ever replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from tract.artifacts.judge_settings import SETTINGS_FILE
from tract.artifacts.trained_on import TRAINED_ON_FILE
from tract.common.durable import sync_folder, sync_tree
from tract.common.errors import ConfigError
from tract.common.safe_paths import is_inside

# What an export may hold; a folder with anything else is not removed.
_OWN = (
    "*.safetensors", "*.index.json", SETTINGS_FILE, "README.md", "config.json", "generation_config.json", "adapter_config.json",
    "chat_template.jinja", "additional_chat_templates", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
    "merges.txt", "preprocessor_config.json", "processor_config.json", "*.py", TRAINED_ON_FILE,
)  # fmt: skip


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuses a place that an export must not take.

    Raises:
        ConfigError: if it is no folder, or holds something that is not to be replaced.
    """
    if not os.path.lexists(out):
        return
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"OUT: {out} is a file or a link; give a folder that does not exist yet")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if SETTINGS_FILE not in names:
        raise ConfigError(f"OUT: {out} holds other files (e.g. {names[0]}) and no {SETTINGS_FILE}; give a folder that does not exist yet")
    if not overwrite:
        raise ConfigError(f"OUT: {out} holds an export already; add --overwrite to replace it, or give another folder")
    if foreign := [name for name in names if not any(fnmatchcase(name, pattern) for pattern in _OWN)]:
        raise ConfigError(f"OUT: {out} holds {foreign[0]!r}, which no export wrote; move it away before --overwrite")


@contextmanager
def new_folder(out: Path, *, sources: tuple[Path, ...], overwrite: bool) -> Iterator[Path]:
    """A folder beside the target to write into; it gets the target's name if all goes well, else it is removed.

    Args:
        out: the target. sources: folders that are read and must not be written into. overwrite: replace an earlier export.

    Raises:
        ConfigError: as ``check_target``, or if the place cannot be written to.
    """
    check_target(out, overwrite=overwrite)
    for source in sources:
        if is_inside(source, out) or is_inside(out, source):
            raise ConfigError(f"OUT: {out} and {source}, which is read, lie in one another; give a folder elsewhere")
    place = Path(os.path.abspath(out))
    partial, old = (place.with_name(f".{place.name}.{what}-{os.getpid()}") for what in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"OUT: cannot write beside {out} ({error.strerror}); give a folder that can be made and written to") from error
    try:
        yield partial
        _as_readable_as_others(partial)
        sync_tree(partial)
        check_target(out, overwrite=overwrite)  # somebody may have put something there meanwhile
        if place.is_dir():
            os.replace(place, old)
        os.replace(partial, place)
        sync_folder(place.parent)
    finally:
        if old.is_dir() and not place.is_dir():  # cut off between the two renames
            os.replace(old, place)
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)


def _as_readable_as_others(folder: Path) -> None:
    """Gives each file the rights that a new file has here; safetensors writes files for their owner alone."""
    probe = folder / ".rights"
    probe.touch()
    rights = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
