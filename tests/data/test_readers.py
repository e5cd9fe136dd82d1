import csv
import io
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tract.common.errors import DataError
from tract.data.readers import delimited
from tract.data.readers.files import BATCH_ROWS, content_fingerprint, local_fingerprint, read_rows
from tract.data.readers.rows import RowProblem, UnreadableCell


def read(path):
    return [(row.place, row.data) for row in read_rows(path)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"x": 1}\n\n{"x": "\xc3\xa9"}', [("a.jsonl:1", {"x": 1}), ("a.jsonl:3", {"x": "é"})]),
        ("a.jsonl", b'\xef\xbb\xbf{"x": 1}\r\n{"x": 2}\r\n', [("a.jsonl:1", {"x": 1}), ("a.jsonl:2", {"x": 2})]),
        ("a.JSONL", '{"x": "one\u2028line"}\n'.encode(), [("a.JSONL:1", {"x": "one\u2028line"})]),
        ("a.jsonl", b"", []),
        ("a.json", b'\xef\xbb\xbf[{"x": 1}, {"x": 2}]', [("a.json[0]", {"x": 1}), ("a.json[1]", {"x": 2})]),
        ("a.json", b'{"version": 3, "rows": [{"x": 1}]}', [("a.json[0]", {"x": 1})]),
        ("a.json", b'[{"x": "\xe9"}, {"x": ' + b"9" * 5000 + b"}]", [("a.json[0]", {"x": "\udce9"}), ("a.json[1]", {"x": math.inf})]),
        ("a.csv", b"\xef\xbb\xbfx,y\r\n1,\r\n\r\n2,b\r\n", [("a.csv:2", {"x": "1", "y": ""}), ("a.csv:4", {"x": "2", "y": "b"})]),
        ("a.tsv", b"x\ty\n1\ta,b\n", [("a.tsv:2", {"x": "1", "y": "a,b"})]),
        ("a.csv", b"x\n", []),
    ],
)
def test_rows_and_places(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == expected


def test_csv_places_are_physical_lines_when_fields_span_several(fixtures):
    rows = read(fixtures / "own_columns.csv")
    assert [place for place, _ in rows] == ["own_columns.csv:2", "own_columns.csv:4", "own_columns.csv:7"]
    assert rows[0][1]["question"] == 'What does "idle" mean?'
    assert rows[0][1]["answer"] == "Doing nothing,\nor running without load."
    assert rows[1][1]["comment"] == "Right, but an example\nwould help.\n"


def test_csv_fields_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path):
    csv.field_size_limit(131072)
    (tmp_path / "a.csv").write_text("x\n" + "y" * 200_000 + "\n")
    assert len(read(tmp_path / "a.csv")[0][1]["x"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("a.jsonl", b'{"x": 1}\n{"x": \n{"x": 3}\n', "a.jsonl:2", "not JSON: Expecting value"),
        ("a.jsonl", b'{"x": 1}\n[1]\n{"x": 3}\n', "a.jsonl:2", "not an object: the line holds a list"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xe9"}\n{"x": 3}\n', "a.jsonl:2", "not UTF-8: byte 7"),
        ("a.jsonl", b'{"x": 1}\n{"x": 1, "x": 1}\n{"x": 3}\n', "a.jsonl:2", "duplicate key: 'x' stands twice in one object"),
        ("a.jsonl", b'{"x": 1}\n{"x": [{"y": 1, "y": 2}]}\n{"x": 3}\n', "a.jsonl:2", "duplicate key: 'y'"),
        ("a.jsonl", b'{"x": 1}\n\xef\xbb\xbf{"x": 2}\n{"x": 3}\n', "a.jsonl:2", "byte order mark: "),
        ("a.json", b'[{"x": 1}, {"x": 1, "x": 2}, {"x": 3}]', "a.json[1]", "duplicate key: 'x'"),
        ("a.jsonl", b'{"x": 1}\n' + b"[" * 200_000 + b'\n{"x": 3}\n', "a.jsonl:2", "not JSON: "),
        ("a.json", b'[{"x": 1}, 5, {"x": 3}]', "a.json[1]", "not an object: a int was found"),
        ("a.csv", b"x,y\n1,2\n1\n3,4\n", "a.csv:3", "number of fields: 1 were found, the header names 2"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n3,4\n", "a.csv:3", "number of fields: 3"),
        ("a.csv", b'x,y\n1,2\n"a"b,2\n3,4\n', "a.csv:3", "not CSV: "),
        ("a.csv", b"x,y\n1,2\n\xe9,2\n3,4\n", "a.csv:3", "not UTF-8"),
    ],
)
def test_bad_rows_are_named_and_the_others_still_come(tmp_path, name, content, place, reason):
    (tmp_path / name).write_bytes(content)
    rows = read(tmp_path / name)
    assert len(rows) == 3
    assert rows[1][0] == place
    assert isinstance(rows[1][1], RowProblem)
    assert rows[1][1].reason.startswith(reason)
    assert isinstance(rows[0][1], dict)
    assert isinstance(rows[2][1], dict)


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        pytest.param('1,2\n"open,2\n3,4\n5,6', [2, 4, 5], [3], id="to the end of the file"),
        pytest.param('1,2\n"open,2\n3,4\n"5","6\n7"\n8,9\n', [2, 4, 5, 7], [3], id="to the next quoted field, which may span lines"),
        pytest.param('"open,2\n3,4\n"open,5\n6,7\n', [3, 5], [2, 4], id="twice"),
        pytest.param('"open,2\n3,4\n5,"\n6,7\n', [3, 5], [2, 4], id="closed by chance, with too few fields"),
        pytest.param('"say "a", b",2\nthe end",3\n4,5\n', [4], [2, 3], id="a line with a stray quote may be the end of the broken row"),
        pytest.param('"a",5" pipe\n', [2], [], id="a stray quote elsewhere is text, as for other readers"),
        pytest.param('"open,2\r3,4\r5,6\r', [3, 4], [2], id="lines that end in CR"),
        pytest.param('"open,2\n\n\n3,4\n', [5], [2], id="blank lines below"),
        pytest.param('1,2\nx,y\n\ufeffx,y\n\ufeff"3",4\n', [2], [3, 4, 5], id="files that were joined"),
    ],
)
def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path, content, good, bad):
    (tmp_path / "a.csv").write_bytes(f"x,y\n{content}".encode())
    rows = read(tmp_path / "a.csv")
    lines = [(int(place.removeprefix("a.csv:")), isinstance(data, RowProblem)) for place, data in rows]
    assert lines == sorted([(line, False) for line in good] + [(line, True) for line in bad])


def test_a_row_over_several_lines_is_held_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_OPEN", 1000)
    longest = "x\n" * 499
    (tmp_path / "a.csv").write_text(f'x,y\n"{longest}",2\n"open,2\n' + "3,4\n" * 1000)
    rows = read(tmp_path / "a.csv")
    assert rows[0] == ("a.csv:2", {"x": longest, "y": "2"})
    assert rows[1][0] == "a.csv:502"
    assert rows[1][1].reason.startswith("not CSV: a quote is never closed")
    assert [data for _, data in rows[2:]] == [{"x": "3", "y": "4"}] * 1000


@pytest.mark.parametrize("end", ["", 'x"', '"x', "1,2"])
def test_no_file_takes_time_that_grows_with_its_square(tmp_path, monkeypatch, end):
    """Each line opens a quote in which the next one ends; an error comes at the end of the file alone."""
    given = []
    reader = delimited._reader
    monkeypatch.setattr(delimited, "_reader", lambda lines, delimiter: reader((given.append(1) or line for line in lines), delimiter))
    (tmp_path / "a.csv").write_text("x,y\n" + 'a","b\n' * 5000 + end)
    assert len(read(tmp_path / "a.csv")) >= 5000
    assert len(given) <= 2 * 5000 + 5


def test_any_lines_of_a_csv_are_rows_or_problems():
    """Random quotes, delimiters and line breaks: no error, no line passed over, none read twice."""
    rng = random.Random(0)
    for _ in range(2000):
        content = "".join(rng.choices('a",\n', weights=(4, 2, 3, 2), k=rng.randrange(60)))
        lines = content.split("\n")
        covered = []
        for line, data in delimited.read_delimited(io.StringIO(f"x,y\n{content}", newline=""), "a.csv", ","):
            first = line - 2
            breaks = sum(value.count("\n") for value in data.values()) if isinstance(data, dict) else 0
            covered += range(first, first + breaks + 1)
        # A row with a bad line inside is that line's problem, or one over several lines that came to nothing.
        assert covered == [number for number, line in enumerate(lines) if line or number in covered], content


def test_parquet_rows_are_numbered_across_batches(tmp_path):
    n_rows = BATCH_ROWS * 2 + 3
    pq.write_table(pa.table({"x": range(n_rows), "y": [None, "b", "c"] * (n_rows // 3) + ["z"] * (n_rows % 3)}), tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet")
    assert [data["x"] for _, data in rows] == list(range(n_rows))
    assert rows[0][1] == {"x": 0, "y": None}
    assert rows[-1][0] == f"a.parquet[{n_rows - 1}]"


def test_a_parquet_cell_that_cannot_be_read_spoils_no_other(tmp_path):
    texts = pa.array([b"a", b"\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"x": texts, "t": pa.array([2**62, 0], pa.timestamp("us"))}), tmp_path / "a.parquet")
    (_, first), (_, second) = read(tmp_path / "a.parquet")
    assert (first["x"], second["t"].year) == ("a", 1970)
    assert first["t"] == UnreadableCell("OverflowError: date value out of range")
    assert second["x"].reason.startswith("UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", ".cache/d.jsonl", "README.md"):
        (tmp_path / name).write_text(json.dumps({"from": name}) + "\n")
    assert [place for place, _ in read(tmp_path)] == ["a.jsonl:1", "b.jsonl:1", "sub/c.jsonl:1"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "a.txt",
            b"x",
            r"data\.path: .*a\.txt has the suffix '\.txt'.*\.jsonl, \.ndjson, \.json, .*\(each also compressed: \.gz, .*\.parquet file",
        ),
        ("none.jsonl", None, r"data\.path: .*none\.jsonl does not exist"),
        ("a.json", b"{", r"a\.json: not UTF-8 JSON: .*name it \.jsonl"),
        ("a.json", b"5", r"a\.json: a int was found"),
        ("a.json", b'{"x": [1], "y": [2]}', r"a\.json: the object holds 2 lists"),
        ("a.json", b'{"x": 1}', r"a\.json: the object holds 0 lists"),
        ("a.csv", b"", r"a\.csv: the first line must name each column once, found \[\]"),
        ("a.csv", b"x,x\n1,2\n", r"each column once, found \['x', 'x'\]"),
        ("a.csv", b'"x\n1,2\n', r"a\.csv: the header cannot be read"),
        ("a.parquet", b"PAR1", r"a\.parquet: not readable as Parquet after 0 rows"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"data\.path: the folder .* holds no data file"):
        read_rows(tmp_path)  # at once, before the first row is asked for


def test_fingerprints_follow_content_and_names(tmp_path):
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "a.jsonl"
    file.write_text("{}\n")
    copy = tmp_path / "b.jsonl"
    copy.write_text("{}\n")
    assert content_fingerprint(file) == content_fingerprint(copy)
    assert local_fingerprint(file, 1) != local_fingerprint(copy, 1)
    assert local_fingerprint(file, 1) != local_fingerprint(file, 2)
    folder = content_fingerprint(tmp_path / "one")
    file.rename(file.with_name("c.jsonl"))
    renamed = content_fingerprint(tmp_path / "one")
    file.with_name("c.jsonl").write_text("{ }\n")
    assert len({folder, renamed, content_fingerprint(tmp_path / "one")}) == 3
