"""How wide the output is, and log lines that keep to it. Standard library alone, but for the masking of secrets."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap

from tract.common.masking import MaskedFormatter

# Columns of a terminal that are used.
NARROWEST, WIDEST = 80, 100
_INDENT = " " * len("[00:00:00] ")  # below the time


def width() -> int:
    """The columns to write in: those of the terminal (or ``COLUMNS``), within bounds."""
    return min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)


def folded(text: str, indent: str = _INDENT) -> str:
    """The text with its first line folded between words to the width; further lines, such as tables and commands, stay as they are.

    No word is broken, so that a path, a hash or a key can be copied, however long it is.
    """
    first, newline, rest = text.partition("\n")
    if len(first) > width():
        lines = textwrap.wrap(first, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        first = "\n".join(lines)
    return first + newline + rest


def folds() -> bool:
    """Whether people read the output as it comes: on a terminal, or where ``COLUMNS`` is set."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


class FoldingFormatter(MaskedFormatter):
    """Folds long lines where people read them: on a terminal, or where ``COLUMNS`` is set. In a file each message stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, of a record."""
        text = super().format(record)
        return folded(text) if folds() else text


def say(text: str) -> None:
    """Writes lines to stdout at once; who reads no further (``| head``) does not stop what is at work."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(f"{text}\n".encode(encoding, "replace").decode(encoding))  # a name may hold what the terminal cannot show
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
