"""Reading a score out of freely written text. Pure."""

from __future__ import annotations

import re

from tract.text.score_grid import ScoreGrid
from tract.text.score_statement import RESULT_TAG

# Blanks, brackets and marks that judges put between the cue and the number: "is: (4)", "is **4**". ASCII digits alone, as in the
# grid's labels, and not the beginning of a longer number: "4,5", "1,000".
_NUMBER = r"[\s:(\[*_\"']*(-?[0-9]+(?:\.[0-9]+)?)(?![.,_]?\d)"


def parse_score(text: str, cue: str, grid: ScoreGrid) -> float | None:
    """The score that a text ends in: the number behind its last answer cue or ``[RESULT]``.

    Args:
        text: what the judge wrote. cue: the answer cue. grid: the scores that count.

    Returns:
        The score in points; None if there is no such number or it is not on the grid.
    """
    marks = (cue.strip(), RESULT_TAG)
    last = max(text.rfind(mark) for mark in marks)
    # A number behind an earlier mark says nothing where the last one has none.
    found = re.match(f"(?:{'|'.join(re.escape(mark) for mark in marks)}){_NUMBER}", text[last:]) if last >= 0 else None
    value = float(found[1]) if found else None
    return value if value in grid.values else None
