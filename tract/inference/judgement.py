"""What a judge says about one response: a CoT and what was read behind it. Pure data, kept as JSON lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Why a CoT ended.
CUE = "cue"  # the judge began the answer cue
END = "end"  # it ended its turn without a cue
SCORE = "score"  # it stated its score in other words than the cue, before it or without it
LENGTH = "length"  # it ran into the limit of tokens
GIVEN = "given"  # it was not sampled but given
NONE = "none"  # there is none: the cue follows the prompt
FINISHES = (CUE, SCORE, END, LENGTH, GIVEN, NONE)

# The most that the probabilities of the grid may sum to. A server in bfloat16 may answer for each score by a pass of its own, so a
# hundredth more than one is rounding; beyond it the numbers are no distribution.
MOST_MASS = 1.01

# The sample number of the judgement without a CoT.
DIRECT = -1

# Attributes of a judgement that have another name in JSON, and the other way round.
_JSON_KEYS = {"forced_decode": "forced", "raw_output": "free_text"}
_ATTRIBUTES = {key: name for name, key in _JSON_KEYS.items()}

# The CoTs of a prompt that are given: (sample number, token ids).
GivenCots = Sequence[tuple[int, Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to judge: id of the example, its row in the token store, token ids of the chat-templated prompt."""

    id: str
    row: int
    prompt_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One CoT of one example, and what was read behind it.

    Attributes:
        id, row: the example and its row in the token store.
        sample: number of the CoT among those of the example; ``DIRECT`` for the reading right behind the prompt.
        cot_ids: token ids of the CoT, cut before the cue or the first other statement of the score. cot: their text.
        finish: why the CoT ended, one of ``FINISHES``.
        probabilities: p(score | prompt, CoT, cue) for each score of the grid, from the full softmax.
        forced_decode: place in the grid of the score drawn behind the forced cue; None if what was drawn is no score.
        raw_output: all that was written freely, cue and score included; None where nothing was.
        thoughts: what a reasoning model thought before, which is no part of the CoT; empty for all others.
    """

    id: str
    row: int
    sample: int
    cot_ids: tuple[int, ...]
    cot: str
    finish: str
    probabilities: tuple[float, ...]
    forced_decode: int | None
    raw_output: str | None
    thoughts: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ``from_dict`` gives it back, floats included to the last bit."""
        record = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        if not self.thoughts:  # as judgements were kept before there were any
            del record["thoughts"]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Judgement:
        """The judgement of a JSON object.

        Raises:
            TypeError, ValueError: if keys are missing or unknown, ``finish`` is, or the probabilities are none.
        """
        values = {_ATTRIBUTES.get(key, key): value for key, value in record.items()}
        judgement = cls(**{**values, "cot_ids": tuple(record["cot_ids"]), "probabilities": tuple(record["probabilities"])})
        if judgement.finish not in FINISHES:
            raise ValueError(f"finish: {judgement.finish!r} is not one of {', '.join(FINISHES)}")
        if problem := no_distribution(judgement.probabilities):
            raise ValueError(f"probabilities: {problem}")
        return judgement


def no_distribution(probabilities: Sequence[float]) -> str | None:
    """What keeps numbers from being probabilities of different scores, in a few words; None if nothing does."""
    for place, p in enumerate(probabilities):
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not math.isfinite(p) or p < 0:
            return f"that of score number {place + 1} is {p}"
    mass = math.fsum(probabilities)
    return f"they sum to {mass:.4g}, more than 1" if mass > MOST_MASS else None
