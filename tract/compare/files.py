"""The files of a comparison: name -> content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tract.compare.comparison import Comparison
from tract.compare.csv_table import csv_text
from tract.compare.tables import markdown


def files_of(comparison: Comparison, folders: Sequence[str]) -> Mapping[str, str | bytes]:
    """Tables, plots and the page; the same comparison gives the same bytes."""
    return {"comparison.md": markdown(comparison), "comparison.csv": csv_text(comparison)}
