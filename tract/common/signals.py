"""What SIGTERM and Ctrl-C do: the process ends at once, or where its work can be left, and says how to continue. Standard library alone.

Only the process that a user started prints that line, and ends at once at a second signal. A stage's own process leaves a note of what
it saved (``tract.pipeline.launching.interrupt_note``), and takes any number of signals for one: a terminal, a batch system and the
pipeline may all send it one. A server (``notified``) finishes what it has begun instead.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The longest that work continues after a signal; batch systems kill half a minute after it.
PATIENCE_S = 20.0
_NOTE_PATIENCE_S = 5.0  # beyond that, for a child process that has the same patience and leaves a note then
_REPEAT_S = 1.0  # signals within this time are one, sent on two ways, e.g. by torchrun and by the batch system
_AT_ONCE = "told twice, ended at once"


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
        number: of the signal that requests its end; 0 if none does.
        postponed: whether a signal is only noted, since the work ends by itself where it can be left.
        status: what is at work and what of it is saved.
        watched: whether the time until the forced end is running.
        child: the process that does the work, if it is another one; signals are passed on to it. bell: wakes the watch thread.
        forced: stages that are to be rebuilt. rebuilt: those of them whose old product is gone, so that what there is is new.
        launched: whether a launcher started several of this process.
        interrupt_message: says once that the process ends, given the signal and why its work was not waited for.
    """

    number: int = 0
    postponed: bool = False
    status: str | Callable[[], str] = ""
    watched: bool = False
    child: subprocess.Popen[bytes] | None = None
    bell: socket.socket | None = None
    forced: Sequence[str] = ()
    rebuilt: set[str] = field(default_factory=set)
    launched: bool = False
    interrupt_message: Callable[[int, str], None] | None = None


_state = _State()
_speaking = threading.Lock()


def requested() -> int:
    """The signal that requests the end of this process; 0 if none does."""
    return _state.number


def adopt(number: int) -> None:
    """Takes a signal that another process got for one of this process's; 0 for none."""
    if number and not _state.number:
        _state.number = number
        if _state.bell is not None and not _state.watched:
            _state.bell.send(bytes([number]))


def check() -> None:
    """Ends the process if a signal has requested it.

    Raises:
        Interrupted: if so.
    """
    if _state.number:
        raise Interrupted(_state.number)


def set_status(status: str | Callable[[], str]) -> None:
    """Sets what is at work and what of it is saved, or who knows, for the last line: "in evaluate", "after stage1, which is complete"."""
    _state.status = status


def status() -> str:
    """What ``set_status`` was given, by now."""
    return _state.status if isinstance(_state.status, str) else _state.status()


def set_forced(stages: Sequence[str]) -> None:
    """Sets which stages are to be rebuilt."""
    _state.forced = stages


def add_rebuilt(stage: str) -> None:
    """Adds a stage whose old product is gone, so that what there is of it is to be continued."""
    _state.rebuilt.add(stage)


def rebuilt() -> set[str]:
    """The stages that ``add_rebuilt`` was given."""
    return set(_state.rebuilt)


def set_launched(*, first: bool) -> None:
    """Says that a launcher started several of this process; only the first one prints the last line."""
    _state.launched = True
    if not first:
        _state.interrupt_message = None


def postpone(*, wanted: bool) -> None:
    """From here on a signal is only noted (``requested``, ``check``), until this is called again."""
    _state.postponed = wanted


@contextmanager
def postponed() -> Iterator[None]:
    """A signal ends the process after this block."""
    before, _state.postponed = _state.postponed, True
    try:
        yield
    finally:
        _state.postponed = before
    if not before:
        check()


@contextmanager
def child_process(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works for this one: it gets its signals and leaves its work itself; to be used inside ``postponed``."""
    check()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the process lets them in when it knows what to do
    try:
        process = _state.child = subprocess.Popen(command, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield process
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        _state.child = None


@contextmanager
def handled(interrupt_message: Callable[[int, str], None], *, once: bool) -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C end the process by ``Interrupted``, soon after ``PATIENCE_S`` at the latest.

    Args:
        interrupt_message: says that the process ends, given the signal and why its work was not waited for, or "".
        once: a second signal ends the process at once.

    Raises:
        Interrupted: after the message. An error while the process was ending is one of its ending.
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
    restore = _install(_on_signal, own.bell.fileno())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    except BaseException:
        if not own.number:
            raise
        _print_message(own, own.number, "")
        raise Interrupted(own.number) from None
    finally:
        if not own.number:  # else the process is ending, and watched until it has
            restore()
            own.bell.close()
            _state = outer


@contextmanager
def notified(callback: Callable[[], object]) -> Iterator[None]:
    """Calls ``callback`` on SIGTERM or Ctrl-C, in place of the handlers of before; a second signal ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def on_signal(number: int, frame: Any) -> None:
        nonlocal first
        if not first:
            first = time.monotonic()
            callback()
        elif time.monotonic() - first > _REPEAT_S:
            os.write(2, f"{_AT_ONCE}\n".encode())
            os._exit(128 + number)

    restore = _install(on_signal, -1)  # the watch thread of ``handled`` would count the seconds until this process is to be gone
    try:
        yield
    finally:
        restore()


def _install(handler: Callable[[int, Any], None], wakeup_fd: int) -> Callable[[], None]:
    """Sets the handler and who is woken by signals; returns what sets both as they were before."""
    wakeup = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    # The shell lets a process in the background of a script ignore Ctrl-C.
    before = {number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}

    def restore() -> None:
        for number, previous in before.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(wakeup)

    return restore


def _on_signal(number: int, frame: Any) -> None:
    if _state.number:
        return  # the watch thread sees to it
    _state.number = number
    if _state.child is not None:
        _state.child.send_signal(number)
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


os.register_at_fork(after_in_child=_leave_to_parent)


def _watch(state: _State, ear: socket.socket, once: bool) -> None:
    """Ends the process at a second signal, or when it does not end in time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # only in the main thread do they break off what waits
    number, first = 0, 0.0
    while received := ear.recv(1):
        now = time.monotonic()
        if received[0] not in SIGNALS:
            continue
        if not state.watched:
            number, first, state.watched = received[0], now, True
            reason = f"what was at work did not end within {PATIENCE_S:g} s"
            end = threading.Timer(PATIENCE_S + (_NOTE_PATIENCE_S if state.child is not None else 0), _exit_now, (state, number, reason))
            end.daemon = True
            end.start()
        elif once and now - first > _REPEAT_S:
            _exit_now(state, number, _AT_ONCE)


def _exit_now(state: _State, number: int, reason: str) -> None:
    try:
        _print_message(state, number, reason)
        if state.child is not None:
            state.child.kill()
    finally:
        os._exit(128 + number)


def _print_message(state: _State, number: int, reason: str) -> None:
    """The message of the process's end, once."""
    if state.interrupt_message is not None and _speaking.acquire(blocking=False):
        with suppress(OSError):  # a full disk, a terminal that was closed
            state.interrupt_message(number, reason)


def is_interrupt_status(exit_status: int) -> bool:
    """Whether a process ended with the status of ``Interrupted``."""
    return exit_status - 128 in SIGNALS


def status_with(reason: str) -> str:
    """What ``status`` says, and why the work was not waited for, or ""."""
    return f"{status()} ({reason})" if reason else status()


def interrupt_line(number: int, reason: str, arguments: Sequence[str]) -> str:
    """Which signal came, what was saved, and the command to continue.

    Args:
        number: of the signal. reason: why the work was not waited for, or "". arguments: the command that the user gave.
    """
    saved = f" {status_with(reason)}".rstrip()
    command = "the same command" if _state.launched else shlex.join(resume_command(arguments, _state.forced, _state.rebuilt))
    return f"interrupted ({signal.Signals(number).name}){saved}; go on with: {command}"


def resume_command(arguments: Sequence[str], forced: Iterable[str], rebuilt: Iterable[str]) -> list[str]:
    """The command that continues what this one has begun: a stage whose rebuilding has begun is not forced a second time.

    Args:
        arguments: the command. forced: stages that it rebuilds. rebuilt: those of them whose old product is gone already.
    """
    left = [name for name in forced if name not in set(rebuilt)]
    if left == list(forced):
        return list(arguments)
    return [*(argument for argument in arguments if not re.match(r"\+*force=", argument)), f"force=[{','.join(left)}]"]
