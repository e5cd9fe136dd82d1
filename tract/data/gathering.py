"""Which rows belong to the same prompt: duplicates are dropped, ids kept unique. Holds digests only, so memory stays flat."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import replace

from tract.data.fields import shown
from tract.schema import JudgeExample


class Gatherer:
    """Sees the examples one after the other and says what is new in each.

    Args:
        group_annotations: rows with the same prompt shall become one example. If not, each stays an example of its own, and
            from the second on their ids get a suffix made of their annotation.

    Attributes:
        groups: for each admitted example, the number of the final example that it belongs to, by first occurrence.
        n_annotations: annotations of all admitted examples.
        n_duplicates: annotations, or rows without one, that were dropped because the same prompt had them already.
    """

    def __init__(self, group_annotations: bool) -> None:
        self.groups = array("q")
        self.n_annotations = 0
        self.n_duplicates = 0
        self._group_annotations = group_annotations
        self._n_groups = 0
        self._prompts: dict[bytes, tuple[int, float | None, str | None]] = {}  # prompt -> group, target score, split
        self._prompt_of_id: dict[str, bytes] = {}
        self._judgements: set[bytes] = set()

    def admit(self, example: JudgeExample) -> JudgeExample | None:
        """The example with only its new annotations, or None if nothing in it is new.

        Raises:
            ValueError: if it contradicts an earlier example: the same id for another prompt, or the same prompt with another
                target or split.
        """
        prompt = _prompt_digest(example)
        known = self._prompts.get(prompt)
        if known is not None and self._group_annotations:
            _check_agreement(example, known)
        fresh = self._fresh_judgements(example, prompt)
        n_judgements = max(1, len(example.annotations))
        if not fresh:
            self.n_duplicates += n_judgements
            return None
        if known is None or not self._group_annotations:
            example = replace(example, id=self._unique_id(example.id, prompt, next(iter(fresh))))
            group = self._n_groups
            self._n_groups += 1
            self._prompts.setdefault(prompt, (group, example.target_score, example.split))
        else:
            group = known[0]
        self._judgements.update(fresh)
        self.groups.append(group)
        self.n_duplicates += n_judgements - len(fresh)
        self.n_annotations += len(fresh) if example.annotations else 0
        return (
            replace(example, annotations=tuple(example.annotations[index] for index in fresh.values())) if example.annotations else example
        )

    def _fresh_judgements(self, example: JudgeExample, prompt: bytes) -> dict[bytes, int]:
        """Digest -> index of the annotations that are new; the target stands for an example that has none."""
        judgements: list[tuple[str | None, float | None]] = [(annotation.cot, annotation.score) for annotation in example.annotations]
        fresh: dict[bytes, int] = {}
        for index, judgement in enumerate(judgements or [(None, example.target_score)]):
            digest = _digest([prompt.hex(), *judgement])
            if digest not in self._judgements:
                fresh.setdefault(digest, index)
        return fresh

    def _unique_id(self, own_id: str, prompt: bytes, judgement: bytes) -> str:
        unique = own_id
        if self._prompt_of_id.get(own_id) == prompt:  # only where nothing is gathered
            unique = f"{own_id}-{judgement.hex()[:8]}"
        if unique in self._prompt_of_id:
            raise ValueError(f"id: {shown(unique)} stands for other content in an earlier row; an id must belong to one prompt alone")
        self._prompt_of_id[unique] = prompt
        return unique


def _check_agreement(example: JudgeExample, known: tuple[int, float | None, str | None]) -> None:
    _, target_score, split = known
    if example.target_score != target_score:
        raise ValueError(f"target_score: {example.target_score} contradicts {target_score} of an earlier row with the same prompt")
    if example.split != split:
        raise ValueError(f"split: {example.split} contradicts {split} of an earlier row with the same prompt")


def _prompt_digest(example: JudgeExample) -> bytes:
    rubric = None if example.rubric is None else [example.rubric.criteria, example.rubric.descriptions]
    return _digest([example.question_id, example.prompt, example.instruction, example.response, example.reference_answer, rubric])


def _digest(parts: list[object]) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]
