"""The journal: what it holds stays, however it was cut off; and it is gone on with by the same work alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tract.apps.grading.journal import SYNC_ROWS, Journal
from tract.common.errors import DataError

WORK = {"content of the input": "abc", "columns": {"response": "answer"}, "the judge's fingerprint": "f", "limit": None}
RECORDS = [{"judge_score": number / 3, "judge_feedback": "ü\ud800\n"} for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.partial"


def fill(path: Path, count: int = 5) -> bytes:
    with Journal(path, WORK) as journal:
        for number in range(journal.done, count):
            journal.append(number, RECORDS[number])
    return path.read_bytes()


def test_what_was_written_is_read_again_to_the_last_bit(path: Path) -> None:
    fill(path, 3)
    fill(path)
    with Journal(path, WORK) as journal:
        assert journal.done == 5
        assert list(journal.records()) == RECORDS
    lines = path.read_text().splitlines()
    assert [json.loads(line).get("row") for line in lines] == [None, 0, 1, 2, 3, 4]  # JSON lines, for people


def test_a_journal_cut_anywhere_is_gone_on_with_and_ends_up_the_same(path: Path) -> None:
    whole = fill(path)
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in {0, 1, *range(5, len(whole), 37), *ends, *(end + 1 for end in ends)}:
        path.write_bytes(whole[:size])
        with Journal(path, WORK) as journal:
            assert journal.done == max(0, whole[:size].count(b"\n") - 1)
        assert fill(path) == whole, f"cut at byte {size}"


@pytest.mark.parametrize("damage", [b"\0", b"x"])
def test_damage_costs_what_stands_behind_it_and_is_said(path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    whole = fill(path)
    lines = whole.splitlines(keepends=True)
    lines[3] = damage + lines[3][1:]
    path.write_bytes(b"".join(lines))
    with caplog.at_level(logging.WARNING), Journal(path, WORK) as journal:
        assert journal.done == 2
    assert "behind its first 2 rows is incomplete or damaged; it is graded again" in caplog.text
    assert fill(path) == whole


def test_a_changed_number_is_seen(path: Path) -> None:
    whole = fill(path)
    changed = whole.replace(b'"judge_score": 1.0', b'"judge_score": 2.0')
    assert changed != whole
    path.write_bytes(changed)
    with Journal(path, WORK) as journal:
        assert journal.done == 3


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ({**WORK, "columns": {"response": "other"}}, 'columns was {"response": "answer"} and is {"response": "other"}'),
        ({**WORK, "limit": 3, "the judge's fingerprint": "g"}, 'the judge\'s fingerprint was "f" and is "g"; limit was null and is 3'),
    ],
)
def test_other_work_is_refused_with_what_differs(path: Path, work: dict[str, object], message: str) -> None:
    before = fill(path, 2)
    with pytest.raises(DataError) as error:
        Journal(path, work)
    assert message in str(error.value)
    assert "remove the file or give --restart" in str(error.value)
    assert path.read_bytes() == before


def test_how_it_was_asked_for_tells_what_differs_and_is_no_difference_itself(path: Path) -> None:
    """Another path to the same judge goes on; another seed gives another fingerprint, and is named."""
    Journal(path, WORK, {"--judge": "runs/a"}).__exit__(None, None, None)
    Journal(path, WORK, {"--judge": "./runs/a"}).__exit__(None, None, None)
    with pytest.raises(DataError, match='--seed was null and is 1; the judge\'s fingerprint was "f" and is "g"; remove'):
        Journal(path, {**WORK, "the judge's fingerprint": "g"}, {"--judge": "runs/a", "--seed": 1})


def test_restart_begins_anew(path: Path) -> None:
    fill(path)
    with Journal(path, {**WORK, "limit": 1}, restart=True) as journal:
        assert journal.done == 0
    assert len(path.read_bytes().splitlines()) == 1


def test_one_process_at_a_time(path: Path) -> None:
    with Journal(path, WORK), pytest.raises(DataError, match="another process is writing it"):
        Journal(path, WORK)
    Journal(path, WORK).__exit__(None, None, None)


def test_rows_are_on_the_disk_after_so_many_or_so_long(path: Path) -> None:
    now = 0.0
    with Journal(path, WORK, clock=lambda: now) as journal:
        for number in range(SYNC_ROWS):
            assert path.read_bytes().count(b"\n") == 1
            journal.append(number, {})
        assert path.read_bytes().count(b"\n") == SYNC_ROWS + 1
        journal.append(SYNC_ROWS, {})
        assert path.read_bytes().count(b"\n") == SYNC_ROWS + 1
        now = 2.5
        journal.append(SYNC_ROWS + 1, {})
        assert path.read_bytes().count(b"\n") == SYNC_ROWS + 3


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "out.partial", WORK)
