"""Which files hold data, by their names, and how they are opened: those of text may be compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# For messages: what may be given.
ACCEPTED = f"{', '.join(TEXT_SUFFIXES)} (each also compressed: {', '.join(_OPENERS)}) or .parquet"
# What the openers raise at damaged content, beside an OSError without a number.
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)

_TABLES = ("xlsx", "xls", "ods", "numbers")
_ARCHIVES = ("zip", "zst", "7z", "tar", "tgz", "lz4", "rar", "z")
_BINARY = ("feather", "arrow", "orc", "avro", "pkl", "pickle", "h5", "hdf5", "db", "sqlite", "npz", "npy")


def format_of(path: Path) -> str | None:
    """The suffix that says the format, in lower case and without that of a compression; None for a file of no known format."""
    suffix = path.suffix.lower()
    if suffix in _OPENERS:
        inner = Path(path.stem).suffix.lower()
        return inner if inner in TEXT_SUFFIXES else None
    return suffix if suffix in SUFFIXES else None


def is_compressed(path: Path) -> bool:
    """Whether a file's name says that its content is compressed."""
    return path.suffix.lower() in _OPENERS


def uncompressed_name(name: str) -> str:
    """The name of a file without the suffix of a compression."""
    path = Path(name)
    return path.with_suffix("").as_posix() if is_compressed(path) else name


def open_bytes(path: Path) -> IO[bytes]:
    """The content of a file, unpacked as it is read.

    Raises:
        OSError: if the file cannot be opened. Reading raises it too, or one of ``DAMAGED``.
    """
    opened: IO[bytes] = _OPENERS[path.suffix.lower()](path, "rb") if is_compressed(path) else path.open("rb")
    return opened


def is_other_data(path: Path) -> bool:
    """Whether a file of no known format looks like data all the same."""
    return format_of(path) is None and bool(_way_out(path))


def refusal(path: Path) -> str:
    """Why a file of no known format is none that can be read, and what to do; without the file's name."""
    suffixes = "".join(path.suffixes[-2:] if is_compressed(path) else path.suffixes[-1:])
    way_out = _way_out(path)
    return f"has the suffix {suffixes!r}, which is no known format; {f'{way_out}; ' if way_out else ''}accepted is a {ACCEPTED} file"


def _way_out(path: Path) -> str:
    suffix = path.suffix.lower().removeprefix(".")
    if is_compressed(path):
        return "name it by what it holds, e.g. answers.jsonl.gz"
    if suffix in _TABLES:
        return "save the sheet as CSV"
    if suffix in _ARCHIVES:
        return "unpack it"
    return "write it as Parquet or JSONL" if suffix in _BINARY else ""
