"""The protocol of a data source: it yields raw rows with their place and turns each into a ``JudgeExample`` or tells why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tract.data.readers.rows import RawRow
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid


class Source(Protocol):
    """Where judge examples come from. Hydra builds one from the ``data.source`` node.

    A source may have an attribute ``equal_rows_are_votes``: whether rows that are equal come from different raters. Without it, they
    are copies, of which one is kept. Others are ``instructions_hold_rubric``: whether the instructions name what is judged, so that a
    prompt without the rubric hides nothing; ``takes_rubric``: whether it can be given a rubric for all rows; ``ids_tell_apart``:
    whether the ids are the user's own, so that the same text under two of them is two items; and ``rows_are_ratings``: whether each row
    names its rater, so that an id may be one rating's.
    """

    def rows(self) -> Iterator[RawRow]:
        """The raw rows, one after the other. A row that cannot even be read carries a ``rows.RowProblem``."""

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row, with its CoTs as they were written: ``stated_scores.without_scores`` takes the statements of scores out.

        Raises:
            ValueError: if the row cannot be used. The reason begins with a short category and a colon, by which rejected
                rows are counted; the caller adds the place. A ``TractError`` instead means that no row can be used.
        """

    def fingerprint(self) -> str:
        """Text that changes whenever the examples would: content, own arguments and version."""

    def describe(self) -> str:
        """The source in a few words, for messages and reports."""
