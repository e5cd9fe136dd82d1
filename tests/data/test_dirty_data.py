"""Dirty data: each row of each file is accepted as an independent oracle says, or listed as rejected with its place and reason."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import dirty_oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dirty_oracle import MAPPING, Judged, Ledger, RefusedError
from dirty_rows import Place, feedback_row, write

from tract.common.errors import DataError
from tract.data.records import from_record
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.data.sources.source import Source
from tract.data.store import ExampleStore, build_store
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
SOURCES = ("feedback", "benchmark", "mapped")
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
CUE = " So the overall score is "
ROWS = 90  # mutated rows of each source in each format, about


def source_of(kind: str, path: Path) -> Source:
    if kind == "feedback":
        return FeedbackCollection(str(path), "train")
    return PrometheusEval(str(path)) if kind == "benchmark" else MappedColumns(str(path), MAPPING)


def build(kind: str, path: Path, on_bad_row: str = "skip") -> ExampleStore:
    return build_store(source_of(kind, path), GRID, on_bad_row, True, path.parent / "cache", cue=CUE)


def content(example: JudgeExample) -> Judged:
    rubric = example.rubric
    described = (None, ()) if rubric is None else (rubric.criteria, rubric.descriptions)
    text = (example.question_id, example.prompt, example.instruction, example.response, example.reference_answer, *described)
    return Judged(text, "", [(one.cot, one.score) for one in example.annotations], example.target_score, example.split,
                  [one.score for one in example.ratings])  # fmt: skip


def expected(kind: str, places: list[Place]) -> tuple[Ledger, list[tuple[Place, str]], Counter[str]]:
    """Examples and counts, rejected places with their category, and how the mutated rows fared."""
    ledger, rejected, fared = Ledger(), [], Counter[str]()
    for place in places:
        try:
            if isinstance(place.content, str):
                raise RefusedError(place.content)
            outcome = "accepted" if ledger.admit(getattr(dirty_oracle, kind)(place.content)) else "duplicate"
        except RefusedError as refused:
            rejected.append((place, str(refused)))
            outcome = "rejected"
        assert place.mutated or outcome == "accepted", place  # good rows are good
        fared[outcome] += place.mutated
    return ledger, rejected, fared


def check(folder: Path, kind: str, suffix: str, count: int, seed: int) -> Counter[str]:
    """Builds a store of mutated and good rows, compares all of it with the oracle; returns how the mutated rows fared."""
    places = write(folder / "data", kind, suffix, count, seed)
    ledger, rejected, fared = expected(kind, places)
    examples = list(ledger.examples.values())
    store = build(kind, folder / "data")
    by_line = suffix not in ("json", "parquet")
    number = "line" if by_line else "row_index"
    found = [(entry["file"], entry[number]) for entry in store.rejected]
    assert found == [(place.file, place.number) for place, _ in rejected]
    for entry, (place, category) in zip(store.rejected, rejected, strict=True):
        assert entry["place"] == (f"{place.file}:{place.number}" if by_line else f"{place.file}[{place.number}]")
        named, colon, rest = entry["reason"].partition(": ")
        assert colon, entry
        assert rest, entry
        assert category in ("", named), (category, entry, place)
        assert "\n" not in entry["reason"]
        assert len(entry["reason"]) < 600
        assert len(entry["row"]) <= 200
    made = [content(from_record(record)) for record in store.dataset.to_list()]
    for example, wanted in zip(made, examples, strict=True):
        wanted.identity, wanted.votes = "", False
        assert example == wanted
    counts = store.counts
    assert counts["rows_read"] == len(places)
    assert counts["rows_rejected"] == len(rejected) == sum(counts["rejected_by_reason"].values())
    assert (counts["examples"], counts["annotations"]) == (len(examples), sum(len(one.annotations) for one in examples))
    assert (counts["duplicates_dropped"], counts["equal_rows_kept"]) == (ledger.duplicates, ledger.equal)
    assert counts["ratings"] == sum(len(one.ratings) for one in examples)
    with pytest.raises(DataError) as caught:
        build(kind, folder / "data", on_bad_row="raise")
    first = store.rejected[0]
    assert str(caught.value) == f"{first['place']}: {first['reason']} (set data.on_bad_row=skip to leave such rows out)"
    assert "\n" not in str(caught.value)
    return fared


def totals(folder: Path, count: int = ROWS, seed: int = 0) -> dict[str, Counter[str]]:
    """How the mutated rows of each format fared, all sources together."""
    return {suffix: sum((check(folder / suffix / kind, kind, suffix, count, seed) for kind in SOURCES), Counter()) for suffix in FORMATS}


def test_a_thousand_mutated_rows_are_accepted_as_valid_or_listed(tmp_path: Path) -> None:
    fared = totals(tmp_path)
    for suffix, counts in fared.items():
        print(f"{suffix}: {sum(counts.values())} mutated, {dict(counts)}")  # noqa: T201 - for the documents: pytest -s
        assert min(counts["accepted"], counts["rejected"]) > 20, suffix
    assert sum(counts.total() for counts in fared.values()) >= 1000


@pytest.mark.parametrize("depth", [5, 90, 300, 700, 900, 930, 950, 960, 970, 980, 990, 1000, 5000])
@pytest.mark.parametrize("name", ["orig_response", "idx", "human_score", "unused"])
def test_values_nested_to_any_depth(depth: int, name: str, tmp_path: Path) -> None:
    """Around the depth that Python's own parser takes, messages and the list of rejected rows must take it too."""
    deep = json.dumps({**feedback_row(1), name: "@@"}).replace('"@@"', "[" * depth + "]" * depth)
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(feedback_row(0))}\n{deep}\n")
    store = build("feedback", tmp_path / "a.jsonl")
    rejected = [entry["reason"].split(":")[0] for entry in store.rejected]
    assert rejected in ([name], ["not JSON"]) or (name == "unused" and rejected == [])
    assert len(store) == 2 - len(rejected)


def good_parquet(**options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([feedback_row(n) for n in range(300)]), sink, **options)
    return bytes(sink.getvalue())


def test_parquet_files_that_are_cut_or_changed_end_in_one_line_or_are_read(tmp_path: Path) -> None:
    """The footer's bytes are changed, where a wrong one misleads the reader; pages carry checksums."""
    rng, whole = random.Random(0), good_parquet(write_page_checksum=True)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    fared = Counter[str]()
    for number in range(90):
        changed = bytearray(whole)
        if number % 3 == 0:
            del changed[rng.randrange(len(whole)) :]
        elif number % 3 == 1:
            changed[-rng.randrange(1, footer)] ^= 1 << rng.randrange(8)
        else:
            changed[rng.randrange(4, len(whole) - footer)] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(changed)
        try:
            store = build("feedback", path)
        except DataError as error:
            fared["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        else:
            assert store.counts["rows_read"] == 300
            assert len(store) + store.counts["rows_rejected"] == 300
            fared["read"] += 1
    assert set(fared) == {"refused", "read"}
    assert fared["refused"] >= 60
    assert fared["read"] < 30


def test_a_changed_page_is_noticed_where_the_file_carries_checksums(tmp_path: Path) -> None:
    whole = good_parquet(write_page_checksum=True, compression="none")
    at = whole.index(b"Answer 150.")
    (tmp_path / "a.parquet").write_bytes(whole[:at] + b"B" + whole[at + 1 :])
    with pytest.raises(DataError, match=r"^a\.parquet: not readable as Parquet after \d+ rows: .*CRC"):
        build("feedback", tmp_path / "a.parquet")


GOOD_LINE = json.dumps(feedback_row(0))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b"", "no rows were found"),
        ("a.jsonl", b"\n \n\r\n", "no rows were found"),
        ("a.jsonl", f"{GOOD_LINE}\n".encode("utf-16"), r"all \d rows were rejected; the first: a\.jsonl:1: not UTF-8: byte 0 of the line"),
        ("a.jsonl", f"{GOOD_LINE[:-9]}\n".encode(), r"all 1 rows were rejected; the first: a\.jsonl:1: not JSON"),
        ("a.json", b"", "not UTF-8 JSON"),
        ("a.json", f"[{GOOD_LINE}, {GOOD_LINE[:-9]}".encode(), "not UTF-8 JSON"),
        ("a.json", f"[{GOOD_LINE}]".encode("utf-16"), "not UTF-8 JSON"),
        ("a.json", b"[" * 100_000, "not UTF-8 JSON"),
        ("a.json", b'{"rows": [1], "rows": []}', "duplicate key: 'rows' stands twice in one object"),
        ("a.json", b"[]", "no rows were found"),
        ("a.csv", b"", "the first line must name each column once"),
        ("a.csv", b"idx,idx\n1,2\n", "the first line must name each column once"),
        ("a.csv", "idx,é\n1,2\n".encode("latin-1"), "the header is not UTF-8"),
        ("a.csv", "idx,instruction\n1,2\n".encode("utf-16"), "the header is not UTF-8"),
        ("a.csv", b"idx,instruction\n", "no rows were found"),
        ("a.csv", b'"idx,instruction\n1,2\n', "the header cannot be read"),
        ("a.parquet", b"", "not readable as Parquet after 0 rows"),
        ("a.parquet", GOOD_LINE.encode(), "not readable as Parquet after 0 rows"),
    ],
)
def test_files_of_which_nothing_can_be_used(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        build("feedback", tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["idx", "idx"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"^a\.parquet: each column must have a name of its own, found \['idx', 'idx'\]"):
        build("feedback", tmp_path / "a.parquet")


def test_a_broken_file_in_a_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text(GOOD_LINE)
    (folder / "b.parquet").write_bytes(good_parquet()[:-20])
    with pytest.raises(DataError, match=r"^b\.parquet: not readable as Parquet after 0 rows"):
        build("feedback", folder)
    (folder / "b.parquet").unlink()
    (folder / "c.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"^c\.jsonl: cannot be read: No such file or directory"):
        build("feedback", folder)


def test_a_file_may_vanish_or_have_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "b\udce9.jsonl"
    path.write_text(f"{GOOD_LINE}\n{{\n")
    store = build("feedback", folder)
    assert store.rejected[0]["file"] == "b\udce9.jsonl"
    rows = source_of("feedback", path).rows()
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read: No such file or directory"):
        list(rows)
