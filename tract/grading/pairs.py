"""The answers of several models to the same questions, from graded files: which of them pair up, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tract.data import fields
from tract.data.readers import read_rows
from tract.data.rows import Row, RowProblem
from tract.errors import DataError
from tract.evaluation.results import Array
from tract.grading.columns import columns_in
from tract.grading.graded import reading_of
from tract.judge.grades import OK

KEYS = ("id", "instruction")


@dataclass(frozen=True, slots=True)
class Answer:
    """A graded answer: hashes of its question and response ("" where the file has none), its score in points or None, its status."""

    question: str
    score: float | None
    status: str
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


@dataclass(frozen=True)
class Pairs:
    """The answers of two files that pair up, in the order of the first.

    Attributes:
        first, second: [n] scores in points. questions: [n] hashes; intervals are clustered by them.
        left_out: why -> keys without a pair. not_ok: status -> how many of the paired scores have it, other than "ok".
    """

    first: Array
    second: Array
    questions: tuple[str, ...]
    left_out: Mapping[str, int]
    not_ok: Mapping[str, int]


def key_of(files: Sequence[Path], given: Mapping[str, str]) -> str:
    """What answers are paired by: "id" if every file has such a column, else "instruction"."""
    names = [_first_columns(path) for path in files]
    return "id" if all(given.get("id", "id") in columns for columns in names) else "instruction"


def read_graded(path: Path, key: str, given: Mapping[str, str]) -> GradedFile:
    """The answers of a graded file.

    Args:
        key: one of ``KEYS``. given: field -> column, of ``parse_columns``.

    Raises:
        DataError: if the file was not graded, lacks a column, or one of its grades cannot be used.
    """
    first = _first_columns(path)
    if "judge_score" not in first or "judge_status" not in first:
        raise DataError(f"{path}: has no columns judge_score and judge_status; grade it first: tract grade {path} --judge ... -o ...")
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


def pairs_of(first: GradedFile, second: GradedFile, names: tuple[str, str], key: str) -> Pairs:
    """The pairs of two files: answers with the same key, to the same question, that both have a score.

    Args:
        names: what the files are called in reasons.
    """
    left_out: Counter[str] = Counter()
    not_ok: Counter[str] = Counter()
    kept: list[tuple[float, float, str]] = []
    for name, a in first.answers.items():
        b = second.answers.get(name)
        if b is None:
            left_out[f"only in {names[0]}"] += 1
        elif a.question != b.question:
            left_out[f"same {key}, another instruction"] += 1
        elif a.score is None or b.score is None:
            without = [f"{names[k]} ({each.status})" for k, each in enumerate((a, b)) if each.score is None]
            left_out[f"no score in {' and '.join(without)}"] += 1
        else:
            kept.append((a.score, b.score, a.question))
            not_ok.update(each.status for each in (a, b) if each.status != OK)
    if alone := sum(name not in first.answers for name in second.answers):
        left_out[f"only in {names[1]}"] = alone
    scores = np.asarray([(a, b) for a, b, _ in kept], dtype=np.float64).reshape(-1, 2)
    return Pairs(scores[:, 0], scores[:, 1], tuple(question for *_, question in kept), dict(left_out), dict(not_ok))


def _first_columns(path: Path) -> list[str]:
    """The columns of the first rows; lines of JSON need not all have the same."""
    found: dict[str, None] = {}
    for number, row in enumerate(read_rows(path)):
        if isinstance(row.data, Mapping):
            found |= dict.fromkeys(row.data)
        if number >= 255:
            break
    return list(found)


def _answer(row: Row, key: str, instruction: str, response: str | None) -> tuple[str, Answer] | str:
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
    return name, Answer(question, reading.score, reading.status, answered)
