"""Columns of CSV files that have no name, and lines that end in the delimiter, as spreadsheets and pandas write them."""

from __future__ import annotations

from io import StringIO

import pytest

from tract.common.errors import DataError
from tract.data.readers import delimited
from tract.data.readers.delimited import read_delimited
from tract.data.readers.rows import RowProblem


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


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ('question;answer;score\n"a, b";c;4,5\n', {"question": "a, b", "answer": "c", "score": "4,5"}, "with semicolons"),
        ("question\tanswer\na, b\tc\n", {"question": "a, b", "answer": "c"}, "with tabs"),
        ('"a;b"\nx;y\n', {"a;b": "x;y"}, ""),
        ("only\nx;y\n", {"only": "x;y"}, ""),
        ("a;a\n1;2\n", {"a;a": "1;2"}, ""),
        ("a,b\n1;2,3\n", {"a": "1;2", "b": "3"}, ""),
    ],
)
def test_another_delimiter_is_found_where_the_header_is_one_column(
    text: str, expected: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    delimited._warn_of_delimiter.cache_clear()
    for _ in range(2):
        ((_, found),) = read_delimited(StringIO(text, newline=""), "f.csv", ",")
        assert found == expected
    assert len(caplog.messages) == bool(said), "it is said once"
    assert said in caplog.text


@pytest.mark.parametrize(
    "content",
    ["a|b\nx,y|z\n", "sep=;\na;b\nx,y;z\n", '"sep=|"\r\na|b\r\nx,y|z\r\n', "SEP=^\na^b\n\nx,y^z\n", "sep=\t\na\tb\nx,y\tz\n"],
)
def test_bars_and_a_line_that_says_what_is_between_fields(content: str) -> None:
    assert rows(content) == [{"a": "x,y", "b": "z"}]


def test_lines_count_from_the_one_that_says_the_delimiter_and_broken_rows_cost_themselves_alone() -> None:
    found = list(read_delimited(StringIO('sep=|\na|b\n"x|y\nu|v\n', newline=""), "a.csv", ","))
    assert [number for number, _ in found] == [3, 4]
    assert isinstance(found[0][1], RowProblem)
    assert found[1][1] == {"a": "u", "b": "v"}
