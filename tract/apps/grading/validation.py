"""Examples to calibrate on, from a file with true scores: graded now by a judge, or graded already."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tract.apps.grading.calibrating import Example
from tract.apps.grading.columns import Columns
from tract.apps.grading.failures import Failures
from tract.apps.grading.files import Grader
from tract.apps.grading.graded import GradedColumns, reading_of
from tract.apps.grading.scales import scale_of, shown_scale
from tract.artifacts.trained_on import response_hash
from tract.common.errors import DataError
from tract.data.readers import fields
from tract.data.readers.files import read_rows
from tract.data.readers.rows import RawRow, RowProblem
from tract.judge.grades import CotGrade, Grade
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid

Advance = Callable[[int], None]
_Graded = tuple[Grade, str, str, str]  # grade, response, question, hash of what was graded


# A field of a validation file beside those of requests: who gave the true score.
RATER = "rater"


@dataclass(frozen=True)
class Validation:
    """The examples of a file, and why its other rows are none.

    Attributes:
        examples: one for each response; its target is the mean over the raters of it. left_out: why -> rows, or responses without a score.
        ratings: true scores that the targets are made of. by_rater: whether the file says who gave them.
        failures: the errors of rows that were left out because the judge failed, or a field of theirs cannot be used.
    """

    examples: list[Example]
    left_out: Mapping[str, int]
    ratings: int
    by_rater: bool
    failures: Failures


class _Ratings:
    """The true scores of each response: rows of several raters are one example.

    Args:
        column: says who gave a score; None where every row counts as another rater.
    """

    def __init__(self, column: str | None, left_out: Counter[str]) -> None:
        self._column, self._left_out = column, left_out
        self._of: dict[str, tuple[int, float]] = {}  # response -> ratings, their sum
        self._by_rater: dict[tuple[str, str], float] = {}  # (response, rater) -> true score

    def add(self, response: str, target: float, cells: Mapping[str, object]) -> bool:
        """Whether this is the first rating of a response. A rater counts once; what the same rater says again is counted as left out."""
        found = fields.optional_value(cells, self._column)
        if found is not None:
            try:
                who = (response, fields.identifier(found, RATER))
            except ValueError:
                self._left_out["fields that cannot be used"] += 1
                return False
            if who in self._by_rater:
                again = self._by_rater[who] == target
                self._left_out["a score that its rater gave twice" if again else "a second, other score of a rater"] += 1
                return False
            self._by_rater[who] = target
        number, total = self._of.get(response, (0, 0.0))
        self._of[response] = number + 1, total + target
        return not number

    def mean(self, response: str) -> tuple[float, int]:
        """(mean in points, number) of the ratings of a response."""
        number, total = self._of[response]
        return total / number, number


class _Targets:
    """True scores of rows; rows without one are counted."""

    def __init__(self, column: str, grid: ScoreGrid) -> None:
        self.column, self._grid = column, grid
        self.left_out: Counter[str] = Counter()
        self.failures = Failures()

    def of(self, row: RawRow) -> float | None:
        """In points; None where there is none that can be used."""
        if isinstance(row.data, RowProblem):
            self.left_out["cannot be read"] += 1
            return None
        try:
            target = fields.optional_number(fields.columns_of(row.data).get(self.column), self.column)
            if target is None:
                self.left_out["no target"] += 1
                return None
            return fields.within_grid(target, self.column, self._grid)
        except ValueError:
            self.left_out["a target that is no number of the grid's range"] += 1
            return None


def graded_now(path: Path, columns: Columns, target: str, rubric: Rubric | None, judge: Grader, advance: Advance) -> Validation:
    """The examples of a file that the judge grades; it is asked for rows with a target alone.

    Args:
        target: the column of true scores. advance: is told how many grades were made.
    """
    targets = _Targets(target, judge.grid)
    ratings = _Ratings(columns.of.get(RATER), targets.left_out)
    waiting: deque[tuple[str, str, str]] = deque()

    def requests() -> Iterator[GradeRequest]:
        for row in read_rows(path):
            request, reason = columns.request_or_reason(row, rubric)
            scale = scale_of(request.rubric.labels) if request and request.rubric else None
            if scale is not None and not set(scale) <= set(judge.grid.values):
                targets.left_out[_other_scale("a rubric", scale, judge.grid)] += 1  # whose targets would be on that scale too
                continue
            if (true := targets.of(row)) is None:
                continue
            if request is None:
                targets.left_out["fields that cannot be used"] += 1
                targets.failures.add(reason)
                continue
            if ratings.add(request.content_id, true, fields.columns_of(row.data)):
                question = fields.short_hash(request.instruction, length=16)
                waiting.append((request.content_id, question, response_hash(request.instruction, request.response)))
                yield request
            else:
                advance(1)  # it has the grade of an earlier row

    graded: list[_Graded] = []
    for grade in judge.grade_stream(requests()):
        advance(1)
        response, question, content = waiting.popleft()
        if grade.score is None:
            targets.left_out[f"no score ({grade.status})"] += 1
            if grade.error:
                targets.failures.add(grade.error)
        elif set(grade.distribution) != set(judge.grid.labels):
            targets.left_out[_other_scale("a rubric", scale_of(grade.distribution) or (), judge.grid)] += 1
        else:
            graded.append((grade, response, question, content))
    return _validation(graded, ratings, targets, columns)


def graded_already(path: Path, columns: Columns, target: str, grid: ScoreGrid, method: str) -> Validation:
    """The examples of a graded file.

    Raises:
        DataError: if a grade cannot be used, was calibrated already, or ``method`` needs more than the file holds.
    """
    targets = _Targets(target, grid)
    ratings = _Ratings(columns.of.get(RATER), targets.left_out)
    instruction = columns.of["instruction"]
    graded: list[_Graded] = []
    for row in read_rows(path):
        if isinstance(row.data, RowProblem):
            targets.of(row)  # which counts it
            continue
        cells = fields.columns_of(row.data)
        reading, problem = _reading_or_problem(cells)
        scale = None if reading is None or reading.score is None else scale_of(reading.distribution)
        if scale is not None and scale != grid.values:  # so that its target would be on that scale too
            targets.left_out[_other_scale("graded", scale, grid)] += 1
            continue
        if (true := targets.of(row)) is None:
            continue
        if reading is None or (problem := _unusable(reading, grid, method)):
            raise DataError(f"{row.place}: {problem}")
        if reading.score is None:
            targets.left_out[f"no score ({reading.status})"] += 1
            continue
        try:
            asked = fields.filled_text(cells.get(instruction), instruction)
        except ValueError:
            targets.left_out["fields that cannot be used"] += 1
            continue
        response = _response_key(cells, columns, reading) or row.place
        if ratings.add(response, true, cells):
            question = fields.short_hash(asked, length=16)
            answer = fields.optional_value(cells, columns.of.get("response"))
            content = response_hash(asked, answer) if isinstance(answer, str) else ""
            graded.append((_grade_of(reading), response, question, content))
    return _validation(graded, ratings, targets, columns)


def _validation(graded: list[_Graded], ratings: _Ratings, targets: _Targets, columns: Columns) -> Validation:
    """The examples of the graded responses, now that all of their ratings are known."""
    means = [ratings.mean(response) for _, response, _, _ in graded]
    examples = [Example(grade, mean, question, content) for (grade, _, question, content), (mean, _) in zip(graded, means, strict=True)]
    ratings_used = sum(number for _, number in means)
    return Validation(examples, dict(targets.left_out), ratings_used, RATER in columns.of, targets.failures)


def _response_key(cells: Mapping[str, object], columns: Columns, reading: GradedColumns) -> str | None:
    """A hash of what was graded and of its score; None where the file does not hold the response."""
    if "response" not in columns.of:
        return None
    asked = [columns.of[field] for field in sorted(columns.of) if field not in ("id", RATER)]
    values = [str(fields.optional_value(cells, column)) for column in (*asked, *columns.descriptions.values())]
    return fields.short_hash(*values, reading.raw_score, length=32)


def _reading_or_problem(cells: Mapping[str, object]) -> tuple[GradedColumns | None, str]:
    """(what the graded columns of a row say, "") or (None, why they cannot be used)."""
    try:
        return reading_of(cells), ""
    except ValueError as error:
        return None, str(error)


def _other_scale(what: str, scale: Sequence[float], grid: ScoreGrid) -> str:
    return f"{what} on the scale {shown_scale(scale)}, not the judge's {shown_scale(grid.values)}"


def _unusable(reading: GradedColumns, grid: ScoreGrid, method: str) -> str:
    """Why a grade cannot be calibrated on; empty if it can, or has no score."""
    if reading.score is None:
        return ""
    if reading.raw_score != reading.score:
        return "judge_score: is calibrated already (judge_raw_score differs); grade without --calibrated"
    if set(reading.distribution) != set(grid.labels):
        return f"judge_distribution: holds the scores {', '.join(reading.distribution)}; the judge's are {', '.join(grid.labels)}"
    if method == "temperature" and reading.feedbacks > 1:
        return "judge_distribution: is the mean over several feedbacks, a temperature acts on each; give the file before it was graded"
    return ""


def _grade_of(reading: GradedColumns) -> Grade:
    """The grade as far as a file keeps it, as if of one CoT."""
    cot = CotGrade("", reading.score, reading.status, reading.distribution)
    return Grade(
        reading.score, reading.status, reading.distribution, "", (), reading.interval, None, None, (cot,), False, False, reading.score, ""
    )  # fmt: skip
