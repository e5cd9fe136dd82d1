import errno
import io
import json
import logging
import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tract.common.errors import ConfigError, DataError
from tract.data import store as store_module
from tract.data.readers.files import read_rows
from tract.data.readers.rows import RawRow, RowProblem
from tract.data.records import FEATURES, from_record, to_record
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.data.store import build_store
from tract.text.schema import Annotation, JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))


class ListSource:
    """Rows are examples, errors to raise, or RowProblems; counts how often they are read."""

    def __init__(self, *rows, name="list"):
        self.data = rows
        self.name = name
        self.times_read = 0

    def rows(self):
        self.times_read += 1
        for number, data in enumerate(self.data, start=1):
            yield RawRow(f"{self.name}:{number}", data)

    def to_example(self, row, grid):
        if isinstance(row.data, Exception):
            raise row.data
        return row.data

    def fingerprint(self):
        return self.name

    def describe(self):
        return f"source {self.name}"


def example(prompt="p1", *annotations, id=None, question="q", **fields):
    return JudgeExample(
        id=id or f"{question}-{prompt}",
        question_id=question,
        instruction="",
        response="",
        prompt=prompt,
        annotations=tuple(Annotation(cot, score) for cot, score in annotations),
        **fields,
    )


def build(source, cache, on_bad_row="raise", group=True, grid=GRID):
    return build_store(source, grid, on_bad_row, group, cache, cue=" So the overall score is ")


def examples_of(store):
    return [store.example(index) for index in range(len(store))]


@pytest.mark.parametrize(
    "made",
    [
        example(),
        example("p", ("c", 1.0), (" d\n", 4.5), target_score=3.25, split="ood", meta={"b": "é", "a": '{"x": 1}'}),
        JudgeExample("i", "q", "in", "re", reference_answer="ref", rubric=Rubric("k", (("1", "no"), ("5", "")))),
        JudgeExample("i", "q", "in", "", rubric=Rubric("k")),
        JudgeExample("i", "q", "in", "", rubric=Rubric("")),
    ],
)
def test_records_give_the_example_back(made, tmp_path):
    assert set(to_record(made)) == set(FEATURES)
    assert from_record(to_record(made)) == made
    assert examples_of(build(ListSource(made), tmp_path)) == [made]


def test_text_columns_have_64_bit_offsets():
    text_types = {str(field.type) for field in FEATURES.arrow_schema if "string" in str(field.type)}
    assert all("large_string" in kind and " string" not in kind for kind in text_types)


def test_columns_are_read_without_the_rows(tmp_path):
    store = build(ListSource(example("p1", split="val"), example("p2", question="r")), tmp_path)
    assert store.questions() == ["q", "r"]
    assert store.fixed_splits() == ["val", None]
    assert len(store) == 2


def test_rows_of_one_prompt_are_gathered_in_file_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH_EXAMPLES", 2)  # groups lie across batches
    monkeypatch.setattr(store_module, "MAPPED_ROWS", 4)
    rows = [example(f"p{n % 3}", (f"c{n}", 1.0 + n % 5), meta={"n": str(n)}) for n in range(11)]
    store = build(ListSource(*rows), tmp_path)
    made = examples_of(store)
    assert [one.prompt for one in made] == ["p0", "p1", "p2"]
    assert [[a.cot for a in one.annotations] for one in made] == [["c0", "c3", "c6", "c9"], ["c1", "c4", "c7", "c10"], ["c2", "c5", "c8"]]
    assert [a.score for a in made[0].annotations] == [1.0, 4.0, 2.0, 5.0]
    assert [one.meta for one in made] == [{"n": "0"}, {"n": "1"}, {"n": "2"}]
    assert (store.counts["rows_read"], store.counts["examples"], store.counts["annotations"]) == (11, 3, 11)


@pytest.mark.parametrize(
    "other",
    [
        example("p1", ("c", 1.0), question="r"),
        JudgeExample("x", "q", "in", "", prompt="p1", annotations=(Annotation("c", 1.0),)),
        JudgeExample("x", "q", "", "re", prompt="p1", annotations=(Annotation("c", 1.0),)),
        JudgeExample("x", "q", "", "", "ref", prompt="p1", annotations=(Annotation("c", 1.0),)),
        JudgeExample("x", "q", "", "", rubric=Rubric("k"), prompt="p1", annotations=(Annotation("c", 1.0),)),
        JudgeExample("x", "q", "", "", prompt="p2", annotations=(Annotation("c", 1.0),)),
    ],
)
def test_only_the_same_prompt_is_gathered(other, tmp_path):
    assert examples_of(build(ListSource(example("p1", ("c", 1.0)), other), tmp_path)) == [example("p1", ("c", 1.0)), other]


@pytest.mark.parametrize("group", [True, False])
def test_duplicates_are_dropped_and_counted(group, tmp_path):
    rows = [example("p1", ("c", 1.0), ("c", 1.0), ("c", 2.0)), example("p1", ("c", 1.0)), example("p2"), example("p2")]
    store = build(ListSource(*rows), tmp_path, group=group)
    assert examples_of(store) == [example("p1", ("c", 1.0), ("c", 2.0)), example("p2")]
    assert (store.counts["duplicates_dropped"], store.counts["annotations"], store.counts["rows_read"]) == (3, 2, 4)


def test_without_grouping_each_row_stays_an_example_with_an_id_of_its_own(tmp_path):
    rows = [example("p1", ("a", 1.0)), example("p1", ("b", 2.0)), example("p1", ("c", 2.0), id="own"), example("p1", target_score=3.0)]
    made = examples_of(build(ListSource(*rows), tmp_path, group=False))
    assert [one.annotations for one in made] == [one.annotations for one in rows]
    assert (made[0].id, made[2].id) == ("q-p1", "own")
    assert made[1].id.startswith("q-p1-")
    assert len({one.id for one in made}) == 4


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (example("p2", id="q-p1"), r"list:2: id: 'q-p1' stands for other content in an earlier row"),
        (
            example("p1", ("c", 1.0), target_score=4.0),
            r"list:2: target_score: 4\.0 contradicts no value of an earlier row with the same prompt",
        ),
        (example("p1", ("c", 1.0), split="val"), r"list:2: split: val contradicts None"),
        (ValueError("score: bad"), r"list:2: score: bad \(set data\.on_bad_row=skip to leave such rows out\)"),
        (RowProblem("not JSON: x", "{"), r"list:2: not JSON: x \(set"),
    ],
)
def test_bad_rows_raise_or_are_skipped(second, reason, tmp_path):
    source = ListSource(example("p1"), second, example("p3"))
    with pytest.raises(DataError, match=reason):
        build(source, tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays behind
    store = build(source, tmp_path, on_bad_row="skip")
    assert [one.prompt for one in examples_of(store)] == ["p1", "p3"]
    assert store.counts["rows_rejected"] == 1
    assert store.rejected[0]["place"] == "list:2"


def test_rejected_rows_are_listed(tmp_path):
    class Dicts(ListSource):
        def to_example(self, row, grid):
            if "bad" in row.data:
                raise ValueError(row.data["bad"])
            return example()

    rows = [{"x": 1}, {"bad": "score: 7", "x": "\ud800" + "y" * 500}, {"bad": "score: 8"}, {"bad": "cot: empty", "x": {1}}]
    store = build(Dicts(*rows, RowProblem("not JSON: x", "{oops")), tmp_path, on_bad_row="skip")
    assert store.counts["rows_read"] == 5
    assert store.counts["rejected_by_reason"] == {"cot": 1, "not JSON": 1, "score": 2}
    lines = [json.loads(line) for line in (store.folder / "rejected.jsonl").read_text(encoding="ascii").splitlines()]
    assert lines == store.rejected
    assert [line["place"] for line in lines] == ["list:2", "list:3", "list:4", "list:5"]
    assert [(line["file"], line["line"]) for line in lines] == [("list", 2), ("list", 3), ("list", 4), ("list", 5)]
    assert [line["reason"] for line in lines] == ["score: 7", "score: 8", "cot: empty", "not JSON: x"]
    assert len(lines[0]["row"]) == 200
    assert lines[1]["row"] == '{"bad": "score: 8"}'
    assert lines[3]["row"] == "{oops"
    assert json.loads((store.folder / "store.json").read_text())["counts"] == store.counts


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.csv:17", {"file": "a.csv", "line": 17}),
        ("sub/a:1[2].jsonl:3", {"file": "sub/a:1[2].jsonl", "line": 3}),
        ("a.parquet[0]", {"file": "a.parquet", "row_index": 0}),
        ("someone/feedback[train][5]", {"file": "someone/feedback[train]", "row_index": 5}),
        ("rubric_check-3-q0-r0", {}),
    ],
)
def test_a_place_in_parts(place, expected):
    assert RawRow(place, None).location() == expected


def test_a_rejected_row_is_not_written_out_for_its_beginning(tmp_path):
    class Refusing(ListSource):
        def to_example(self, row, grid):
            if row.data == "good":
                return example()
            raise ValueError("x: bad")

    class Unwritable:
        def __repr__(self):
            raise AssertionError("is behind what is shown")

    rows = [["y" * 300, Unwritable()], {b"key": 10**5000}, [[[]] * 50, Unwritable()], 10**5000]
    store = build(Refusing("good", *rows), tmp_path, on_bad_row="skip")
    assert [entry["row"][:8] for entry in store.rejected] == ['["yyyyyy', "{b'key':", "[[[], []", "<int of "]
    assert {len(entry["row"]) <= 200 for entry in store.rejected} == {True}


def test_config_errors_are_no_row_problems(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.source: wrong$"):
        build(ListSource(example(), ConfigError("data.source: wrong")), tmp_path, on_bad_row="skip")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (ListSource(), r"data\.path: source list: no rows were found"),
        (ListSource(ValueError("a: x"), ValueError("b: y")), r"source list: all 2 rows were rejected; the first: list:1: a: x$"),
    ],
)
def test_nothing_to_use(source, match, tmp_path):
    with pytest.raises(DataError, match=match):
        build(source, tmp_path, on_bad_row="skip")


def test_unknown_policy(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.on_bad_row: 'drop' is unknown; raise or skip"):
        build(ListSource(), tmp_path, on_bad_row="drop")


def test_a_complete_store_is_used_again(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="tract.data.store")
    source = ListSource(example("p1", ("c", 1.0)))
    first, second = build(source, tmp_path / "cache"), build(source, tmp_path / "cache")
    assert source.times_read == 1
    assert (examples_of(first), first.counts, first.fingerprint) == (examples_of(second), second.counts, second.fingerprint)
    assert "1 examples from the cache" in caplog.text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"examples-{first.fingerprint[:16]}"]


def test_the_key_follows_source_grid_and_options(tmp_path):
    row = example()
    stores = [
        build(ListSource(row), tmp_path),
        build(ListSource(row, name="other"), tmp_path),
        build(ListSource(row), tmp_path, on_bad_row="skip"),
        build(ListSource(row), tmp_path, group=False),
        build(ListSource(row), tmp_path, grid=ScoreGrid(("1", "2"))),
    ]
    assert len({store.fingerprint for store in stores}) == len({store.folder for store in stores}) == 5


def break_nothing_but_the_end(path):
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("store.json", lambda path: path.unlink()),
        ("store.json", lambda path: path.write_text("{")),
        ("store.json", lambda path: path.write_text("{}")),
        ("rejected.jsonl", lambda path: path.unlink()),
        ("examples.arrow", lambda path: path.unlink()),
        ("examples.arrow", lambda path: path.write_bytes(b"")),
        ("examples.arrow", lambda path: path.write_bytes(b"no arrow at all")),
        ("examples.arrow", break_nothing_but_the_end),
    ],
)
def test_a_damaged_store_is_built_anew(name, damage, tmp_path, caplog):
    source = ListSource(example("p1", ("c", 1.0)), example("p2", ("d", 2.0)))
    folder = build(source, tmp_path).folder
    damage(folder / name)
    store = build(source, tmp_path)
    assert source.times_read == 2
    assert "is built anew" in caplog.text
    assert [one.prompt for one in examples_of(store)] == ["p1", "p2"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_store_with_fewer_rows_than_counted_is_built_anew(tmp_path):
    source = ListSource(example("p1"), example("p2"))
    folder = build(source, tmp_path).folder
    shorter = build(ListSource(example("p1"), name="short"), tmp_path).folder
    shutil.copy(shorter / "examples.arrow", folder / "examples.arrow")
    assert len(build(source, tmp_path)) == 2


def with_a_rejected_row(name="list"):
    return ListSource(example("p1"), ValueError("score: 7"), example("p2"), name=name)


def put_on_disk(descriptor):
    """What a call of ``os.fsync`` is about."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell which file is synced")
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def test_a_store_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    rename = Path.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: happened.append(put_on_disk(descriptor)))
    monkeypatch.setattr(Path, "rename", lambda path, target: happened.append("rename") or rename(path, target))
    folder = build(with_a_rejected_row(), tmp_path, on_bad_row="skip").folder
    last = len(happened) - 1 - happened[::-1].index("rename")
    (partial,) = {path.parent for path in happened[last - 4 : last - 1]}
    assert partial.name.startswith(f".{folder.name}.")
    assert set(happened[last - 4 : last - 1]) == {partial / path.name for path in folder.iterdir()}
    assert happened[last - 1] == partial
    assert happened[last + 1 :] == [tmp_path]


@pytest.mark.parametrize("name", ["rejected.jsonl", "examples.arrow", "store.json"])
def test_a_full_disk_leaves_no_store(name, tmp_path, monkeypatch):
    def full(descriptor):
        if put_on_disk(descriptor).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            build(with_a_rejected_row(), tmp_path, on_bad_row="skip")
    assert list(tmp_path.iterdir()) == []
    assert build(with_a_rejected_row(), tmp_path, on_bad_row="skip").counts["rows_rejected"] == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without space")
def test_rejected_rows_that_find_no_space_are_not_lost(tmp_path, monkeypatch):
    opened = io.open
    with monkeypatch.context() as patch:
        patch.setattr(io, "open", lambda file, *how: opened("/dev/full" if Path(file).name == "rejected.jsonl" else file, *how))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            build(with_a_rejected_row(), tmp_path, on_bad_row="skip")
    assert list(tmp_path.iterdir()) == []
    assert len(build(with_a_rejected_row(), tmp_path, on_bad_row="skip").rejected) == 1


def test_the_first_of_two_builders_wins(tmp_path):
    class Racing(ListSource):
        def rows(self):
            if self.times_read == 0:
                self.times_read = 1
                self.winner = build(ListSource(example("p1")), tmp_path)  # another process finishes meanwhile
                self.inode = (self.winner.folder / "examples.arrow").stat().st_ino
            yield from super().rows()

    source = Racing(example("p1"))
    store = build(source, tmp_path)
    assert (store.folder / "examples.arrow").stat().st_ino == source.inode
    assert [path.name for path in tmp_path.iterdir()] == [store.folder.name]


def _build_in_process(path, cache, results):
    results.put(len(build(FeedbackCollection(str(path), "train"), cache)))


def test_two_processes_at_once(fixtures, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = fixtures / "feedback_collection.jsonl"
    workers = [context.Process(target=_build_in_process, args=(path, tmp_path, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=120) for _ in workers] == [5, 5]
    for worker in workers:
        worker.join()
    assert len(list(tmp_path.iterdir())) == 1


def test_fixture_files(fixtures, tmp_path):
    store = build(FeedbackCollection(str(fixtures / "feedback_collection.jsonl"), "train"), tmp_path)
    assert [len(one.annotations) for one in examples_of(store)] == [2, 1, 1, 1, 1]
    assert store.questions() == ["1", "1", "2", "2", "3"]
    assert store.example(2).response == "Saturn, la planète aux anneaux.\n"
    benchmark = build(PrometheusEval(str(fixtures / "benchmark.json")), tmp_path)
    assert [one.target for one in examples_of(benchmark)] == [pytest.approx(13 / 3), pytest.approx(5 / 3)]
    assert benchmark.example(1).meta["human_score"] == "[1, 2]"


def test_real_feedback_file(shared_data, tmp_path):
    path = shared_data("vicuna_feedback.jsonl")
    store = build(FeedbackCollection(str(path), "train"), tmp_path)
    assert store.counts == {
        "rows_read": 960,
        "rows_rejected": 0,
        "rejected_by_reason": {},
        "examples": 320,
        "annotations": 960,
        "ratings": 0,
        "equal_rows_kept": 0,
        "duplicates_dropped": 0,
        "scores_in_cots": {"kept in passing": 19, "none found": 960},
    }
    made = examples_of(store)
    assert {len(one.annotations) for one in made} == {3}
    assert Counter(a.score for one in made for a in one.annotations) == {1.0: 12, 2.0: 41, 3.0: 80, 4.0: 489, 5.0: 338}
    assert len({one.id for one in made}) == 320
    assert len(set(store.questions())) == 80
    rows = [row.data for row in read_rows(path)]
    assert [one.prompt for one in made] == list(dict.fromkeys(row["instruction"] for row in rows))
    assert all(one.prompt.endswith("###Feedback: ") for one in made)
    cots = {row["instruction"]: [] for row in rows}
    for row in rows:
        cots[row["instruction"]].append(row["orig_feedback"])
    assert [[a.cot for a in one.annotations] for one in made] == list(cots.values())


def test_real_benchmark_file(shared_data, tmp_path):
    path = shared_data("vicuna_eval.json")
    store = build(PrometheusEval(str(path)), tmp_path)
    rows = [row.data for row in read_rows(path)]
    made = examples_of(store)
    assert [one.target for one in made] == [pytest.approx(sum(row["gpt4_score"]) / 3) for row in rows]
    assert [one.prompt for one in made] == [row["instruction"] for row in rows]
    assert [one.question_id for one in made] == [str(row["idx"]) for row in rows]
    assert len({one.id for one in made}) == 320
    assert {len(one.annotations) for one in made} == {3}
