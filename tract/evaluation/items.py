"""What a judge was asked about: an item of a benchmark, with its texts and what raters said of it. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """A judged item of a benchmark.

    Attributes:
        id, row: the example and its row in its store. question_id: intervals are clustered by it.
        target: true score in points. words: of the response, else of the whole prompt.
        status: "ok", "shortened" or why its prompt could not be judged ("dropped_...").
        meta: further facts, for the predictions file.
        n_raters, rater_sd: how many scores the target is made of and their sample standard deviation in points, None with fewer than two.
        instruction, response: what was asked and what is judged; empty where ``prompt`` is all that the benchmark has.
        reference_answer: an answer that deserves the best score, or None. rubric: {"criteria", "descriptions": {label: text}} or None.
        prompt: the benchmark's finished prompt, where the parts are not known apart.
        raters: {"rater", "score", "comment"} of each score; rater and comment are None where there is none.
    """

    id: str
    row: int
    question_id: str
    target: float
    words: int
    status: str
    meta: Mapping[str, str]
    n_raters: int = 0
    rater_sd: float | None = None
    instruction: str = ""
    response: str = ""
    reference_answer: str | None = None
    rubric: Mapping[str, Any] | None = None
    prompt: str | None = None
    raters: Sequence[Mapping[str, Any]] = ()
