"""Files by their names: packed ones are read as their content, others are refused with what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from tract.common.errors import DataError
from tract.data.readers.files import content_fingerprint, read_rows
from tract.data.readers.formats import format_of

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
TEXTS = {
    ".jsonl": b'\xef\xbb\xbf{"a": "x\xe2\x80\xa8"}\n{"a": "y"}\n',
    ".ndjson": b'{"a": "x\xe2\x80\xa8"}\n{"a": "y"}\n',
    ".json": b'[{"a": "x\xe2\x80\xa8"}, {"a": "y"}]',
    ".csv": b'\xef\xbb\xbfa\n"x\xe2\x80\xa8"\ny\n',
    ".tsv": b'a\n"x\xe2\x80\xa8"\ny\n',
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", TEXTS)
def test_a_packed_file_has_the_rows_of_its_content(suffix: str, packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}{packing}"
    path.write_bytes(PACK[packing](TEXTS[suffix]))
    assert [row.data for row in read_rows(path)] == [{"a": "x\u2028"}, {"a": "y"}]
    assert next(read_rows(path)).place.startswith(path.name)


def test_two_packed_parts_behind_each_other_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'))
    assert [row.data for row in read_rows(tmp_path / "in.jsonl.gz")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", TEXTS)
def test_a_packed_file_that_is_cut_off_is_one_line(suffix: str, packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}{packing}"
    whole = PACK[packing](TEXTS[suffix] + b"\n" * 3)
    for content in (whole[:-9], whole[: len(whole) // 2], b"no archive at all", b"\x1f\x8b"):
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=rf"^in{suffix}{packing}: cannot be unpacked: .*; it is damaged or not whole, compress"
        ) as caught:
            list(read_rows(path))
        assert "\n" not in str(caught.value)


def test_packed_bytes_that_are_changed_are_found(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b'{"a": 1}\n' * 1000))
    content[-6] ^= 1  # of the checksum
    (tmp_path / "in.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"in\.jsonl\.gz: cannot be unpacked: CRC check failed"):
        list(read_rows(tmp_path / "in.jsonl.gz"))


def test_numbers_of_a_json_file_keep_their_spelling_as_text(tmp_path: Path) -> None:
    for name, content in (("in.jsonl", b'{"a": 3.50}\n{"a": 1E2}\n'), ("in.json", b'[{"a": 3.50}, {"a": 1E2}]')):
        (tmp_path / name).write_bytes(content)
        values = [row.data["a"] for row in read_rows(tmp_path / name)]  # type: ignore[index]
        assert [value.written for value in values] == ["3.50", "1E2"]
        assert (values, json.dumps(values)) == ([3.5, 100.0], "[3.5, 100.0]")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.xlsx", r"a\.xlsx has the suffix '\.xlsx', which is no known format; save the sheet as CSV; accepted is a \.jsonl, \.ndjson"),
        ("a.zip", r"the suffix '\.zip', which is no known format; unpack it; accepted"),
        ("a.jsonl.zst", r"the suffix '\.zst', which is no known format; unpack it; accepted"),
        ("a.parquet.gz", r"the suffix '\.parquet\.gz', which is no known format; name it by what it holds"),
        ("answers.gz", r"the suffix '\.gz', which is no known format; name it by what it holds, e\.g\. answers\.jsonl\.gz; accepted"),
        ("a.feather", r"the suffix '\.feather', which is no known format; write it as Parquet or JSONL; accepted"),
        ("a", r"the suffix '', which is no known format; accepted"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message) as caught:
        read_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_says_what_it_does_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jsonl.gz", "b.NDJSON"):
        (tmp_path / name).write_bytes(gzip.compress(b'{"a": 1}\n') if name.endswith("gz") else b'{"a": 2}\n')
    for name in ("c.xlsx", "d.csv.zip", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert [(row.place, row.data) for row in read_rows(tmp_path)] == [("a.jsonl.gz:1", {"a": 1}), ("b.NDJSON:1", {"a": 2})]
    assert "2 files of other formats are not read: ['c.xlsx', 'd.csv.zip']; accepted are .jsonl" in caplog.text


def test_a_folder_with_a_file_and_its_packed_copy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    with pytest.raises(DataError, match=r"holds a\.csv and a\.csv\.gz, whose rows would come twice; move one of them away"):
        read_rows(tmp_path)


def test_the_fingerprint_follows_packed_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n", mtime=0))
    before = content_fingerprint(path)
    path.write_bytes(gzip.compress(b"a\n2\n", mtime=0))
    assert before != content_fingerprint(path)


def test_suffixes_may_be_upper_case() -> None:
    assert [format_of(Path(name)) for name in ("A.JSONL", "a.Csv.GZ", "b.PARQUET", "c.txt.gz", "d")] == [
        ".jsonl",
        ".csv",
        ".parquet",
        None,
        None,
    ]
