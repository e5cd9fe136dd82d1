"""A judge example as a row of an Arrow file, and back."""

from __future__ import annotations

import json
from typing import Any

from datasets import Features, Value

from tract.text.schema import Annotation, JudgeExample, Rating, Rubric

# large_string has 64-bit offsets. Plain string has 32-bit ones: joining the record batches of a column (select, shuffle,
# concatenation) fails once its text passes 2 GiB, which prompts of 6 kB reach at 350k rows. It costs 4 bytes per value.
_TEXT = Value("large_string")
FEATURES = Features(
    {
        "id": _TEXT,
        "question_id": _TEXT,
        "instruction": _TEXT,
        "response": _TEXT,
        "reference_answer": _TEXT,
        "criteria": _TEXT,  # null: no rubric. Flat, because Arrow casts turn null structs into structs of nulls.
        "score_descriptions": [{"label": _TEXT, "text": _TEXT}],
        "prompt": _TEXT,
        "annotations": [{"cot": _TEXT, "score": Value("float64"), "stated": _TEXT, "rater": _TEXT}],
        "ratings": [{"score": Value("float64"), "rater": _TEXT}],
        "target_score": Value("float64"),
        "split": _TEXT,
        "meta": _TEXT,  # a JSON object: its keys differ from source to source
    }
)


def to_record(example: JudgeExample) -> dict[str, Any]:
    """The example as a row of the Arrow file; ``from_record`` gives it back."""
    rubric = example.rubric
    return {
        "id": example.id,
        "question_id": example.question_id,
        "instruction": example.instruction,
        "response": example.response,
        "reference_answer": example.reference_answer,
        "criteria": None if rubric is None else rubric.criteria,
        "score_descriptions": [] if rubric is None else [{"label": label, "text": text} for label, text in rubric.descriptions],
        "prompt": example.prompt,
        "annotations": [{"cot": one.cot, "score": one.score, "stated": one.stated, "rater": one.rater} for one in example.annotations],
        "ratings": [{"score": one.score, "rater": one.rater} for one in example.ratings],
        "target_score": example.target_score,
        "split": example.split,
        "meta": json.dumps(example.meta, sort_keys=True),
    }


def from_record(record: dict[str, Any]) -> JudgeExample:
    """The example that a row of the Arrow file holds."""
    rubric = None
    if record["criteria"] is not None:
        rubric = Rubric(record["criteria"], tuple((item["label"], item["text"]) for item in record["score_descriptions"]))
    return JudgeExample(
        id=record["id"],
        question_id=record["question_id"],
        instruction=record["instruction"],
        response=record["response"],
        reference_answer=record["reference_answer"],
        rubric=rubric,
        prompt=record["prompt"],
        annotations=tuple(Annotation(item["cot"], item["score"], item["stated"], item["rater"]) for item in record["annotations"]),
        ratings=tuple(Rating(item["score"], item["rater"]) for item in record["ratings"]),
        target_score=record["target_score"],
        split=record["split"],
        meta=json.loads(record["meta"]),
    )
