"""The append-only log of judgements, which makes generation and prediction resumable.

    <folder>/00000.jsonl, 00001.jsonl, ...      shards; appended to is only the last one

Each line is the JSON object of a judgement, with a checksum (``tract.common.append_log``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from itertools import groupby
from pathlib import Path

from tract.common.append_log import append_lines, decode_line, encode_line
from tract.common.durable import sync_folder, write_atomically
from tract.common.errors import DataError
from tract.inference.judgement import Judgement

log = logging.getLogger(__name__)


class JudgementLog:
    """The judgements in a folder, each known by (row, sample); of two with the same one the first counts.

    Opening leaves out the lines that are not whole, says so in one line, and rewrites their files without them. In memory are
    only the places of the judgements, while a log is opened also one shard. One process at a time may have a log open.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        """Opens the log in ``folder``, which is made if it is not there.

        Args:
            folder: holds nothing but the log.
            shard_size: the most judgements of a file that is appended to; it may differ from that of earlier openings.

        Raises:
            OSError: if a file cannot be read, or not be repaired.
        """
        assert shard_size > 0, "a shard holds at least one judgement"
        self.folder = folder
        self._shard_size = shard_size
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self._shards = sorted((path for path in folder.glob("*.jsonl") if path.stem.isdecimal()), key=lambda path: int(path.stem))
        self._index: dict[tuple[int, int], tuple[int, int]] = {}  # (row, sample) -> (place in _shards, offset in bytes)
        # Of the last shard.
        self._lines = 0
        self._bytes = 0
        damaged = {path.name: lines for shard, path in enumerate(self._shards) if (lines := self._load(shard))}
        if damaged:
            files = ", ".join(f"{name} ({lines})" for name, lines in damaged.items())
            total = sum(damaged.values())
            log.warning("judgements in %s: %d incomplete or damaged lines were left out, in %s; they are made again", folder, total, files)

    def _load(self, shard: int) -> int:
        """Adds a shard to the index, repaired if need be; returns how many lines were left out."""
        path = self._shards[shard]
        with path.open("rb") as file:
            found = [(line, _judgement(line)) for line in file]
        whole = [(line, (judgement.row, judgement.sample)) for line, judgement in found if judgement is not None]
        if len(whole) < len(found):
            with write_atomically(path) as repaired:
                repaired.write_bytes(b"".join(line for line, _ in whole))
            sync_folder(path.parent)
        offset = 0
        for line, key in whole:
            self._index.setdefault(key, (shard, offset))
            offset += len(line)
        self._lines, self._bytes = len(whole), offset
        return len(found) - len(whole)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def done(self) -> Set[tuple[int, int]]:
        """The (row, sample) of all judgements; a view that grows with the log."""
        return self._index.keys()

    def missing(self, row: int, samples: Sequence[int]) -> bool:
        """Whether any of these samples of the row is absent."""
        return any((row, sample) not in self._index for sample in samples)

    def append(self, judgements: Sequence[Judgement]) -> None:
        """Adds judgements, which are on the disk when this returns. Those whose (row, sample) is there already are not written.

        Raises:
            OSError: if they cannot be written, a full disk included; the error names the file. What was in the log before is
                safe, but the log must be reopened before more is appended, which removes what was written in part.
            ValueError: if a number is not finite; nothing is written then.
        """
        new: dict[tuple[int, int], bytes] = {}
        for judgement in judgements:
            key = (judgement.row, judgement.sample)
            if key not in self._index and key not in new:
                new[key] = encode_line(judgement.to_dict())
        entries = list(new.items())
        while entries:
            if not self._shards or self._lines >= self._shard_size:
                self._begin_shard()
            room = self._shard_size - self._lines
            self._append_to_last_shard(entries[:room])
            entries = entries[room:]

    def _begin_shard(self) -> None:
        number = int(self._shards[-1].stem) + 1 if self._shards else 0
        path = self.folder / f"{number:05d}.jsonl"
        path.touch(exist_ok=False)
        sync_folder(self.folder)
        self._shards.append(path)
        self._lines = self._bytes = 0

    def _append_to_last_shard(self, entries: Sequence[tuple[tuple[int, int], bytes]]) -> None:
        path = self._shards[-1]
        # Else the first new line would be joined to half a line, and the places in the index would be wrong.
        assert path.stat().st_size == self._bytes, f"{path} was written to since it was opened, or a write failed; open the log anew"
        append_lines(path, b"".join(line for _, line in entries))
        for key, line in entries:
            self._index[key] = (len(self._shards) - 1, self._bytes)
            self._bytes += len(line)
        self._lines += len(entries)

    def ordered(self) -> Iterator[Judgement]:
        """All judgements, ascending by (row, sample), whatever the number of shards and the order of appending.

        Raises:
            DataError: if a line is not what it was when the log was opened.
        """
        # The samples of a row mostly lie in one shard, which is opened once for them.
        for shard, keys in groupby(sorted(self._index), key=lambda key: self._index[key][0]):
            path = self._shards[shard]
            with path.open("rb") as file:
                for row, sample in keys:
                    file.seek(self._index[row, sample][1])
                    judgement = _judgement(file.readline())
                    if judgement is None or (judgement.row, judgement.sample) != (row, sample):
                        raise DataError(
                            f"{path}: the judgement of row {row}, sample {sample} was damaged while the log was in use; "
                            "run the same command again, it rebuilds what is damaged"
                        )
                    yield judgement


def _judgement(line: bytes) -> Judgement | None:
    """The judgement of a line, None if the line is incomplete, damaged or of another shape."""
    record = decode_line(line)
    if record is None:
        return None
    try:
        return Judgement.from_dict(record)
    except (ValueError, TypeError, KeyError):  # whole, but written by other code
        return None
