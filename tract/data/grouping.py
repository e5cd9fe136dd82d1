"""Groups rows of the same prompt: duplicates are dropped, ids kept unique. Only digests are held, so memory stays flat."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

from tract.data.readers.fields import shown
from tract.text.schema import JudgeExample


@dataclass(frozen=True, slots=True)
class _Judgement:
    """A judgement of a row.

    Attributes:
        place: its index among the row's annotations and ratings. score: in points.
        digest: of item, content and rater. content: digest of item, text and score.
        item_and_rater: their digest; None without a rater.
        is_vote: it equals one of an earlier row, and counts as that of another rater.
    """

    place: int
    digest: bytes
    content: bytes
    item_and_rater: bytes | None = None
    score: float = math.nan
    is_vote: bool = False


class _FirstRow(NamedTuple):
    """What the first row of an item says, which later ones must not contradict."""

    group: int
    target_score: float | None
    split: str | None


class AnnotationGrouper:
    """Takes the examples one after the other and returns what is new in each.

    A rater judges a response once: the same rater with the same score and text again is a duplicate. Where no rater is named, the
    same score and text again is a duplicate too, or the vote of another rater (``equal_rows_are_votes``).

    Args:
        group_annotations: whether rows with the same prompt become one example. If not, each remains an example, and
            from the second on their ids get a suffix made of their annotation.
        equal_rows_are_votes: whether equal rows without a rater come from different raters. Rows that do not become one example
            are then kept whether they are equal or not, unless they also have the same id and ``ids_tell_apart``.
        ids_tell_apart: whether the ids are the user's own, so that rows with the same prompt and different ids are different examples.
        rows_are_ratings: whether each row names its rater. Rows of the same prompt are then taken for ratings of one response, each
            with an id of its own, where each id has one rating and no rater has two. This is known at the end (``final_groups``).

    Attributes:
        groups: for each admitted example, the number of the example that it belongs to, by first occurrence, as far as it is known.
        n_annotations: annotations of all admitted examples. n_ratings: their scores without a text.
        n_duplicates: annotations, ratings, or rows without either, that were dropped because the same example had them already.
        n_equal_votes: annotations and ratings that are equal to one of an earlier row, and were kept as those of other raters.
    """

    def __init__(
        self, group_annotations: bool, equal_rows_are_votes: bool = False, ids_tell_apart: bool = False, rows_are_ratings: bool = False
    ) -> None:
        self.groups = array("q")
        self.n_annotations = self.n_ratings = 0
        self.n_duplicates = 0
        self.n_equal_votes = 0
        self._group_annotations = group_annotations
        self._equal_rows_are_votes = equal_rows_are_votes
        self._n_groups = 0
        self._items: dict[bytes, _FirstRow] = {}  # item, see _item_of -> its first row
        self._rows_are_ratings = rows_are_ratings
        self._same_prompts = _SamePrompts() if ids_tell_apart else None
        self._rows_of: Counter[bytes] = Counter()  # prompt -> its rows, where each of them stays apart
        self._prompt_of_id: dict[str, bytes] = {}
        self._judgements: set[bytes] = set()
        self._repeats: Counter[bytes] = Counter()  # judgement -> further rows that are equal to it
        self._by_rater: dict[bytes, bytes] = {}  # item and rater -> see _packed_judgement

    def admit(self, example: JudgeExample) -> JudgeExample | None:
        """The example with only its new annotations and ratings, or None if nothing in it is new.

        Raises:
            ValueError: if it contradicts an earlier example: the same id for another prompt, the same prompt with another
                target or split, or the same rater with another judgement.
        """
        prompt = _prompt_digest(example)
        item = self._item_of(example, prompt)
        known = self._items.get(item)
        if self._group_annotations:
            if known is not None:
                _check_agreement(example, known)
            elif self._same_prompts is not None:
                self._same_prompts.check_split(example, prompt)
        fresh = self._fresh(example, item)
        n_judgements = max(1, example.n_raters)
        if not fresh:
            self.n_duplicates += n_judgements
            return None
        if known is None or not self._group_annotations:
            example = replace(example, id=self._unique_id(example.id, prompt, fresh[0].digest))
            group = self._n_groups
            self._n_groups += 1
            self._items.setdefault(item, _FirstRow(group, example.target_score, example.split))
        else:
            group = known.group
        self.groups.append(group)
        self.n_duplicates += n_judgements - len(fresh)
        self._keep(fresh)
        if self._same_prompts is not None and self._group_annotations:
            self._same_prompts.add(example, prompt, group)
        if not example.n_raters:
            return example
        places, n = [judgement.place for judgement in fresh], len(example.annotations)
        annotations = tuple(example.annotations[place] for place in places if place < n)
        ratings = tuple(example.ratings[place - n] for place in places if place >= n)
        self.n_annotations += len(annotations)
        self.n_ratings += len(ratings)
        return replace(example, annotations=annotations, ratings=ratings)

    def final_groups(self) -> array[int]:
        """``groups`` after the last row."""
        if self._same_prompts is None or not self._rows_are_ratings:
            return self.groups
        joined = self._same_prompts.joined()
        numbers: dict[int, int] = {}
        return array("q", (numbers.setdefault(joined.get(group, group), len(numbers)) for group in self.groups))

    def _item_of(self, example: JudgeExample, prompt: bytes) -> bytes:
        """The digest of an item: rows that share it are of the same example."""
        if self._same_prompts is not None:
            return _digest([prompt.hex(), example.id])
        if self._group_annotations or not self._equal_rows_are_votes:
            return prompt
        self._rows_of[prompt] += 1
        return _digest([prompt.hex(), self._rows_of[prompt]])

    def _fresh(self, example: JudgeExample, item: bytes) -> list[_Judgement]:
        """The judgements that are new; an example without any has its target as one."""
        annotated: list[tuple[str | None, float, str | None]] = [(one.cot, one.score, one.rater) for one in example.annotations]
        given = [*annotated, *((None, one.score, one.rater) for one in example.ratings)]
        if not given:
            digest = _digest([item.hex(), None, example.target_score])
            return [] if digest in self._judgements else [_Judgement(0, digest, digest)]
        found: dict[bytes, _Judgement] = {}
        for place, (cot, score, rater) in enumerate(given):
            content = _digest([item.hex(), cot, score])
            if rater is not None:
                # Where rows stay apart, a rater may judge otherwise in each.
                key = _digest([item.hex(), "rater", rater, *([] if self._group_annotations else [content.hex()])])
                if key in self._by_rater:
                    _check_rater(rater, score, content, self._by_rater[key])
                else:
                    found.setdefault(key, _Judgement(place, _digest([content.hex(), rater]), content, key, score))
            elif content not in self._judgements:
                found.setdefault(content, _Judgement(place, content, content))
            elif self._equal_rows_are_votes and (self._group_annotations or self._same_prompts is None):
                vote = _digest([content.hex(), self._repeats[content] + 1])
                found.setdefault(vote, _Judgement(place, vote, content, is_vote=True))
        return list(found.values())

    def _keep(self, fresh: list[_Judgement]) -> None:
        for judgement in fresh:
            if judgement.item_and_rater is not None:
                self._by_rater[judgement.item_and_rater] = _packed_judgement(judgement.score, judgement.content)
            else:
                self._judgements.add(judgement.digest)
            if judgement.is_vote:
                self.n_equal_votes += 1
                self._repeats[judgement.content] += 1

    def _unique_id(self, own_id: str, prompt: bytes, judgement: bytes) -> str:
        unique = own_id
        if self._prompt_of_id.get(own_id) == prompt:  # only where rows are not grouped
            unique = f"{own_id}-{judgement.hex()[:8]}"
        if unique in self._prompt_of_id:
            raise ValueError(f"id: {shown(unique)} stands for other content in an earlier row; an id must belong to one prompt alone")
        self._prompt_of_id[unique] = prompt
        return unique


class _SamePrompts:
    """Finds examples of the same prompt, each with its own id, that are ratings of one response."""

    def __init__(self) -> None:
        self._splits: dict[bytes, str | None] = {}
        self._groups: dict[bytes, list[int]] = {}  # prompt -> groups of its ids
        self._targets: dict[bytes, float | None] = {}
        self._rated_by: dict[bytes, int] = {}  # prompt and rater -> group
        self._rated: set[int] = set()  # groups with a rating by a named rater
        self._named: set[bytes] = set()  # prompts with such a rating
        self._apart: set[bytes] = set()  # prompts whose ids tell items apart

    def check_split(self, example: JudgeExample, prompt: bytes) -> None:
        """Refuses another split than the prompt's first row has, whatever the ids: the same text would be in both.

        Raises:
            ValueError: if it is another one.
        """
        if prompt in self._splits:
            _check_split(example, self._splits[prompt])

    def add(self, example: JudgeExample, prompt: bytes, group: int) -> None:
        """Records a row with something new."""
        self._splits.setdefault(prompt, example.split)
        groups = self._groups.setdefault(prompt, [])
        if not groups or group > groups[-1]:  # groups are numbered as they begin
            groups.append(group)
        if example.target_score != self._targets.setdefault(prompt, example.target_score):
            self._apart.add(prompt)
        raters = {one.rater for one in example.annotations} | {one.rater for one in example.ratings}
        for rater in raters - {None}:
            self._named.add(prompt)
            if group in self._rated or self._rated_by.setdefault(_digest([prompt.hex(), rater]), group) != group:
                self._apart.add(prompt)
            self._rated.add(group)

    def joined(self) -> dict[int, int]:
        """Group -> the group that it is part of, for the prompts whose ids are of ratings."""
        ratings = {prompt: groups for prompt, groups in self._groups.items() if prompt in self._named and prompt not in self._apart}
        return {group: groups[0] for groups in ratings.values() for group in groups}


def _packed_judgement(score: float, content: bytes) -> bytes:
    """A rater's judgement in 16 bytes: the score, and the beginning of the digest of score and text."""
    return struct.pack("<d", score) + content[:8]


def _check_rater(rater: str, score: float, content: bytes, known: bytes) -> None:
    if _packed_judgement(score, content) != known:
        earlier = float(struct.unpack("<d", known[:8])[0])
        other = f"{earlier:g}" if earlier != score else "the same score with other feedback"
        raise ValueError(
            f"rater: {shown(rater)} gave {score:g} here, but {other} in an earlier row with the same prompt; keep one of them, or map "
            "data.source.columns.id (or question_id) to what tells the two items apart"
        )


def _check_agreement(example: JudgeExample, known: _FirstRow) -> None:
    if example.target_score != known.target_score:
        here, there = ("no value" if each is None else each for each in (example.target_score, known.target_score))
        raise ValueError(f"target_score: {here} contradicts {there} of an earlier row with the same prompt")
    _check_split(example, known.split)


def _check_split(example: JudgeExample, split: str | None) -> None:
    if example.split != split:
        raise ValueError(f"split: {example.split} contradicts {split} of an earlier row with the same prompt")


def _prompt_digest(example: JudgeExample) -> bytes:
    rubric = None if example.rubric is None else [example.rubric.criteria, example.rubric.descriptions]
    return _digest([example.question_id, example.prompt, example.instruction, example.response, example.reference_answer, rubric])


def _digest(parts: list[object]) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]
