"""Files and folders that are whole or absent, and the lines of a log that are read back as they were written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tract.common.append_log import append_lines, decode_line, encode_line
from tract.common.durable import write_atomically, write_folder_atomically


@pytest.mark.parametrize(("concurrent", "name"), [(False, "x.json.tmp"), (True, f".x.json.{os.getpid()}")], ids=["alone", "concurrent"])
def test_a_file_gets_its_name_when_it_is_whole(concurrent: bool, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with write_atomically(path, concurrent=concurrent) as temporary:
        temporary.write_text("new")
        assert [file.name for file in tmp_path.iterdir() if file != path] == [name]
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.json", "new")]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), write_atomically(path):
        pass  # the block wrote nothing
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.json", "old")]


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "of a killed process").touch()
    with contextlib.suppress(KeyboardInterrupt), write_folder_atomically(folder) as partial:
        partial.mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with write_folder_atomically(folder) as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub" / "x").touch()
        assert not folder.exists()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/sub", "model/sub/x"]


def test_lines_are_read_back_or_not_at_all(tmp_path: Path) -> None:
    record = {"row": 3, "text": 'é\ud800\n", "crc": 7}', "score": 1 / 3, "none": None}
    append_lines(tmp_path / "log", encode_line(record))
    append_lines(tmp_path / "log", encode_line(record))
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert [decode_line(line) for line in lines] == [record, record]
    assert all(decode_line(lines[0][:end]) is None for end in range(len(lines[0])))
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_line({"score": float("nan")})
    with pytest.raises(OSError, match="nowhere"):
        append_lines(tmp_path / "nowhere" / "log", b"")
