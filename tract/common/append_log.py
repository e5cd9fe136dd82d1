"""The lines of an append-only log that survives a crash: what can be read back is what was written.

Each line is a JSON object with a last key "crc", the CRC-32 of the object without it. A line counts if it ends with a newline and its
crc fits, so neither a torn nor a damaged line is ever read as something else.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tract.common.durable import named_errors

_CRC_KEY = b', "crc": '


def encode_line(record: Mapping[str, Any]) -> bytes:
    """The line of a record, with its checksum; ASCII, so that every text comes back, one with half a surrogate pair too.

    Raises:
        ValueError: if a number is not finite.
    """
    return _seal(json.dumps(record, allow_nan=False).encode("ascii"))


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line, without its checksum; None if the line is incomplete, damaged or no JSON object."""
    content = line.rpartition(_CRC_KEY)[0] + b"}"
    if line != _seal(content):
        return None
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def append_lines(path: Path, lines: bytes) -> None:
    """Appends lines to a file; they are on the disk when this returns.

    Raises:
        OSError: if they cannot be written, with the path.
    """
    with named_errors(path), path.open("ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def _seal(content: bytes) -> bytes:
    return content[:-1] + _CRC_KEY + b"%d}\n" % zlib.crc32(content)
