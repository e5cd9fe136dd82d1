"""Which example belongs to which split: decided by the question, by a seeded hash, once for all stages. Pure, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tract.common.errors import ConfigError, DataError
from tract.config.vocabulary import SPLITS


def split_questions(
    question_ids: Sequence[str], fixed: Sequence[str | None], *, seed: int, val_fraction: float, test_fraction: float
) -> dict[str, list[int]]:
    """The indices of the examples of each split, ascending; all examples of a question go to the same split.

    Questions that the source assigns to no split are ranked by a seeded hash of their id, so the order of the examples and the
    number of examples per question do not matter. The first go to validation, the next to test, the others to training.

    Args:
        question_ids: the question of each example.
        fixed: the split that the source itself assigns to each example, or None. One such example decides for its question.
        seed: another seed gives another split.
        val_fraction: share of the questions that the source assigns to no split; at least one question unless it is 0.
        test_fraction: as ``val_fraction``, for the test split.

    Raises:
        ConfigError: if a fraction is out of range, or no question is left for training.
        DataError: if a fixed split is unknown, or one question has several.
    """
    _check_fractions(val_fraction, test_fraction)
    split_of = _fixed_splits(question_ids, fixed)
    free = sorted(set(question_ids) - set(split_of), key=lambda question: (_split_rank(seed, question), question))
    n_val, n_test = _n_questions(len(free), val_fraction), _n_questions(len(free), test_fraction)
    # A source that assigns every split itself may well have no training questions: a benchmark.
    if free and n_val + n_test >= len(free) and "train" not in split_of.values():
        raise ConfigError(
            f"data.val_fraction: {val_fraction:g} with data.test_fraction {test_fraction:g} leaves no question for training: "
            f"{len(free)} questions, {n_val} for validation, {n_test} for test; lower the fractions, set one to 0, or add questions"
        )
    for rank, question in enumerate(free):
        split_of[question] = "val" if rank < n_val else "test" if rank < n_val + n_test else "train"
    indices: dict[str, list[int]] = {split: [] for split in SPLITS}
    for index, question in enumerate(question_ids):
        indices[split_of[question]].append(index)
    return indices


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    for key, fraction in (("data.val_fraction", val_fraction), ("data.test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ConfigError(
                f"{key}: {fraction:g} is not a share of the questions; a number from 0 up to, but not including, 1 is accepted"
            )
    if val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"data.val_fraction: {val_fraction:g} and data.test_fraction {test_fraction:g} sum to 1 or more; leave a share for training"
        )


def _fixed_splits(question_ids: Sequence[str], fixed: Sequence[str | None]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for question, split in zip(question_ids, fixed, strict=True):
        if split is None:
            continue
        if split not in SPLITS:
            raise DataError(f"question {question}: the source assigns the split {split!r}; {', '.join(SPLITS)} or null are accepted")
        if split_of.setdefault(question, split) != split:
            raise DataError(
                f"question {question}: the source assigns its examples to both {split_of[question]!r} and {split!r}; "
                "give all examples of a question the same split, or null"
            )
    return split_of


def _n_questions(n_questions: int, fraction: float) -> int:
    return 0 if fraction == 0 or n_questions == 0 else max(1, round(n_questions * fraction))


def _split_rank(seed: int, question: str) -> bytes:
    return hashlib.sha256(f"{seed}:{question}".encode()).digest()
