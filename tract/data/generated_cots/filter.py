"""Which of the CoTs that a judge generated are kept as training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from tract.common.errors import ConfigError
from tract.data.arrow_columns import arrow_column, numpy_column
from tract.data.generated_cots.checks import cot_at

REASONS = ("truncated", "empty", "without_cue", "not_closest")  # in the order in which they are looked for
SHOWN_DROPS = 3  # of each reason
SHOWN_CHARACTERS = 200  # of a dropped CoT


@dataclass(frozen=True)
class CotFilter:
    """Which generated CoTs are kept.

    Attributes:
        drop_truncated: drop those that hit the token limit.
        drop_empty: drop those without a token, or of blanks alone.
        drop_without_cue: drop those that ended neither at the answer cue nor at another statement of the score; truncated ones too.
        keep_closest: of each example's CoTs that are left, keep so many whose own mean score is nearest to the true one;
            None keeps all.
    """

    drop_truncated: bool
    drop_empty: bool
    drop_without_cue: bool
    keep_closest: int | None

    def __post_init__(self) -> None:
        for name in ("drop_truncated", "drop_empty", "drop_without_cue"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"stage2.filter.{name}: {value!r} is neither true nor false")
        k = self.keep_closest
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise ConfigError(f"stage2.filter.keep_closest: {k!r} is not a whole number >= 1; null keeps all")


@dataclass(frozen=True)
class DroppedCot:
    """A dropped CoT, for the log; ``text`` is its beginning."""

    id: str
    sample: int
    reason: str
    text: str


@dataclass(frozen=True)
class FilterResult:
    """Which of N generated CoTs are kept.

    Attributes:
        keep: [N] bool.
        reasons: for each CoT, one of ``REASONS``, or None if it is kept.
        counts: CoTs: "kept", and "dropped_<reason>" for every reason, 0 included.
        examples: the first few that were dropped for each reason.
    """

    keep: NDArray[np.bool_]
    reasons: list[str | None]
    counts: dict[str, int]
    examples: list[DroppedCot]


def filter_cots(cots: Dataset, policy: CotFilter) -> FilterResult:
    """Applies a policy to generated CoTs; each is dropped for the first of ``REASONS`` that holds. Reads no token ids."""
    finish = arrow_column(cots, "finish")
    tests = {
        "truncated": policy.drop_truncated and pc.equal(finish, "length").to_numpy(),
        "empty": policy.drop_empty and _is_empty(cots),
        "without_cue": policy.drop_without_cue and ~pc.is_in(finish, value_set=pa.array(["cue", "score"])).to_numpy(),
    }
    code = np.zeros(len(cots), dtype=np.int8)  # 0: kept; else one more than the place in REASONS
    for number, reason in enumerate(REASONS, start=1):
        if reason in tests:
            code[(code == 0) & tests[reason]] = number
    if policy.keep_closest is not None:
        code[(code == 0) & ~_closest_of_each_row(cots, code == 0, policy.keep_closest)] = 1 + REASONS.index("not_closest")
    names = ("kept", *(f"dropped_{reason}" for reason in REASONS))
    counts = dict(zip(names, np.bincount(code, minlength=len(names)).tolist(), strict=True))
    shown = [(reason, place) for number, reason in enumerate(REASONS, start=1) for place in np.flatnonzero(code == number)[:SHOWN_DROPS]]
    by_code = (None, *REASONS)
    examples = [_dropped_cot(cots, int(place), reason) for reason, place in shown]
    return FilterResult(code == 0, [by_code[c] for c in code.tolist()], counts, examples)


def _is_empty(cots: Dataset) -> NDArray[np.bool_]:
    """[N] whether a CoT has no token or no text but blanks."""
    text = arrow_column(cots, "cot")
    no_tokens = pc.equal(pc.list_value_length(arrow_column(cots, "cot_ids")), 0)
    no_text = pc.or_(pc.equal(pc.binary_length(text), 0), pc.utf8_is_space(text))
    empty: NDArray[np.bool_] = pc.or_(no_tokens, no_text).to_numpy()
    return empty


def _closest_of_each_row(cots: Dataset, candidates: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """[N] whether a CoT is one of the k candidates of its row with the smallest error; ties go to the lower sample."""
    rows, samples = numpy_column(cots, "row"), numpy_column(cots, "sample")
    errors = np.abs(numpy_column(cots, "rail").astype(np.float64) - numpy_column(cots, "score"))
    index = np.flatnonzero(candidates)
    order = index[np.lexsort((samples[index], errors[index], rows[index]))]  # by row, then error (NaN last), then sample
    places = np.arange(len(order))
    begins = np.diff(rows[order], prepend=-1) != 0
    rank = places - np.maximum.accumulate(np.where(begins, places, 0))  # within the row
    closest = np.zeros(len(cots), dtype=bool)
    closest[order[rank < k]] = True
    return closest


def _dropped_cot(cots: Dataset, place: int, reason: str) -> DroppedCot:
    cot = cot_at(cots, place)
    return DroppedCot(cot["id"], cot["sample"], reason, cot["cot"][:SHOWN_CHARACTERS])
