"""The sources of judge examples. Each yields raw rows with their place and turns one into a ``JudgeExample`` or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import datasets

from tract.common.errors import DataError
from tract.data.readers import fields
from tract.data.readers.files import local_fingerprint, read_rows
from tract.data.readers.formats import format_of
from tract.data.readers.rows import RawRow
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.prometheus_layout import recover_parts
from tract.text.cot_extraction import extract_cot
from tract.text.schema import Annotation, JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid
from tract.text.score_statement import number_of

__all__ = ["FeedbackCollection", "MappedColumns", "PrometheusEval", "Source"]

SOURCE_VERSION = 5  # raise it when rows are turned into other examples than before: cached examples are then built anew


class Source(Protocol):
    """Where judge examples come from. Hydra builds one from the ``data.source`` node.

    A source may have an attribute ``equal_rows_are_votes``: whether rows that are equal come from different raters. Without it, they
    are copies, of which one is kept. Others are ``instructions_hold_rubric``: whether the instructions name what is judged, so that a
    prompt without the rubric hides nothing; ``takes_rubric``: whether it can be given a rubric for all rows; ``ids_tell_apart``:
    whether the ids are the user's own, so that the same text under two of them is two items; and ``rows_are_ratings``: whether each row
    names its rater, so that an id may be one rating's.
    """

    def rows(self) -> Iterator[RawRow]:
        """The raw rows, one after the other. A row that cannot even be read carries a ``rows.RowProblem``."""

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row, with its CoTs as they were written: ``feedback.without_scores`` takes the statements of scores out.

        Raises:
            ValueError: if the row cannot be used. The reason begins with a short category and a colon, by which rejected
                rows are counted; the caller adds the place. A ``TractError`` instead means that no row can be used.
        """

    def fingerprint(self) -> str:
        """Text that changes whenever the examples would: content, own arguments and version."""

    def describe(self) -> str:
        """The source in a few words, for messages and reports."""


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
        return _feedback_collection_example(fields.columns_of(row.data), grid)

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


class PrometheusEval:
    """Benchmark files of prometheus-eval: a finished prompt, and the scores and feedbacks that GPT-4 gave.

    The prediction target is the mean of the scores. Human scores go to ``meta``, as JSON. The parts of the prompt are recovered
    where its layout leaves no doubt (``prometheus_layout.recover_parts``); elsewhere the example has only the prompt.

    Args:
        path: a local file or folder, e.g. ``eval/benchmark/data/vicuna_eval.json`` of the prometheus-eval repository.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def rows(self) -> Iterator[RawRow]:
        """The rows of the files.

        Raises:
            DataError: if there is nothing that can be read at ``path``.
        """
        return read_rows(self.path)

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row; rows of the Feedback Bench, which have ``orig_...`` columns, are read by these.

        Raises:
            ValueError: if the row cannot be used.
        """
        columns = fields.columns_of(row.data)
        if "orig_instruction" in columns:
            return _feedback_collection_example(columns, grid)
        prompt = fields.filled_text(fields.value_of(columns, "instruction"), "instruction")
        scores = [fields.number(score, "gpt4_score") for score in _as_list(fields.value_of(columns, "gpt4_score"))]
        if not scores:
            raise ValueError("gpt4_score: the list is empty; at least one score is accepted")
        scores = [fields.on_grid(score, "gpt4_score", grid) for score in scores]
        # Without feedbacks there is nothing to learn a CoT from, but the mean remains a target for evaluation.
        cots = [fields.filled_text(cot, "gpt4_feedback") for cot in _as_list(columns.get("gpt4_feedback"))]
        if cots and len(cots) != len(scores):
            raise ValueError(f"gpt4_feedback: {len(cots)} texts stand beside {len(scores)} scores; one text per score is accepted")
        question_id = _question_id(columns, prompt)
        parts = recover_parts(prompt)
        return JudgeExample(
            # Of the prompt alone, as is the question id, so that neither depends on what can be recovered.
            id=fields.content_id(question_id, prompt, "", "", None, None),
            question_id=question_id,
            instruction=parts.instruction if parts else "",
            response=parts.response if parts else "",
            reference_answer=parts.reference_answer if parts else None,
            rubric=parts.rubric if parts else None,
            prompt=prompt,
            annotations=tuple(Annotation(cot, score) for cot, score in zip(cots, scores, strict=False)),
            target_score=sum(scores) / len(scores),
            meta=_meta(columns),
        )

    def fingerprint(self) -> str:
        """Changes with the content of the files."""
        return local_fingerprint(self.path, type(self).__name__, SOURCE_VERSION)

    def describe(self) -> str:
        """The source in a few words."""
        return f"prometheus-eval benchmark rows of {self.path}"


def _feedback_collection_example(columns: Mapping[str, object], grid: ScoreGrid) -> JudgeExample:
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
    question_id = _question_id(columns, instruction)
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
        meta=_meta(columns),
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


def _question_id(columns: Mapping[str, object], text: str) -> str:
    own = fields.optional_value(columns, "idx")
    return fields.short_hash(text, length=16) if own is None else fields.identifier(own, "idx")


def _meta(columns: Mapping[str, object]) -> dict[str, str]:
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


def _as_list(value: object) -> list[object]:
    """Some benchmark files hold one score and feedback per row instead of a list of them."""
    if fields.is_missing(value):
        return []
    return value if isinstance(value, list) else [value]
