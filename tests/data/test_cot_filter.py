"""The filter of generated CoTs: each is dropped for the first reason that holds, and counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cot_records import cot, dataset

from tract.common.errors import ConfigError
from tract.data.generated_cots.file import read_cots, write_cots
from tract.data.generated_cots.filter import CotFilter, FilterResult, filter_cots

KEEP_ALL = CotFilter(drop_truncated=False, drop_empty=False, drop_without_cue=False, keep_closest=None)
DROP_BAD = CotFilter(drop_truncated=True, drop_empty=True, drop_without_cue=True, keep_closest=None)


def test_each_cot_is_dropped_for_the_first_reason_that_holds() -> None:
    records = [
        cot(0, 0),
        cot(0, 1, "", finish="length"),
        cot(0, 2, " \n\u00a0"),
        cot(0, 3, "", finish="end"),
        cot(1, 0, "Text without tokens.", cot_ids=[]),
        cot(1, 1, "x" * 500, finish="end"),
        cot(1, 2, finish="length"),
    ]
    found = filter_cots(dataset(*records), DROP_BAD)
    assert found.reasons == [None, "truncated", "empty", "empty", "empty", "without_cue", "truncated"]
    assert found.keep.tolist() == [True, *[False] * 6]
    assert found.counts == {"kept": 1, "dropped_truncated": 2, "dropped_empty": 3, "dropped_without_cue": 1, "dropped_not_closest": 0}
    assert [(drop.id, drop.sample, drop.reason) for drop in found.examples] == [
        ("ex-0", 1, "truncated"), ("ex-1", 2, "truncated"), ("ex-0", 2, "empty"), ("ex-0", 3, "empty"), ("ex-1", 0, "empty"),
        ("ex-1", 1, "without_cue"),
    ]  # fmt: skip
    assert found.examples[-1].text == "x" * 200


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("drop_truncated", [None, "truncated", None, None]),
        ("drop_empty", [None, None, None, "empty"]),
        ("drop_without_cue", [None, "without_cue", "without_cue", None]),
    ],
)
def test_each_switch_alone(switch: str, expected: list[str | None]) -> None:
    records = dataset(cot(0, 0), cot(0, 1, finish="length"), cot(0, 2, finish="end"), cot(0, 3, " "))
    assert filter_cots(records, KEEP_ALL).reasons == [None] * 4
    policy = {"drop_truncated": False, "drop_empty": False, "drop_without_cue": False, "keep_closest": None, switch: True}
    assert filter_cots(records, CotFilter(**policy)).reasons == expected


def closest(k: int, *records: dict[str, Any]) -> FilterResult:
    return filter_cots(dataset(*records), CotFilter(drop_truncated=True, drop_empty=True, drop_without_cue=True, keep_closest=k))


def test_the_closest_of_those_that_are_left_are_kept() -> None:
    records = [
        cot(0, 0, score=2.0, score_index=1, rail=3.0),
        cot(0, 1, score=4.0, rail=4.5),
        cot(0, 2, rail=4.0, finish="end"),  # the closest, but it is dropped before
        cot(0, 3, rail=3.5),  # as close as sample 1
        cot(5, 0, rail=1.0),
        cot(7, 0, rail=float("nan")),
        cot(7, 1, rail=1.0),
    ]
    assert closest(1, *records).reasons == ["not_closest", None, "without_cue", "not_closest", None, "not_closest", None]
    two = closest(2, *records)
    assert two.reasons == ["not_closest", None, "without_cue", None, None, None, None]
    assert two.counts == {"kept": 5, "dropped_truncated": 0, "dropped_empty": 0, "dropped_without_cue": 1, "dropped_not_closest": 1}
    assert closest(9, *records).counts["kept"] == 6


def test_the_filter_agrees_with_a_plain_one() -> None:
    rng = np.random.default_rng(0)
    records = [
        cot(
            row, sample, "a" * int(rng.integers(0, 3)), finish=str(rng.choice(["cue", "end", "length"], p=[0.7, 0.1, 0.2])),
            rail=float(np.float32(rng.choice([1.0, 2.5, 3.9, 4.0, 4.5]))),
        )
        for row in range(100) for sample in range(4)
    ]  # fmt: skip
    expected: list[str | None] = []
    for row in range(100):
        mine = records[4 * row : 4 * row + 4]
        why = [
            "truncated" if r["finish"] == "length" else "empty" if not r["cot"] else "without_cue" if r["finish"] != "cue" else None
            for r in mine
        ]
        left = sorted((abs(r["rail"] - 4), k) for k, r in enumerate(mine) if why[k] is None)
        expected += [reason or (None if k in [place for _, place in left[:2]] else "not_closest") for k, reason in enumerate(why)]
    found = closest(2, *records)
    assert found.reasons == expected
    assert sum(found.counts.values()) == 400
    assert max(Counter(drop.reason for drop in found.examples).values()) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_truncated": "yes"}, "stage2.filter.drop_truncated: 'yes' is neither true nor false"),
        ({"drop_empty": None}, "stage2.filter.drop_empty: None is neither true nor false"),
        ({"drop_without_cue": 1}, "stage2.filter.drop_without_cue: 1 is neither true nor false"),
        ({"keep_closest": 0}, "stage2.filter.keep_closest: 0 is not a whole number >= 1; null keeps all"),
        ({"keep_closest": 1.5}, "stage2.filter.keep_closest: 1.5 is not a whole number"),
        ({"keep_closest": True}, "stage2.filter.keep_closest: True is not a whole number"),
    ],
)
def test_wrong_filters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CotFilter(**{**vars(KEEP_ALL), **changes})


def test_no_cots_are_filtered(tmp_path: Path) -> None:
    write_cots(tmp_path / "cots.parquet", [])
    found = filter_cots(
        read_cots(tmp_path / "cots.parquet", tmp_path),
        CotFilter(drop_truncated=True, drop_empty=True, drop_without_cue=True, keep_closest=1),
    )
    assert set(found.counts.values()) == {0}
    assert (found.keep.tolist(), found.reasons, found.examples) == ([], [], [])
