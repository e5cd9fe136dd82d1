"""Names that a file from outside gives, as paths that do not leave its folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from tract.common.errors import DataError


def resolve_within(folder: Path, name: object, *, links: bool = True) -> Path:
    """The path of a name below a folder.

    Args:
        folder: what the name is relative to. name: as it was read; nothing is known about it.
        links: also refuse a name that leads elsewhere by a link.

    Raises:
        DataError: if it is no relative path, has a step upwards, or is such a link.
    """
    problem = _problem(name)
    if problem is None and links and not is_inside(folder, folder / str(name)):
        problem = "it leads out of the folder by a link"
    if problem is not None:
        raise DataError(f"{folder}: the name {str(name)[:120]!r} is refused, {problem}; only files of the folder itself are accepted")
    return folder / str(name)


def _problem(name: object) -> str | None:
    if not isinstance(name, str) or not name or "\0" in name:
        return "it is no name of a file"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return "it is an absolute path"
    if ".." in (*PurePosixPath(name).parts, *PureWindowsPath(name).parts):
        return "it leads upwards"
    return None


def is_inside(folder: Path, path: Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real
