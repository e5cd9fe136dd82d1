"""Counts as sentences."""

from __future__ import annotations

import pytest

from tract.common import counts
from tract.data.generated_cots.filter import REASONS
from tract.inference.judgement import FINISHES
from tract.judge.grades import OK, STATUSES


def test_every_name_that_is_counted_has_words() -> None:
    assert set(counts.ENDINGS) == set(FINISHES)
    assert set(counts.FILTERED) == set(REASONS)
    assert set(counts.GRADES) == set(STATUSES) - {OK}


def test_listed_leaves_out_zeros_and_keeps_unknown_names() -> None:
    found = {"zzz": 2, "dropped_overlong": 0, "ok": 1200}
    assert counts.listed(found, counts.EXAMPLES, "example") == "1,200 examples usable, 2 zzz"
    assert counts.listed({}, counts.EXAMPLES, "example") == ""


def test_endings_say_what_the_uncommon_ones_are() -> None:
    assert counts.listed({"end": 1, "cue": 6}, counts.ENDINGS) == (
        "6 ended at the answer cue, 1 ended the turn without the cue, which is appended to read the score"
    )


def test_splits_without_empty_ones() -> None:
    assert counts.splits({"train": 6, "val": 1, "test": 0}) == "6 train, 1 val"
    assert counts.splits({"train": 0}) == "none"


ROWS = {"rows_read": 12, "rows_rejected": 0, "rejected_by_reason": {}, "examples": 12, "annotations": 12, "ratings": 0,
        "equal_rows_kept": 0, "duplicates_dropped": 0, "scores_in_cots": {"none found": 12}}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "12 rows read, 12 examples with 12 annotations"),
        ({"rows_rejected": 1, "rejected_by_reason": {"grade": 1}, "examples": 11, "annotations": 11},
         "12 rows read, 1 left out (grade: 1), 11 examples with 11 annotations"),
        ({"ratings": 1, "equal_rows_kept": 2, "duplicates_dropped": 1},
         "12 rows read, 12 examples with 12 annotations, 1 score without a text, 2 equal rows kept as votes of other raters, "
         "1 duplicate dropped"),
    ],
)  # fmt: skip
def test_rows(changed: dict[str, object], expected: str) -> None:
    assert counts.rows({**ROWS, **changed}) == expected


def test_filtered() -> None:
    none = dict.fromkeys((f"dropped_{reason}" for reason in REASONS), 0)
    assert counts.filtered({"kept": 208, **none}) == "all 208 generated CoTs kept"
    found = {"kept": 5, **none, "dropped_truncated": 2, "dropped_empty": 1}
    assert counts.filtered(found) == "5 of 8 generated CoTs kept; left out: 2 cut off at generation.max_cot_tokens, 1 empty"
