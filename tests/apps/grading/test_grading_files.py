"""Files of responses: each row once, in order, as it was; in every pair of formats; and what cannot be graded says why."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graders import StandIn
from grading_files import ROWS, grade, read, write

from tract.apps.grading.files import MOST_FAILURES, finish, grade_rows, plan_of
from tract.apps.grading.graded import COLUMNS, TYPES, GradedColumns, reading_of
from tract.apps.grading.journal import Journal
from tract.common.errors import DataError, GenerationError
from tract.data.readers.files import read_rows
from tract.text.schema import Rubric

STATUSES = ["ok", "ok", "error", "low_score_mass", "error", "truncated_cot"]
SCORES = [4.0, 3.0, None, None, None, 2.0]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("source", ["in.jsonl", "in.json", "in.csv", "in.tsv", "in.parquet"])
def test_every_row_once_in_order_in_every_pair_of_formats(source: str, out: str, tmp_path: Path) -> None:
    rows = ROWS if source.startswith("in.json") else [{key: value for key, value in row.items() if key != "extra"} for row in ROWS]
    summary = grade(write(tmp_path / source, rows), tmp_path / out)
    found = [reading_of(row) for row in read(tmp_path / out)]
    assert [reading.status for reading in found] == STATUSES
    assert [reading.score for reading in found] == SCORES
    assert [row["instruction"] for row in read(tmp_path / out)] == [row["instruction"] for row in rows]
    assert found[0] == GradedColumns(4.0, 4.0, "ok", {"1": 0.0, "2": 0.0, "3": 0.0, "4": 1.0, "5": 0.0}, (4.0, 4.0), 1)
    assert found[1].distribution == pytest.approx(dict.fromkeys("12345", 0.2))
    assert found[2].distribution == {}
    assert summary.statuses == {"ok": 2, "error": 2, "low_score_mass": 1, "truncated_cot": 1}
    assert [path.name for path in tmp_path.iterdir()].count(out) == 1
    assert len(list(tmp_path.iterdir())) == 2  # no journal, no temporary file


def test_lines_of_json_stay_as_they_were(tmp_path: Path) -> None:
    grade(write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl")
    for before, after in zip(ROWS, read(tmp_path / "out.jsonl"), strict=True):
        assert list(after) == [*before, *COLUMNS]
        assert {name: after[name] for name in before} == before
    first, *_, last = read(tmp_path / "out.jsonl")
    assert first["judge_feedback"] == "by nothing: “blue 4”"
    assert (first["judge_feedbacks"], first["judge_low"], first["judge_standard_error"]) == ([first["judge_feedback"]], 4.0, None)
    assert (last["judge_error"], last["judge_score_mass"], last["judge_shortened"]) == (None, 1.0, False)


def test_csv_holds_json_where_it_has_no_form_of_its_own(tmp_path: Path) -> None:
    grade(write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.csv")
    first, second, third, *_ = read(tmp_path / "out.csv")
    assert (first["extra"], second["extra"], third["extra"]) == ('[1, {"a": null}]', "text", "")
    assert (first["id"], first["part"], first["flag"]) == ("7", "0.5", "true")
    assert json.loads(first["judge_feedbacks"]) == ["by nothing: “blue 4”"]
    assert json.loads(first["judge_distribution"])["4"] == 1.0
    assert (third["judge_score"], third["judge_status"], third["judge_distribution"]) == ("", "error", "{}")
    assert third["judge_error"].startswith("in.jsonl:3: instruction: holds no value (blank")


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_odd_texts_come_back_from_every_format(out: str, tmp_path: Path) -> None:
    texts = ["a\rb", "a\r\nb", '"a"', "a,b", " a ", "\u2028\u0085", "\0", "'", "\t", "=1+1", "\\", "\ufeff1", "null"]
    grade(write(tmp_path / "in.jsonl", [{"instruction": "x", "response": text} for text in texts]), tmp_path / out)
    found = [row.data for row in read_rows(tmp_path / out)]
    assert all(isinstance(row, dict) for row in found), found
    assert [row["response"] for row in found] == texts  # type: ignore[index, call-overload]
    assert [row["judge_feedback"] for row in found] == [f"by nothing: “{text}”" for text in texts]  # type: ignore[index, call-overload]


def test_parquet_is_typed(tmp_path: Path) -> None:
    grade(write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert {name: schema.field(name).type for name in COLUMNS} == TYPES
    types = {name: str(schema.field(name).type) for name in ("instruction", "part", "flag", "id", "extra")}
    assert types == {"instruction": "string", "part": "double", "flag": "bool", "id": "string", "extra": "string"}
    assert pq.read_table(tmp_path / "out.parquet")["judge_score"].to_pylist() == SCORES


def test_parquet_columns_are_not_touched(tmp_path: Path) -> None:
    """Types that Python or JSON do not have pass through; row groups and slices by --limit included."""
    count = 2500
    table = pa.table(
        {
            "instruction": pa.array([f"Question {n}?" for n in range(count)]).dictionary_encode(),
            "response": [f"{n % 5 + 1}" for n in range(count)],
            "when": pa.array(range(count), pa.timestamp("ns")),
            "amount": pa.array([None if n % 7 else n for n in range(count)], pa.decimal128(9, 2)),
            "vector": pa.array([[n, None] for n in range(count)], pa.list_(pa.float16())),
            "nan": [float("nan")] * count,
        }
    ).replace_schema_metadata({"pandas": "{}"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=700)
    grade(tmp_path / "in.parquet", tmp_path / "out.parquet", limit=2100)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(["response", "when", "amount", "vector"]).equals(table.select(["response", "when", "amount", "vector"])[:2100])
    assert found["instruction"].to_pylist() == table["instruction"].to_pylist()[:2100]
    assert found.schema.metadata[b"pandas"] == b"{}"
    assert found["judge_score"].to_pylist() == [n % 5 + 1.0 for n in range(2100)]


def test_what_json_cannot_hold_is_null_and_counted(tmp_path: Path) -> None:
    table = pa.table(
        {
            "instruction": ["a", "b"], "response": ["1", "2"], "x": [float("nan"), float("inf")], "y": [[1.0], [float("nan")]],
            "when": [datetime.datetime(2026, 1, 2), None], "raw": [b"\0\xff", None],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "in.parquet")
    summary = grade(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    first, second = read(tmp_path / "out.jsonl")
    assert (first["x"], second["x"], second["y"]) == (None, None, [None])
    assert (first["when"], first["raw"]) == ("2026-01-02T00:00:00", "AP8=")
    assert summary.not_finite == 3
    assert "NaN or infinity in the input  3, null in the output" in "\n".join(summary.lines("1 s"))


def test_cells_that_cannot_be_read_cost_their_row_only_where_they_are_needed(tmp_path: Path) -> None:
    bad = pa.array([b"\xff", b"fine"]).cast(pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 2, bad.buffers())
    pq.write_table(pa.table({"instruction": ["a", "b"], "response": ["1", "2"], "note": bad}), tmp_path / "in.parquet")
    summary = grade(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert [row["judge_score"] for row in read(tmp_path / "out.jsonl")] == [1.0, 2.0]
    assert [row["note"] for row in read(tmp_path / "out.jsonl")] == [None, "fine"]
    assert summary.unreadable == 1


def test_lines_that_are_no_json_are_rows_with_their_place(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    # fmt: off
    lines = [
        b'{"instruction": "a", "response": "1"}', b"not json", b'{"instruction": "\\ud800", "response": "x"}', b'{"instruction": "\xff"}',
        b'["a list"]', b'{"instruction": "no response"}', b'{"instruction": "b", "response": "5", "odd": "\\ud800"}',
    ]
    # fmt: on
    source.write_bytes(b"\n".join(lines) + b"\n")
    for out in ("out.jsonl", "out.csv", "out.parquet"):
        grade(source, tmp_path / out)
        found = read(tmp_path / out)
        assert [row["judge_status"] for row in found] == ["ok", *["error"] * 5, "ok"]
        reasons = [row["judge_error"] for row in found[1:6]]
        assert reasons[0].startswith("in.jsonl:2: not JSON")
        assert reasons[1] == "in.jsonl:3: instruction: not valid Unicode at character 0; re-encode the file as UTF-8"
        assert reasons[2].startswith("in.jsonl:4: not UTF-8")
        assert reasons[3].startswith("in.jsonl:5: not an object")
        assert reasons[4].startswith("in.jsonl:6: response: the row has no such column")
    assert found[6]["odd"] == "\\ud800"


def test_rows_that_are_refused_never_reach_the_judge_and_keep_their_place(tmp_path: Path) -> None:
    """Among rows that are under way, at the end, and many at the beginning."""
    rows = [{"instruction": "", "response": "x"}] * 50 + [{"instruction": "a", "response": "1"}, {"instruction": "", "response": "y"}] * 20
    judge = StandIn(ahead=7)
    grade(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", judge)
    assert len(judge.graded) == 20
    expected = ["error"] * 50 + ["ok", "error"] * 20
    assert [row["judge_status"] for row in read(tmp_path / "out.jsonl")] == expected


def test_columns_are_mapped_and_rows_bring_their_rubrics(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"q": "a", "a": "1", "gold": "g", "what": "Right?", "low": "wrong", "high": "right", "key": 3},
        {"q": "a", "a": "2", "gold": "", "what": "", "low": "", "high": "", "key": ""},
        {"q": "a", "a": "2", "gold": "", "what": "", "low": "wrong", "high": "", "key": "x"},
    ]
    given = {"instruction": "q", "response": "a", "reference_answer": "gold", "criteria": "what", "id": "key",
             "score_descriptions.5": "high", "score_descriptions.1": "low"}  # fmt: skip
    judge = StandIn()
    grade(write(tmp_path / "in.csv", rows), tmp_path / "out.jsonl", judge, given)
    first, second = judge.graded
    assert (first.rubric, first.reference_answer, first.id) == (Rubric("Right?", (("1", "wrong"), ("5", "right"))), "g", "3")
    assert (second.rubric, second.reference_answer, second.id) == (None, None, None)
    third = read(tmp_path / "out.jsonl")[2]
    assert third["judge_error"] == "in.csv:4: what: missing beside descriptions of scores; a rubric needs its criterion"


def test_a_rubric_in_lines_of_json_and_one_for_all(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "response": "1", "criteria": "Right?", "score_descriptions": {"5": "yes", "1": "no"}}]
    source = write(tmp_path / "in.jsonl", rows)
    own, given = StandIn(), StandIn()
    grade(source, tmp_path / "own.jsonl", own)
    assert own.graded[0].rubric == Rubric("Right?", (("1", "no"), ("5", "yes")))
    grade(source, tmp_path / "given.jsonl", given, rubric=Rubric("Short?"))
    assert given.graded[0].rubric == Rubric("Short?")


def test_a_judge_that_is_gone_does_not_fill_the_file_with_errors(tmp_path: Path) -> None:
    """What failed at the end is graded again when the command goes on; with keep_going it is given its status."""
    rows = [{"instruction": "a", "response": "1"}] * 5 + [{"instruction": "a", "response": "broken"}] * MOST_FAILURES
    plan = plan_of(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", {}, None, None, overwrite=False)
    with Journal(plan.journal_path, {}) as journal:
        with pytest.raises(GenerationError, match="32 rows failed one after the other, the last with: the model failed; mend it"):
            grade_rows(plan, StandIn(), journal, lambda _: None)
        assert journal.done == 5
        judge, added = StandIn(), list[int]()
        grade_rows(plan, judge, journal, added.append, keep_going=True)
        assert (len(judge.graded), sum(added)) == (MOST_FAILURES, MOST_FAILURES)
        assert finish(plan, journal, judge.grid).statuses == {"ok": 5, "error": MOST_FAILURES}


def test_failures_among_others_do_not_end_it(tmp_path: Path) -> None:
    rows = ([{"instruction": "a", "response": "broken"}] * (MOST_FAILURES - 1) + [{"instruction": "a", "response": "1"}]) * 2
    rows += [{"instruction": "", "response": "1"}, {"instruction": "a", "response": "broken"}, {"instruction": "", "response": "1"}]
    assert grade(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl").statuses == {"ok": 2, "error": 2 * MOST_FAILURES + 1}
    assert [row["judge_score"] for row in read(tmp_path / "out.jsonl")].count(1.0) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "out.xlsx"}, r"the suffix '.xlsx' is no known format of an output; .jsonl, .ndjson, .csv, .parquet are"),
        ({"out": "nowhere/out.csv"}, "the folder .*nowhere does not exist"),
        ({"out": "in.jsonl"}, "is the input itself"),
        ({"out": "there.jsonl"}, "is there already; it is left as it is; give --overwrite"),
        ({"source": "none.jsonl"}, "does not exist; give a .jsonl"),
        ({"source": "."}, "is a folder; give a .jsonl"),
        ({"source": "empty.jsonl"}, "holds no row; there is nothing to grade"),
        ({"source": "taken.jsonl"}, "has a column 'judge_id'; names that begin with judge_"),
        ({"given": {"instruction": "instuction"}}, r"\(--columns instruction=instuction\) \(did you mean 'instruction'\?\); it has"),
        ({"given": {"instruction": "question"}}, r"has no column 'question' \(--columns instruction=question\); it has \['instruction'"),
        ({"source": "other.jsonl"}, "has no column 'instruction'; it has .*say which one it is with --columns instruction=COLUMN"),
        ({"given": {"criteria": "response"}, "rubric": Rubric("x")}, "--rubric: is given beside --columns criteria="),
    ],
)
def test_what_cannot_be_planned_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    write(tmp_path / "taken.jsonl", [{**ROWS[0], "judge_id": 1}])
    write(tmp_path / "other.jsonl", [{"question": 1}])
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "there.jsonl").write_text("")
    arguments: dict[str, Any] = {"source": "in.jsonl", "out": "out.jsonl", "given": {}, "rubric": None, **changes}
    with pytest.raises(DataError, match=message):
        plan_of(tmp_path / arguments["source"], tmp_path / arguments["out"], arguments["given"], arguments["rubric"], None, overwrite=False)


def test_an_input_that_changes_meanwhile_is_not_written_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    plan = plan_of(source, tmp_path / "out.jsonl", {}, None, None, overwrite=False)
    with Journal(plan.journal_path, {}) as journal:
        grade_rows(plan, StandIn(), journal, lambda _: None)
        write(source, ROWS[::-1])
        with pytest.raises(DataError, match="has changed while it was graded"):
            finish(plan, journal, StandIn.grid)
    assert not plan.out.exists()


def test_a_write_that_fails_leaves_journal_and_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    with monkeypatch.context() as patch:
        patch.setattr("tract.common.durable.sync_file", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            grade(source, tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl.partial"}
    judge = StandIn()
    grade(source, tmp_path / "out.jsonl", judge)
    assert judge.graded == []
