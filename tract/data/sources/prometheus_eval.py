"""Benchmark files of prometheus-eval: finished judge prompts with the scores and feedback that GPT-4 gave."""

from __future__ import annotations

from collections.abc import Iterator

from tract.data.readers import fields
from tract.data.readers.files import local_fingerprint, read_rows
from tract.data.readers.rows import RawRow
from tract.data.sources.feedback_collection import SOURCE_VERSION, example_of_row, meta_of, question_id_of
from tract.data.sources.prometheus_layout import recover_parts
from tract.text.schema import Annotation, JudgeExample
from tract.text.score_grid import ScoreGrid


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
            return example_of_row(columns, grid)
        prompt = fields.filled_text(fields.value_of(columns, "instruction"), "instruction")
        scores = [fields.number(score, "gpt4_score") for score in _as_list(fields.value_of(columns, "gpt4_score"))]
        if not scores:
            raise ValueError("gpt4_score: the list is empty; at least one score is accepted")
        scores = [fields.on_grid(score, "gpt4_score", grid) for score in scores]
        # Without feedbacks there is nothing to learn a CoT from, but the mean remains a target for evaluation.
        cots = [fields.filled_text(cot, "gpt4_feedback") for cot in _as_list(columns.get("gpt4_feedback"))]
        if cots and len(cots) != len(scores):
            raise ValueError(f"gpt4_feedback: {len(cots)} texts stand beside {len(scores)} scores; one text per score is accepted")
        question_id = question_id_of(columns, prompt)
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
            meta=meta_of(columns),
        )

    def fingerprint(self) -> str:
        """Changes with the content of the files."""
        return local_fingerprint(self.path, type(self).__name__, SOURCE_VERSION)

    def describe(self) -> str:
        """The source in a few words."""
        return f"prometheus-eval benchmark rows of {self.path}"


def _as_list(value: object) -> list[object]:
    """Some benchmark files hold one score and feedback per row instead of a list of them."""
    if fields.is_missing(value):
        return []
    return value if isinstance(value, list) else [value]
