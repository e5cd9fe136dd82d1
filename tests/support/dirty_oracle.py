"""What a row of each source is worth, said once more and apart from tract: its content, or the field that is at fault."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Row = dict[str, Any]
SURROGATE = re.compile("[\ud800-\udfff]")
LEVELS = [f"orig_score{n}_description" for n in range(1, 6)]
MAPPING = {
    "instruction": "question",
    "response": "answer",
    "reference_answer": "best",
    "criteria": "criterion",
    "score_descriptions": {"1": "low", "5": "high"},
    "cot": "comment",
    "score": "points",
    "target_score": "mean",
    "question_id": "topic",
    "id": "key",
    "split": "part",
}
# How an output may end when the score is 4: what stands there, and the score in it (None: none; "bad": no plain number).
ENDINGS: dict[str, float | str | None] = {
    " So the overall score is 4. [RESULT] 4": 4.0,
    " [RESULT] (4)": 4.0,
    " [RESULT] 4.0": 4.0,
    "\nSo the overall score is: 4!": 4.0,
    " [RESULT] 5": 5.0,
    " [RESULT] 4 [RESULT] 3": "bad",
    " [RESULT]": None,
    " [RESULT] nan": None,
    " So the overall score is open.": None,
    " So the overall score is 4. [RESULT] 5": "bad",
    " [RESULT] \uff14": "bad",
    " [RESULT] \u0664": "bad",
    " [RESULT] 4\u0664": "bad",
    " [RESULT] 4,5": "bad",
    " [RESULT] 4,000": "bad",
    " [RESULT] 4_0": "bad",
    " [RESULT] 4\u00bd": "bad",
}


# Feedback that is a number alone states a score, and nothing else. "4." may be the beginning of a point of a list.
FOUR = ("4", " 4\u00a0", "4.0", "+4", "4 points", "[4]")
OTHER_NUMBERS = (
    "1e400", "4e0", "-0", "0", "6", "3.5", "4,5", "1,000", "4_0", "\uff14", "\u0664", "0x4", "9" * 5000,
)  # fmt: skip


NUMBERS_ALONE: dict[str, float | str] = {
    **dict.fromkeys(FOUR, 4.0), **dict.fromkeys(OTHER_NUMBERS, "bad"), "4e0": 4.0, "-0": 0.0, "0": 0.0, "6": 6.0, "3.5": 3.5,
}  # fmt: skip


class RefusedError(Exception):
    """The row must be rejected; the argument is the category of the reason."""


@dataclass
class Judged:
    """What a valid row says."""

    key: tuple[Any, ...]  # all that tells prompts apart
    identity: str
    annotations: list[tuple[str, float]]
    target: float | None
    split: str | None = None
    ratings: list[float] = field(default_factory=list)
    votes: bool = False  # equal rows come from different raters


@dataclass
class Ledger:
    """The rows of one prompt gathered."""

    examples: dict[tuple[Any, ...], Judged] = field(default_factory=dict)
    duplicates: int = 0
    equal: int = 0
    _seen: set[Any] = field(default_factory=set)
    _identities: set[str] = field(default_factory=set)

    def admit(self, row: Judged) -> bool:
        """Whether the row says anything new."""
        known = self.examples.get(row.key)
        if known and known.target != row.target:
            raise RefusedError("target_score")
        if known and known.split != row.split:
            raise RefusedError("split")
        says: list[Any] = row.annotations or [(None, points) for points in row.ratings] or [(None, row.target)]
        is_vote = row.votes and bool(row.annotations or row.ratings)
        new = [one for one in dict.fromkeys(says) if is_vote or (row.key, one) not in self._seen]
        if new and not known:
            if row.identity in self._identities:
                raise RefusedError("id")
            self._identities.add(row.identity)
            self.examples[row.key] = Judged(row.key, row.identity, [], row.target, row.split, votes=row.votes)
        self.duplicates += len(says) - len(new)
        self.equal += is_vote and (row.key, says[0]) in self._seen
        self._seen.update((row.key, one) for one in new)
        if row.annotations:
            self.examples[row.key].annotations += new
        if row.ratings:
            self.examples[row.key].ratings += row.ratings
        return bool(new)


def text(row: Row, name: str, filled: bool = False) -> str:
    value = row.get(name)
    if isinstance(value, (bool, int, float)) and (not isinstance(value, float) or math.isfinite(value)):
        value = json.dumps(value)
    elif isinstance(value, Decimal):
        value = str(value)
    if not isinstance(value, str) or SURROGATE.search(value) or (filled and not value.strip()):
        raise RefusedError(name)
    return value


def optional(row: Row, name: str) -> str | None:
    value = row.get(name)
    return text(row, name) if given(value) else None


def number(value: Any, name: str) -> float:
    if isinstance(value, str):
        plain = value.strip()
        if not set(plain) <= set("0123456789.+-eE") or not any(digit in plain for digit in "0123456789"):
            raise RefusedError(name)
        try:
            value = float(plain)
        except ValueError:
            raise RefusedError(name) from None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise RefusedError(name)
    try:
        value = float(value)
    except OverflowError:
        raise RefusedError(name) from None
    if not math.isfinite(value):
        raise RefusedError(name)
    return value


def score(value: Any, name: str) -> float:
    found = number(value, name)
    if found not in (1, 2, 3, 4, 5):
        raise RefusedError(name)
    return found


def given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip()) and value == value  # noqa: PLR0124 - NaN


def points_of(value: Any, name: str) -> float | None:
    says_none = isinstance(value, str) and value.strip().lower() in ("nan", "null", "none", "na", "n/a", "<na>", "nat")
    return number(value, name) if given(value) and not says_none else None


def identity(row: Row, name: str, otherwise: str) -> str:
    value = row.get(name)
    if not given(value):
        return hashlib.sha256(otherwise.encode()).hexdigest()[:16]
    if isinstance(value, float) and value == value // 1 and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RefusedError(name)
    return text(row, name, filled=True)


def feedback(row: Row) -> Judged:
    prompt, instruction = text(row, "instruction", filled=True), text(row, "orig_instruction", filled=True)
    response, reference = text(row, "orig_response"), optional(row, "orig_reference_answer")
    levels = tuple((str(n), text(row, name)) for n, name in enumerate(LEVELS, start=1) if given(row.get(name)))
    criteria = text(row, "orig_criteria", filled=True)
    output = optional(row, "output")
    ending = next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if output and output.endswith(ending)), None)
    said = ENDINGS[ending] if ending else NUMBERS_ALONE.get(output or "")
    if said == "bad":
        raise RefusedError("output")
    points = points_of(row.get("orig_score"), "orig_score")
    if (points is None and said is None) or (points is not None and said is not None and points != said):
        raise RefusedError("orig_score")
    points = score(said if points is None else points, "orig_score")
    cot: str | None
    if given(row.get("orig_feedback")):
        cot = text(row, "orig_feedback", filled=True)
    elif output is None:
        cot = None
    elif ending is None:  # nothing is known to be cut
        cot = output
    else:
        cot = output.removesuffix(ending).split(" [RESULT]")[0].rstrip()
    refuse_numbers([] if cot is None else [(cot, points)])
    question = identity(row, "idx", instruction)
    key = (question, prompt, instruction, response, reference, criteria, levels)
    return Judged(key, f"{question} {prompt}", [] if cot is None else [(cot, points)], points if cot is None else None)


def refuse_numbers(annotations: list[tuple[str, float]]) -> None:
    """Refuses feedback that is a number alone: the row's score, or another one."""
    for cot, points in annotations:
        if cot in OTHER_NUMBERS or (cot in FOUR and points != 4):
            raise RefusedError("score contradiction")
        if cot in FOUR or (cot == "4." and points == 4):
            raise RefusedError("feedback")


def benchmark(row: Row) -> Judged:
    prompt = text(row, "instruction", filled=True)
    listed = {name: _listed(row.get(name)) for name in ("gpt4_score", "gpt4_feedback")}
    scores = [score(value, "gpt4_score") for value in listed["gpt4_score"]]
    if not scores:
        raise RefusedError("gpt4_score")
    cots = [text({"gpt4_feedback": cot}, "gpt4_feedback", filled=True) for cot in listed["gpt4_feedback"]]
    if cots and len(cots) != len(scores):
        raise RefusedError("gpt4_feedback")
    human = row.get("human_score")
    if isinstance(human, str):
        optional(row, "human_score")
    elif given(human):
        for value in human if isinstance(human, list) else [human]:
            if value is not None:
                number(value, "human_score")
    question = identity(row, "idx", prompt)
    annotations = list(zip(cots, scores, strict=False))
    refuse_numbers(annotations)
    return Judged((question, prompt, "", "", None, None, ()), f"{question} {prompt}", annotations, sum(scores) / len(scores))


def _listed(value: Any) -> list[Any]:
    if not given(value):
        return []
    return value if isinstance(value, list) else [value]


def mapped(row: Row) -> Judged:
    question, answer, best = text(row, "question", filled=True), text(row, "answer"), optional(row, "best")
    criteria, levels = None, ()
    if given(row.get("criterion")):
        criteria = text(row, "criterion", filled=True)
        described = (("1", optional(row, "low")), ("5", optional(row, "high")))
        levels = tuple((label, level) for label, level in described if level is not None)
    points = points_of(row.get("points"), "points")
    points = None if points is None else score(points, "points")
    target = points_of(row.get("mean"), "mean")
    if target is not None and not 1 <= target <= 5:
        raise RefusedError("mean")
    annotations, ratings = [], []
    if not given(row.get("comment")):
        ratings = [] if points is None else [points]
    else:
        annotations = [(text(row, "comment", filled=True), points)]
        if points is None:
            raise RefusedError("points")
    split = optional(row, "part")
    if split not in ("train", "val", "test", "ood", None):
        raise RefusedError("part")
    refuse_numbers(annotations)
    topic = identity(row, "topic", question)
    key = (topic, None, question, answer, best, criteria, levels)
    own = identity(row, "key", "") if given(row.get("key")) else repr(key)
    return Judged(key, own, annotations, target, split, ratings, votes=True)
