"""The columns that grading adds to a row, and how they are read again from a graded file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tract.data.readers import fields
from tract.judge.grades import ERROR, STATUSES, Grade

PREFIX = "judge_"
# Column -> its type in Parquet. In CSV lists and maps are JSON text.
TYPES: dict[str, pa.DataType] = {
    "judge_score": pa.float64(),
    "judge_status": pa.string(),
    "judge_feedback": pa.string(),
    "judge_feedbacks": pa.list_(pa.string()),
    "judge_distribution": pa.map_(pa.string(), pa.float64()),
    "judge_low": pa.float64(),
    "judge_high": pa.float64(),
    "judge_standard_error": pa.float64(),
    "judge_score_mass": pa.float64(),
    "judge_raw_score": pa.float64(),
    "judge_shortened": pa.bool_(),
    "judge_error": pa.string(),
    "judge_thoughts": pa.list_(pa.string()),
}
COLUMNS = tuple(TYPES)


def columns_of(grade: Grade) -> dict[str, Any]:
    """Column -> value of a grade; None where there is no number."""
    low, high = grade.interval or (None, None)
    return {
        "judge_score": grade.score,
        "judge_status": grade.status,
        "judge_feedback": grade.feedback,
        "judge_feedbacks": list(grade.feedbacks),
        "judge_distribution": dict(grade.distribution),
        "judge_low": low,
        "judge_high": high,
        "judge_standard_error": grade.standard_error,
        "judge_score_mass": grade.score_mass,
        "judge_raw_score": grade.raw_score,
        "judge_shortened": grade.shortened,
        "judge_error": grade.error,
        "judge_thoughts": [cot.thoughts for cot in grade.cots] if any(cot.thoughts for cot in grade.cots) else [],
    }


def refused(reason: str) -> dict[str, Any]:
    """The columns of a row that was not given to the judge."""
    nothing = dict.fromkeys(COLUMNS)
    return {**nothing, "judge_status": ERROR, "judge_feedback": "", "judge_feedbacks": [], "judge_distribution": {},
            "judge_shortened": False, "judge_error": reason, "judge_thoughts": []}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GradedColumns:
    """What a graded file says of a row: a score in points or None, the status, and the distribution over the grid (may be empty)."""

    score: float | None
    raw_score: float | None
    status: str
    distribution: Mapping[str, float]
    interval: tuple[float, float] | None
    feedbacks: int


def reading_of(cells: Mapping[str, object]) -> GradedColumns:
    """What the added columns of a row say.

    Raises:
        ValueError: if one of them cannot be used; a score beside a status that has none included.
    """
    status = fields.text(fields.value_of(cells, "judge_status"), "judge_status")
    if status not in STATUSES:
        raise ValueError(f"judge_status: found {fields.shown(status)}; accepted are {', '.join(STATUSES)}")
    low, high = (fields.optional_number(cells.get(name), name) for name in ("judge_low", "judge_high"))
    score = fields.optional_number(fields.value_of(cells, "judge_score"), "judge_score")
    raw = fields.optional_number(cells.get("judge_raw_score"), "judge_raw_score")
    return GradedColumns(
        score,
        score if raw is None else raw,
        status,
        _distribution(cells.get("judge_distribution")),
        None if low is None or high is None else (low, high),
        len(_parsed(cells.get("judge_feedbacks"), "judge_feedbacks") or []),
    )


def record_of(cells: Mapping[str, object]) -> dict[str, Any]:
    """Column -> value of a row of a graded file, as ``columns_of`` made them, whichever format they went through.

    Raises:
        ValueError: as ``reading_of`` does.
    """
    reading_of(cells)
    return {name: _typed(cells.get(name), name, kind) for name, kind in TYPES.items()}


def _typed(value: object, name: str, kind: pa.DataType) -> Any:
    if pa.types.is_map(kind):
        return _distribution(value)
    if pa.types.is_list(kind):
        return list(_parsed(value, name) or [])
    if pa.types.is_floating(kind):
        return fields.optional_number(value, name)
    if pa.types.is_boolean(kind):
        # True and False are how pandas writes them when it saves a CSV file again.
        return bool(_parsed(value.lower() if isinstance(value, str) else value, name))
    found = fields.optional_text(value, name)
    return found or "" if name == "judge_feedback" else found


def _distribution(value: object) -> dict[str, float]:
    """As an object (JSON), as text of one (CSV) or as pairs (Parquet)."""
    found = _parsed(value, "judge_distribution")
    try:
        pairs = dict(found or {})
    except (TypeError, ValueError):
        pairs = {"": math.nan}
    numbers = {str(label): fields.number(p, "judge_distribution") for label, p in pairs.items()}
    for label, p in numbers.items():
        if p < 0:
            raise ValueError(f"judge_distribution: found {p:g} for {label}; probabilities are accepted")
    return numbers


def _parsed(value: object, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError:
        raise ValueError(f"{name}: found {fields.shown(value)}; JSON is accepted") from None
