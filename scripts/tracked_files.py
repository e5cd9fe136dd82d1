"""Which files belong to the project: those that git tracks. A user's own files beside them, as conf/data/my_data.yaml, do not."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


def tracked(folder: Path, pattern: str) -> list[Path]:
    """The files of the project in a folder and below, sorted.

    Args:
        folder: of a checkout; of a folder outside one, or of which git tracks nothing, all files count. pattern: as of ``Path.rglob``.
    """
    of_git = _of_git(folder.resolve())
    return sorted(path for path in folder.rglob(pattern) if path.is_file() and (of_git is None or path.resolve() in of_git))


@cache
def _of_git(folder: Path) -> frozenset[Path] | None:
    """The tracked files in a folder; None where git does not say."""
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return frozenset((folder / name).resolve() for name in listed.split("\0") if name) or None
