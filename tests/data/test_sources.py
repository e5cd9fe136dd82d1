import json
from decimal import Decimal

import datasets
import numpy as np
import pytest

from tract.common.errors import ConfigError, DataError
from tract.data.readers.fields import short_hash, shown
from tract.data.readers.rows import RawRow, UnreadableCell
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.text.schema import Annotation, Rubric
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
FEEDBACK_ROW = {
    "instruction": "Judge: ",
    "orig_instruction": "Q?",
    "orig_response": "A.",
    "orig_reference_answer": "Best.",
    "orig_criteria": "Is it right?",
    **{f"orig_score{n}_description": f"d{n}" for n in range(1, 6)},
    "orig_feedback": " Fine. ",
    "orig_score": "4",
    "output": " Fine.  So the overall score is 4. [RESULT] 4",
}
BENCHMARK_ROW = {"idx": 7, "instruction": "Judge: ", "gpt4_score": [4, 5], "gpt4_feedback": ["Good.", "Very good."]}
TEXT_COLUMNS = {"instruction": "q", "response": "a"}
OWN_ROW = {"q": "Q?", "a": "A.", "c": "Right.", "s": 4, "t": 3.5}


def change(row, changes):
    """The row with other values; ``...`` takes a key away."""
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


def feedback_example(changes, grid=GRID):
    return FeedbackCollection("a.jsonl", "train").to_example(RawRow("a.jsonl:1", change(FEEDBACK_ROW, changes)), grid)


def benchmark_example(changes):
    return PrometheusEval("a.json").to_example(RawRow("a.json[0]", change(BENCHMARK_ROW, changes)), GRID)


def mapped_example(columns, changes, rubric=None, grid=GRID):
    return MappedColumns("a.jsonl", columns, rubric).to_example(RawRow("a.jsonl:1", change(OWN_ROW, changes)), grid)


def test_feedback_row_arrives_verbatim():
    example = feedback_example({"category": "math", "human_score": [3, None]})
    assert example.prompt == "Judge: "
    assert (example.instruction, example.response, example.reference_answer) == ("Q?", "A.", "Best.")
    assert example.rubric == Rubric("Is it right?", tuple((str(n), f"d{n}") for n in range(1, 6)))
    assert example.annotations == (Annotation(" Fine. ", 4.0),)
    assert (example.target_score, example.split) == (None, None)
    assert example.meta == {"category": "math", "human_score": "[3, null]"}
    assert example.question_id == short_hash("Q?", length=16)
    assert example.id == f"{example.question_id}-{short_hash('Judge: ', length=12)}"


@pytest.mark.parametrize(
    ("changes", "cot", "score"),
    [
        ({"orig_score": 4}, " Fine. ", 4),
        ({"orig_score": 4.0}, " Fine. ", 4),
        ({"orig_score": Decimal("4.00")}, " Fine. ", 4),
        ({"orig_score": ...}, " Fine. ", 4),
        ({"orig_score": ""}, " Fine. ", 4),
        ({"output": ...}, " Fine. ", 4),
        ({"output": "Fine."}, " Fine. ", 4),
        ({"orig_feedback": None}, " Fine.  So the overall score is 4. [RESULT] 4", 4),
        ({"orig_feedback": ..., "orig_score": None}, " Fine.  So the overall score is 4. [RESULT] 4", 4),
        ({"orig_feedback": ..., "output": "a\n\n [RESULT] 4"}, "a\n\n [RESULT] 4", 4),
        ({"orig_feedback": ..., "output": "Fine."}, "Fine.", 4),
        ({"orig_score": ..., "output": "Fine. Score: 4/5"}, " Fine. ", 4),
        ({"orig_score": float("nan")}, " Fine. ", 4),
        ({"orig_feedback": "  ", "output": "Fine."}, "Fine.", 4),
        ({"orig_feedback": 42}, "42", 4),
    ],
)
def test_feedback_and_score_are_found(changes, cot, score):
    assert feedback_example(changes).annotations == (Annotation(cot, score),)


def test_feedback_row_without_feedback_is_a_target():
    example = feedback_example({"orig_feedback": ..., "output": None})
    assert (example.annotations, example.target_score) == ((), 4.0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"orig_score": 5}, r"^orig_score: 5 contradicts the score 4 at the end of output"),
        ({"orig_score": True}, r"^orig_score: found True; a finite number"),
        ({"orig_score": float("inf")}, r"^orig_score: found inf; a finite number"),
        ({"orig_score": 10**400}, r"^orig_score: found 1000.*\.\.\.; a finite number"),
        ({"orig_score": "four"}, r"^orig_score: found 'four'; a finite number"),
        ({"orig_score": "1_0"}, r"^orig_score: found '1_0'; a finite number"),
        ({"orig_score": "6", "output": ...}, r"^orig_score: score 6 is not on the grid \{1, 2, 3, 4, 5\}"),
        ({"orig_score": 3.5, "output": ...}, r"^orig_score: score 3\.5 is not on the grid"),
        ({"orig_score": ..., "output": "x [RESULT] 7"}, r"^output: score 7 is not on the grid"),
        ({"orig_score": "\uff14"}, r"^orig_score: found '\uff14'; a finite number"),
        ({"orig_score": Decimal("4.5"), "output": ...}, r"^orig_score: score 4\.5 is not on the grid"),
        ({"orig_score": ..., "output": "x [RESULT] \u0664"}, r"^output: found '\u0664'; a finite number"),
        ({"output": "x [RESULT] 4\u0664"}, r"^output: found '4\u0664'; a finite number"),
        ({"output": "x [RESULT] 4,000"}, r"^output: found '4,000'; a finite number"),
        ({"output": "x [RESULT] 4_0"}, r"^output: found '4_0'; a finite number"),
        ({"idx": 2.0**53}, r"^idx: found 9007199254740992\.0; an id"),
        ({"human_score": [float("nan")]}, r"^human_score: found nan; a finite number"),
        ({"human_score": [3, b"x"]}, r"^human_score: found b'x'; a finite number"),
        ({"human_score": {"a": 1}}, r"^human_score: found \{'a': 1\}; a finite number"),
        (
            {"orig_response": UnreadableCell("OverflowError: x")},
            r"^orig_response: found a cell that cannot be read \(OverflowError: x\); text",
        ),
        ({"orig_score": ..., "output": "x"}, r"^orig_score: missing, and output states no score"),
        ({"orig_score": ..., "output": ...}, r"^orig_score: missing"),
        ({"output": "x So the overall score is 4. [RESULT] 3"}, r"^output: several scores at the end"),
        ({"output": "x [RESULT] 4 [RESULT] 3"}, r"^output: several scores at the end: 4, 3; one score"),
        ({"output": "x Rating: 3/5"}, r"^orig_score: 4 contradicts the score 3 at the end of output"),
        ({"orig_feedback": {"a": 1}}, r"^orig_feedback: found \{'a': 1\}; text is accepted, or a number, true or false"),
        ({"orig_feedback": ["x"] * 99}, r"^orig_feedback: found \['x', 'x', .{30,60}\.\.\.; text is accepted"),
        ({"instruction": ...}, r"^instruction: the row has no such column \(did you mean 'orig_instruction'\?\); it has \['orig_cri"),
        ({"instruction": None}, r"^instruction: holds no value \(blank, null or NaN\); text that is not empty is needed"),
        ({"orig_response": None}, r'^orig_response: holds no value \(null or NaN\); text is needed here, "" where it is empty'),
        ({"orig_response": "a\ud800"}, r"^orig_response: not valid Unicode at character 1"),
        ({"idx": True}, r"^idx: found True; an id as text or as a whole number"),
        ({"category": [5]}, r"^category: found \[5\]; text"),
    ],
)
def test_feedback_rows_that_cannot_be_used(changes, match):
    with pytest.raises(ValueError, match=match):
        feedback_example(changes)


@pytest.mark.parametrize("idx", [7, 7.0, "7", np.int64(7), np.float64(7)])
def test_the_question_id_is_idx_where_given(idx):
    assert feedback_example({"idx": idx}).question_id == "7"


@pytest.mark.parametrize("blank", ["", "  ", None, float("nan")])
def test_a_blank_cell_of_a_feedback_row_is_no_value(blank):
    optional = ("idx", "orig_reference_answer", "orig_score3_description", "category", "response_source", "human_score", "output")
    assert feedback_example(dict.fromkeys(optional, blank)) == feedback_example(dict.fromkeys(optional, ...))


def test_a_row_that_is_no_object():
    with pytest.raises(ValueError, match=r"^not an object: found \[1\]"):
        FeedbackCollection("a.jsonl", "train").to_example(RawRow("a.jsonl:1", [1]), GRID)


def test_benchmark_row():
    example = benchmark_example({"human_score": [3]})
    assert (example.prompt, example.instruction, example.response) == ("Judge: ", "", "")
    assert example.annotations == (Annotation("Good.", 4.0), Annotation("Very good.", 5.0))
    assert (example.target_score, example.question_id, example.meta) == (4.5, "7", {"human_score": "[3]"})
    assert example.id == feedback_example({"idx": 7}).id  # the same prompt of the same question


@pytest.mark.parametrize(
    ("changes", "annotations", "target"),
    [
        ({"gpt4_feedback": ...}, 0, 4.5),
        ({"gpt4_feedback": []}, 0, 4.5),
        ({"gpt4_score": "4", "gpt4_feedback": "Good."}, 1, 4.0),
        ({**FEEDBACK_ROW, "gpt4_score": ...}, 1, 4.0),
    ],
)
def test_benchmark_variants(changes, annotations, target):
    example = benchmark_example(changes)
    assert (len(example.annotations), example.target) == (annotations, target)


def test_benchmark_row_without_idx():
    assert benchmark_example({"idx": None}).question_id == short_hash("Judge: ", length=16)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"gpt4_score": []}, r"^gpt4_score: the list is empty"),
        ({"gpt4_score": ...}, r"^gpt4_score: the row has no such column"),
        ({"gpt4_score": [4, None]}, r"^gpt4_score: found None; a finite number"),
        ({"gpt4_score": [4, 9]}, r"^gpt4_score: score 9 is not on the grid"),
        ({"gpt4_score": [4]}, r"^gpt4_feedback: 2 texts stand beside 1 scores"),
        ({"gpt4_score": " "}, r"^gpt4_score: the list is empty"),
        ({"gpt4_feedback": ["Good.", " "]}, r"^gpt4_feedback: holds no value \(blank"),
        ({"instruction": ""}, r"^instruction: holds no value \(blank"),
    ],
)
def test_benchmark_rows_that_cannot_be_used(changes, match):
    with pytest.raises(ValueError, match=match):
        benchmark_example(changes)


def test_mapped_csv(fixtures):
    columns = {"instruction": "question", "response": "answer", "cot": "comment", "score": "points", "split": "group", "id": None}
    source = MappedColumns(str(fixtures / "own_columns.csv"), columns, {"criteria": "Is it right?", "descriptions": {5: "yes", 1: "no"}})
    examples = [source.to_example(row, GRID) for row in source.rows()]
    assert [example.annotations[0].score for example in examples] == [5.0, 4.0, 1.0]
    assert [example.split for example in examples] == ["train", "train", "test"]
    assert examples[0].rubric == Rubric("Is it right?", (("1", "no"), ("5", "yes")))
    assert examples[1].annotations[0].cot == "Right, but an example\nwould help.\n"
    assert examples[1].question_id == examples[2].question_id != examples[0].question_id
    assert len({example.id for example in examples}) == 3


@pytest.mark.parametrize(
    ("columns", "changes", "annotations", "target"),
    [
        ({"cot": "c", "score": "s"}, {}, (Annotation("Right.", 4.0),), 4.0),
        ({"cot": "c", "score": "s", "target_score": "t"}, {}, (Annotation("Right.", 4.0),), 3.5),
        ({"score": "s"}, {}, (), 4.0),
        ({"cot": "c", "score": "s"}, {"c": None}, (), 4.0),
        ({"cot": "c", "score": "s"}, {"c": " "}, (), 4.0),
        ({"cot": "why", "score": "s"}, {}, (), 4.0),
        ({"score": "s"}, {"s": "NaN"}, (), None),
        ({"score": "s"}, {"s": float("nan")}, (), None),
        ({"cot": "c", "score": "s", "rater": "q"}, {}, (Annotation("Right.", 4.0, rater="Q?"),), 4.0),
        ({"score": "s", "target_score": "t"}, {}, (), 3.5),
        ({"score": "s", "target_score": "t"}, {"t": ""}, (), 4.0),
        ({}, {}, (), None),
    ],
)
def test_mapped_judgements(columns, changes, annotations, target):
    example = mapped_example({**TEXT_COLUMNS, **columns}, changes)
    assert (example.annotations, example.target) == (annotations, target)


def test_mapped_columns_of_all_kinds():
    columns = {**TEXT_COLUMNS, "prompt": "p", "reference_answer": "r", "criteria": "k", "score_descriptions": {5: "d5", "1": "d1"}}
    columns |= {"question_id": "n", "id": "i"}
    example = mapped_example(columns, {"p": "Judge: ", "r": "", "k": "Right?", "d1": "no", "d5": None, "n": 3.0, "i": "x-1", "a": ""})
    assert (example.prompt, example.response, example.reference_answer) == ("Judge: ", "", None)
    assert example.rubric == Rubric("Right?", (("1", "no"),))
    assert (example.question_id, example.id) == ("3", "x-1")
    only_prompt = mapped_example({"prompt": "p"}, {"p": "Judge: "})
    assert (only_prompt.instruction, only_prompt.response, only_prompt.rubric) == ("", "", None)
    assert only_prompt.question_id == short_hash("Judge: ", length=16)


def test_content_ids_tell_all_parts_apart():
    columns = {**TEXT_COLUMNS, "reference_answer": "r", "criteria": "k", "question_id": "n"}
    base = {"r": "R", "k": "K", "n": 1}
    changes = [{}, {"q": "x"}, {"a": "x"}, {"r": "x"}, {"k": "x"}, {"n": 2}, {"a": "A.R", "r": None}]
    assert len({mapped_example(columns, {**base, **change}).id for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("columns", "changes", "match"),
    [
        ({"cot": "c", "score": "points"}, {}, r"^points: the row has no such column; it has \['a', 'c', 'q', 's', 't'\]"),
        ({"cot": "c", "score": "s"}, {"s": None}, r"^s: missing beside the CoT in 'c'"),
        ({"cot": "c", "score": "s"}, {"s": 4.5}, r"^s: score 4\.5 is not on the grid"),
        ({"target_score": "t"}, {"t": 5.5}, r"^t: found 5\.5; a number from 1 to 5 is accepted"),
        ({"target_score": "t"}, {"t": "inf"}, r"^t: found 'inf'"),
        *(({}, {"q": blank}, r"^q: holds no value \(blank, null or NaN\); text that is not") for blank in (None, "", " ", float("nan"))),
        ({}, {"q": ...}, r"^q: the row has no such column; it has"),
        ({"instruction": ""}, {}, r"^the column '': the row has no such column"),
        *(({}, {"a": null}, r'^a: holds no value \(null or NaN\); text is needed here, ""') for null in (None, float("nan"))),
        ({}, {"a": ["x"]}, r"^a: found \['x'\]; text is accepted, or a number"),
        ({}, {"a": {"b": 1}}, r"^a: found \{'b': 1\}; text is accepted, or a number"),
        ({}, {"a": float("inf")}, r"^a: found inf; text is accepted"),
        ({}, {"a": 10**5000}, r"^a: found <int of thousands of digits>; text is accepted"),
        ({"score": "s", "rater": "t"}, {}, r"^t: found 3\.5; an id as text"),
        ({"split": "c"}, {}, r"^c: found 'Right\.'; train, val, test, ood or null"),
        ({"question_id": "t"}, {}, r"^t: found 3\.5; an id as text"),
        ({"criteria": "t"}, {"t": [3.5]}, r"^t: found \[3\.5\]; text is accepted"),
    ],
)
def test_mapped_rows_that_cannot_be_used(columns, changes, match):
    with pytest.raises(ValueError, match=match):
        mapped_example({**TEXT_COLUMNS, **columns}, changes)


@pytest.mark.parametrize(
    ("columns", "rubric", "match"),
    [
        ({"respons": "a"}, None, r"data\.source\.columns\.respons: unknown; did you mean 'response'\? accepted are instruction, response"),
        ({"zzz": "a"}, None, r"data\.source\.columns\.zzz: unknown; accepted are"),
        ({"cot": 5}, None, r"data\.source\.columns\.cot: found 5; the name of a column"),
        (
            {"response": None},
            None,
            r"data\.source\.columns: a finished prompt, or instruction and response, are required; mapped are instruc",
        ),
        ({"cot": "c"}, None, r"data\.source\.columns\.cot: is mapped without data\.source\.columns\.score"),
        ({"rater": "c"}, None, r"data\.source\.columns\.rater: is mapped without data\.source\.columns\.score"),
        ({"score_descriptions": {1: "d"}}, None, r"score_descriptions: is mapped without .*criteria"),
        ({"criteria": "k", "score_descriptions": "d"}, None, r"score_descriptions: found 'd'; a mapping of score label to column"),
        ({"criteria": "k", "score_descriptions": {"low": "d"}}, None, r"score_descriptions\.low: is no score label"),
        ({"criteria": "k", "score_descriptions": {1: 2}}, None, r"score_descriptions\.1: found 2; a column is accepted"),
        ({"criteria": "k"}, {"criteria": "K"}, r"data\.source\.rubric: is given beside data\.source\.columns\.criteria"),
        ({}, {"criteria": "K", "description": {}}, r"data\.source\.rubric\.description: unknown"),
        ({}, {"criteria": None}, r"data\.source\.rubric\.criteria: found None"),
        ({}, {"criteria": "K", "descriptions": {1: None}}, r"data\.source\.rubric\.descriptions\.1: found None; a text is accepted"),
        ({"respons": "a", "cot": 5}, None, r"respons: unknown.*; data\.source\.columns\.cot: found 5"),
    ],
)
def test_mappings_that_cannot_be_used(columns, rubric, match):
    with pytest.raises(ConfigError, match=match):
        MappedColumns("a.jsonl", {**TEXT_COLUMNS, **columns}, rubric)


@pytest.mark.parametrize("rubric", [{"criteria": "K", "descriptions": {"9": "d"}}, None])
def test_descriptions_of_scores_that_the_grid_lacks(rubric):
    columns = TEXT_COLUMNS if rubric else {**TEXT_COLUMNS, "criteria": "c", "score_descriptions": {"9": "a"}}
    with pytest.raises(ConfigError, match=r"data\.source: score descriptions are given for 9, but grid\.labels has 1, 2"):
        mapped_example(columns, {}, rubric)


@pytest.mark.parametrize(
    ("described", "labels", "hint"),
    [
        (range(1, 6), "1234", "; grid=one_to_five has the scores described$"),
        (range(1, 5), "12345", None),
        ([1, 5, 10], "12345", "; grid=one_to_ten has it$"),
        (["1.0", "2"], "123", "; write the scores as grid.labels does$"),
    ],
)
def test_a_grid_for_the_scores_described_is_named(described, labels, hint):
    rubric = {"criteria": "K", "descriptions": {str(label): "d" for label in described}}
    source, row = MappedColumns("a.jsonl", TEXT_COLUMNS, rubric), RawRow("a:1", {"q": "Q?", "a": "R"})
    if hint is None:
        assert len(source.to_example(row, ScoreGrid(tuple(labels))).rubric.descriptions) == len(described)
    else:
        with pytest.raises(ConfigError, match=hint):
            source.to_example(row, ScoreGrid(tuple(labels)))


def test_fingerprints_follow_arguments_and_content(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    other = {**TEXT_COLUMNS, "score": "s"}
    made = lambda: [  # noqa: E731
        FeedbackCollection(str(path), "train").fingerprint(),
        PrometheusEval(str(path)).fingerprint(),
        MappedColumns(str(path), TEXT_COLUMNS).fingerprint(),
        MappedColumns(str(path), other).fingerprint(),
        MappedColumns(str(path), TEXT_COLUMNS, {"criteria": "K"}).fingerprint(),
    ]
    first = made()
    assert made() == first
    path.write_text("{} \n")
    assert len({*first, *made()}) == 10


def test_hub_dataset(monkeypatch):
    asked = []

    def load(path, split):
        asked.append((path, split))
        return datasets.Dataset.from_list([FEEDBACK_ROW, FEEDBACK_ROW])

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = FeedbackCollection("someone/feedback", "train")
    rows = list(source.rows())
    assert [row.place for row in rows] == ["someone/feedback[train][0]", "someone/feedback[train][1]"]
    assert source.to_example(rows[1], GRID) == feedback_example({})
    assert source.fingerprint() == source.fingerprint() != FeedbackCollection("someone/feedback", "test").fingerprint()
    assert asked == [("someone/feedback", "train"), ("someone/feedback", "test")]
    assert source.describe() == "Feedback-Collection rows of someone/feedback (hub, split train)"


def test_hub_dataset_that_cannot_be_loaded(monkeypatch):
    def load(path, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"^data\.path: 'someone/feedback' \(split 'train'\) is neither .*: ConnectionError: no route to host$"
    ):
        FeedbackCollection("someone/feedback", "train").rows()


@pytest.mark.parametrize("path", ["./feedback", "/nowhere/feedback", "feedback.jsonl"])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(path):
    with pytest.raises(DataError, match=r"data\.path: .*feedback.* does not exist"):
        FeedbackCollection(path, "train").rows()


@pytest.mark.parametrize(
    "source", [FeedbackCollection("a.jsonl", "train"), PrometheusEval("a.jsonl"), MappedColumns("a.jsonl", TEXT_COLUMNS)]
)
def test_descriptions_name_the_path(source):
    assert source.describe().endswith("of a.jsonl")


def test_real_rows_are_the_same_whether_read_as_feedback_or_benchmark(shared_data):
    source = FeedbackCollection(str(shared_data("vicuna_feedback.jsonl")), "train")
    benchmark = PrometheusEval(str(shared_data("vicuna_eval.json")))
    ids = {source.to_example(row, GRID).id for row in source.rows()}
    assert ids == {benchmark.to_example(row, GRID).id for row in benchmark.rows()}
    assert json.dumps(sorted(ids)).isascii()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x" * 10**7, "'" + "x" * 56 + "..."),
        ("a\nb", "'a\\nb'"),
        (b"y" * 99, "b'" + "y" * 55 + "..."),
        ([1, [2, [3]]], "[1, [2, [3]]]"),
        ({"b": None}, "{'b': None}"),
        (["x"] * 10**6, "['x'" + ", 'x'" * 10 + ", '..."),
    ],
)
def test_found_values_are_shown_in_short(value, expected):
    assert shown(value) == expected
    assert len(shown(value)) <= 60


def test_mapped_columns_take_a_rubric_as_text():
    text = "Is it right?\n1: no\n5: yes"
    source = MappedColumns("x.csv", {"instruction": "q", "response": "a"}, text)
    assert source.rubric == Rubric("Is it right?", {1: "no", 5: "yes"})
    with pytest.raises(ConfigError, match="data.source.rubric: cannot tell whether '1. no' and '2. yes' are scores or a numbered list"):
        MappedColumns("x.csv", {"instruction": "q", "response": "a"}, "Is it right?\n1. no\n2. yes")
    with pytest.raises(ConfigError, match="data.source.rubric: ' ' is blank; give the text of a rubric, or null"):
        MappedColumns("x.csv", {"instruction": "q", "response": "a"}, " ")
