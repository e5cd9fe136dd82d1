"""What a judge example is: one response to be graded, with the annotations that it received. Pure data, no I/O."""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tract.common.errors import DataError


@dataclass(frozen=True, slots=True, init=False)
class Rubric:
    """The criterion that a response is graded by.

    Attributes:
        criteria: the question that the score answers.
        descriptions: (score label, what deserves it), in ascending order of the score; may be empty. Where all texts are empty, only
            the scores are known.

    Raises:
        DataError: if the descriptions are neither a mapping nor pairs, one is no text, or a label of a mapping is no number or
            stands there twice.
    """

    criteria: str
    descriptions: tuple[tuple[str, str], ...]

    def __init__(self, criteria: str, descriptions: Mapping[Any, str] | Sequence[tuple[str, str]] = ()) -> None:
        """Takes descriptions as pairs in ascending order, or as a mapping from score (number or text) to what deserves it."""
        pairs = _ascending(descriptions) if isinstance(descriptions, Mapping) else _pairs(descriptions)
        for label, text in pairs:
            if not isinstance(text, str):
                raise DataError(f"rubric.descriptions.{label}: found a {type(text).__name__}; text is accepted")
        object.__setattr__(self, "criteria", criteria)
        object.__setattr__(self, "descriptions", pairs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The scores that are described."""
        return tuple(label for label, _ in self.descriptions)


def _pairs(given: object) -> tuple[tuple[str, str], ...]:
    """(label, text) of a sequence of pairs, in its order; None is none.

    Raises:
        DataError: if it is something else: a list of texts does not say to which scores they belong.
    """
    if given is None:
        return ()
    accepted = '{0: "no", 1: "yes"} or [(0, "no"), (1, "yes")] is accepted'
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise DataError(f"rubric.descriptions: found a {type(given).__name__}; {accepted}")
    for place, pair in enumerate(given):
        if isinstance(pair, str):
            raise DataError(f"rubric.descriptions[{place}]: the text {_shown(pair)} names no score; {accepted}")
        if isinstance(pair, (bytes, Mapping)) or not isinstance(pair, Sequence) or len(pair) != 2:
            found = f"a {type(pair).__name__}" + (f" of {len(pair)}" if isinstance(pair, (list, tuple)) else "")
            raise DataError(f"rubric.descriptions[{place}]: found {found}; {accepted}")
    return tuple((_label(label) if _is_number(label) else label, text) for label, text in given)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _label(key: object) -> str:
    """The text of a score; whole numbers are written without a point, as YAML and JSON may have read them."""
    number = float(key) if isinstance(key, numbers.Real) and not isinstance(key, numbers.Integral) else math.nan
    return str(int(number)) if number.is_integer() else str(key)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _ascending(by_label: Mapping[Any, str]) -> tuple[tuple[str, str], ...]:
    """(label, text) in the order of the scores."""
    found: dict[float, tuple[str, str]] = {}
    for key, text in by_label.items():
        label = _label(key)
        try:
            value = float(label)
            valid = math.isfinite(value) and not isinstance(key, bool)
        except ValueError:
            valid = False
        if not valid:
            raise DataError(f"rubric.descriptions: {label!r} is no score; write a number for each description, e.g. {{1: ..., 5: ...}}")
        if value in found:
            raise DataError(f"rubric.descriptions: the score {label} is described twice, as {found[value][0]!r} and {label!r}")
        found[value] = (label, text)
    return tuple(found[value] for value in sorted(found))


@dataclass(frozen=True, slots=True)
class Annotation:
    """One judgement of a response.

    Attributes:
        cot: the chain of thought (feedback). A source gives it as it was written; in a store it has no statement of its score.
        score: in points.
        stated: how the text stated the score that was cut, see ``tract.text.score_statement``; None where nothing was looked for.
        rater: the id of who gave it; None where that is not known.
    """

    cot: str
    score: float
    stated: str | None = field(default=None, compare=False)
    rater: str | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """A score that a rater gave without a text.

    Attributes:
        score: in points.
        rater: the id of who gave it; None where that is not known.
    """

    score: float
    rater: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeExample:
    """One response to be graded.

    Attributes:
        id: unique and stable within a source; records of all stages carry it.
        question_id: responses to one question share it; splits are made by it.
        instruction, response: what was asked and what is graded. Empty only where ``prompt`` is all that a source has.
        reference_answer: an answer that deserves the best score, if there is one.
        rubric: the criterion, if the source has it apart from ``prompt``.
        prompt: the source's finished judge prompt, verbatim, if there is one.
        annotations: zero or more (CoT, score) pairs; a source may hold several for one prompt.
        ratings: scores that were given without a CoT; they count as much as those of the annotations.
        target_score: the score that predictions are compared with, in points; None means the mean over annotations and ratings.
        split: the split that the source itself assigns ("train", "val", "test", "ood"); None lets the seeded split decide.
        meta: further facts for reports (category, response_source, ...), never seen by the model.
    """

    id: str
    question_id: str
    instruction: str
    response: str
    reference_answer: str | None = None
    rubric: Rubric | None = None
    prompt: str | None = None
    annotations: tuple[Annotation, ...] = ()
    ratings: tuple[Rating, ...] = ()
    target_score: float | None = None
    split: str | None = None
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores in points that raters gave, those with a CoT first."""
        return (*(annotation.score for annotation in self.annotations), *(rating.score for rating in self.ratings))

    @property
    def n_raters(self) -> int:
        """How many scores were given; a rater gives one."""
        return len(self.annotations) + len(self.ratings)

    @property
    def rater_sd(self) -> float | None:
        """The sample standard deviation of the raters' scores, in points; None with fewer than two."""
        return statistics.stdev(self.scores) if self.n_raters > 1 else None

    @property
    def target(self) -> float | None:
        """The score in points that predictions are compared with: ``target_score``, else the mean over all raters; None without."""
        if self.target_score is not None:
            return self.target_score
        return sum(self.scores) / self.n_raters if self.n_raters else None
