"""A live judge: the tiny model that has learned to write feedback and the cue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from judge_items import make_rubric_examples
from talking import TALKING

from tract import GradeRequest, Judge


@pytest.fixture(scope="session")
def judge(talking_folder: str) -> Iterator[Judge]:
    """It samples two CoTs of each response."""
    with Judge.from_pretrained(talking_folder, n_cot=2, predictor="rail", seed=3, **TALKING) as found:
        yield found


@pytest.fixture(scope="session")
def requests() -> list[GradeRequest]:
    """Requests of very different lengths."""
    return [GradeRequest(example.instruction, example.response) for example in make_rubric_examples(8)]
