"""Where a sampled CoT ends, and which score drawn tokens stand for. Pure.

A CoT ends at the answer cue, wherever it begins and however it is cut into tokens, at another statement of the score, or at the end of
turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tract.inference.judgement import SCORE
from tract.text.cot_extraction import cot_end
from tract.text.layout import SequenceLayout

# Tokens beyond those of the cue that are looked at: the newest one may hold more than the end of the cue.
_MARGIN = 8
# Tokens that a judge may write freely behind its own cue, beyond those of a score: blanks, brackets, the end of turn.
_FREE_MARGIN = 4


class CueFinder:
    """Finds the answer cue at the end of sampled tokens, by its text: a judge may cut it otherwise than the layout does."""

    def __init__(self, layout: SequenceLayout) -> None:
        self._tokenizer = layout.tokenizer
        self._cue = layout.cue.strip()
        self._blank = layout.cue[: len(layout.cue) - len(layout.cue.lstrip())]
        # A judge may cut the cue into more tokens than the layout does, at worst one for each byte.
        self._window = len(self._cue.encode()) + _MARGIN
        self.end_ids = frozenset(layout.encoder.control_ids) | {layout.end_id}

    def cot_length(self, ids: Sequence[int]) -> int | None:
        """How many of the tokens are the CoT's, if the newest one completes the cue; else None.

        The tokens before the cue are kept, up to the first one that holds a piece of it; one that holds only the blank in
        front of the cue is the cue's, as in the layout.
        """
        start = max(0, len(ids) - self._window)
        text = self._text(ids[start:])
        place = text.rfind(self._cue)
        if place < 0:
            return None
        kept = len(ids)
        while kept > start and len(self._text(ids[start:kept])) > place:
            kept -= 1
        # Texts, not their lengths: half a letter is as long as a whole one.
        before = text[:place]
        if kept > start and self._text(ids[start:kept]) == before == self._text(ids[start : kept - 1]) + self._blank:
            kept -= 1
        return kept

    def first_cue(self, ids: Sequence[int]) -> tuple[int, int] | None:
        """Where the cue was completed first, for tokens that were sampled without looking at each.

        Returns:
            (tokens of the CoT, tokens up to the end of the cue), or None if there is no cue.
        """
        if self._cue not in self._text(ids):
            return None
        end = bisect_left(range(1, len(ids) + 1), True, key=lambda count: self._cue in self._text(ids[:count])) + 1
        length = self.cot_length(ids[:end])
        return None if length is None else (length, end)

    def closed(self, ids: Sequence[int], finish: str) -> tuple[int, str]:
        """(tokens of the CoT, why it ended), where a CoT without the cue may state its score in other words: it ends before they begin.

        Args:
            ids: of the CoT up to the cue, or to where it ended without one. finish: why it ended there.
        """
        text = self._text(ids)
        place = cot_end(text, self._cue)
        if place is None:
            return len(ids), finish
        # The fewest tokens that hold the CoT: a token for the blank after it is the statement's.
        kept = bisect_left(range(len(ids)), place, key=lambda count: len(self._text(ids[:count]).rstrip()))
        while kept and len(self._text(ids[:kept]).rstrip()) > place:  # a token of CoT and statement is the statement's
            kept -= 1
        return kept, SCORE

    def text(self, ids: Sequence[int]) -> str:
        """What the tokens say; control tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def free_tokens(layout: SequenceLayout) -> int:
    """The most tokens that a judge writes freely behind its own cue."""
    return max(len(ids) for ids in layout.score_ids) + _FREE_MARGIN


def score_of_path(path: tuple[int, ...], layout: SequenceLayout) -> int | None:
    """The place in the grid of the score that drawn tokens stand for, None if they stand for none.

    They end where the score is decided, so a score is known by what it begins with; one on which another goes on ("1" beside
    "10") is meant where the other does not go on.
    """
    begun = [k for k, ids in enumerate(layout.score_ids) if ids[: len(path)] == path]
    if len(begun) == 1:
        return begun[0]
    ended = [k for k, ids in enumerate(layout.score_ids) if ids == path[:-1]]
    return ended[0] if ended and path[:-1] in layout.trie.paths else None
