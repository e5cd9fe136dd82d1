"""CoTs as they come out of a store: no source leaves the statement of a score in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tract.common.errors import DataError
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.data.sources.source import Source
from tract.data.store import ExampleStore, build_store
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
CUE = " So the overall score is "
# Lines (from 1) of feedback_collection_format.jsonl whose feedback states its score in other words than the cue, or not at all.
OTHER_ENDINGS = (20, 47, 49, 166, 45, 78, 188, 283, 203, 218, 223, 299, 25, 30, 31, 215, 36, 38, 260, 290)
NO_ENDING = (64, 110, 124, 275)


def build(source: Source, cache: Path, on_bad_row: str = "raise", *, group: bool = False) -> ExampleStore:
    return build_store(source, GRID, on_bad_row, group, cache, cue=CUE)


def cots(store: ExampleStore) -> list[tuple[str, float]]:
    return [(annotation.cot, annotation.score) for k in range(len(store)) for annotation in store.example(k).annotations]


def feedback_row(feedback: Any, score: Any = "4", **changes: Any) -> dict[str, Any]:
    row = {
        "instruction": "Judge: ", "orig_instruction": "Why?", "orig_response": "So.", "orig_criteria": "Right?", "orig_feedback": feedback,
        "orig_score": score,
    }  # fmt: skip
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


def sources(folder: Path, text: str, score: int) -> dict[str, Source]:
    """The same judgement as each source reads it."""
    rows = {
        "orig_feedback": feedback_row(text, score),
        "output": feedback_row(None, score, output=text),
        "gpt4_feedback": {"instruction": "Judge: ", "gpt4_score": [score], "gpt4_feedback": [text]},
        "own column": {"q": "Why?", "a": "So.", "why": text, "points": score},
    }
    for name, row in rows.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    columns = {"instruction": "q", "response": "a", "cot": "why", "score": "points"}
    feedback = {name: FeedbackCollection(str(folder / f"{name}.jsonl"), "train") for name in ("orig_feedback", "output")}
    benchmark, own = PrometheusEval(str(folder / "gpt4_feedback.jsonl")), MappedColumns(str(folder / "own column.jsonl"), columns)
    return {**feedback, "gpt4_feedback": benchmark, "own column": own}


@pytest.mark.parametrize("source", ["orig_feedback", "output", "gpt4_feedback", "own column"])
@pytest.mark.parametrize("ending", [" So the overall score is 4. [RESULT] 4", "\n\n**Final rating:** 4/5", " Thus I give it a 4."])
def test_every_source_gives_the_feedback_without_its_score(tmp_path: Path, source: str, ending: str) -> None:
    store = build(sources(tmp_path, f"Right, but short.{ending}", 4)[source], tmp_path / "cache")
    assert cots(store) == [("Right, but short.", 4.0)]
    assert sum(store.counts["scores_in_cots"].values()) == 1
    assert "none found" not in store.counts["scores_in_cots"]


@pytest.mark.parametrize("source", ["orig_feedback", "gpt4_feedback", "own column"])
@pytest.mark.parametrize("ending", [" So the overall score is 3.", "\nGrade: 2", " I would give it a 5 out of 5.", " [RESULT] 4,5"])
def test_feedback_that_states_another_score_is_a_rejected_row_with_its_place(tmp_path: Path, source: str, ending: str) -> None:
    with pytest.raises(DataError, match=rf"^{source}\.jsonl:1: score contradiction: .* the row has 4 .*correct one of them"):
        build(sources(tmp_path, f"Right, but short.{ending}", 4)[source], tmp_path / "cache")


def test_contradictions_are_listed_and_counted(tmp_path: Path) -> None:
    rows = [feedback_row(f"Text {k}. Score: {4 if k else 5}", instruction=f"Judge {k}: ") for k in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    store = build(FeedbackCollection(str(tmp_path / "a.jsonl"), "train"), tmp_path / "cache", "skip")
    assert cots(store) == [("Text 1.", 4.0), ("Text 2.", 4.0)]
    assert store.counts["rejected_by_reason"] == {"score contradiction": 1}
    assert store.rejected[0]["place"] == "a.jsonl:1"
    assert store.counts["scores_in_cots"] == {"label": 2}


def test_feedback_that_is_a_score_alone_cannot_be_learned(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(feedback_row("Score: 4")), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:1: feedback: found 'Score: 4', which states the score alone"):
        build(FeedbackCollection(str(tmp_path / "a.jsonl"), "train"), tmp_path / "cache")


def test_dropped_feedback_and_mentions_are_counted(tmp_path: Path) -> None:
    texts = ["Fine. So the overall score is 4. It is short. It is clear.", "It meets the criteria for a score of 4.", "It is right."]
    rows = [feedback_row(text, instruction=f"Judge {text}") for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    store = build(FeedbackCollection(str(tmp_path / "a.jsonl"), "train"), tmp_path / "cache")
    assert [cot for cot, _ in cots(store)] == ["Fine.", *texts[1:]]
    assert store.counts["scores_in_cots"] == {"answer cue, feedback after it dropped": 1, "kept in passing": 1, "none found": 2}


def test_another_cue_makes_another_store(tmp_path: Path) -> None:
    source = sources(tmp_path, "Right. >> Urteil 4", 4)["orig_feedback"]
    plain = build(source, tmp_path / "cache")
    cut = build_store(source, GRID, "raise", False, tmp_path / "cache", cue=" >> Urteil ")
    assert (cots(plain), cots(cut)) == ([("Right. >> Urteil 4", 4.0)], [("Right.", 4.0)])
    assert plain.fingerprint != cut.fingerprint


def test_real_rows_in_the_form_of_the_hub(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """All 320 rows; the same targets as from the rows whose feedback lacks the sentence."""
    store = build(FeedbackCollection(str(shared_data("feedback_collection_format.jsonl")), "train"), tmp_path)
    lines = [json.loads(line) for line in shared_data("vicuna_feedback.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = [(row["orig_feedback"], float(row["orig_score"])) for row in lines if row["annotation"] == 0]
    found = cots(store)
    assert len(found) == len(wanted) == 320
    different = {number for number, (a, b) in enumerate(zip(found, wanted, strict=True), start=1) if a != b}
    assert different == set()  # the other endings too
    forms = [store.example(k).annotations[0].stated for k in range(320)]
    assert {number for number, form in enumerate(forms, start=1) if form == "none found"} == set(NO_ENDING)
    assert {number for number, form in enumerate(forms, start=1) if form not in ("answer cue", "none found")} == set(OTHER_ENDINGS) - {
        203,
        218,
        223,
        299,
    }
    assert store.counts["scores_in_cots"] == {"answer cue": 300, "kept in passing": 6, "label": 4, "none found": 4, "sentence": 12}
    assert store.counts["rows_rejected"] == 0


def test_real_outputs_give_the_same_feedback_as_the_column_without_scores(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in shared_data("vicuna_feedback.jsonl").read_text(encoding="utf-8").splitlines()]
    whole = [row for row in rows if not row["stray_tail_removed"]]
    assert len(whole) == 952
    (tmp_path / "outputs.jsonl").write_text("\n".join(json.dumps({**row, "orig_feedback": None}) for row in whole), encoding="utf-8")
    found = cots(build(FeedbackCollection(str(tmp_path / "outputs.jsonl"), "train"), tmp_path / "cache"))
    assert found == [(row["orig_feedback"], float(row["orig_score"])) for row in whole]
