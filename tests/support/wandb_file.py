"""Reads the file of a W&B run: records in the log format of LevelDB (blocks of 32 KiB), each a protocol buffer."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _FIRST_OF_FILE = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def _chunks(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B", "no file of a W&B run"
    place, parts = _FIRST_OF_FILE, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:  # the rest of a block is padding
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + _HEADER])
        if kind == 0:
            return
        parts = (parts if kind in (_MIDDLE, _LAST) else b"") + content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (_FULL, _LAST):
            yield parts


def records(path: Path) -> Iterator[Any]:
    """The records of a ``run-*.wandb`` file, in order."""
    from wandb.proto import wandb_internal_pb2

    for chunk in _chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(chunk)
        yield record


class RunFile:
    """What a run wrote.

    Attributes:
        run: its first record of itself. history: rows, key -> value. summary: the last values. artifacts: name -> record.
        metrics: name or pattern -> record of ``define_metric``. config: key -> value. exit_code: None if it did not end.
    """

    def __init__(self, path: Path) -> None:
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.run: Any = None
        self.exit_code: int | None = None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run" and self.run is None:
                self.run = record.run
            elif kind == "history":
                self.history.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "artifact":
                self.artifacts[record.artifact.name] = record.artifact
            elif kind == "metric":
                self.metrics[record.metric.name or record.metric.glob_name] = record.metric
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def run_files(runs: Path) -> dict[str, RunFile]:
    """Job type -> the run of that stage, of all offline runs below the folder of runs; a stage that ran twice has its last."""
    found = [RunFile(path) for path in sorted((runs / "wandb").glob("offline-run-*/run-*.wandb"))]
    return {file.run.job_type: file for file in found}
