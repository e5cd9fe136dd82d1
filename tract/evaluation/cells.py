"""Numbers, names and tables as text: cells, counts, Markdown, aligned columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tract.evaluation.scored import Estimate

# In points, so they can exceed one and keep the zero before the decimal point.
IN_POINTS = frozenset({"rmse", "mae", "true_change", "undue_shift", "undue_size", "spread", "length_slope", "attack_shift", "attack_size"})
SHARES = frozenset({"accuracy_within_half", "score_mass", "failure_rate", "raised", "lowered"})

UNDEFINED = "undefined"  # computed, and no number came out
NOT_COMPUTED = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as text. ``marked``: it is a difference, not 0 as it is printed, whose interval excludes 0."""

    value: str
    interval: str = ""
    marked: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.value, self.interval, "*" if self.marked else "")))


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row: texts as given, not escaped, then numbers. ``failed``: they are mostly those of the declared score of failed draws."""

    texts: tuple[str, ...]
    cells: tuple[Cell, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its title and its heading: of the texts, then of the numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[TextRow, ...]


def printable(text: object) -> str:
    """One line of printable characters: blanks, line ends and control characters become single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def counted(number: int, noun: str) -> str:
    """``1 item``, ``2 items``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def percent(share: float) -> str:
    """A share as ``95 %``, with at most four digits."""
    return f"{100 * share:.4g} %"


def format_number(value: float, metric: str, *, signed: bool = False) -> str:
    """Three decimals; correlations and shares as ``.962``, points as ``0.962``.

    A share that is near 0 or 1 without being it is shown as ``<.001`` or ``>.999``: one failure in 5000 is not none.

    Args:
        value: finite. metric: its name. signed: write the sign of a positive value too (differences).
    """
    if metric in SHARES and not signed and 0 < value < 0.0005:
        return "<.001"
    if metric in SHARES and not signed and 0.9995 <= value < 1:
        return ">.999"
    text = f"{value:+.3f}" if signed and value != 0 else f"{value:z.3f}"
    return text if metric in IN_POINTS else re.sub(r"^([+-]?)0\.", r"\1.", text)


def rounds_to_zero(value: float) -> bool:
    """Whether a number is zero in three decimals."""
    return f"{value:z.3f}" == "0.000"


def cell(estimate: Estimate | None, metric: str, *, difference: bool = False) -> Cell:
    """``value [low, high]``; ``undefined`` for what has no value or no interval, ``-`` for None: not computed."""
    if estimate is None:
        return Cell(NOT_COMPUTED)
    if estimate.value is None:
        return Cell(UNDEFINED)
    # The sign of a bound says on which side of 0 it lies; a value that is zero as it is printed has none.
    value = format_number(estimate.value, metric, signed=difference and not rounds_to_zero(estimate.value))
    if estimate.interval is None:
        return Cell(value, f"[{UNDEFINED}]")
    low, high = (format_number(bound, metric, signed=difference) for bound in estimate.interval)
    excludes_zero = (estimate.interval[0] > 0 or estimate.interval[1] < 0) and not rounds_to_zero(estimate.value)
    return Cell(value, f"[{low}, {high}]", difference and excludes_zero)


def estimate_text(estimate: Estimate, form: str, *, scale: float = 1.0, unit: str = "") -> str:
    """``value [low, high]`` of an estimate; the value alone where it has no interval, ``none`` where it has no value.

    Args:
        estimate: of anything. form: a format specification such as ``+.3f``. scale: what the numbers are multiplied by.
        unit: text behind the value, such as `` %``.
    """
    if estimate.value is None:
        return "none"
    value = f"{estimate.value * scale:{form}}{unit}"
    if estimate.interval is None:
        return value
    low, high = (f"{bound * scale:{form}}" for bound in estimate.interval)
    return f"{value} [{low}, {high}]"


def name_value_lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A line ``name  value`` for each row, the values in one column; at least one row."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def escaped(text: object) -> str:
    """The text as one line of a Markdown table's cell."""
    # Backslash first of all: GitHub splits cells at a | unless an odd number of backslashes stands before it.
    return re.sub(r"([\\|`*<\[&])", r"\\\1", printable(text))


def markdown_lines(table: Sequence[Sequence[str]], texts: int) -> str:
    """A Markdown table of cells that are escaped already: the heading first, text in the first ``texts`` columns, numbers after."""
    head, *body = _aligned(table, texts)
    rule = ["-" * len(text) if k < texts else "-" * (len(text) - 1) + ":" for k, text in enumerate(head)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def markdown_of(table: Table) -> str:
    """The rows and the heading of a table in Markdown, names escaped."""
    # An asterisk alone between blanks is no emphasis, so numbers need no escape.
    lines = [[*map(escaped, row.texts), *map(str, row.cells)] for row in table.rows]
    return markdown_lines([list(table.head), *lines], len(table.rows[0].texts))


def text_table(table: Sequence[Sequence[str]], text_columns: int) -> list[str]:
    """The lines of an aligned table for the terminal: the heading, which comes first, a rule, the rows."""
    head, *body = ("  ".join(line) for line in _aligned(table, text_columns))
    return [head, "-" * len(head), *body]


def _aligned(table: Sequence[Sequence[str]], text_columns: int) -> list[list[str]]:
    """The cells padded to the longest of their column: texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        [text.ljust(width) if k < text_columns else text.rjust(width) for k, (text, width) in enumerate(zip(line, widths, strict=True))]
        for line in table
    ]


def shortened(text: str, width: int) -> str:
    """The text as one line of at most ``width`` characters."""
    line = printable(text)
    return line if len(line) <= width else line[: width - 3] + "..."
