"""Signals: a process ends at once or where its work can be left, says so once, and in time."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tract.common import signals
from tract.common.signals import Interrupted, interrupt_line, resume_command
from tract.pipeline.launching.interrupt_note import take_note

ROOT = Path(__file__).resolve().parents[2]
FRAME = """
import ctypes, os, signal, subprocess, sys, time
from tract.common import signals
from tract.pipeline.launching.interrupt_note import leave_note, take_note
signals.PATIENCE_S, signals._REPEAT_S, signals._NOTE_PATIENCE_S = 0.5, 0.2, 0.5

def say(number, reason):
    print("words", number, signals.status(), reason, flush=True)

def begin():
    print("begun", flush=True)

with signals.handled(say, once={once}):
    signals.set_status("in a test")
    {work}
print("went on", flush=True)
"""
POSTPONED = """with signals.postponed():
        begin()
        time.sleep({seconds})
        print("finished", flush=True)
    print("never", flush=True)"""
# Waiting for this takes no notice of signals, as many a library does.
DEAF = """begin()
    lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    library.pthread_mutex_lock(lock), library.pthread_mutex_lock(lock)"""


def run(work: str, *signals: int, pause: float = 0.0, once: bool = True) -> tuple[int, list[str], float]:
    """(exit status, what was said, seconds from the first signal) of a process that is told so often."""
    program = FRAME.format(work=work, once=once)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.1)  # until it is at its work
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(pause)
    said = process.stdout.read().splitlines()
    return process.wait(60), said, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_at_once(number: int) -> None:
    status, said, seconds = run("begin(); time.sleep(60)", number)
    assert (status, said) == (128 + number, [f"words {number} in a test "])
    assert seconds < 20


def test_an_error_while_the_process_ends_is_no_other_end() -> None:
    work = """begin()
    try:
        time.sleep(60)
    finally:
        raise RuntimeError("a worker is gone")"""
    assert run(work, signal.SIGTERM)[:2] == (143, ["words 15 in a test "])


def test_work_that_can_be_left_behind_it_is_finished() -> None:
    assert run(POSTPONED.format(seconds=0.2), signal.SIGTERM)[:2] == (143, ["finished", "words 15 in a test "])


@pytest.mark.parametrize("work", [POSTPONED.format(seconds=60), DEAF], ids=["long", "deaf"])
def test_patience_has_an_end(work: str) -> None:
    status, said, seconds = run(work, signal.SIGTERM, once=False)
    assert (status, said) == (143, ["words 15 in a test what was at work did not end within 0.5 s"])
    assert 0.5 <= seconds < 20


@pytest.mark.parametrize("work", [POSTPONED.format(seconds=60), DEAF], ids=["long", "deaf"])
def test_told_twice_it_ends_at_once(work: str) -> None:
    work = work.replace("begin()", "signals.PATIENCE_S = 60; begin()")
    status, said, _ = run(work, signal.SIGINT, signal.SIGINT, pause=0.4)
    assert (status, said) == (130, ["words 2 in a test told twice, ended at once"])


def test_one_signal_on_two_ways_is_one() -> None:
    assert run(POSTPONED.format(seconds=0.3), signal.SIGTERM, signal.SIGTERM, pause=0.05)[1] == ["finished", "words 15 in a test "]


def test_a_process_that_works_for_another_may_be_told_often() -> None:
    said = run(POSTPONED.format(seconds=0.3), signal.SIGINT, signal.SIGINT, pause=0.25, once=False)[1]
    assert said == ["finished", "words 2 in a test "]


def test_a_process_in_the_background_of_a_script_ignores_ctrl_c() -> None:
    work = "begin(); time.sleep(0.3)"
    program = FRAME.format(work=work, once=True).replace("with signals", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwith signals", 1)
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "went on\n"
    assert process.wait(20) == 0


def test_a_forked_process_is_left_to_who_forked_it() -> None:
    """Such as one that loads data, which a terminal tells too: else the step at hand could not be finished."""
    work = """with signals.postponed():
        child = os.fork()
        if not child:
            begin()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.requested(), flush=True)"""
    assert run(work)[:2] == (0, ["7 0", "went on"])


@pytest.mark.parametrize("both", [True, False])
def test_the_process_that_works_is_told_and_heard(both: bool, tmp_path: Path) -> None:
    """By the signal of its own, or by the note alone, where it was told and this one not."""
    worker = FRAME.format(
        once=False, work="""signals._state.interrupt_message = lambda *words: leave_note(Path(sys.argv[1]), *words)
    signals.PATIENCE_S = 20
    signals.add_rebuilt("stage1")
    with signals.postponed():
        Path(sys.argv[1], "begun").touch()
        time.sleep(1.0)
        signals.set_status("at step 3, saved")"""
    ).replace("import ctypes", "from pathlib import Path\nimport ctypes")  # fmt: skip
    target = "os.getpid()" if both else "process.pid"
    work = f"""from pathlib import Path
    begin()
    with signals.postponed():
        with signals.child_process([sys.executable, "-c", {worker!r}, {str(tmp_path)!r}], dict(os.environ)) as process:
            while not Path({str(tmp_path)!r}, "begun").exists():
                time.sleep(0.01)
            os.kill({target}, signal.SIGTERM)
            print("status", process.wait(), flush=True)
        assert take_note(Path({str(tmp_path)!r}))
        assert signals._state.rebuilt == {{"stage1"}}"""
    work = work.replace("begin()\n", "signals.PATIENCE_S = 20; begin()\n", 1)
    assert run(work)[:2] == (143, ["status 143", "words 15 at step 3, saved "])


def test_no_note_is_no_interruption(tmp_path: Path) -> None:
    assert not take_note(tmp_path)
    assert not signals.requested()


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a test may change."""
    monkeypatch.setattr(signals, "_state", signals._State())


@pytest.mark.usefixtures("state")
def test_the_last_line_can_be_pasted_into_a_shell() -> None:
    command = ["python", "train.py", "run.name=it's mine", "data.path='a b'", "evaluation.benchmarks=[test,ood]"]
    signals.set_status(lambda: "at optimizer step 12 of 48 of stage1, saved")
    line = interrupt_line(signal.SIGTERM, "", command)
    begin, _, pasted = line.partition("; go on with: ")
    assert begin == "interrupted (SIGTERM) at optimizer step 12 of 48 of stage1, saved"
    assert shlex.split(pasted) == command
    at_once = interrupt_line(signal.SIGINT, "told twice, ended at once", command)
    assert at_once.startswith(f"{begin.replace('TERM', 'INT')} (told twice, ended")
    signals.set_launched(first=True)
    assert interrupt_line(signal.SIGTERM, "", command) == f"{begin}; go on with: the same command"


@pytest.mark.usefixtures("state")
def test_without_anything_at_work() -> None:
    assert interrupt_line(signal.SIGINT, "", ["python", "train.py"]) == "interrupted (SIGINT); go on with: python train.py"


@pytest.mark.parametrize(
    ("given", "forced", "rebuilt", "left"),
    [
        (["seed=1"], [], [], ["seed=1"]),
        (["force=[stage1]"], ["stage1"], [], ["force=[stage1]"]),
        (["force=[stage1]", "seed=1"], ["stage1"], ["stage1"], ["seed=1", "force=[]"]),
        (["force=all"], ["stage1", "generate"], ["stage1"], ["force=[generate]"]),
        (["experiment=forced"], ["stage1"], ["stage1"], ["experiment=forced", "force=[]"]),
    ],
)
def test_what_is_made_anew_is_not_begun_anew_once_more(given: list[str], forced: list[str], rebuilt: list[str], left: list[str]) -> None:
    assert resume_command(["python", "train.py", *given], forced, rebuilt) == ["python", "train.py", *left]


@pytest.mark.usefixtures("state")
def test_the_signal_of_another_process() -> None:
    signals.check()
    signals.adopt(0)
    signals.check()
    signals.adopt(signal.SIGTERM)
    signals.adopt(signal.SIGINT)  # the first one counts
    with pytest.raises(Interrupted) as ended:
        signals.check()
    assert ended.value.code == 143


@pytest.mark.usefixtures("state")
def test_handlers_are_as_before_where_nothing_came() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.handled(lambda number, reason: None, once=True):
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    with pytest.raises(ValueError, match="ours"), signals.handled(lambda number, reason: None, once=True):
        raise ValueError("ours")
