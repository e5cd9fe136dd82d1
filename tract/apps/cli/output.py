"""What commands write to stderr: notes, and progress, as a bar on a terminal, else as a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tract.common import signals
from tract.common.command_line import given_command
from tract.common.masking import masked_text

EVERY_S = 15.0


def note(text: str) -> None:
    """Writes a line to stderr."""
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
    sys.stderr.flush()


@contextmanager
def progress(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows how far rows are; gives a function that is told how many were added."""
    if not sys.stderr.isatty():
        from tract.common.progress import Progress

        yield Progress(what, "rows", total, done, note, every_s=EVERY_S).advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def interrupt_message(number: int, reason: str) -> None:
    """Says that a signal ended the command, and how to go on: what was begun anew is not begun anew once more."""
    with suppress(OSError):
        sys.stdout.flush()
    command = [argument for argument in given_command() if argument != "--restart"]
    note(masked_text(signals.interrupt_line(number, reason, command)))
