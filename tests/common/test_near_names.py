"""Names that a mistyped one may have meant."""

from __future__ import annotations

import pytest

from tract.common.near_names import did_you_mean, near_names

MODELS = ("gemma3_1b", "mistral_7b_instruct", "qwen3_0_6b", "qwen3_8b", "smollm2_packaged", "tiny")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mistrl", ["mistral_7b_instruct"]),
        ("Mistral", ["mistral_7b_instruct"]),
        ("tinny", ["tiny"]),
        ("qwen3", ["qwen3_8b", "qwen3_0_6b"]),
        ("gpt4", []),
        ("", []),
        ("b", []),
    ],
)
def test_near_names(name: str, expected: list[str]) -> None:
    assert near_names(name, MODELS) == expected


def test_at_most_so_many() -> None:
    assert len(near_names("qwen3", [f"qwen3_{size}b" for size in range(9)])) == 3
    assert near_names("qwen3", MODELS, most=1) == ["qwen3_8b"]


def test_the_words() -> None:
    assert did_you_mean("qwen3", MODELS) == " (did you mean qwen3_8b or qwen3_0_6b?)"
    assert did_you_mean("gpt4", MODELS) == did_you_mean("x", []) == ""
