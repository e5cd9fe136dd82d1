"""Log lines that keep to the terminal."""

from __future__ import annotations

import logging

import pytest

from tract.common.terminal import FoldingFormatter, folded, width

PATH = "/runs/" + "a" * 120 + "/stage1-0123456789"


@pytest.mark.parametrize(("columns", "expected"), [("40", 80), ("90", 90), ("500", 100)])
def test_the_width_has_bounds(columns: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width() == expected


def test_folded_between_words_and_below_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "[12:00:00] " + "word " * 40
    lines = folded(text.rstrip()).splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 11 + "word") for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == text.rstrip()


def test_no_path_is_broken_and_no_table_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert PATH in folded(f"[12:00:00] stage1: finished, {PATH}")
    table = "results:\n" + "x  " * 60
    assert folded(table) == table


def test_in_a_file_a_message_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("tract", logging.INFO, __file__, 1, "word " * 40 + "WANDB_API_KEY=abcdefabcdef", None, None)
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "\n" not in FoldingFormatter("%(message)s").format(record)
    monkeypatch.setenv("COLUMNS", "80")
    shown = FoldingFormatter("%(message)s").format(record)
    assert "\n" in shown
    assert "abcdefabcdef" not in shown
