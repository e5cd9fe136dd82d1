"""Rows in the schema of the Feedback Collection, from local files or the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

from tract.common.errors import DataError
from tract.data.readers import fields
from tract.data.readers.files import local_fingerprint, read_rows
from tract.data.readers.formats import format_of
from tract.data.readers.rows import RawRow
from tract.text.cot_extraction import extract_cot
from tract.text.schema import Annotation, JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid
from tract.text.score_statement import number_of

# Raise it when rows give different examples than before: cached examples are then rebuilt. For ``PrometheusEval`` too.
SOURCE_VERSION = 5


class FeedbackCollection:
    """Rows in the schema of the Feedback Collection: a finished prompt, its parts as ``orig_...`` columns, feedback and score.

    Args:
        path: a local file or folder, or the id of a data set on the Hugging Face hub.
        split: the split to load from the hub, e.g. "train"; a local path has none.
    """

    def __init__(self, path: str, split: str) -> None:
        self.path = path
        self.split = split
        self._is_local = Path(path).exists() or path.startswith((".", "/")) or format_of(Path(path)) is not None

    def rows(self) -> Iterator[RawRow]:
        """The rows of the files, or of the hub's data set.

        Raises:
            DataError: if there is nothing that can be read at ``path``.
        """
        if self._is_local:
            return read_rows(self.path)
        return (RawRow(place=f"{self.path}[{self.split}][{index}]", data=data) for index, data in enumerate(self._hub_dataset))

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row; its single annotation is ``orig_feedback``, or ``output`` where there is none.

        Raises:
            ValueError: if the row cannot be used.
        """
        return example_of_row(fields.columns_of(row.data), grid)

    def fingerprint(self) -> str:
        """Changes with the content of the files, or with the hub's data set."""
        if self._is_local:
            return local_fingerprint(self.path, type(self).__name__, SOURCE_VERSION)
        return fields.short_hash(type(self).__name__, SOURCE_VERSION, self.path, self.split, self._hub_dataset._fingerprint, length=64)

    def describe(self) -> str:
        """The source in a few words."""
        return f"Feedback-Collection rows of {self.path}" + ("" if self._is_local else f" (hub, split {self.split})")

    @cached_property
    def _hub_dataset(self) -> Any:  # datasets.Dataset, which mypy does not follow
        try:
            return datasets.load_dataset(self.path, split=self.split)
        except Exception as error:  # the hub client raises its own, urllib's, fsspec's and plain errors
            reason = " ".join(str(error).split())
            raise DataError(
                f"data.path: {self.path!r} (split {self.split!r}) is neither a local file or folder nor a data set that can be "
                f"loaded from the Hugging Face hub: {type(error).__name__}: {reason}"
            ) from error


def example_of_row(columns: Mapping[str, object], grid: ScoreGrid) -> JudgeExample:
    """The example of a row with ``orig_...`` columns, which rows of the Feedback Bench have too.

    Args:
        columns: column -> value. grid: the scores that are accepted.

    Raises:
        ValueError: if the row cannot be used; the message begins with the column.
    """
    prompt = fields.filled_text(fields.value_of(columns, "instruction"), "instruction")
    instruction = fields.filled_text(fields.value_of(columns, "orig_instruction"), "orig_instruction")
    response = fields.text(fields.value_of(columns, "orig_response"), "orig_response")
    reference = fields.optional_text(columns.get("orig_reference_answer"), "orig_reference_answer")
    levels = [(str(n), f"orig_score{n}_description") for n in range(1, 6)]
    described = ((label, fields.optional_text(columns.get(name), name)) for label, name in levels)
    rubric = Rubric(
        criteria=fields.filled_text(fields.value_of(columns, "orig_criteria"), "orig_criteria"),
        descriptions=tuple((label, text) for label, text in described if text is not None),
    )
    score, cot = _score_and_feedback(columns, grid)
    question_id = question_id_of(columns, instruction)
    return JudgeExample(
        id=fields.content_id(question_id, prompt, instruction, response, reference, rubric),
        question_id=question_id,
        instruction=instruction,
        response=response,
        reference_answer=reference,
        rubric=rubric,
        prompt=prompt,
        annotations=() if cot is None else (Annotation(cot, score),),
        target_score=score if cot is None else None,
        meta=meta_of(columns),
    )


def _score_and_feedback(columns: Mapping[str, object], grid: ScoreGrid) -> tuple[float, str | None]:
    """The score, and the feedback if the row has one: ``orig_feedback``, else ``output``, which states the score at its end."""
    output = fields.optional_text(columns.get("output"), "output")
    stated = None if output is None else _stated_score(output)
    score = fields.optional_number(columns.get("orig_score"), "orig_score")
    if score is None and stated is None:
        raise ValueError("orig_score: missing, and output states no score; a score in one of them is accepted")
    if score is not None and stated is not None and score != stated:
        raise ValueError(f"orig_score: {score:g} contradicts the score {stated:g} at the end of output")
    field = "output" if score is None else "orig_score"
    score = fields.on_grid(stated if score is None else score, field, grid)  # type: ignore[arg-type]
    feedback = fields.optional_text(columns.get("orig_feedback"), "orig_feedback")
    return score, output if feedback is None else feedback


def _stated_score(output: str) -> float | None:
    """The score that an output ends in; None where it states none.

    Raises:
        ValueError: if it states several, or something that begins like a number and is none.
    """
    numbers = extract_cot(output, "").numbers
    scores = {fields.number(written if (value := number_of(written)) is None else value, "output") for written in numbers}
    if len(scores) > 1:
        raise ValueError(f"output: several scores at the end: {', '.join(reversed(numbers))}; one score is accepted")
    return scores.pop() if scores else None


def question_id_of(columns: Mapping[str, object], text: str) -> str:
    """The question id of a row: its ``idx``, else a hash of ``text``.

    Raises:
        ValueError: if ``idx`` is no id.
    """
    own = fields.optional_value(columns, "idx")
    return fields.short_hash(text, length=16) if own is None else fields.identifier(own, "idx")


def meta_of(columns: Mapping[str, object]) -> dict[str, str]:
    """What reports use of a row: ``category``, ``response_source`` and ``human_score`` (as JSON), as far as it has them.

    Raises:
        ValueError: if one of them cannot be read.
    """
    texts = {name: fields.optional_text(columns.get(name), name) for name in ("category", "response_source")}
    named = {name: text for name, text in texts.items() if text is not None}
    human = fields.optional_value(columns, "human_score")
    return named if human is None else {**named, "human_score": json.dumps(_human_score(human))}


def _human_score(value: object) -> object:
    """A number, text that stands for some (CSV has no lists), or a list of numbers and nulls."""
    if isinstance(value, str):
        return fields.text(value, "human_score")
    if isinstance(value, list):
        return [score if score is None else _human_number(score) for score in value]
    return _human_number(value)


def _human_number(value: object) -> int | float:
    found = fields.number(value, "human_score")
    return value if isinstance(value, int) else found
