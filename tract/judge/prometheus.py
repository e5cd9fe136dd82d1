"""Grading by the names of prometheus-eval, with its arguments and the shapes of what it returns, for those who come from there.

Scores are expectations and so need not be whole numbers. Relative grading grades each response by itself and compares the scores; where
they are the same it says "tie", which prometheus-eval cannot. What failed has None for its score, as there, and the reason for its
feedback.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from tract.common.errors import DataError
from tract.inference.sampling import Sampling
from tract.judge.grades import Grade
from tract.judge.relative import compared, in_one_order
from tract.judge.requests import GradeRequest, rubric_of
from tract.text.schema import Rubric

AnyRubric = Rubric | str | Mapping[str, Any]
# vLLM's names of what can be set for a request -> ours.
_PARAMS = {"max_tokens": "max_cot_tokens", "temperature": "temperature", "top_p": "top_p", "repetition_penalty": "repetition_penalty"}


class PrometheusMethods:
    """What ``PrometheusEval`` offers, on a judge."""

    @abstractmethod
    def submit(self, request: GradeRequest, *, sampling: Sampling | None = None) -> Future[Grade]:
        """See ``Judge``."""

    @abstractmethod
    def _sampling_with(self, changed: Mapping[str, Any]) -> Sampling | None:
        """The settings' sampling with some of it changed; None where nothing is."""

    def single_absolute_grade(
        self,
        instruction: str,
        response: str,
        rubric: AnyRubric,
        reference_answer: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> tuple[str, float | None]:
        """(feedback, score) of one response.

        Raises:
            DataError: if an argument cannot be used.
        """
        feedbacks, scores = self.absolute_grade(
            instructions=[instruction], responses=[response], rubric=[rubric], reference_answers=[reference_answer], params=params
        )
        return feedbacks[0], scores[0]

    def absolute_grade(
        self,
        *,
        instructions: Sequence[str],
        responses: Sequence[str],
        rubric: Sequence[AnyRubric] | AnyRubric,
        reference_answers: Sequence[str | None] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> tuple[list[str], list[float | None]]:
        """(feedbacks, scores) of responses; one rubric for all, or one for each.

        Raises:
            DataError: if lists differ in length or hold what cannot be graded.
        """
        requests = _requests(instructions, {"responses": responses}, rubric, reference_answers)["responses"]
        grades = self._graded(requests, params)
        return [_feedback(grade) for grade in grades], [grade.score for grade in grades]

    def single_relative_grade(
        self,
        instruction: str,
        response_A: str,  # noqa: N803 - the name there
        response_B: str,  # noqa: N803
        rubric: AnyRubric,
        reference_answer: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> tuple[str, str | None]:
        """(feedback on both, "A", "B" or "tie").

        Raises:
            DataError: if an argument cannot be used.
        """
        feedbacks, winners = self.relative_grade(
            instructions=[instruction],
            responses_A=[response_A],
            responses_B=[response_B],
            rubric=[rubric],
            reference_answers=[reference_answer],
            params=params,
        )
        return feedbacks[0], winners[0]

    def relative_grade(
        self,
        *,
        instructions: Sequence[str],
        responses_A: Sequence[str],  # noqa: N803
        responses_B: Sequence[str],  # noqa: N803
        rubric: Sequence[AnyRubric] | AnyRubric,
        reference_answers: Sequence[str | None] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> tuple[list[str], list[str | None]]:
        """(feedbacks on both, winners "A", "B" or "tie") of pairs of responses.

        Raises:
            DataError: if lists differ in length or hold what cannot be graded.
        """
        sides = _requests(instructions, {"responses_A": responses_A, "responses_B": responses_B}, rubric, reference_answers)
        both = [*sides["responses_A"], *sides["responses_B"]]
        sampling = self._sampling(params)
        grades = in_one_order(both, lambda request: self.submit(request, sampling=sampling))
        half = len(instructions)
        found = [compared(a, b) for a, b in zip(grades[:half], grades[half:], strict=True)]
        return [pair.feedback if pair.winner else f"{_feedback(pair.a)}\n\n{_feedback(pair.b)}" for pair in found], [
            pair.winner for pair in found
        ]

    def _graded(self, requests: Sequence[GradeRequest], params: Mapping[str, Any] | None) -> list[Grade]:
        sampling = self._sampling(params)
        futures = [self.submit(request, sampling=sampling) for request in requests]
        return [future.result() for future in futures]

    def _sampling(self, params: Mapping[str, Any] | None) -> Sampling | None:
        """The sampling of vLLM's parameters."""
        given = dict(params or {})
        if given.pop("best_of", 1) not in (None, 1):
            raise DataError("params.best_of: only 1 is accepted; for several CoTs of a response load the judge with n_cot=N")
        if unknown := [name for name in given if name not in _PARAMS]:
            raise DataError(f"params.{unknown[0]}: unknown; accepted are {', '.join(_PARAMS)}")
        return self._sampling_with({_PARAMS[name]: value for name, value in given.items()})


def _feedback(grade: Grade) -> str:
    return grade.feedback if grade.score is not None else f"{grade.status}: {grade.error or 'no score could be read'}"


def _requests(
    instructions: Sequence[str],
    sides: Mapping[str, Sequence[str]],
    rubric: Sequence[AnyRubric] | AnyRubric,
    reference_answers: Sequence[str | None] | None,
) -> dict[str, list[GradeRequest]]:
    """The requests of each side, checked for equal lengths."""
    count = len(instructions)
    rubrics = [rubric] * count if rubric is None or isinstance(rubric, (str, Rubric, Mapping)) else rubric
    references = [None] * count if reference_answers is None else reference_answers
    for name, given in {"instructions": instructions, **sides, "rubric": rubrics, "reference_answers": references}.items():
        if isinstance(given, str) or len(given) != count:
            found = "one text" if isinstance(given, str) else f"{len(given)}"
            raise DataError(f"{name}: found {found} for {count} instructions; one for each is accepted")
    return {
        name: [
            GradeRequest(instruction, response, rubric_of(own), reference)
            for instruction, response, own, reference in zip(instructions, responses, rubrics, references, strict=True)
        ]
        for name, responses in sides.items()
    }
