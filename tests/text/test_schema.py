"""Rubrics as they are built in Python: what says which description belongs to which score, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tract.common.errors import DataError
from tract.text.schema import Rubric


@pytest.mark.parametrize(
    "descriptions",
    [{0: "no", 1: "yes"}, {"1": "yes", "0": "no"}, {0.0: "no", 1.0: "yes"}, [("0", "no"), ("1", "yes")], [(0, "no"), (1.0, "yes")],
     [["0", "no"], ["1", "yes"]]],
)  # fmt: skip
def test_a_mapping_or_pairs_say_which_score_is_which(descriptions: Any) -> None:
    assert Rubric("x", descriptions).descriptions == (("0", "no"), ("1", "yes"))


@pytest.mark.parametrize("nothing", [None, (), {}, []])
def test_no_descriptions_are_none(nothing: Any) -> None:
    assert Rubric("x", nothing).descriptions == ()


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        (["no", "yes"], r"rubric.descriptions\[0\]: the text 'no' names no score; \{0: \"no\", 1: \"yes\"\} or \[\(0, \"no\"\)"),
        (["ab", "cd"], r"rubric.descriptions\[0\]: the text 'ab' names no score"),  # two characters are no pair
        ([("0", "no"), "yes"], r"rubric.descriptions\[1\]: the text 'yes' names no score"),
        ([{0: "no"}, {1: "yes"}], r"rubric.descriptions\[0\]: found a dict; \{0: \"no\""),
        ([(0, "no", "x")], r"rubric.descriptions\[0\]: found a tuple of 3; "),
        ([0, 1], r"rubric.descriptions\[0\]: found a int; "),
        ([None], r"rubric.descriptions\[0\]: found a NoneType; "),
        ("0: no", "rubric.descriptions: found a str; "),
        (True, "rubric.descriptions: found a bool; "),
        (5, "rubric.descriptions: found a int; "),
        ({"a", "b"}, "rubric.descriptions: found a set; "),
        ({0: None, 1: "yes"}, "rubric.descriptions.0: found a NoneType; text is accepted"),
        ({0: 1}, "rubric.descriptions.0: found a int; text is accepted"),
        ([(0, ["no"])], "rubric.descriptions.0: found a list; text is accepted"),
        ({True: "yes"}, "rubric.descriptions: 'True' is no score"),
        ({float("nan"): "x"}, "rubric.descriptions: 'nan' is no score"),
    ],
)
def test_other_shapes_are_one_line(descriptions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        Rubric("x", descriptions)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_scores() -> None:
    expected = Rubric("x", {1: "a", 2.5: "b"})
    assert Rubric("x", [(np.int64(1), "a"), (np.float64(2.5), "b")]) == expected
    assert Rubric("x", {np.int64(1): "a", np.float32(2.5): "b"}) == expected
