"""The journal of a file that is being graded: what has a grade stays graded, however the process ends.

    OUT.partial     one line for what is graded by whom, then one for each row, in the order of the rows

Each line has a checksum (``tract.common.append_log``). What follows the first line that is torn or damaged is left out and graded again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tract.common.append_log import decode_line, encode_line
from tract.common.durable import sync_folder
from tract.common.errors import DataError

log = logging.getLogger(__name__)

FORMAT = 1
# Rows and seconds after which what was written is put on the disk.
SYNC_ROWS, SYNC_S = 64, 2.0


class Journal:
    """The grades of a file so far. One process at a time may have a journal open.

    Attributes:
        path: the file. done: rows that it holds, which are the first ones of the input.
    """

    def __init__(
        self,
        path: Path,
        work: Mapping[str, Any],
        asked: Mapping[str, Any] | None = None,
        *,
        restart: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the journal, or begins one.

        Args:
            work: what is graded by whom and how, in words and fingerprints; other work cannot continue it.
            asked: how that was asked for, which says in words what differs. restart: forget what there is. clock: seconds, from any origin.

        Raises:
            DataError: if it belongs to other work, another process has it open, or it cannot be written.
        """
        self.path = path
        self._clock = clock
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); give an output in a folder that is there") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataError(f"{path}: another process is writing it; wait for it, or give another output") from None
        except OSError as error:  # some network file systems cannot
            log.warning("%s: cannot be locked (%s); see that no other process writes the same output", path, error.strerror)
        if restart:
            self._file.truncate(0)
        try:
            self.done = self._load(dict(work), dict(asked or {}))
        except BaseException:
            self._file.close()
            raise
        self._unsynced, self._synced = 0, clock()

    def append(self, row: int, record: Mapping[str, Any]) -> None:
        """Adds the record of the next row."""
        assert row == self.done, f"row {row} follows {self.done} rows"
        self._file.write(encode_line({"row": row, **record}))
        self.done += 1
        self._unsynced += 1
        if self._unsynced >= SYNC_ROWS or self._clock() - self._synced >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Puts what was appended on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced, self._synced = 0, self._clock()

    def records(self) -> Iterator[dict[str, Any]]:
        """The records in the order of the rows, one after the other from the disk."""
        self._file.flush()
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                record = decode_line(line)
                assert record is not None, "the journal was checked when it was opened"
                del record["row"]
                yield record

    def remove(self) -> None:
        """Removes the file, when its content is elsewhere."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.sync()
        finally:
            self._file.close()

    def _load(self, work: dict[str, Any], asked: dict[str, Any]) -> int:
        """The rows that it holds; what is not whole is cut off."""
        self._file.seek(0)
        header = decode_line(first) if (first := self._file.readline()) else None
        if header is None:
            if first:  # torn while it was begun, or damaged
                log.warning(
                    "%s: its first line is incomplete or damaged, so that nobody can say whose grades it holds; begun anew", self.path
                )
            self._file.truncate(0)
            self._file.write(encode_line({"format": FORMAT, "work": work, "asked": asked}))
            self.sync()
            sync_folder(self.path.parent)
            return 0
        self._check(header, work, asked)
        done, whole = 0, self._file.tell()
        for line in self._file:
            record = decode_line(line)
            if record is None or record.get("row") != done:
                log.warning("%s: what stands behind its first %d rows is incomplete or damaged; it is graded again", self.path, done)
                break
            done, whole = done + 1, whole + len(line)
        self._file.truncate(whole)
        return done

    def _check(self, header: dict[str, Any], work: dict[str, Any], asked: dict[str, Any]) -> None:
        begun, before = (header.get(name) if header.get("format") == FORMAT else None for name in ("work", "asked"))
        if begun == _as_json(work):
            return
        hint = "remove the file or give --restart to begin anew, or give another output"
        if not isinstance(begun, dict) or not isinstance(before, dict):
            raise DataError(f"{self.path}: was begun by another version of tract; {hint}")
        found = [*_differences(before, _as_json(asked)), *_differences(begun, _as_json(work))]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise DataError(f"{self.path}: was begun with other work: {'; '.join(found[:3])}{more}; {hint}")


def _as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} was {_brief(before.get(name))} and is {_brief(now.get(name))}" for name in names]


def _brief(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 60 else f"{written[:57]}..."
