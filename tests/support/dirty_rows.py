"""Mutated rows among good ones, as files, and where each row stands. Seeded: the same files every time."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dirty_oracle import ENDINGS, LEVELS, Row

Piece = tuple[bytes, list[Row | str]]  # part of a text file, and the rows that begin on its lines
BREAK = re.compile(rb"\r\n|\r|\n")  # what ends a line of a CSV file; lines of JSONL end in \n alone
ANY = ""  # rejected, whatever the category of the reason
MISSING = object()
UNREADABLE = object()  # also stands for values of types that no field takes
HUGE = "\u00e9\n" * 400_000
BOM = b"\xef\xbb\xbf"
TEXTS = ["", " ", "\n", "nan", "inf", "-Infinity", "NULL", "1e400", "4", " 4\u00a0", "4.", "4.0", "4e0", "+4", "-0", "0", "6", "3.5", "4,5"]
TEXTS += ["1,000", "4_0", "\uff14", "\u0664", "\u00b2", "0x4", "4 points", "True", "[4]", "9" * 5000, HUGE, "a\u2028b\x85c\x0bd"]
TEXTS += ["a\x00b", "\x01\x1b[0m", "\ufeff", "a\ufeffb", "\U0001f600\u202e", "a\r\nb", "a\rb", 'a"b', '"', '""', "a,b\tc", "train", "\\"]
VALUES: list[Any] = [True, False, None, 7, 4, -1, 0, 2**60, 10**400, 4.0, 3.5, -0.0, 1e17, 1e-300, math.nan, math.inf, -math.inf]
VALUES += [[], ["x"], [4], [[4]], [None], {}, {"a": 1}, {"a": {"b": []}}, json.loads("[" * 300 + "]" * 300), MISSING, "\ud800", "a\udfff"]


def feedback_row(n: int) -> Row:
    cot = f"Right {n}, \u00e9t\u00e9 \u201cgood\u201d. "
    levels = {name: f"Level {level}." for level, name in enumerate(LEVELS, start=1)}
    asked = {"idx": n, "instruction": f"Judge answer {n}: \u00e9 ", "orig_instruction": f"Question {n}?", "orig_response": f"Answer {n}."}
    rubric = {"orig_reference_answer": f"Best {n}.", "orig_criteria": "Is it right?", **levels}
    return {**asked, **rubric, "orig_feedback": cot, "orig_score": "4", "output": f"{cot} So the overall score is 4. [RESULT] 4"}


def benchmark_row(n: int) -> Row:
    scores = {"gpt4_score": [4, 1 + n % 5], "gpt4_feedback": [f"Good {n}.", f"So \u00e9 {n}."], "human_score": [3, 4]}
    return {"idx": n, "instruction": f"Judge answer {n}: \u00e9 ", **scores, "unused": f"note {n}"}


def mapped_row(n: int) -> Row:
    asked = {"topic": n, "question": f"Question {n}?", "answer": f"Answer {n}, \u00e9.", "best": f"Best {n}."}
    rubric = {"criterion": "Is it right?", "low": "No.", "high": "Yes."}
    return {**asked, **rubric, "comment": f"Right {n}.", "points": 4, "mean": 3.5, "key": f"k{n}", "part": "train", "unused": f"note {n}"}


MAKE = {"feedback": feedback_row, "benchmark": benchmark_row, "mapped": mapped_row}


@dataclass
class Place:
    """One row of a file: a dict is judged by the oracle, a text is the category of its rejection."""

    file: str
    number: int  # line from 1, or index from 0
    content: Row | str
    mutated: bool


@dataclass
class Files:
    """A folder of data files under construction."""

    folder: Path
    source: str
    rng: random.Random
    places: list[Place] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def row(self) -> Row:
        return MAKE[self.source](next(self.numbers))

    def flat_row(self) -> Row:
        """A good row as CSV can hold it."""
        row = self.row()
        return {name: "" if value is None else str(value[0] if isinstance(value, list) else value) for name, value in row.items()}

    def lines(self, name: str, pieces: list[Piece], start: bytes = b"", line_end: re.Pattern[bytes] = BREAK) -> None:
        """Writes pieces of a text file; each row of a piece begins on a line of its own, but only the last may span several."""
        line = 1 + len(line_end.findall(start))
        for number, (data, rows) in enumerate(pieces):
            self.places += [Place(name, line + offset, row, number % 2 == 1) for offset, row in enumerate(rows)]
            line += len(line_end.findall(data))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(start + b"".join(data for data, _ in pieces))

    def changed(self, row: Row, values: list[Any]) -> tuple[str, Row]:
        """The row with one value changed, and which."""
        name = self.rng.choice(list(row))
        value = self.rng.choice(values)
        if name == "output" and self.rng.random() < 0.8:
            value = row["orig_feedback"].rstrip() + self.rng.choice(list(ENDINGS))
        if value is MISSING:
            return name, {key: kept for key, kept in row.items() if key != name}
        inside_list = isinstance(row[name], list) and self.rng.random() < 0.5
        return name, {**row, name: [row[name][0], value] if inside_list else value}


# JSONL


def json_bytes(row: Row, rng: random.Random) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=rng.random() < 0.5).encode()
    except UnicodeEncodeError:  # lone surrogates can only be escaped
        return json.dumps(row).encode()


def json_value(row: Row, name: str, token: str) -> bytes:
    """The row with a value as it is written."""
    return json.dumps({**row, name: "@@"}, ensure_ascii=False).replace('"@@"', token).encode()


def broken_jsonl(files: Files) -> Piece:
    """A line that is broken, or odd and yet sound."""
    rng, row = files.rng, files.row()
    line = json.dumps(row, ensure_ascii=False).encode()
    name = rng.choice(list(row))
    cut = rng.randrange(1, len(line))
    inside = line.index(b"\xc3\xa9")
    kinds: dict[str, Piece] = {
        "truncated": (line[:cut], [ANY]),
        "without its beginning": (line[cut:], [ANY]),
        "two objects": (line + json.dumps(files.row()).encode(), ["not JSON"]),
        "trailing comma": (line[:-1] + b",}", ["not JSON"]),
        "comment": (line + b" // ok", ["not JSON"]),
        "single quotes": (str(row).encode(), ["not JSON"]),
        "key twice": (line[:-1] + b', "' + name.encode() + b'": "x"}', ["duplicate key"]),
        "key twice, escaped": (line[:-1] + b', "' + f"\\u{ord(name[0]):04x}{name[1:]}".encode() + b'": "x"}', ["duplicate key"]),
        "key twice, inside": (line[:-1] + b', "other": [{"a": 1, "a": 2}]}', ["duplicate key"]),
        "Latin-1": (line.decode().replace("\u201c", "").replace("\u201d", "").encode("latin-1"), ["not UTF-8"]),
        "cp1252": (line.replace(b"\xc3\xa9", b"\x93"), ["not UTF-8"]),
        "UTF-16": (line.decode().encode("utf-16-le"), [ANY]),
        "cut character": (line[: inside + 1] + line[inside + 2 :], ["not UTF-8"]),
        "byte order mark": (BOM + line, ["byte order mark"]),
        "byte order mark alone": (BOM, ["byte order mark"]),
        "control character": (line[:inside] + rng.choice([b"\x00", b"\x01", b"\t"]) + line[inside:], ["not JSON"]),
        "line break inside a text": (line[:inside] + b"\n" + line[inside:], [ANY, ANY]),
        "no object": (rng.choice([b"5", b"null", b'"x"', b"[1]", b"[" + line + b"]", b"NaN", b"1e400"]), ["not an object"]),
        "digits": (json_value(row, name, "9" * 5000), ["not JSON"]),
        "deep": (json_value(row, name, "[" * 100_000), ["not JSON"]),
        "other key": (line[:-1] + b', "other": NaN, "more": [' + b"1e400, " * 3 + b'"\\ud800"]}', [row]),
        "NaN": (json_value(row, name, "NaN"), [{**row, name: math.nan}]),
        "1e400": (json_value(row, name, "-1E400"), [{**row, name: -math.inf}]),
        "escaped surrogate": (json_value(row, name, '"\\ud800x"'), [{**row, name: "\ud800x"}]),
        "escaped NUL": (json_value(row, name, '"x\\u0000"'), [{**row, name: "x\x00"}]),
        "CRLF": (line + b"\r", [row]),
        "CR between tokens": (line.replace(b'", "', b'",\r"', 1), [row]),
        "blanks around": (b" \t" + line + b"  ", [row]),
        "U+2028": (json_value(row, name, '"x\u2028y"'), [{**row, name: "x\u2028y"}]),
    }
    data, rows = kinds[rng.choice(list(kinds))]
    return data + rng.choice([b"\n", b"\n", b"\n\n", b"\n \t\r\n"]), rows


def write_jsonl(files: Files, count: int) -> None:
    for name, start, end in (("a.jsonl", b"", b"\n"), ("b.JSONL", BOM, b"\r\n")):
        pieces: list[Piece] = []
        for _ in range(count // 2):
            row = files.row()
            pieces.append((json.dumps(row, ensure_ascii=False).encode() + end, [row]))
            if files.rng.random() < 0.5:
                pieces.append(broken_jsonl(files))
            elif files.rng.random() < 0.1:
                row = {**row} if files.rng.random() < 0.5 else files.changed(row, [value for value in VALUES if value is not MISSING])[1]
                pieces.append((json_bytes(row, files.rng) + end, [row]))
            else:
                _, row = files.changed(files.row(), VALUES + TEXTS)
                pieces.append((json_bytes(row, files.rng) + end, [row]))
        files.lines(name, pieces, start, re.compile(rb"\n"))
    last = json.dumps(files.row()).encode()
    files.lines("c.jsonl", [(b"\n", []), (last[:-30], [ANY])], line_end=re.compile(rb"\n"))
    (files.folder / "d.jsonl").write_bytes(b"")


# JSON


def write_json(files: Files, count: int) -> None:
    """A list of objects, one of which may be odd without a fault of the file."""
    rng = files.rng
    elements: list[tuple[bytes, Row | str]] = []
    for _ in range(count):
        row = files.row()
        elements.append((json.dumps(row, ensure_ascii=False).encode(), row))
        odd = files.row()
        name = rng.choice(list(odd))
        line = json.dumps(odd, ensure_ascii=False).encode()
        kinds: list[tuple[bytes, Row | str]] = [
            (line[:-1] + b', "' + name.encode() + b'": 1}', "duplicate key"),
            (rng.choice([b"5", b"null", b'"x"', b"[1]", b"[]", b"NaN"]), "not an object"),
            (json_value(odd, name, "9" * 5000), {**odd, name: math.inf}),
            (json_value(odd, name, '"x"').replace(b'"x"', b'"\xe9"'), {**odd, name: "\udce9"}),
            (b"\r\n" + line + b"\t", odd),
        ]
        _, changed = files.changed(odd, VALUES + TEXTS)
        elements.append(rng.choice(kinds) if rng.random() < 0.4 else (json_bytes(changed, rng), changed))
    files.folder.mkdir(parents=True)
    content = b",\n".join(data for data, _ in elements)
    (files.folder / "a.json").write_bytes(BOM + b'{"version": 1, "rows": [' + content + b"]}\n")
    files.places += [Place("a.json", index, row, index % 2 == 1) for index, (_, row) in enumerate(elements)]


# CSV and TSV


def quoted(cells: list[str], delimiter: str) -> str:
    return delimiter.join('"' + cell.replace('"', '""') + '"' for cell in cells)


def broken_table(files: Files, delimiter: str, header: list[str]) -> Piece:
    """A row that is broken, or odd and yet sound; without its line end."""
    rng, row = files.rng, files.flat_row()
    cells = list(row.values())
    line = quoted(cells, delimiter)
    cell = rng.randrange(len(cells))
    name = header[cell]
    data = line.encode()
    inside = line.index("\u00e9")
    closing = len(quoted(cells[: cell + 1], delimiter)) - 1

    def with_cell(value: str) -> Piece:
        return quoted([*cells[:cell], value, *cells[cell + 1 :]], delimiter).encode(), [{**row, name: value}]

    kinds: dict[str, Piece] = {
        "truncated": (line[: rng.randrange(1, line.rindex(delimiter))].encode(), [ANY]),
        "quote not closed": ((line[:closing] + line[closing + 1 :]).encode(), ["not CSV"]),
        "quote not opened, last": ((line + '"').encode(), ["not CSV"]),
        "quotes not doubled": ((line[:inside] + '"x" ' + line[inside:]).encode(), ["not CSV"]),
        "quotes not doubled, over lines": ((line[:inside] + '"x"\ny' + line[inside:]).encode(), ["not CSV", ANY]),
        "field too many": (data + delimiter.encode(), ["number of fields"]),
        "field too few": (quoted(cells[:-1], delimiter).encode(), ["number of fields"]),
        "one word": (b"x", ["number of fields"]),
        "blanks": (b"  ", ["number of fields"]),
        "header": (delimiter.join(header).encode(), ["header"]),
        "Latin-1": (line.replace("\u201c", "").replace("\u201d", "").encode("latin-1"), ["not UTF-8"]),
        "cp1252": (data.replace(b"\xc3\xa9", b"\x93"), ["not UTF-8"]),
        "UTF-16": (line.encode("utf-16-le"), [ANY]),
        "byte order mark": (BOM + data, ["byte order mark"]),
        "other delimiter": (quoted(cells, ";").encode(), [ANY]),
        "no quotes": (delimiter.join(cells).encode(), ANY if any(delimiter in one for one in cells) else [row]),  # type: ignore[dict-item]
        "lines inside": with_cell("a\nb\r\nc\rd\n"),
        "delimiters inside": with_cell(f'{delimiter}"{delimiter}\n"{delimiter}'),
        "NUL": with_cell("a\x00b\x1a"),
        "separators": with_cell("a\u2028b\x85c\x0cd"),
    }
    data, rows = kinds[rng.choice(list(kinds))]
    return data, ["number of fields"] if rows == ANY else rows


def write_table(files: Files, count: int, suffix: str) -> None:
    delimiter = {"csv": ",", "tsv": "\t"}[suffix]
    header = list(files.flat_row())
    top = quoted(header, delimiter).encode()
    texts = TEXTS + [str(value) for value in VALUES[:20]]
    for name, start, end in ((f"a.{suffix}", top + b"\n", b"\n"), (f"b.{suffix.upper()}", BOM + top + b"\r\n", b"\r\n")):
        pieces: list[Piece] = []
        for _ in range(count // 2):
            row = files.flat_row()
            pieces.append((quoted(list(row.values()), delimiter).encode() + end, [row]))
            blank = files.rng.choice([b"", b"", end])
            if files.rng.random() < 0.55:
                data, rows = broken_table(files, delimiter, header)
                pieces.append((data + end + blank, rows))
            else:
                row = files.changed(row if files.rng.random() < 0.1 else files.flat_row(), texts)[1]
                pieces.append((quoted(list(row.values()), delimiter).encode() + end + blank, [row]))
        files.lines(name, pieces, start)
    row = files.flat_row()
    line = quoted(list(row.values()), delimiter).encode()
    files.lines(f"c.{suffix}", [(line + b"\r", [row]), (line[:-1], ["not CSV"])], top + b"\r")  # lines end in CR; the last one is cut


# Parquet

COLUMNS: list[tuple[pa.DataType, list[Any], list[Any]]] = [  # type, values, and what the oracle sees of them
    (pa.bool_(), [True, False, None], [True, False, None]),
    (pa.int64(), [4, 7, -1, 2**60, None], [4, 7, -1, 2**60, None]),
    (pa.uint8(), [1, 255], [1, 255]),
    (pa.float64(), [4.0, 3.5, math.nan, math.inf, -0.0, 1e300, None], [4.0, 3.5, math.nan, math.inf, -0.0, 1e300, None]),
    (pa.float16(), [4.0, math.nan], [4.0, math.nan]),
    (pa.decimal128(20, 2), [Decimal("4.00"), Decimal("3.50"), None], [Decimal("4.00"), Decimal("3.50"), None]),
    (pa.string(), TEXTS, TEXTS),
    (pa.large_string(), ["4", "\uff14", None, HUGE], ["4", "\uff14", None, HUGE]),
    (pa.binary(), [b"4", b"\xe9", None], [UNREADABLE, UNREADABLE, None]),
    (pa.timestamp("us"), [0, 2**62, None], [UNREADABLE, UNREADABLE, None]),
    (pa.timestamp("ns"), [1, None], [UNREADABLE, None]),
    (pa.date32(), [0, 2**31 - 1], [UNREADABLE, UNREADABLE]),
    (pa.duration("us"), [1], [UNREADABLE]),
    (pa.list_(pa.int64()), [[4], [], [4, None], [4, 9], None], [[4], [], [4, None], [4, 9], None]),
    (pa.list_(pa.string()), [["x"], ["", None]], [["x"], ["", None]]),
    (pa.struct({"a": pa.int64()}), [{"a": 4}, None], [{"a": 4}, None]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("a", 2)]], [UNREADABLE]),
    (pa.null(), [None], [None]),
    (pa.dictionary(pa.int32(), pa.string()), ["4", "x", None], ["4", "x", None]),
]


def no_utf8(good: str) -> pa.Array:
    """Text columns whose second value is no UTF-8."""
    return pa.array([good.encode(), b"a\xe9b"], pa.binary()).view(pa.string())


def write_parquet(files: Files, count: int) -> None:
    """A file per type of a changed column, each among good columns, and a long one with single bad cells."""
    files.folder.mkdir(parents=True)
    numbers = itertools.count()
    names = list(files.row())

    def write(name: str, array: pa.Array | None, seen: list[Any]) -> None:
        rows = [files.row() for _ in seen]
        file = f"{next(numbers):03d}.parquet"
        table = pa.Table.from_pylist(rows)
        table = table.drop_columns(name) if array is None else table.set_column(table.column_names.index(name), name, array)
        rows = [{**row, name: value} for row, value in zip(rows, seen, strict=True)]
        rows = [{key: value for key, value in row.items() if value is not MISSING} for row in rows]
        pq.write_table(table, files.folder / file)
        files.places += [Place(file, index, row, True) for index, row in enumerate(rows)]

    for _ in range(count // 8):
        kind, values, seen = files.rng.choice(COLUMNS)
        picked = files.rng.sample(range(len(values)), min(5, len(values)))
        array = pa.array([values[index] for index in picked], kind)
        write(files.rng.choice(names), array, [seen[index] for index in picked])
    for name in names:
        write(name, no_utf8("4"), ["4", UNREADABLE])
        write(name, None, [MISSING])
    rows = [files.row() for _ in range(300)]  # more than are read at once
    spoiled = {3: b"\xff", 255: b"\x80", 256: b"a\xc3", 299: b"\xed\xa0\x80"}
    name = "question" if files.source == "mapped" else "instruction"
    array = pa.array([spoiled.get(index, row[name].encode()) for index, row in enumerate(rows)], pa.binary()).view(pa.string())
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.set_column(table.column_names.index(name), name, array), files.folder / "z.parquet", row_group_size=290)
    files.places += [Place("z.parquet", index, name if index in spoiled else row, index in spoiled) for index, row in enumerate(rows)]


def write(folder: Path, source: str, suffix: str, count: int, seed: int) -> list[Place]:
    """Writes about ``count`` mutated rows of a source in one format; returns the places of all rows in the order of reading."""
    files = Files(folder, source, random.Random(f"{seed} {source} {suffix}"))
    if suffix in ("csv", "tsv"):
        write_table(files, count, suffix)
    else:
        {"jsonl": write_jsonl, "json": write_json, "parquet": write_parquet}[suffix](files, count)
    return files.places
