"""Cells of any format and program: which hold no value, which are text, and what an id is."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tract.data.readers import fields
from tract.data.readers.fields import (
    WrittenNumber,
    column_called,
    identifier,
    is_missing,
    optional_number,
    optional_text,
    optional_value,
    text,
)
from tract.text.score_grid import ScoreGrid

NULLS: list[Any] = [None, float("nan"), np.nan, np.float32("nan"), np.datetime64("NaT"), Decimal("NaN"), pd.NA, pd.NaT]
BLANKS = ["", " ", "\t\n", "\u00a0"]


@pytest.mark.parametrize("value", [*NULLS, *BLANKS])
def test_a_null_or_blank_cell_is_no_value(value: Any) -> None:
    assert is_missing(value)
    assert optional_text(value, "x") is None
    assert optional_number(value, "x") is None
    assert optional_value({"x": value}, "x") is None


@pytest.mark.parametrize(
    "value", ["NaN", "NA", "null", "None", "-", 0, 0.0, False, np.int64(0), np.bool_(False), [], {}, np.array([np.nan])]
)
def test_what_is_a_value_all_the_same(value: Any) -> None:
    assert not is_missing(value)
    assert optional_value({"x": value}, "x") is value


@pytest.mark.parametrize("spelled", ["NaN", "nan", "NA", "N/A", "null", "None", "<NA>", " NaT "])
def test_text_that_says_no_number_is_none_only_where_a_number_is_wanted(spelled: str) -> None:
    assert optional_number(spelled, "x") is None
    assert optional_text(spelled, "x") == spelled


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, "42"), (3.5, "3.5"), (41.0, "41.0"), (1e17, "1e+17"), (-0.0, "-0.0"), (True, "true"), (False, "false"), (np.int64(7), "7"),
        (np.float64(3.5), "3.5"), (np.bool_(True), "true"), (Decimal("3.50"), "3.50"), (WrittenNumber("3.50"), "3.50"),
        (WrittenNumber("1E2"), "1E2"), (2**70, str(2**70)), (" x ", " x "), ("", ""), ("NaN", "NaN"),
    ],
)  # fmt: skip
def test_numbers_and_booleans_are_the_text_that_json_writes(value: Any, expected: str) -> None:
    assert text(value, "x") == expected


@pytest.mark.parametrize(
    "value",
    [
        ["a"],
        {"a": 1},
        b"a",
        float("inf"),
        WrittenNumber("1e400"),
        pytest.param(10**5000, id="huge"),
        datetime.date(2026, 1, 2),
        np.array([1]),
    ],
)
def test_what_is_no_text(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x: found .*; text is accepted, or a number, true or false, which become text$"):
        text(value, "x")


@pytest.mark.parametrize("value", NULLS)
def test_null_is_no_text(value: Any) -> None:
    with pytest.raises(ValueError, match=r'^x: holds no value \(null or NaN\); text is needed here, "" where it is empty$'):
        text(value, "x")


@pytest.mark.parametrize("value", [7, 7.0, "7", np.int32(7), np.float64(7.0), WrittenNumber("7.0")])
def test_whole_numbers_are_ids(value: Any) -> None:
    assert identifier(value, "id") == "7"


@pytest.mark.parametrize("value", [7.5, True, np.bool_(True), [7], None, float("nan"), "", 1e300])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^id: found .*; an id as text or as a whole number is accepted$"):
        identifier(value, "id")


def test_an_id_that_is_text_stays_as_it_is() -> None:
    assert [identifier(value, "id") for value in ("7.0", " 7", "007")] == ["7.0", " 7", "007"]


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        ((" response", "x"), "response", " response"),
        (("response ", " response"), "response", None),
        (("response", " response"), "response", "response"),
        (("", "x"), "", ""),
        ((" ", "x"), "", " "),
        (("x",), "", None),
    ],
)
def test_blanks_around_the_name_of_a_column_do_not_count(names: tuple[str, ...], wanted: str, found: str | None) -> None:
    assert column_called(wanted, names) == found


def test_a_decimal_comma_is_told() -> None:
    with pytest.raises(ValueError, match=r"^score: found '4,5'; a finite number is accepted, with a decimal point in place of the comma$"):
        fields.number("4,5", "score")


def test_a_score_beside_the_grid_names_a_grid_that_has_it() -> None:
    with pytest.raises(ValueError, match=r"^score: score 4.5 is not on the grid .*; grid=one_to_five_halves has it$"):
        fields.on_grid(4.5, "score", ScoreGrid(("1", "2", "3", "4", "5")))
