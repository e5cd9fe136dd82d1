"""Errors of rows in as few lines as there are reasons."""

from __future__ import annotations

from tract.apps.grading.failures import MOST_KINDS, SHOWN_KINDS, Failures


def counted(*errors: str) -> list[str]:
    failures = Failures()
    for error in errors:
        failures.add(error)
    return failures.lines()


def test_equal_failures_are_one_line_with_a_count() -> None:
    assert counted() == []
    assert counted(*["the server is gone"] * 40) == ["40 x the server is gone"]


def test_places_numbers_and_ids_make_no_other_failure() -> None:
    assert counted("in.jsonl:3: response: is blank", "in.jsonl:14: response: is blank", "in.parquet[7]: response: is blank") == [
        "3 x in.jsonl:3: response: is blank"
    ]
    assert counted("max_length: 1311 tokens do not fit", "max_length: 1402 tokens do not fit") == ["2 x max_length: 1311 tokens do not fit"]
    assert counted("timed out (request req_9f3ab2c45d11)", "timed out (request req_77aa01cdef02)") == [
        "2 x timed out (request req_9f3ab2c45d11)"
    ]
    assert counted("response: is blank", "instruction: is blank") == ["1 x response: is blank", "1 x instruction: is blank"]


def test_the_most_frequent_first_and_the_rest_counted() -> None:
    words = [f"reason {'abcdefghij'[n]}" for n in range(SHOWN_KINDS + 2)]
    lines = counted(*words, words[3])
    assert lines[0] == f"2 x {words[3]}"
    assert lines[-1] == "2 x other errors"
    many = ["x" * n for n in range(1, MOST_KINDS + 11)]
    assert counted(*many)[-1] == f"{len(many) - SHOWN_KINDS} x other errors"


def test_long_errors_are_one_short_line() -> None:
    (line,) = counted("first\nsecond " + "long " * 100)
    assert line.startswith("1 x first second long")
    assert len(line) < 310
