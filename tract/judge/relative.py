"""Relative grading: two responses, graded each by itself, whose expected scores are compared. Pure.

Nothing of the judge sees both responses, so neither the order in which they are shown nor which is called A can move the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tract.common.errors import DataError
from tract.judge.grades import CONFIDENCE, ERROR, OK, STATUSES, Grade
from tract.judge.requests import GradeRequest

A, B, TIE = "A", "B", "tie"
# In points: rounding moves a probability by about a millionth, and a score of a grid that ends at 10 by ten times that.
TIE_MARGIN = 1e-4


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the judge says of two responses.

    Attributes:
        winner: "A", "B" or "tie"; None where one of them has no score.
        difference: score of A minus score of B, in points; None where one of them has none.
        interval: (low, high) of the difference from the spread over the CoTs, with probability 0.9 (t with Welch's degrees of
            freedom); None with fewer than two CoTs each.
        probability_a: that a draw from A's score distribution is above one from B's, half of equal draws counted; None where one of
            them has no score or no distribution.
        status: the worse status of the two. a, b: their grades.
    """

    winner: str | None
    difference: float | None
    interval: tuple[float, float] | None
    probability_a: float | None
    status: str
    a: Grade
    b: Grade

    @property
    def feedback(self) -> str:
        """The feedback on both."""
        return f"Response A: {self.a.feedback.strip()}\n\nResponse B: {self.b.feedback.strip()}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def in_one_order(requests: Sequence[GradeRequest], begin: Callable[[GradeRequest], Future[Grade]]) -> list[Grade]:
    """The grades of requests, begun in the order of their content and the same content once, so that swapping two swaps the result."""
    by_content = sorted({request.content_id: request for request in requests}.items())
    begun = {content: begin(request) for content, request in by_content}
    return [begun[request.content_id].result() for request in requests]


def compared(a: Grade, b: Grade, tie_margin: float | None = None) -> Comparison:
    """The comparison that two grades make.

    Args:
        tie_margin: scores that differ by no more are a tie, in points; None for ``TIE_MARGIN``.

    Raises:
        DataError: if the margin is no number >= 0, or the two were graded on different scales.
    """
    margin = TIE_MARGIN if tie_margin is None else tie_margin
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < math.inf:
        raise DataError(f"tie_margin: {margin!r} is not a number of points >= 0")
    status = max((a.status, b.status), key=STATUSES.index)
    if a.score is None or b.score is None:
        return Comparison(None, None, None, None, status if status != OK else ERROR, a, b)
    scales = [set(map(float, grade.distribution)) for grade in (a, b)]
    if all(scales) and scales[0] != scales[1]:
        found = " and ".join(f"{min(scale):g} to {max(scale):g} ({len(scale)} scores)" for scale in scales)
        raise DataError(
            f"compare: the two were graded on different scales, {found}, whose points say nothing of each other; use one rubric"
        )
    difference = a.score - b.score
    winner = TIE if abs(difference) <= margin else A if difference > 0 else B
    return Comparison(winner, difference, _interval(a, b, difference), _probability_a(a, b), status, a, b)


def _interval(a: Grade, b: Grade, difference: float) -> tuple[float, float] | None:
    if a.standard_error is None or b.standard_error is None:
        return None
    from scipy.stats import t

    squares = [(grade.standard_error or 0.0) ** 2 for grade in (a, b)]
    total = sum(squares)
    if total == 0:
        return difference, difference
    counts = [sum(cot.score is not None for cot in grade.cots) for grade in (a, b)]
    freedom = total**2 / sum(square**2 / (count - 1) for square, count in zip(squares, counts, strict=True))
    width = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return difference - width, difference + width


def _probability_a(a: Grade, b: Grade) -> float | None:
    labels = sorted(set(a.distribution) | set(b.distribution), key=float)
    p, q = (np.asarray([grade.distribution.get(label, 0.0) for label in labels]) for grade in (a, b))
    if not (p.sum() and q.sum()):
        return None
    joint = np.outer(p / p.sum(), q / q.sum())
    return float(np.tril(joint, -1).sum() + np.trace(joint) / 2)
