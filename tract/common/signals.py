"""What SIGTERM and Ctrl-C do: the process ends at once, or where its work can be left, and says how to go on. Standard library alone.

Only the process that a user started says so, and ends at once when it is told a second time. A stage's own process
(``tract.pipeline.launching.job``) leaves a note of what it saved, and does not mind how often it is told: a terminal,
a batch system and the pipeline may all do it.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The longest that work goes on after a signal; batch systems kill half a minute after it.
PATIENCE_S = 20.0
_FOR_THE_NOTE_S = 5.0  # that is waited longer for another process, which has the patience above
_TWICE_S = 1.0  # what comes again within this time is one signal on two ways, e.g. by torchrun and by the batch system
_NOTE = "interrupted.json"


class Interrupted(SystemExit):
    """The end of the process by a signal, with the exit status that shells have for it. No error, so that nobody handles it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@dataclass
class _State:
    """Of this process.

    Attributes:
        number: of the signal that asks for its end; 0 if none does.
        postponed: whether the work ends by itself where it can be left. where: what is said of it.
        watched: whether the time runs already.
        process: who does the work and is told, if it is another process. bell: wakes the watch.
        forced: stages that are to be made anew. renewed: those of them whose old product is gone, so that what there is is new.
        launched: whether a launcher started several of this process.
        last_words: says that it ends, given the signal and why its work was not waited for, once.
    """

    number: int = 0
    postponed: bool = False
    where: str | Callable[[], str] = ""
    watched: bool = False
    process: subprocess.Popen[bytes] | None = None
    bell: socket.socket | None = None
    forced: Sequence[str] = ()
    rebuilt: set[str] = field(default_factory=set)
    launched: bool = False
    interrupt_message: Callable[[int, str], None] | None = None


_state = _State()
_speaking = threading.Lock()


def requested() -> int:
    """The signal that asks this process to end; 0 if none does."""
    return _state.number


def adopt(number: int) -> None:
    """Takes a signal that another process got for one of this process's; 0 for none."""
    if number and not _state.number:
        _state.number = number
        if _state.bell is not None and not _state.watched:
            _state.bell.send(bytes([number]))


def check() -> None:
    """Ends the process if a signal has asked for it.

    Raises:
        Interrupted: if so.
    """
    if _state.number:
        raise Interrupted(_state.number)


def at(where: str | Callable[[], str]) -> None:
    """Tells what is at work and what of it is saved, or who knows, for the last line: "in evaluate", "after stage1, which is complete"."""
    _state.where = where


def postpone(*, wanted: bool) -> None:
    """From here on a signal is only noted (``requested``, ``check``), until this is called again."""
    _state.postponed = wanted


@contextmanager
def postponed() -> Iterator[None]:
    """A signal ends the process behind this block."""
    before, _state.postponed = _state.postponed, True
    try:
        yield
    finally:
        _state.postponed = before
    if not before:
        check()


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works for this one: it is told of signals and leaves its work itself; to be used inside ``postponed``."""
    check()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the process lets them in when it knows what to do
    try:
        process = _state.process = subprocess.Popen(command, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield process
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        _state.process = None


@contextmanager
def handled(interrupt_message: Callable[[int, str], None], *, once: bool) -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C end the process by ``Interrupted``, with last words, soon after ``PATIENCE_S`` at the latest.

    Args:
        last_words: say that the process ends, given the signal and why its work was not waited for, or "".
        once: a second signal ends the process at once.

    Raises:
        Interrupted: after the last words. An error while the process was ending is one of its ending.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, own = _state, _State(interrupt_message=interrupt_message)
    ear, own.bell = socket.socketpair()
    own.bell.setblocking(False)
    _state = own
    threading.Thread(target=_watch, args=(own, ear, once), daemon=True).start()
    # What a signal writes is read at once, even while the main thread is inside a library, where no handler can run.
    wakeup = signal.set_wakeup_fd(own.bell.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_leave_to_parent)
    # A process in the background of a script is told by the shell to ignore Ctrl-C.
    handlers = {number: signal.signal(number, _on_signal) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    except BaseException:
        if not own.number:
            raise
        _say(own, own.number, "")
        raise Interrupted(own.number) from None
    finally:
        if not own.number:  # else the process is ending, and watched until it has
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            own.bell.close()
            _state = outer


def _on_signal(number: int, frame: Any) -> None:
    if _state.number:
        return  # the watch sees to it
    _state.number = number
    if _state.process is not None:
        _state.process.send_signal(number)
    if not _state.postponed:
        raise Interrupted(number)


def _leave_to_parent() -> None:
    """In a forked process, such as one that loads data: who forked it ends it."""
    if _state.bell is None:
        return
    with suppress(ValueError):  # forked by another thread
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(state: _State, ear: socket.socket, once: bool) -> None:
    """Ends the process when it was told twice, or does not end in time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # only in the main thread do they break off what waits
    number, first, deadline = 0, 0.0, float("inf")
    while True:
        left = None if not number else max(deadline - time.monotonic(), 0.0)
        ready, _, _ = select.select([ear], [], [], left)
        now = time.monotonic()
        if not ready:
            _leave(state, number, f"what was at work did not end within {PATIENCE_S:g} s")
        told = ear.recv(1)
        if not told:
            return
        if told[0] not in SIGNALS:
            continue
        if not number:
            number, first, state.watched = told[0], now, True
            deadline = now + PATIENCE_S + (_FOR_THE_NOTE_S if state.process is not None else 0)
        elif once and now - first > _TWICE_S:
            _leave(state, number, "told twice, ended at once")


def _leave(state: _State, number: int, reason: str) -> None:
    try:
        _say(state, number, reason)
        if state.process is not None:
            state.process.kill()
    finally:
        os._exit(128 + number)


def _say(state: _State, number: int, reason: str) -> None:
    """The last words, once."""
    if state.interrupt_message is not None and _speaking.acquire(blocking=False):
        with suppress(OSError):  # a full disk, a terminal that was closed
            state.interrupt_message(number, reason)


def where() -> str:
    """What was told to be at work."""
    return _state.where if isinstance(_state.where, str) else _state.where()


def leave_note(folder: Path, number: int, reason: str) -> None:
    """Last words of a process that works for another one."""
    content = {"number": number, "where": _told(reason), "renewed": sorted(_state.rebuilt)}
    temporary = folder / f"{_NOTE}.tmp"
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, folder / _NOTE)


def take_note(folder: Path) -> bool:
    """Reads what a process left that worked for this one; whether it did."""
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    _state.where = note["where"]
    _state.rebuilt |= set(note["renewed"])
    adopt(note["number"])
    return True


def discard_note(folder: Path) -> None:
    """Takes away what a process left that did not end for a signal of the user's."""
    (folder / _NOTE).unlink(missing_ok=True)


def is_status_of_one(status: int) -> bool:
    """Whether a process ended with the status of ``Interrupted``."""
    return status - 128 in SIGNALS


def _told(reason: str) -> str:
    return f"{where()} ({reason})" if reason else where()


def last_line(number: int, reason: str, arguments: Sequence[str]) -> str:
    """Which signal came, what was saved, and the command to continue.

    Args:
        number: of the signal. reason: why the work was not waited for, or "". arguments: the command that the user gave.
    """
    told = f" {_told(reason)}".rstrip()
    command = "the same command" if _state.launched else shlex.join(to_continue(arguments, _state.forced, _state.rebuilt))
    return f"interrupted ({signal.Signals(number).name}){told}; go on with: {command}"


def to_continue(arguments: Sequence[str], forced: Iterable[str], rebuilt: Iterable[str]) -> list[str]:
    """The command that goes on with what this one has begun: what was begun anew is not to be begun anew once more.

    Args:
        arguments: the command. forced: stages that it makes anew. renewed: those of them whose old product is gone already.
    """
    left = [name for name in forced if name not in set(rebuilt)]
    if left == list(forced):
        return list(arguments)
    return [*(argument for argument in arguments if not re.match(r"\+*force=", argument)), f"force=[{','.join(left)}]"]


def force(stages: Sequence[str]) -> None:
    """Tells which stages are to be made anew."""
    _state.forced = stages


def rebuilt(stage: str) -> None:
    """Tells that the old product of a stage is gone, so that what there is of it is to be gone on with."""
    _state.rebuilt.add(stage)


def launched(*, first: bool) -> None:
    """Tells that a launcher started several of this process; only the first one says the last line."""
    _state.launched = True
    if not first:
        _state.interrupt_message = None
