"""The answers of several models to the same questions, from graded files: which of them pair up, and why the others do not."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tract.apps.grading.columns import columns_in
from tract.apps.grading.graded import reading_of
from tract.apps.grading.scales import Scale, normalized, scale_of, shown_scales
from tract.apps.grading.scan import first_columns
from tract.common.errors import DataError
from tract.data.readers import fields
from tract.data.readers.files import read_rows
from tract.data.readers.rows import RawRow, RowProblem
from tract.evaluation.scored import Array
from tract.judge.grades import OK

KEYS = ("id", "instruction")


@dataclass(frozen=True, slots=True)
class Answer:
    """A graded answer.

    Attributes:
        question, response: hashes; the response's is "" where the file has none. score: in points or None. status: of its grade.
        scale: where that is known.
    """

    question: str
    score: float | None
    status: str
    scale: Scale | None = None
    response: str = ""


@dataclass(frozen=True)
class GradedFile:
    """The answers of a graded file.

    Attributes:
        name: for people. rows: all of them. answers: key -> answer. left_out: why -> rows that have no answer here.
        repeats: rows that hold an answer and its grade once more, as where several people rated it; it counts once.
    """

    name: str
    rows: int
    answers: Mapping[str, Answer]
    left_out: Mapping[str, int]
    repeats: int = 0

    @property
    def scored(self) -> int:
        """Answers with a score."""
        return sum(answer.score is not None for answer in self.answers.values())

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scales of the scores, as far as they are known, in ascending order."""
        return tuple(sorted({answer.scale for answer in self.answers.values() if answer.score is not None and answer.scale}))


@dataclass(frozen=True)
class AnswerPairs:
    """The answers of two files that pair up, in the order of the first.

    Attributes:
        first, second: [n] scores in points, or from 0 to 1 where ``normalized``. questions: [n] hashes; intervals are clustered by them.
        left_out: why -> keys without a pair. not_ok: status -> how many of the paired scores have it, other than "ok".
        scales: the scales of the paired scores, of each file, as far as they are known. normalized: whether scores were.
    """

    first: Array
    second: Array
    questions: tuple[str, ...]
    left_out: Mapping[str, int]
    not_ok: Mapping[str, int]
    scales: tuple[tuple[Scale, ...], tuple[Scale, ...]] = ((), ())
    normalized: bool = False


def key_of(files: Sequence[Path], given: Mapping[str, str]) -> str:
    """What answers are paired by: "id" if every file has such a column, else "instruction"."""
    names = [first_columns(path) for path in files]
    return "id" if all(fields.column_called(given.get("id", "id"), columns) is not None for columns in names) else "instruction"


def read_graded(path: Path, key: str, given: Mapping[str, str]) -> GradedFile:
    """The answers of a graded file.

    Args:
        key: one of ``KEYS``. given: field -> column, of ``parse_columns``.

    Raises:
        DataError: if the file was not graded, lacks a column, or one of its grades cannot be used.
    """
    first = first_columns(path)
    if "judge_score" not in first or "judge_status" not in first:
        how = f"tract grade {shlex.quote(str(path))} --judge ... -o ..."
        raise DataError(f"{path}: has no columns judge_score and judge_status; grade it first: {how}")
    columns = columns_in(first, given, str(path), required=tuple(dict.fromkeys((key, "instruction"))))
    answers: dict[str, Answer | None] = {}  # None where a key stands for several answers
    times: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    rows = 0
    for row in read_rows(path):
        rows += 1
        found = _answer(row, columns.of[key], columns.of["instruction"], columns.of.get("response"))
        if isinstance(found, str):
            left_out[found] += 1
            continue
        name, answer = found
        times[name] += 1
        if answers.setdefault(name, answer) != answer or (times[name] > 1 and not answer.response):
            answers[name] = None
    repeated = sum(times[name] for name, answer in answers.items() if answer is None)
    if repeated:
        left_out[f"with a repeated {key}"] = repeated
    kept = {name: answer for name, answer in answers.items() if answer is not None}
    return GradedFile(path.name, rows, kept, dict(left_out), sum(times[name] - 1 for name in kept))


def pairs_of(first: GradedFile, second: GradedFile, names: tuple[str, str], key: str, *, normalize: bool = False) -> AnswerPairs:
    """The pairs of two files: answers with the same key, to the same question, that both have a score.

    Args:
        names: what the files are called in reasons. normalize: whether each score becomes (score - lowest) / (highest - lowest) of
            its scale; answers whose scale is not known have no pair then.

    Raises:
        DataError: if the paired scores are on several scales and are not to be normalized.
    """
    left_out: Counter[str] = Counter()
    not_ok: Counter[str] = Counter()
    kept: list[tuple[Answer, Answer]] = []
    for name, a in first.answers.items():
        b = second.answers.get(name)
        if b is None:
            left_out[f"only in {names[0]}"] += 1
        elif a.question != b.question:
            left_out[f"same {key}, another instruction"] += 1
        elif a.score is None or b.score is None:
            without = [f"{names[k]} ({each.status})" for k, each in enumerate((a, b)) if each.score is None]
            left_out[f"no score in {' and '.join(without)}"] += 1
        elif normalize and (a.scale is None or b.scale is None):
            unknown = [names[k] for k, each in enumerate((a, b)) if each.scale is None]
            left_out[f"no judge_distribution, and so no scale, in {' and '.join(unknown)}"] += 1
        else:
            kept.append((a, b))
            not_ok.update(each.status for each in (a, b) if each.status != OK)
    if alone := sum(name not in first.answers for name in second.answers):
        left_out[f"only in {names[1]}"] = alone
    scales = (_scales(a for a, _ in kept), _scales(b for _, b in kept))
    if not normalize:
        _check_one_scale(scales, names)
    scores = np.asarray([[_paired_score(each, normalize) for each in pair] for pair in kept], dtype=np.float64).reshape(-1, 2)
    questions = tuple(a.question for a, _ in kept)
    return AnswerPairs(scores[:, 0], scores[:, 1], questions, dict(left_out), dict(not_ok), scales, normalize)


def _scales(answers: Iterable[Answer]) -> tuple[Scale, ...]:
    return tuple(sorted({answer.scale for answer in answers if answer.scale is not None}))


def _paired_score(answer: Answer, normalize: bool) -> float:
    assert answer.score is not None, "pairs have scores"
    return normalized(answer.score, answer.scale) if normalize and answer.scale is not None else answer.score


def _check_one_scale(scales: tuple[tuple[Scale, ...], tuple[Scale, ...]], names: tuple[str, str]) -> None:
    """Refuses points of several scales, of which neither means nor differences say anything."""
    if len({*scales[0], *scales[1]}) <= 1:
        return
    found = " and ".join(f"{name} ({shown_scales(own)})" for name, own in zip(names, scales, strict=True))
    raise DataError(
        f"tract compare: the scores of {found} are on several scales, whose points cannot be compared; grade both with one rubric, "
        "or give --normalize for (score - lowest) / (highest - lowest) of each score's own scale"
    )


def _answer(row: RawRow, key: str, instruction: str, response: str | None) -> tuple[str, Answer] | str:
    """(key, answer) of a row, or why it has none.

    Raises:
        DataError: if its grade cannot be used.
    """
    if isinstance(row.data, RowProblem):
        return "that cannot be read"
    cells = fields.columns_of(row.data)
    try:
        reading = reading_of(cells)
    except ValueError as error:
        raise DataError(f"{row.place}: {error}; grade the file again") from None
    try:
        question = fields.short_hash(fields.filled_text(cells.get(instruction), instruction), length=16)
        name = question if key == instruction else fields.identifier(cells.get(key), key)
    except ValueError:
        return f"without {'an instruction' if key == instruction else 'an id or an instruction'}"
    answered = "" if response is None else fields.short_hash(str(cells.get(response)), length=16)
    return name, Answer(question, reading.score, reading.status, scale_of(reading.distribution), answered)
