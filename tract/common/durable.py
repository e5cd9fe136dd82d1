"""Files and names that outlast a power cut: what others will trust is on the disk before it gets its name."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tract.common.containers import not_finite_in
from tract.common.errors import DataError


def sync_file(path: Path) -> None:
    """Puts the content of a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Puts all files below a folder on the disk, and their names."""
    for path in folder.rglob("*"):
        sync_folder(path) if path.is_dir() else sync_file(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def json_line(record: Mapping[str, Any], where: object) -> str:
    """A JSON object as a line.

    Args:
        where: what is written, for the error.

    Raises:
        DataError: if a number is NaN or infinite; JSON has no such numbers, and none is a result.
    """
    _refuse_not_finite(record, where)
    return json.dumps(record, allow_nan=False) + "\n"


def _refuse_not_finite(content: Any, where: object) -> None:
    for key, number in not_finite_in(content):
        found = f"{key or 'the value'} is {number}"
        raise DataError(f"{where}: {found}, which is no number; nothing was written, look at what was computed before")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that the file is whole or absent, and on the disk.

    Raises:
        DataError: if a number is NaN or infinite; nothing is written then.
    """
    _refuse_not_finite(content, path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # of a failed try
    sync_folder(path.parent)
