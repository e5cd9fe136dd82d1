"""What a stage's own process saved before a signal ended it, as a file for the process that started it."""

from __future__ import annotations

import json
from pathlib import Path

from tract.common import signals
from tract.common.durable import write_atomically

_NOTE = "interrupted.json"


def leave_note(folder: Path, number: int, reason: str) -> None:
    """Writes the note of this process.

    Args:
        number: of the signal. reason: why the work was not waited for, or "".
    """
    content = {"number": number, "where": signals.status_with(reason), "renewed": sorted(signals.rebuilt())}
    with write_atomically(folder / _NOTE) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def take_note(folder: Path) -> bool:
    """Takes over signal and status from the note of a process that worked for this one; whether there is one."""
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    signals.set_status(note["where"])
    for stage in note["renewed"]:
        signals.add_rebuilt(stage)
    signals.adopt(note["number"])
    return True


def discard_note(folder: Path) -> None:
    """Removes the note of a process that did not end by a signal of the user's."""
    (folder / _NOTE).unlink(missing_ok=True)
