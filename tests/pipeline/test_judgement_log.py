"""The log of judgements: whatever happens to its files, what is read back was written, and the rest is made again."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tract.common.errors import DataError
from tract.inference.judgement import CUE, DIRECT, NONE, Judgement
from tract.pipeline.stages import judgement_log
from tract.pipeline.stages.judgement_log import JudgementLog


def judgement(row: int, sample: int, cot: str = "Good.") -> Judgement:
    return Judgement(f"example-{row}", row, sample, (5, 17 + row), cot, CUE, (0.1, 1 / 3, 0.2 + 0.1), sample % 3, cot + " So 2")


def judgements(rows: int, samples: int = 2) -> list[Judgement]:
    return [judgement(row, sample) for row in range(rows) for sample in range(samples)]


def keys(items: Sequence[Judgement]) -> list[tuple[int, int]]:
    return [(item.row, item.sample) for item in items]


def written(folder: Path, items: Sequence[Judgement], shard_size: int = 100) -> JudgementLog:
    log = JudgementLog(folder, shard_size)
    log.append(items)
    return log


def opened(folder: Path, shard_size: int = 100) -> list[Judgement]:
    return list(JudgementLog(folder, shard_size).ordered())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stage" / "judgements"


# Whole logs


def test_a_new_log_is_empty(folder: Path) -> None:
    log = JudgementLog(folder, 4)
    assert (len(log), list(log.done), list(log.ordered())) == (0, [], [])
    assert log.missing(0, [0])
    log.append([])
    assert list(folder.iterdir()) == []


def test_everything_comes_back(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [
        Judgement("a", 0, DIRECT, (), "", NONE, (1e-300, -0.0, 1.0), None, None),
        judgement(0, 0, 'line\nbreak\u2028 "crc": 5} é 점 😀 \x00\r \udc80, "crc": 7}'),
    ]
    log = written(folder, items)
    assert repr(list(log.ordered())) == repr(opened(folder)) == repr(items), "repr also tells -0.0 from 0.0"
    assert warnings(caplog) == []


def test_a_line_is_the_object_and_the_crc_of_what_stands_before(folder: Path) -> None:
    item = judgement(3, 1)
    written(folder, [item])
    line = (folder / "00000.jsonl").read_text()
    assert line.endswith("}\n")
    record = json.loads(line)
    assert list(record)[-1] == "crc"
    assert record.pop("crc") == zlib.crc32(json.dumps(record).encode())
    assert Judgement.from_dict(record) == item


def test_shards_are_filled_one_after_the_other(folder: Path) -> None:
    items = judgements(5)
    log = written(folder, items[:4], shard_size=3)
    log.append(items[4:])  # over three shards
    assert [len(path.read_bytes().splitlines()) for path in sorted(folder.iterdir())] == [3, 3, 3, 1]
    assert sorted(path.name for path in folder.iterdir()) == [f"0000{shard}.jsonl" for shard in range(4)]
    assert list(log.ordered()) == opened(folder, shard_size=3) == items


def test_a_second_instance_goes_on_where_the_first_stopped(folder: Path) -> None:
    items = judgements(4)
    written(folder, items[:4], shard_size=3)
    second = JudgementLog(folder, 3)
    assert second.done == set(keys(items[:4]))
    second.append(items[4:])
    assert list(second.ordered()) == items
    assert [len(path.read_bytes().splitlines()) for path in sorted(folder.iterdir())] == [3, 3, 2]


@pytest.mark.parametrize("shard_size", [1, 2, 5])
def test_the_shard_size_may_change(shard_size: int, folder: Path) -> None:
    items = judgements(4)
    written(folder, items[:3], shard_size=3)
    log = written(folder, items[3:], shard_size)
    assert list(log.ordered()) == opened(folder) == items
    assert max(len(path.read_bytes().splitlines()) for path in folder.iterdir()) == max(3, shard_size)


def test_shards_are_in_order_of_their_numbers(folder: Path) -> None:
    written(folder, [judgement(0, 0)])
    (folder / "00000.jsonl").rename(folder / "99999.jsonl")
    written(folder, [judgement(1, 0)], shard_size=1)
    assert sorted(path.name for path in folder.iterdir()) == ["100000.jsonl", "99999.jsonl"]
    written(folder, [judgement(2, 0)], shard_size=1)
    assert (folder / "100001.jsonl").exists()
    assert opened(folder) == [judgement(row, 0) for row in range(3)]


def test_missing(folder: Path) -> None:
    log = written(folder, [judgement(0, 0), judgement(0, 2), judgement(1, DIRECT)])
    assert not log.missing(0, [0, 2])
    assert log.missing(0, [0, 1, 2])
    assert not log.missing(1, [DIRECT])
    assert log.missing(1, [0])
    assert not log.missing(7, [])
    done = log.done
    log.append([judgement(0, 1)])
    assert not log.missing(0, [0, 1, 2])
    assert (0, 1) in done


@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_order_and_content_do_not_depend_on_shards_and_order_of_appending(shard_size: int, folder: Path) -> None:
    items = [judgement(row, sample) for row in range(12) for sample in (DIRECT, 0, 1)]  # 10 behind 9, not behind 1
    shuffled = random.Random(shard_size).sample(items, len(items))
    log = JudgementLog(folder, shard_size)
    for first in range(0, len(items), 5):
        log.append(shuffled[first : first + 5])
    assert list(log.ordered()) == opened(folder, shard_size) == items


# The first of two counts


def test_what_is_there_is_not_written_again(folder: Path) -> None:
    first = judgement(0, 0, "First.")
    log = written(folder, [first, replace(first, cot="Second.")])
    log.append([replace(first, cot="Third."), judgement(0, 1)])
    assert len(log) == 2
    assert list(log.ordered()) == opened(folder) == [first, judgement(0, 1)]
    assert len((folder / "00000.jsonl").read_bytes().splitlines()) == 2


def test_the_first_of_two_in_the_files_counts(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(folder, [judgement(0, 0, "First."), judgement(0, 1)], shard_size=2)
    written(tmp_path / "other", [judgement(0, 0, "Second."), judgement(1, 0)])
    (tmp_path / "other" / "00000.jsonl").rename(folder / "00001.jsonl")
    log = JudgementLog(folder, 2)
    assert len(log) == 3
    assert list(log.ordered()) == [judgement(0, 0, "First."), judgement(0, 1), judgement(1, 0)]
    assert warnings(caplog) == []


# Damage


def test_a_last_line_that_is_torn_anywhere_is_left_out_and_appending_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = judgements(2)
    before, torn = items[:-1], items[-1]
    written(folder, items)
    path = folder / "00000.jsonl"
    data = path.read_bytes()
    begin = len(data) - len(data.splitlines(keepends=True)[-1])
    for end in range(begin, len(data)):
        caplog.clear()
        path.write_bytes(data[:end])
        log = JudgementLog(folder, 100)
        assert list(log.ordered()) == before, f"torn at byte {end - begin}"
        assert path.read_bytes() == data[:begin]
        assert len(warnings(caplog)) == (end > begin)
        log.append([torn])
        assert path.read_bytes() == data
        assert list(log.ordered()) == items


def test_a_flipped_byte_anywhere_costs_its_line_only(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = judgements(2)
    written(folder, items)
    path = folder / "00000.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    begin = len(lines[0])
    for place in range(begin, begin + len(lines[1]) - 1):
        for flip in (0x01, 0x10, 0x80):
            path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
            assert opened(folder) == [items[0], *items[2:]], f"byte {place - begin} of the line, bit {flip:#x}"
    caplog.clear()
    path.write_bytes(data[: begin - 1] + b" " + data[begin:])  # two lines become one
    assert opened(folder) == items[2:]


def test_one_line_says_how_much_was_left_out_where(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = judgements(4)
    written(folder, items, shard_size=3)
    first, second, third = sorted(folder.iterdir())
    first.write_bytes(b"\n" + first.read_bytes().replace(b"example-0", b"example-9"))
    third.write_bytes(third.read_bytes() + bytes(5000))  # what some file systems leave after a power cut
    log = JudgementLog(folder, 3)
    assert warnings(caplog) == [
        f"judgements in {folder}: 4 incomplete or damaged lines were left out, in 00000.jsonl (3), 00002.jsonl (1); they are made again"
    ]
    assert list(log.ordered()) == [items[2], *items[3:]]
    caplog.clear()
    again = JudgementLog(folder, 3)
    assert warnings(caplog) == [], "the files are repaired"
    again.append(items[:2])
    assert list(again.ordered()) == opened(folder) == items


def sealed(text: str) -> bytes:
    """A line whose crc fits, whatever it says."""
    return text[:-1].encode() + b', "crc": %d}\n' % zlib.crc32(text.encode())


RECORD = judgement(0, 0).to_dict()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"not JSON\n",
        b"[1, 2]\n",
        b"\xff\xfe\n",
        json.dumps({**RECORD}).encode() + b"\n",
        json.dumps({**RECORD, "crc": 1}).encode() + b"\n",
        json.dumps({"crc": 0}).encode() + b"\n",
        sealed("{not JSON}"),
        sealed("[1, 2]"),
        sealed('{"row": 0}'),
        sealed(json.dumps({**RECORD, "other": 1})),
        sealed(json.dumps({**RECORD, "cot_ids": 3})),
        sealed(json.dumps({**RECORD, "finish": "tired"})),
        sealed(json.dumps(RECORD)).replace(b"\n", b" \n"),
        sealed(json.dumps(RECORD)).replace(b"\n", b"\r\n"),
        sealed(json.dumps(RECORD)).replace(b'"crc": ', b'"crc": 0'),
    ],
)
def test_what_is_no_line_of_a_log_is_left_out(line: bytes, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = judgements(3)[2:]
    written(folder, items)
    path = folder / "00000.jsonl"
    data = path.read_bytes()
    path.write_bytes(line + data)
    assert opened(folder) == items
    assert path.read_bytes() == data
    assert [": 1 incomplete or damaged lines" in warning for warning in warnings(caplog)] == [True]


def test_a_fitting_line_counts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir(parents=True)
    (folder / "00000.jsonl").write_bytes(sealed(json.dumps(RECORD)))
    assert opened(folder) == [judgement(0, 0)]
    assert warnings(caplog) == []


def test_a_line_damaged_while_the_log_is_open_is_not_read(folder: Path) -> None:
    log = written(folder, judgements(2))
    path = folder / "00000.jsonl"
    path.write_bytes(path.read_bytes().replace(b"example-1", b"example-7"))
    found = log.ordered()
    assert [next(found), next(found)] == judgements(1)
    with pytest.raises(DataError, match=r"00000.jsonl: the judgement of row 1, sample 0 was damaged while the log was in use; run"):
        next(found)


def test_lines_exchanged_while_the_log_is_open_are_not_read(folder: Path) -> None:
    log = written(folder, judgements(1))
    path = folder / "00000.jsonl"
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(DataError, match="row 0, sample 0"):
        list(log.ordered())


def test_a_repair_that_is_cut_off_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = judgements(2)
    written(folder, items)
    path = folder / "00000.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    damaged = path.read_bytes()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            JudgementLog(folder, 100)
    assert path.read_bytes() == damaged
    assert opened(folder) == items[:-1]
    assert [path.name for path in folder.iterdir()] == ["00000.jsonl"]


def test_a_file_that_cannot_be_read_is_not_called_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, judgements(1))
    data = (folder / "00000.jsonl").read_bytes()

    def refuse(path: Path, *arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            JudgementLog(folder, 100)
    assert (folder / "00000.jsonl").read_bytes() == data


# Writes that fail


class FullDisk:
    """Opens files that take ``left`` more bytes in all."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, path: Path, mode: str) -> FullDisk:
        self.file: Any = open(path, mode)  # noqa: SIM115
        return self

    def write(self, content: bytes) -> None:
        taken = content[: self.left]
        self.left -= len(taken)
        self.file.write(taken)
        if len(taken) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *reason: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("left", [0, 1, 100, 500, 800])
def test_a_full_disk_loses_only_what_was_being_written(left: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = judgements(5)
    log = written(folder, items[:4], shard_size=5)
    disk = FullDisk(left)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: disk(path, mode))
        with pytest.raises(OSError, match=r"No space left on device.*\.jsonl") as caught:
            log.append(items[4:])
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename in {str(folder / "00000.jsonl"), str(folder / "00001.jsonl")}
    assert list(log.ordered()) == items[: len(log)]
    again = JudgementLog(folder, 5)
    kept = list(again.ordered())
    assert len(kept) >= 4
    assert kept == items[: len(kept)]
    again.append(items)
    assert list(again.ordered()) == opened(folder, 5) == items


def test_after_a_failed_write_the_log_must_be_opened_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(folder, judgements(1))
    with monkeypatch.context() as patch:
        disk = FullDisk(30)
        patch.setattr(Path, "open", lambda path, mode: disk(path, mode))
        with pytest.raises(OSError, match="No space left"):
            log.append(judgements(2))
    with pytest.raises(AssertionError, match="open the log anew"):
        log.append(judgements(2))
    assert opened(folder) == judgements(1)


@pytest.mark.parametrize("call", ["append", "repair"])
def test_what_counts_as_written_is_on_the_disk(call: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(folder, judgements(1))
    path = folder / "00000.jsonl"

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if call == "repair":
        path.write_bytes(path.read_bytes() + b"{")
    before = path.read_bytes()
    steps: dict[str, Callable[[], Any]] = {"append": lambda: log.append(judgements(2)), "repair": lambda: JudgementLog(folder, 100)}
    with monkeypatch.context() as patch:
        patch.setattr(judgement_log, "sync_folder", lambda path: None)
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            steps[call]()
    assert len(log) == 2
    assert path.read_bytes().startswith(before)
    assert opened(folder)[:2] == judgements(1)


def test_all_of_a_batch_is_with_the_system_when_it_is_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(folder, judgements(1))
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    log.append(judgements(3))
    assert sizes == [(folder / "00000.jsonl").stat().st_size]


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(folder: Path) -> None:
    log = written(folder, judgements(1))
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append([judgement(1, 0), replace(judgement(1, 1), probabilities=(0.5, float("nan"), 0.5))])
    assert list(log.ordered()) == opened(folder) == judgements(1)
