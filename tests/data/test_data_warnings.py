"""What is said about raters that are named: nobody shared an item, or one rater has two names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tract.data.data_warnings import rater_warnings
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.store import build_store
from tract.text.score_grid import ScoreGrid

Said = Callable[..., list[str]]
COLUMNS = {"instruction": "q", "response": "a", "score": "s", "rater": "who"}


@pytest.fixture
def said(tmp_path: Path) -> Said:
    def run(rows: list[tuple[str, str | None]], *, grouped: bool = True) -> list[str]:
        path = tmp_path / "in.jsonl"
        path.write_text("".join(json.dumps({"q": "Q?", "a": answer, "who": who, "s": 3}) + "\n" for answer, who in rows))
        store = build_store(MappedColumns(str(path), COLUMNS), ScoreGrid(("1", "2", "3")), "raise", grouped, tmp_path / "cache", cue=None)
        return list(rater_warnings(store, grouped=grouped))

    return run


def test_raters_who_share_no_item_are_named_with_what_makes_items_one(said: Said) -> None:
    rows = [("A", "ben"), ("A ", "ann"), ("B", None)]
    (line,) = said(rows)
    assert line.startswith("2 raters are named, but no item has scores of two: ")
    assert "blanks" in line
    assert "question_id" in line
    assert said(rows, grouped=False) == []
    assert said([*rows, ("A", "ann")]) == []
    assert said([("A", "ben"), ("B", "ben")]) == []  # one rater
    assert said([("A", None), ("B", None)]) == []


def test_names_that_differ_in_case_alone_are_named_and_blanks_around_them_do_not_count(said: Said) -> None:
    (line,) = said([("A", "Ben"), ("A", "ann"), ("B", "ben"), ("B", "ann ")])
    assert line.startswith("raters: 'Ben' and 'ben' differ only in upper and lower case or blanks, and count as different raters")
