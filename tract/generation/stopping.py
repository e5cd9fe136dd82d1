"""Where a sampled CoT ends: at the answer cue, wherever it begins and however it is cut into tokens, or at the end of turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tract.layout import SequenceLayout

# Tokens beyond those of the cue that are looked at: the newest one may hold more than the end of the cue.
_MARGIN = 8


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

    def text(self, ids: Sequence[int]) -> str:
        """What the tokens say; control tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
