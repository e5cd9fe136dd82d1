"""A prompt that leaves room for what follows it: the middle of a long field is left out, as little as is needed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptText

# The fields that may be shortened.
SHORTENABLE = ("response", "reference_answer")
# A field is not shortened below this many characters: what is left would tell the judge nothing.
MIN_KEPT_CHARS = 64
# A length is searched for up to so many characters.
_CLOSE_CHARS = 8


def shortened(prompt: PromptText, layout: SequenceLayout, room: int, fields: Sequence[str]) -> list[int] | None:
    """Token ids of the prompt with as little as needed left out; None if all that may go is not enough.

    Args:
        prompt: one that does not fit. room: the most tokens that it may have. fields: what may be shortened, first one first.
    """
    for field in fields:
        present = max((len(part.text) for part in prompt.parts if part.field == field), default=0)
        if present <= MIN_KEPT_CHARS:
            continue
        least = prompt.shorten(field, MIN_KEPT_CHARS)
        if len(layout.prompt_ids(least)) > room:
            prompt = least  # not enough: go on with the next field
            continue
        low, high = MIN_KEPT_CHARS, present  # low fits, high does not
        while high - low > _CLOSE_CHARS:
            middle = (low + high) // 2
            fits = len(layout.prompt_ids(prompt.shorten(field, middle))) <= room
            low, high = (middle, high) if fits else (low, middle)
        return layout.prompt_ids(prompt.shorten(field, low))
    return None
