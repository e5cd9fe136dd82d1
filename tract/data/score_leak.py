"""A guard that knows no wording: do the CoTs of a data set give their scores away?

A CoT that states its score is met by copying, see ``tract.text.score_statement``. What its rules miss shows in the data set as a whole: the
last tokens of the CoTs hold the text of their own score more often than that of a score taken from another row.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract.common.errors import DataError
from tract.data.arrow_columns import arrow_column
from tract.data.tokens import TokenStore
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid
from tract.text.score_words import NUMBER_WORDS

log = logging.getLogger(__name__)

TAIL_TOKENS = 15
# Beyond chance means: by so many standard deviations of what shuffled scores give, so that a small data set is not refused by accident
# (of a thousand data sets without a leak, fewer than one), and by this share of the CoTs. Feedback that names a score in passing, where it
# cannot be called a statement, does so in about 2 % of real rows, and in half a percent within the last tokens (docs/own_data.md).
DEVIATIONS, MARGIN = 4.0, 0.02
_NUMBER = re.compile(rf"\d+(?:\.\d+)?|\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
_BATCH = 4096  # CoTs that are decoded at a time
_SHOWN, _SHOWN_CHARACTERS = 3, 100


@dataclass(frozen=True)
class ScoreLeak:
    """How often the last tokens of CoTs hold their own score.

    Attributes:
        cots: how many were checked. observed: the share that holds its own score. by_chance: the share with shuffled scores, expected.
        deviation: standard deviation of that share over all ways to shuffle. examples: (id, last tokens, score label) of a few that do.
    """

    cots: int
    observed: float
    by_chance: float
    deviation: float
    examples: tuple[tuple[str, str, str], ...]

    @property
    def margin(self) -> float:
        """The excess over chance that is accepted, as a share of the CoTs."""
        return max(MARGIN, DEVIATIONS * self.deviation)

    @property
    def found(self) -> bool:
        """Whether the scores are given away."""
        return self.observed - self.by_chance > self.margin

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        shares = {"own_score": self.observed, "by_chance": self.by_chance, "margin": self.margin}
        return {"cots": self.cots, "last_tokens": TAIL_TOKENS, **{name: round(share, 4) for name, share in shares.items()}}


def check_score_leak(tokens: TokenStore, layout: SequenceLayout, on_leak: str) -> ScoreLeak:
    """Checks the CoTs of all rows.

    Args:
        tokens: with the CoTs that are to be trained on. layout: made them. on_leak: "raise", or "warn" to log it only.

    Raises:
        DataError: if the CoTs give their scores away and ``on_leak`` is "raise"; it shows three of them.
    """
    leak = score_leak(tokens, layout)
    if leak.found:
        shown = "; ".join(f"{row_id}: {tail!r} with the score {label}" for row_id, tail, label in leak.examples)
        message = (
            f"data: of {leak.observed:.1%} of the {leak.cots} CoTs the last {TAIL_TOKENS} tokens hold their own score, by chance that is "
            f"{leak.by_chance:.1%} (accepted: {leak.margin:.1%} more), so a judge would learn to copy it; for example {shown}; take the "
            "statements of scores out of the CoTs, or set data.on_score_leak=warn if they are feedback"
        )
        if on_leak == "raise":
            raise DataError(message)
        log.warning("%s", message)
    return leak


def score_leak(tokens: TokenStore, layout: SequenceLayout) -> ScoreLeak:
    """The shares of a token store; all 0 where it has no CoT."""
    cots = [(row, cot_ids[-TAIL_TOKENS:], score) for row, cot_ids, score in _cots(tokens)]
    if not cots:
        return ScoreLeak(0, 0.0, 0.0, 0.0, ())
    rows, tails, scores = zip(*cots, strict=True)
    texts: list[str] = []
    for begin in range(0, len(tails), _BATCH):
        texts += layout.tokenizer.batch_decode(list(tails[begin : begin + _BATCH]), skip_special_tokens=False)
    holds, own = np.asarray([_held_scores(text, layout.grid) for text in texts], dtype=float), np.asarray(scores)
    leaking = np.flatnonzero(holds[np.arange(len(own)), own])[:_SHOWN].tolist()
    ids = arrow_column(tokens.dataset, "id")
    examples = tuple((str(ids[rows[k]]), texts[k][-_SHOWN_CHARACTERS:], layout.grid.labels[own[k]]) for k in leaking)
    return ScoreLeak(len(own), *_shares(holds, own), examples)


def _cots(tokens: TokenStore) -> Iterator[tuple[int, list[int], int]]:
    """(row, token ids, index of the score) of each CoT that is not empty."""
    rows = tokens.dataset.with_format("arrow").select_columns(["cot_ids", "score_index"])
    row = 0
    for table in rows.iter(batch_size=_BATCH):
        for cots, scores in zip(table["cot_ids"].to_pylist(), table["score_index"].to_pylist(), strict=True):
            yield from ((row, cot, score) for cot, score in zip(cots, scores, strict=True) if cot)
            row += 1


def _held_scores(text: str, grid: ScoreGrid) -> list[bool]:
    """[K] whether the text holds each score of the grid, in digits or as a word."""
    numbers = {float(NUMBER_WORDS.get(match[0].lower(), match[0])) for match in _NUMBER.finditer(text)}
    return [value in numbers for value in grid.values]


def _shares(holds: NDArray[np.float64], own: NDArray[np.int64]) -> tuple[float, float, float]:
    """(observed share, expected share with shuffled scores, its standard deviation).

    The number of CoTs that hold the score they are given is a sum of a matrix over a random permutation, whose mean and variance are known
    (Hoeffding 1951).

    Args:
        holds: [N, K] float64, 1 where a CoT holds a score. own: [N] int64, the index of each CoT's own score.
    """
    n = len(own)
    shares = np.bincount(own, minlength=holds.shape[1]) / n
    by_score, by_cot = holds.mean(axis=0), holds @ shares
    expected = float(by_score @ shares)
    centered = holds - by_cot[:, None] - by_score[None, :] + expected
    variance = float(((centered**2) @ shares).sum()) * n / (n - 1) / n**2 if n > 1 else 0.0
    return float(holds[np.arange(n), own].mean()), expected, math.sqrt(max(variance, 0.0))
