"""What is to be graded, checked as it comes in; and the same from rows and keyword arguments. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tract.common.errors import DataError
from tract.data.readers.fields import identifier, is_missing, is_null
from tract.data.readers.fields import text as text_of
from tract.data.rubrics.mapping import rubric_from_mapping
from tract.data.rubrics.text import rubric_from_text
from tract.text.schema import JudgeExample, Rubric

# The most CoTs that one request may ask for.
MOST_COTS = 1024
# Fields that may have no value, and what makes text of one.
_OPTIONAL: tuple[tuple[str, Callable[[object, str], str]], ...] = (("reference_answer", text_of), ("id", identifier), ("prompt", text_of))


@dataclass(frozen=True, slots=True)
class GradeRequest:
    r"""One response to be graded.

    Attributes:
        instruction: what was asked. response: what is graded; may be empty.
        rubric: what it is graded by; a text is read by ``rubric_from_text``: a criterion alone, or one with the scores below it.
        reference_answer: an answer that deserves the best score, if there is one.
        id: of the request, for its grade; None for a hash of its content.
        n_cot: CoTs to sample; None for as many as the judge's settings say.
        prompt: a finished prompt that holds all of these, for a judge that was trained on such and has no template of them.

    Texts may be given as numbers or booleans, which become the text that JSON writes for them, and ids as whole numbers. None, NaN and
    blank text stand for no value in the fields that may have none.

    Raises:
        DataError: naming the field, if one is no text, holds half a surrogate pair, or has no value where it needs one.
    """

    instruction: str
    response: str
    rubric: Rubric | None = None
    reference_answer: str | None = None
    id: str | None = None
    n_cot: int | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        for name in ("instruction", "response"):
            self._take(name, text_of)
        for name, take in _OPTIONAL:
            if is_missing(getattr(self, name)):
                object.__setattr__(self, name, None)
            else:
                self._take(name, take)
        if not self.instruction.strip():
            raise DataError("instruction: is blank; give what the response answers")
        if is_null(self.n_cot):
            object.__setattr__(self, "n_cot", None)
        rubric: object = self.rubric
        if not isinstance(rubric, Rubric):
            object.__setattr__(self, "rubric", rubric_of(rubric))
        if self.rubric is not None:
            _check_rubric(self.rubric)
        if self.n_cot is not None:
            object.__setattr__(self, "n_cot", _number_of_cots(self.n_cot))

    def _take(self, name: str, take: Callable[[object, str], str]) -> None:
        """Makes text of what a field was given."""
        try:
            object.__setattr__(self, name, take(getattr(self, name), name))
        except ValueError as error:
            raise DataError(str(error)) from None

    @property
    def content_id(self) -> str:
        """16 hex digits that belong to what is graded."""
        rubric = None if self.rubric is None else [self.rubric.criteria, self.rubric.descriptions]
        content = json.dumps([self.instruction, self.response, self.reference_answer, rubric, self.prompt])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def shown_id(self) -> str:
        """The given id, else that of the content."""
        return self.content_id if self.id is None else self.id

    def example(self) -> JudgeExample:
        """The example that prompts are made from."""
        known = (self.instruction, self.response, self.reference_answer or None, self.rubric, self.prompt)
        return JudgeExample(self.content_id, self.content_id, *known)

    @classmethod
    def of(cls, content: GradeRequest | Mapping[str, Any]) -> GradeRequest:
        """The request of a mapping with these fields; ``rubric`` may be a text or a mapping with criteria and descriptions.

        Raises:
            DataError: if a field is unknown, missing or cannot be used.
        """
        if isinstance(content, GradeRequest):
            return content
        if not isinstance(content, Mapping):
            raise DataError(f"request: found a {type(content).__name__}; a GradeRequest or a mapping of its fields is accepted")
        known = [each.name for each in fields(cls)]
        if unknown := [name for name in content if name not in known]:
            raise DataError(f"{unknown[0]}: unknown field of a request; accepted are {', '.join(known)}")
        if missing := [name for name in ("instruction", "response") if name not in content]:
            raise DataError(f"{missing[0]}: is missing; a request needs instruction and response")
        return cls(**{**content, "rubric": rubric_of(content.get("rubric"))})


def _number_of_cots(given: object) -> int:
    with contextlib.suppress(TypeError):
        if not isinstance(given, bool) and 1 <= (found := operator.index(given)) <= MOST_COTS:  # type: ignore[arg-type]
            return found
    raise DataError(f"n_cot: found {given!r}; a whole number from 1 to {MOST_COTS} is accepted")


def number_as_text(value: object) -> object:
    """A finite number or a boolean as the text that JSON writes for it; anything else as it is."""
    with contextlib.suppress(ValueError):
        return text_of(value, "")
    return value


def whole_number_as_text(value: object) -> object:
    """A whole number as the text of an id; anything else as it is."""
    with contextlib.suppress(ValueError):
        return identifier(value, "")
    return value


def rubric_of(given: object) -> Rubric | None:
    """The rubric of a Rubric, a text, a mapping with ``criteria`` and perhaps ``descriptions``, or None.

    Raises:
        DataError: if it is something else, or a part of it cannot be used.
    """
    if is_missing(given):
        return None
    if isinstance(given, Rubric):
        return given
    if isinstance(given, str):
        return rubric_from_text(given)
    if not isinstance(given, Mapping):
        raise DataError(f"rubric: found a {type(given).__name__}; text, or criteria and descriptions, are accepted")
    return rubric_from_mapping(given)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise DataError(f"{name}: found a {type(value).__name__}; text is accepted")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{name}: not valid Unicode at character {error.start}; re-encode it as UTF-8") from None


def _check_rubric(rubric: object) -> None:
    if not isinstance(rubric, Rubric):
        raise DataError(f"rubric: found a {type(rubric).__name__}; a Rubric or text is accepted")
    _check_text("rubric.criteria", rubric.criteria)
    if not rubric.criteria.strip():
        raise DataError("rubric.criteria: is blank; give the question that the score answers, or no rubric")
    for label, text in rubric.descriptions:
        _check_label(label)
        _check_text(f"rubric.descriptions.{label}", text)
    scores = [float(label) for label in rubric.labels]
    if any(low >= high for low, high in zip(scores, scores[1:], strict=False)):
        raise DataError(f"rubric.descriptions: the scores {', '.join(rubric.labels)} do not ascend; give each once, the lowest first")


def _check_label(label: object) -> None:
    try:
        fine = isinstance(label, str) and label == label.strip() and math.isfinite(float(label))
    except ValueError:
        fine = False
    if not fine:
        raise DataError(f"rubric.descriptions: {label!r} is no score; the text of a number is accepted, as the judge writes it")
