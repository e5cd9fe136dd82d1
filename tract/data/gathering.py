"""Which rows belong to the same prompt: duplicates are dropped, ids kept unique. Holds digests only, so memory stays flat."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, replace

from tract.data.fields import shown
from tract.schema import JudgeExample


@dataclass(frozen=True, slots=True)
class _Judgement:
    """A judgement of a row: its place in the row, digests of it, of its content alone and of (prompt, rater), and its score."""

    place: int
    digest: bytes
    content: bytes
    by: bytes | None = None
    score: float = math.nan
    is_vote: bool = False


class Gatherer:
    """Sees the examples one after the other and says what is new in each.

    A rater judges a response once: the same rater with the same score and text again is a duplicate. Where no rater is named, the
    same score and text again is a duplicate too, or the vote of another rater (``equal_rows_are_votes``).

    Args:
        group_annotations: rows with the same prompt shall become one example. If not, each stays an example of its own, and
            from the second on their ids get a suffix made of their annotation.
        equal_rows_are_votes: whether equal rows without a rater come from different raters.

    Attributes:
        groups: for each admitted example, the number of the final example that it belongs to, by first occurrence.
        n_annotations: annotations of all admitted examples. n_ratings: their scores without a text.
        n_duplicates: annotations, ratings, or rows without either, that were dropped because the same prompt had them already.
        n_equal_votes: annotations and ratings that are equal to one of an earlier row, and were kept as those of other raters.
    """

    def __init__(self, group_annotations: bool, equal_rows_are_votes: bool = False) -> None:
        self.groups = array("q")
        self.n_annotations = self.n_ratings = 0
        self.n_duplicates = 0
        self.n_equal_votes = 0
        self._group_annotations = group_annotations
        self._equal_rows_are_votes = equal_rows_are_votes
        self._n_groups = 0
        self._prompts: dict[bytes, tuple[int, float | None, str | None]] = {}  # prompt -> group, target score, split
        self._prompt_of_id: dict[str, bytes] = {}
        self._judgements: set[bytes] = set()
        self._repeats: Counter[bytes] = Counter()  # judgement -> further rows that are equal to it
        self._by_rater: dict[bytes, bytes] = {}  # prompt and rater -> score and judgement, see _said

    def admit(self, example: JudgeExample) -> JudgeExample | None:
        """The example with only its new annotations and ratings, or None if nothing in it is new.

        Raises:
            ValueError: if it contradicts an earlier example: the same id for another prompt, the same prompt with another
                target or split, or the same rater with another judgement.
        """
        prompt = _prompt_digest(example)
        known = self._prompts.get(prompt)
        if known is not None and self._group_annotations:
            _check_agreement(example, known)
        fresh = self._fresh(example, prompt)
        n_judgements = max(1, example.n_raters)
        if not fresh:
            self.n_duplicates += n_judgements
            return None
        if known is None or not self._group_annotations:
            example = replace(example, id=self._unique_id(example.id, prompt, fresh[0].digest))
            group = self._n_groups
            self._n_groups += 1
            self._prompts.setdefault(prompt, (group, example.target_score, example.split))
        else:
            group = known[0]
        self.groups.append(group)
        self.n_duplicates += n_judgements - len(fresh)
        self._keep(fresh)
        if not example.n_raters:
            return example
        places, n = [judgement.place for judgement in fresh], len(example.annotations)
        annotations = tuple(example.annotations[place] for place in places if place < n)
        ratings = tuple(example.ratings[place - n] for place in places if place >= n)
        self.n_annotations += len(annotations)
        self.n_ratings += len(ratings)
        return replace(example, annotations=annotations, ratings=ratings)

    def _fresh(self, example: JudgeExample, prompt: bytes) -> list[_Judgement]:
        """The judgements that are new; the target stands for an example that has none."""
        annotated: list[tuple[str | None, float, str | None]] = [(one.cot, one.score, one.rater) for one in example.annotations]
        given = [*annotated, *((None, one.score, one.rater) for one in example.ratings)]
        if not given:
            digest = _digest([prompt.hex(), None, example.target_score])
            return [] if digest in self._judgements else [_Judgement(0, digest, digest)]
        found: dict[bytes, _Judgement] = {}
        for place, (cot, score, rater) in enumerate(given):
            content = _digest([prompt.hex(), cot, score])
            if rater is not None:
                by = _digest([prompt.hex(), "rater", rater])
                if by in self._by_rater:
                    _check_rater(rater, score, content, self._by_rater[by])
                else:
                    found.setdefault(by, _Judgement(place, _digest([content.hex(), rater]), content, by, score))
            elif content not in self._judgements:
                found.setdefault(content, _Judgement(place, content, content))
            elif self._equal_rows_are_votes:
                vote = _digest([content.hex(), self._repeats[content] + 1])
                found.setdefault(vote, _Judgement(place, vote, content, is_vote=True))
        return list(found.values())

    def _keep(self, fresh: list[_Judgement]) -> None:
        for judgement in fresh:
            if judgement.by is not None:
                self._by_rater[judgement.by] = _said(judgement.score, judgement.content)
            else:
                self._judgements.add(judgement.digest)
            if judgement.is_vote:
                self.n_equal_votes += 1
                self._repeats[judgement.content] += 1

    def _unique_id(self, own_id: str, prompt: bytes, judgement: bytes) -> str:
        unique = own_id
        if self._prompt_of_id.get(own_id) == prompt:  # only where nothing is gathered
            unique = f"{own_id}-{judgement.hex()[:8]}"
        if unique in self._prompt_of_id:
            raise ValueError(f"id: {shown(unique)} stands for other content in an earlier row; an id must belong to one prompt alone")
        self._prompt_of_id[unique] = prompt
        return unique


def _said(score: float, content: bytes) -> bytes:
    """What a rater said, in few bytes: the score, and the beginning of the digest of score and text."""
    return struct.pack("<d", score) + content[:8]


def _check_rater(rater: str, score: float, content: bytes, known: bytes) -> None:
    if _said(score, content) != known:
        earlier = float(struct.unpack("<d", known[:8])[0])
        other = f"{earlier:g}" if earlier != score else "the same score with other feedback"
        raise ValueError(f"rater: {shown(rater)} gave {score:g} here, but {other} in an earlier row with the same prompt; keep one of them")


def _check_agreement(example: JudgeExample, known: tuple[int, float | None, str | None]) -> None:
    _, target_score, split = known
    if example.target_score != target_score:
        here, there = ("no value" if each is None else each for each in (example.target_score, target_score))
        raise ValueError(f"target_score: {here} contradicts {there} of an earlier row with the same prompt")
    if example.split != split:
        raise ValueError(f"split: {example.split} contradicts {split} of an earlier row with the same prompt")


def _prompt_digest(example: JudgeExample) -> bytes:
    rubric = None if example.rubric is None else [example.rubric.criteria, example.rubric.descriptions]
    return _digest([example.question_id, example.prompt, example.instruction, example.response, example.reference_answer, rubric])


def _digest(parts: list[object]) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]
