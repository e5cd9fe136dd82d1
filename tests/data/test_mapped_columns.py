"""Own files: the same rows in every format, blank cells, raters, and columns that are not there."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tract.common.errors import ConfigError, DataError
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.store import ExampleStore, build_store
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
ALL = {
    "question_id": "qid", "instruction": "question", "response": "answer", "cot": "comment", "score": "points", "criteria": "what",
    "reference_answer": "best", "id": "key", "split": "part", "target_score": "mean", "rater": "who", "score_descriptions": {"1": "low"},
}  # fmt: skip
FULL = {"qid": "q", "question": "Name a river.", "answer": "The Loire.", "comment": "It is one.", "points": "5", "what": "Right?",
        "best": "The Rhine.", "key": "k", "part": "val", "mean": "4.5", "who": "anna", "low": "Wrong."}  # fmt: skip
OPTIONAL = ("qid", "comment", "what", "best", "key", "part", "mean", "who", "low")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows, None as the format writes nothing: a blank cell, null; a missing key where the name says so."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        kept = rows if "missing" not in path.name else [{k: v for k, v in row.items() if v is not None} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names])), path)
    else:
        blank = "  " if "blanks" in path.name else ""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([names, *([blank if row.get(name) is None else row[name] for name in names] for row in rows)])
    return path


def build(path: Path, cache: Path, columns: dict[str, Any] = ALL, *, group: bool = True, on_bad_row: str = "skip") -> ExampleStore:
    return build_store(MappedColumns(str(path), columns), GRID, on_bad_row, group, cache, cue=" So the overall score is ")


def examples(path: Path, cache: Path, columns: dict[str, Any] = ALL, **how: Any) -> list[JudgeExample]:
    store = build(path, cache, columns, **how)
    return [store.example(index) for index in range(len(store))]


def test_a_blank_cell_is_what_null_and_a_missing_key_are(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**FULL, "question": f"Name river {n}.", "key": f"k{n}", name: None} for n, name in enumerate(OPTIONAL)]
    rows.append({**dict.fromkeys(FULL), "question": "Name a lake.", "answer": "Como.", "points": "3"})
    found = {}
    for name in ("in.csv", "blanks.csv", "in.jsonl", "missing.jsonl", "in.parquet"):
        store = build(write(tmp_path / name, rows), tmp_path / name.replace(".", "_"))
        assert store.rejected == []
        found[name] = [store.example(index) for index in range(len(store))]
    assert len(found["in.jsonl"]) == len(rows)
    assert all(each == found["in.jsonl"] for each in found.values())
    last = found["in.csv"][-1]
    assert (last.rubric, last.reference_answer, last.split, last.annotations, last.target) == (None, None, None, (), 3.0)


def test_what_a_row_needs_is_refused_in_the_same_words(tmp_path: Path) -> None:
    reasons = set()
    for name in ("in.csv", "blanks.csv", "in.jsonl", "in.parquet"):
        path = write(tmp_path / name, [FULL, {**FULL, "question": None}])
        (entry,) = build(path, tmp_path / name.replace(".", "_")).rejected
        reasons.add(entry["reason"])
    assert reasons == {"question: holds no value (blank, null or NaN); text that is not empty is needed here"}


def test_what_pandas_writes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"qid": [1, None], "question": ["What is 6 times 7?", "Name a river."], "answer": [42, 41], "points": [5, None]})
    columns = {"question_id": "qid", "instruction": "question", "response": "answer", "score": "points"}
    frame.to_csv(tmp_path / "in.csv")  # an index without a name
    frame.to_csv(tmp_path / "na.csv", na_rep="NaN", index=False)
    frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "in.parquet")
    for name in ("in.csv", "na.csv", "in.jsonl", "in.parquet"):
        first, second = examples(tmp_path / name, tmp_path / name.replace(".", "_"), columns)
        assert (first.response, first.target, second.response, second.target) == ("42", 5.0, "41", None)
        assert first.question_id == ("1.0" if name.endswith("csv") else "1")  # text of a CSV file stays as it is
    assert len(second.question_id) == 16


@pytest.mark.parametrize("column", ["", "Unnamed: 0"])
def test_a_column_without_a_name_can_be_mapped_or_left(column: str, tmp_path: Path) -> None:
    more = ",note," if column else ",note"
    (tmp_path / "in.csv").write_text(f"{more},question,answer,points\n7,x,{',' if column else ''}Name a river.,The Loire.,4\n")
    columns = {"instruction": "question", "response": "answer", "score": "points"}
    assert [one.target for one in examples(tmp_path / "in.csv", tmp_path / "a", columns)] == [4.0]
    assert [one.id for one in examples(tmp_path / "in.csv", tmp_path / "b", {**columns, "id": column})] == ["7"]


def test_blanks_around_the_names_of_columns_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question, answer, points\nName a river.,The Loire.,4\n")
    columns = {"instruction": "question", "response": "answer", "score": "points"}
    assert [(one.response, one.target) for one in examples(tmp_path / "in.csv", tmp_path / "a", columns)] == [("The Loire.", 4.0)]


def test_a_column_that_no_row_has_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [FULL, {**FULL, "key": "l", "answer": "x"}])
    match = r"^data\.source\.columns\.cot: no row has a column 'coment' \(did you mean 'comment'\?\); the file has \['answer', .* or null$"
    with pytest.raises(DataError, match=match):
        build(path, tmp_path / "a", {**ALL, "cot": "coment"})
    with pytest.raises(DataError, match=r"^data\.source\.columns\.score_descriptions\.5: no row has a column 'high'; the file has"):
        build(path, tmp_path / "a", {**ALL, "score_descriptions": {"5": "high"}})
    both = (
        r"columns\.target_score: no row has a column 'x'; .*columns\.rater: no row has a column 'Who ' \(did you mean 'who'\?\); the file"
    )
    with pytest.raises(DataError, match=both):
        build(path, tmp_path / "a", {**ALL, "rater": "Who ", "target_score": "x"})


def test_a_needed_column_that_is_misspelled_is_hinted_at_in_its_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [FULL])
    with pytest.raises(DataError, match=r"in\.csv:2: Answr: the row has no such column \(did you mean 'answer'\?\); it has \['answer', "):
        build(path, tmp_path / "a", {**ALL, "response": "Answr"}, on_bad_row="raise")
    with pytest.raises(DataError, match=r"^data\.source\.columns\.response: no row has a column 'Answr' \(did you mean 'answer'\?\)"):
        build(path, tmp_path / "a", {**ALL, "response": "Answr"})


RATED = [
    ("q1", "a", 5, "Good."),
    ("q1", "b", 5, "Good."),
    ("q1", "c", 2, None),
    ("q2", "a", 4, None),
    ("q2", "b", 3, None),
    ("q3", "a", 1, "No."),
]
RATED_COLUMNS = {"question_id": "qid", "instruction": "question", "response": "answer", "score": "points", "cot": "comment"}


def rated(path: Path, rows: list[tuple[str, str, int, str | None]]) -> Path:
    return write(path, [
        {"qid": qid, "question": f"Question {qid}?", "answer": "x", "rater": rater, "points": str(score), "comment": comment}
        for qid, rater, score, comment in rows
    ])  # fmt: skip


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_the_target_is_the_mean_over_all_raters(name: str, tmp_path: Path) -> None:
    path = rated(tmp_path / name, RATED)
    first, second, third = examples(path, tmp_path / "cache", RATED_COLUMNS)
    assert (first.target, first.n_raters, first.rater_sd) == (4.0, 3, pytest.approx(3**0.5))
    assert [(one.cot, one.score) for one in first.annotations] == [("Good.", 5.0), ("Good.", 5.0)]
    assert [one.score for one in first.ratings] == [2.0]
    assert (second.target, second.n_raters, second.rater_sd) == (3.5, 2, pytest.approx(0.5**0.5))
    assert (third.target, third.n_raters, third.rater_sd) == (1.0, 1, None)
    counts = build(path, tmp_path / "cache", RATED_COLUMNS).counts
    assert (counts["rows_read"], counts["annotations"], counts["ratings"]) == (6, 3, 3)
    by_rater = build(path, tmp_path / "rated", {**RATED_COLUMNS, "rater": "rater"}).scores_by_rater()
    assert by_rater == [[("a", 5.0), ("b", 5.0), ("c", 2.0)], [("a", 4.0), ("b", 3.0)]]
    assert build(path, tmp_path / "apart", RATED_COLUMNS, group=False).scores_by_rater() == []
    assert (counts["equal_rows_kept"], counts["duplicates_dropped"]) == (1, 0)


def test_true_duplicates_are_told_apart_by_the_rater(tmp_path: Path) -> None:
    path = rated(tmp_path / "in.csv", [*RATED, RATED[0], ("q2", "b", 5, None)])
    store = build(path, tmp_path / "cache", {**RATED_COLUMNS, "rater": "rater"})
    assert [store.example(index).target for index in range(3)] == [4.0, 3.5, 1.0]
    assert (store.counts["equal_rows_kept"], store.counts["duplicates_dropped"]) == (0, 1)
    assert [entry["reason"] for entry in store.rejected] == [
        "rater: 'b' gave 5 here, but 3 in an earlier row with the same prompt; keep one of them, or map data.source.columns.id "
        "(or question_id) to what tells the two items apart"
    ]
    with pytest.raises(DataError, match=r"in\.csv:9: rater: 'b' gave 5 here, but 3 in an earlier row"):
        build(path, tmp_path / "other", {**RATED_COLUMNS, "rater": "rater"}, on_bad_row="raise")


def test_a_target_of_its_own_wins_over_the_mean(tmp_path: Path) -> None:
    rows = [{"q": "a", "r": "b", "s": "5", "t": "4.5"}, {"q": "a", "r": "b", "s": "3", "t": "4.5"}]
    columns = {"instruction": "q", "response": "r", "score": "s", "target_score": "t"}
    (one,) = examples(write(tmp_path / "in.csv", rows), tmp_path / "cache", columns)
    assert (one.target, one.n_raters, one.scores) == (4.5, 2, (5.0, 3.0))
    rows[1]["t"] = "4.0"
    with pytest.raises(DataError, match=r"target_score: 4\.0 contradicts 4\.5 of an earlier row"):
        build(write(tmp_path / "in.csv", rows), tmp_path / "cache", columns, on_bad_row="raise")


def test_a_packed_file_gives_the_same_examples(tmp_path: Path) -> None:
    path = rated(tmp_path / "in.csv", RATED)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "in.ndjson").write_bytes(rated(tmp_path / "in.jsonl", RATED).read_bytes())
    found = [examples(tmp_path / name, tmp_path / "cache", RATED_COLUMNS) for name in ("in.csv", "in.csv.gz", "in.ndjson")]
    assert found[0] == found[1] == found[2]


WIDE = [
    {"question": "Q1?", "answer": "x", "anna": "5", "ben": "4", "carla": "", "anna says": "Good.", "ben says": "", "all say": "Fine."},
    {"question": "Q2?", "answer": "x", "anna": "", "ben": "2", "carla": "3", "anna says": "", "ben says": "Thin.", "all say": ""},
    {"question": "Q3?", "answer": "x", "anna": "", "ben": "", "carla": "", "anna says": "", "ben says": "", "all say": ""},
]
WIDE_COLUMNS: dict[str, Any] = {"instruction": "question", "response": "answer", "score": ["anna", "ben", "carla"]}
COMMENTS = ["anna says", "ben says", None]


def judgements(example: JudgeExample) -> list[tuple[str | None, float, str | None]]:
    annotated = [(one.rater, one.score, one.cot) for one in example.annotations]
    return [*annotated, *((one.rater, one.score, None) for one in example.ratings)]


@pytest.mark.parametrize("name", ["in.csv", "blanks.csv", "in.jsonl", "missing.jsonl", "in.parquet"])
def test_a_score_column_for_each_rater(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [{key: value or None for key, value in row.items()} for row in WIDE])
    first, second, third = examples(path, tmp_path / "cache", WIDE_COLUMNS)
    assert judgements(first) == [("anna", 5.0, None), ("ben", 4.0, None)]
    assert judgements(second) == [("ben", 2.0, None), ("carla", 3.0, None)]
    assert (first.target, second.target, third.target, judgements(third)) == (4.5, 2.5, None, [])
    assert build(path, tmp_path / "cache", WIDE_COLUMNS).counts["ratings"] == 4


def test_comments_beside_the_score_columns_are_optional_for_each_rater(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", WIDE)
    found = examples(path, tmp_path / "cache", {**WIDE_COLUMNS, "cot": COMMENTS})
    assert judgements(found[0]) == [("anna", 5.0, "Good."), ("ben", 4.0, None)]
    assert judgements(found[1]) == [("ben", 2.0, "Thin."), ("carla", 3.0, None)]
    counts = build(path, tmp_path / "cache", {**WIDE_COLUMNS, "cot": COMMENTS}).counts
    assert (counts["annotations"], counts["ratings"]) == (2, 2)


def test_a_comment_that_holds_for_each_score_is_written_for_each(tmp_path: Path) -> None:
    """Also where one of the raters gave no score."""
    (first, *_) = examples(write(tmp_path / "in.csv", WIDE), tmp_path / "cache", {**WIDE_COLUMNS, "cot": ["all say"] * 3})
    assert judgements(first) == [("anna", 5.0, "Fine."), ("ben", 4.0, "Fine.")]


def test_a_comment_of_a_rater_without_a_score_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [{**WIDE[0], "anna": ""}, WIDE[1]])
    with pytest.raises(DataError, match=r"in\.csv:2: anna: missing beside the CoT in 'anna says'; a row with a CoT needs its score"):
        build(path, tmp_path / "cache", {**WIDE_COLUMNS, "cot": COMMENTS}, on_bad_row="raise")
    store = build(path, tmp_path / "cache", {**WIDE_COLUMNS, "cot": COMMENTS})
    assert (len(store), store.counts["rejected_by_reason"]) == (1, {"anna": 1})


def test_both_shapes_of_the_same_ratings_give_the_same_examples(tmp_path: Path) -> None:
    wide = write(tmp_path / "wide.csv", WIDE[:2])
    long = write(tmp_path / "long.csv", [
        {"question": row["question"], "answer": "x", "who": who, "points": row[who], "says": row.get(f"{who} says", "")}
        for row in WIDE[:2] for who in ("anna", "ben", "carla") if row[who]
    ])  # fmt: skip
    columns = {"instruction": "question", "response": "answer", "score": "points", "cot": "says", "rater": "who"}
    assert examples(wide, tmp_path / "a", {**WIDE_COLUMNS, "cot": COMMENTS}) == examples(long, tmp_path / "b", columns)


def test_equal_scores_of_raters_with_a_column_each_are_votes(tmp_path: Path) -> None:
    store = build(write(tmp_path / "in.csv", [{**WIDE[0], "ben": "5", "carla": "5"}]), tmp_path / "cache", WIDE_COLUMNS)
    assert (store.example(0).scores, store.counts["equal_rows_kept"], store.counts["duplicates_dropped"]) == ((5.0, 5.0, 5.0), 0, 0)


def test_a_score_column_that_no_row_has_is_named_with_the_near_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", WIDE)
    with pytest.raises(DataError, match=r"columns\.score\[1\]: no row has a column 'Benn' \(did you mean 'ben'\?\); the file has"):
        build(path, tmp_path / "a", {**WIDE_COLUMNS, "score": ["anna", "Benn"]})
    with pytest.raises(DataError, match=r"columns\.cot\[0\]: no row has a column 'anna_says' \(did you mean 'anna says'\?\)"):
        build(path, tmp_path / "a", {**WIDE_COLUMNS, "cot": ["anna_says", None, None]})


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (
            {"rater": "who"},
            r"columns\.rater: 'who' is given beside a list of score columns, whose names are the raters' ids; set it",
        ),
        ({"cot": "says"}, r"does not say whose CoT it is; write a list: \[says, null, null\] for the first rater's, \[says, says, says\]"),
        (
            {"cot": ["a", "b"]},
            r"columns\.cot: found 2 columns for 3 score columns; give one for each, .* of \[anna, ben, carla\]",
        ),
        ({"score": []}, r"columns\.score: the list is empty"),
        ({"score": ["anna", None]}, r"columns\.score\[1\]: found None; the name of a column is accepted"),
        ({"score": ["anna", "anna"]}, r"columns\.score\[1\]: 'anna' is listed twice"),
        ({"cot": ["a", 3, None]}, r"columns\.cot\[1\]: found 3; the name of a column, or null, is accepted"),
        ({"score": "anna", "cot": ["a"]}, r"columns\.cot: found a list beside one score column, 'anna'; write lists for both"),
        ({"score": None, "cot": ["a"]}, r"columns\.cot: is mapped without data\.source\.columns\.score"),
        ({"response": ["a"]}, r"columns\.response: found \['a'\]; the name of a column, or null, is accepted"),
    ],
)
def test_wide_mappings_that_cannot_be_used(columns: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        MappedColumns("in.csv", {**WIDE_COLUMNS, **columns})


@pytest.mark.parametrize(("descriptions", "found"), [({True: "good"}, "is no score label"), ({"1": False}, "found False")])
def test_a_word_that_yaml_made_a_boolean_says_quote_it(descriptions: dict[object, object], found: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.source\.rubric\.descriptions\..*: {found}.*: quote it, e\.g\. 'yes'"):
        MappedColumns("x.jsonl", {"instruction": "a", "response": "b"}, {"criteria": "Is it good?", "descriptions": descriptions})


def test_the_same_reply_to_two_tickets_by_the_same_raters(tmp_path: Path) -> None:
    rows = [{"t": ticket, "q": "Hi", "a": "Hello", "who": who, "s": score} for ticket, who, score in
            (("1", "Ben", "2"), ("1", "Ann ", "3"), ("2", "Ben ", "3"), ("2", "Ann", "3"))]  # fmt: skip
    columns = {"instruction": "q", "response": "a", "rater": "who", "score": "s"}
    path = write(tmp_path / "in.csv", rows)
    store = build(path, tmp_path / "cache", {**columns, "id": "t"}, on_bad_row="raise")
    found = [store.example(index) for index in range(len(store))]
    assert [(one.id, [each.rater for each in one.ratings], one.target) for one in found] == [
        ("1", ["Ben", "Ann"], 2.5), ("2", ["Ben", "Ann"], 3.0)
    ]  # fmt: skip
    assert len(examples(path, tmp_path / "cache", {**columns, "question_id": "t"}, on_bad_row="raise")) == 2
    assert len(examples(path, tmp_path / "cache", columns, group=False, on_bad_row="raise")) == 4
    with pytest.raises(DataError, match=r"rater: 'Ben' gave 3 here, but 2 .*map data\.source\.columns\.id"):
        build(path, tmp_path / "cache", columns, on_bad_row="raise")
