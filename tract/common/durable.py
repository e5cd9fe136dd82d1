"""Files and names that outlast a power cut: what others will trust is on the disk before it gets its name."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tract.common.containers import not_finite_in
from tract.common.errors import DataError

TEMPORARY = ".tmp"  # added to the name of a file that is being written


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


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Adds a path to errors of the system that name no file, as those of writes do."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def write_atomically(path: Path, *, concurrent: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, for the block to write a file to; at its end the file is on the disk and gets its name.

    The name is on the disk after ``sync_folder``. After an error, ``path`` is as it was and the temporary file is removed.

    Args:
        path: the file. concurrent: several processes may write it at a time, so that each needs a temporary name of its own; else a
            file that a killed process left is written over.

    Raises:
        OSError: if it cannot be written; the error names a file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}" if concurrent else f"{path.name}{TEMPORARY}")
    try:
        with named_errors(path):
            yield temporary
            sync_file(temporary)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def write_folder_atomically(folder: Path) -> Iterator[Path]:
    """The name of an absent folder beside ``folder``, for the block to make; at its end all of it is on the disk and gets its name.

    One process at a time may write a folder. What a killed process left is removed before.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        sync_tree(partial)
        os.replace(partial, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # of a failed try


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
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
    sync_folder(path.parent)
