"""A judge of no model, for tests of what is done with its grades: each response says what it gets."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from tract.inference.judgement import CUE, END, LENGTH, Judgement
from tract.judge.grades import ERROR, OVER_LENGTH, Grade, failed, grade_of
from tract.judge.requests import GradeRequest
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
_FINISHES = {"no cue": END, "truncated": LENGTH}


def grade_for(request: GradeRequest) -> Grade:
    """A response that holds a digit gets it for sure; without one all scores are as likely; some words make the other statuses."""
    if "broken" in request.response:
        return failed(request.shown_id, ERROR, "the model failed")
    if "too long" in request.response:
        return failed(request.shown_id, OVER_LENGTH, "max_length: too long")
    digits = [int(char) for char in request.response if char in "12345"]
    p = [float(k == digits[0]) for k in range(1, 6)] if digits else [0.01 if "no mass" in request.response else 0.2] * 5
    if "unreadable" in request.response:
        p = [0.0] * 5
    finish = next((finish for word, finish in _FINISHES.items() if word in request.response), CUE)
    criteria = request.rubric.criteria if request.rubric else "nothing"
    judgement = Judgement("x", 0, 0, (), f"by {criteria}: “{request.response}”", finish, tuple(p), None, None)
    return grade_of(
        [judgement], GRID, " Score: ", request_id=request.shown_id, predictor="rail", least_score_mass=0.5, calibration=None
    )  # fmt: skip


class StandIn:
    """What grading needs of a judge.

    Args:
        ahead: requests that are taken before the first grade is given. end_at: the process gets ``end_by`` when so many were graded.
    """

    grid = GRID

    def __init__(self, *, fingerprint: str = "f", ahead: int = 3, end_at: int | None = None, end_by: int = signal.SIGKILL) -> None:
        self.fingerprint = fingerprint
        self.graded: list[GradeRequest] = []
        self.closed = False
        self._ahead, self._end_at, self._end_by = ahead, end_at, end_by

    def grade_stream(self, requests: Iterable[GradeRequest], *, ahead: int | None = None) -> Iterator[Grade]:
        waiting: list[GradeRequest] = []
        for request in requests:
            waiting.append(request)
            if len(waiting) > self._ahead:
                yield self._grade(waiting.pop(0))
        while waiting:
            yield self._grade(waiting.pop(0))

    def _grade(self, request: GradeRequest) -> Grade:
        if len(self.graded) == self._end_at:
            os.kill(os.getpid(), self._end_by)
        self.graded.append(request)
        return grade_for(request)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: Any) -> None:
        self.closed = True
