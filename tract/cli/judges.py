"""What the commands that read files of responses share: where a row's fields stand, and the judge that is asked for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tract.judge.judge import Judge


def open_judge(path: str, options: dict[str, Any]) -> Judge:
    """The judge.

    Raises:
        ConfigError, DataError: if it cannot be opened so.
    """
    from tract.judge.judge import Judge

    return Judge.from_pretrained(path, **options)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says where a row's fields stand."""
    parser.add_argument(
        "--rubric", metavar="FILE", help="YAML with criteria and descriptions, for all rows (default: that of each row, if any)"
    )
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="FIELD=COLUMN", action="extend",
        help="which columns hold instruction, response, reference_answer, id, criteria, score_descriptions.SCORE "
        "(default: those of the same names)",
    )  # fmt: skip
