"""Columns of CSV files that have no name, and lines that end in the delimiter, as spreadsheets and pandas write them."""

from __future__ import annotations

from io import StringIO

import pytest

from tract.data.delimited import read_delimited
from tract.data.rows import RowProblem
from tract.errors import DataError


def rows(content: str) -> list[object]:
    return [
        data.reason if isinstance(data, RowProblem) else data for _, data in read_delimited(StringIO(content, newline=""), "a.csv", ",")
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (",a\n0,x\n", [{"": "0", "a": "x"}]),
        ("a,\nx,\n", [{"a": "x", "": ""}]),
        (" ,a\n0,x\n", [{" ": "0", "a": "x"}]),
        ('"",a\r\n0,x\r\n', [{"": "0", "a": "x"}]),
        (",a,,\n0,x,1,\n", [{"Unnamed: 0": "0", "a": "x", "Unnamed: 2": "1", "Unnamed: 3": ""}]),
        (",a,Unnamed: 0,\n0,x,1,2\n", [{"Unnamed: 0.1": "0", "a": "x", "Unnamed: 0": "1", "Unnamed: 3": "2"}]),
        ("a,b\nx,y,\nu,v,w\n", [{"a": "x", "b": "y", "": ""}, {"a": "u", "b": "v", "": "w"}]),
        ("a,b\n\nx,y,,\n", [{"a": "x", "b": "y", "Unnamed: 2": "", "Unnamed: 3": ""}]),
        ("a,b\nx,y,\nu,v\np,q\n", [{"a": "x", "b": "y", "": ""}, {"a": "u", "b": "v", "": ""}, {"a": "p", "b": "q", "": ""}]),
        (",b\nx,y,\n", [{"Unnamed: 0": "x", "b": "y", "Unnamed: 2": ""}]),
    ],
)
def test_columns_without_a_name(content: str, expected: list[object]) -> None:
    assert rows(content) == expected


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("a,b\nx,y\nu,v,\n", [1]),  # only some lines end in the delimiter
        ("a,b\nx,y,z\n", [0]),  # a value without a column
    ],
)
def test_lines_of_other_lengths_are_problems(content: str, reasons: list[int]) -> None:
    found = rows(content)
    assert [number for number, each in enumerate(found) if isinstance(each, str)] == reasons
    assert all("number of fields" in str(found[number]) for number in reasons)


def test_names_that_stand_twice_are_refused() -> None:
    with pytest.raises(DataError, match=r"a\.csv: the first line must name each column once, found \['', 'a', 'a'\]"):
        rows(",a,a\n1,2,3\n")
