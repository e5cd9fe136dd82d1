"""SIGTERM and Ctrl-C in every stage: saved, the command that goes on as the last line, and with it the undisturbed predictions."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crash_pipeline import ROOT, environment, predictions, run_here, start, undisturbed
from moments import PATIENCE_S, Moment, files_in_work, wait_for_moment

pytestmark = [
    pytest.mark.kills,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to tell whether processes are gone"),
]
INT, TERM = signal.SIGINT, signal.SIGTERM
MARK = "TRACT_TEST_PLACE"  # in the environment of all processes of a command, also those in sessions of their own
LONGEST_S = 30.0
# What the last line says between the signal and the command.
STEP = r"at optimizer step \d of \d of stage\d, saved"
STAGE = r"(in|after) [a-z0-9]+.*"
JUDGEMENTS = r"in (generate|predict \(.*\)), \d+ of \d+ judgements are saved|(in|after) .*"
CHECKPOINT = r"last-.*\.ckpt$"
# (the moment, the signal, whether the whole group gets it, what is said); the one below takes up where the one above was cut off.
SHORT = [
    (Moment("stage1", CHECKPOINT, 0.0, isolate=True), TERM, False, STEP),
    (Moment("generate", r"journal.*\.jsonl$", 0.0, isolate=True), INT, True, JUDGEMENTS),
    (Moment("stage2", CHECKPOINT, 0.0, isolate=False), INT, True, STEP),
]
LONG = [
    (Moment("", "", 3.0, isolate=True), TERM, False, r"|.*"),
    (Moment("", r"cache/.*examples-.*/rows\.arrow$", 0.0, isolate=False), INT, True, r"|.*"),
    (Moment("", r"cache/.*tokens-.*\.partial/", 0.0, isolate=True), TERM, True, r"|.*"),
    (Moment("stage1", r"preview\.txt$", 0.0, isolate=True), INT, True, STAGE),  # weights are loaded behind it
    (Moment("stage1", r"preview\.txt$", 0.1, isolate=False), TERM, False, STAGE),
    (Moment("stage1", CHECKPOINT, 0.0, isolate=True), INT, False, STEP),
    (Moment("stage1", CHECKPOINT, 0.0, isolate=True), TERM, True, STEP),
    (Moment("stage1", CHECKPOINT, 0.0, isolate=False), TERM, False, STEP),
    (Moment("stage1", r"best-.*\.safetensors$", 0.0, isolate=False), INT, True, STAGE.replace("(", "(at|")),
    (Moment("stage1", r"adapter_model\.safetensors$", 0.0, isolate=False), TERM, True, STAGE),
    (Moment("generate", r"journal.*\.jsonl$", 0.0, isolate=True), TERM, False, JUDGEMENTS),
    (Moment("generate", r"cots\.parquet", 0.0, isolate=False), INT, False, JUDGEMENTS),
    (Moment("stage2", CHECKPOINT, 0.0, isolate=False), INT, False, STEP),
    (Moment("stage2", CHECKPOINT, 0.0, isolate=True), INT, True, STEP),
    (Moment("predict", r"journal-test.*\.jsonl$", 0.0, isolate=True), INT, True, JUDGEMENTS),
    (Moment("predict", r"journal-test.*\.jsonl$", 0.0, isolate=False), TERM, False, JUDGEMENTS),
    (Moment("predict", r"judgements-.*\.jsonl$", 0.0, isolate=True), TERM, True, STAGE),
    (Moment("evaluate", r"predictions\.", 0.0, isolate=True), TERM, False, STAGE),
    (Moment("evaluate", r"report\.html", 0.0, isolate=False), INT, True, STAGE),
]


@pytest.fixture(autouse=True)
def _marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path))


@pytest.mark.timeout(1500)
def test_three_interrupts(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    interrupt_and_finish(tmp_path, SHORT, undisturbed(tmp_path_factory))


@pytest.mark.timeout(0)  # each start has its own limit
def test_interrupts_everywhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    interrupt_and_finish(tmp_path, LONG, undisturbed(tmp_path_factory))


def interrupt_and_finish(place: Path, moments: list[tuple[Moment, int, bool, str]], whole: Path) -> None:
    command = ""
    for moment, number, group, said in moments:
        before = files_in_work(place)
        process = start(place, f"run.subprocess_stages={'true' if moment.isolate else 'auto'}")
        stage = wait_for_moment(moment, before, place, process)
        assert process.poll() is None, f"{moment} came too late: {lines(place)[-5:]}"
        where, command = interrupted(process, number, place, group=group)
        print(f"{moment}: hit {stage}: {where}", flush=True)
        # On a busy machine the step that is cut off may be another one, or the last one of a stage.
        assert re.fullmatch(f"{said}|after .*", where), where
    finish(command)
    assert predictions(place) == predictions(whole)
    leftovers = [path.name for path in (place / "runs" / "stages").iterdir() if path.suffix not in ("", ".lock", ".holder")]
    assert leftovers == []
    assert not [path.name for path in (place / "cache").iterdir() if path.name.startswith(".")]


def interrupted(process: subprocess.Popen[str], number: int, place: Path, *, group: bool) -> tuple[str, str]:
    """Sends the signal; (what the last line says of the work, the command in it), after checking all that is promised."""
    begun = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    code = process.wait(2 * LONGEST_S)
    seconds = time.monotonic() - begun
    assert code == 128 + number, lines(place)[-10:]
    assert seconds < LONGEST_S
    expect_gone(place)
    assert not [line for line in lines(place) if "Traceback" in line or line.startswith("error")]
    found = re.fullmatch(rf"interrupted \({signal.Signals(number).name}\) ?(.*); go on with: (.*)", lines(place)[-1])
    assert found, lines(place)[-5:]
    return found[1], found[2]


def finish(command: str) -> None:
    """The very command of the last line, through a shell."""
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]


def lines(place: Path) -> list[str]:
    return (place / "output.txt").read_text(encoding="utf-8").splitlines()


def of_the_command(place: Path, *words: bytes) -> list[int]:
    """The living processes of a command whose environment or command line holds all these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and all(word in facts for word in (f"{MARK}={place}\0".encode(), *words)) and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def expect_gone(place: Path) -> None:
    deadline = time.monotonic() + 15
    while alive := of_the_command(place):
        assert time.monotonic() < deadline, f"still at work: {alive}"
        time.sleep(0.05)


def wait_for(place: Path, process: subprocess.Popen[str], pattern: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not list(place.glob(pattern)):
        assert process.poll() is None, lines(place)[-5:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [INT, TERM])
def test_two_ranks_leave_behind_the_same_step(number: int, tmp_path: Path) -> None:
    """The signal comes to the command, to its group, or to one rank alone; then all of it is undisturbed's."""
    two = ("run.subprocess_stages=true", "trainer.devices=2", "stages=[stage1]", "train.max_steps=8")
    process = start(tmp_path / "whole", *two)
    assert process.wait(PATIENCE_S) == 0
    place, command = tmp_path / "cut", ""
    for target in ("command", "group", "rank 1"):
        before = files_in_work(place)
        process = start(place, *two)
        wait_for_moment(Moment("stage1", CHECKPOINT, 0.0), before, place, process)
        assert process.poll() is None, lines(place)[-5:]
        if target == "rank 1":
            (rank,) = of_the_command(tmp_path, b"\0RANK=1\0", b"tract.pipeline.launching.job")
            os.kill(rank, number)
            assert process.wait(LONGEST_S) == 128 + number, lines(place)[-5:]
            expect_gone(tmp_path)
            where, command = lines(place)[-1].split("; go on with: ")
            where = where.partition(") ")[2]
        else:
            where, command = interrupted(process, number, place, group=target == "group")
        assert re.fullmatch(STEP, where), lines(place)[-5:]
    finish(command)
    weights = [(path / "runs/stages").glob("stage1-*/adapter_model.safetensors") for path in (place, tmp_path / "whole")]
    (cut,), (whole,) = ([path.read_bytes() for path in found] for found in weights)
    assert cut == whole


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("twice", "reason"), [(True, "told twice, ended at once"), (False, "what was at work did not end within 20 s")])
def test_a_stage_that_does_not_end(twice: bool, reason: str, tmp_path: Path) -> None:
    """It is stopped here, as by a step that takes minutes."""
    process = start(tmp_path, "run.subprocess_stages=true")
    wait_for(tmp_path, process, "runs/stages/stage1-*.partial/checkpoints/last-step=1.ckpt")
    (job,) = of_the_command(tmp_path, b"tract.pipeline.launching.job")
    os.kill(job, signal.SIGSTOP)
    begun = time.monotonic()
    process.send_signal(INT)
    if twice:
        time.sleep(1.5)
        process.send_signal(INT)
    assert process.wait(60) == 130
    assert time.monotonic() - begun < (5 if twice else LONGEST_S)
    expect_gone(tmp_path)
    assert lines(tmp_path)[-1].startswith(f"interrupted (SIGINT) in stage1 ({reason}); go on with: {shlex.quote(sys.executable)} train.py ")


@pytest.mark.timeout(600)
def test_waiting_for_another_run_ends_and_the_other_goes_on(tmp_path: Path) -> None:
    first = start(tmp_path, "stages=[stage1]", output="first.txt")
    while not list((tmp_path / "runs").glob("stages/stage1-*.partial/checkpoints/last-*.ckpt")):
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # as if it took hours
    second = start(tmp_path, "stages=[stage1]", "run.subprocess_stages=true")
    deadline = time.monotonic() + PATIENCE_S
    while not [line for line in lines(tmp_path) if "waiting (" in line]:
        assert second.poll() is None, lines(tmp_path)[-5:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second.send_signal(INT)
    assert second.wait(LONGEST_S) == 130
    assert lines(tmp_path)[-1].startswith("interrupted (SIGINT) in stage1; go on with: ")
    first.send_signal(signal.SIGCONT)
    assert first.wait(PATIENCE_S) == 0


@pytest.mark.timeout(900)
def test_a_stage_that_is_made_anew_is_gone_on_with(tmp_path: Path) -> None:
    """The command of the last line leaves out what would throw away what was saved."""
    run_here(tmp_path, "stages=[stage1]")
    process = start(tmp_path, "stages=[stage1]", "run.subprocess_stages=true", "force=[stage1]")
    wait_for(tmp_path, process, "runs/stages/stage1-*.partial/checkpoints/last-step=1.ckpt")
    where, command = interrupted(process, TERM, tmp_path, group=False)
    assert re.fullmatch(STEP, where), where
    assert "force=[stage1]" not in command
    assert "force=[]" in command
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0
    assert "stage1: resuming from what an earlier try left" in done.stdout


@pytest.mark.timeout(300)
def test_a_multirun_ends(tmp_path: Path) -> None:
    process = start(tmp_path, "hydra.mode=MULTIRUN", "seed=0,1", f"hydra.sweep.dir={tmp_path}/multirun")
    wait_for(tmp_path, process, "runs/stages/stage1-*.partial/checkpoints/last-step=1.ckpt")
    _, command = interrupted(process, INT, tmp_path, group=True)
    assert "hydra.mode=MULTIRUN seed=0,1" in command
    assert len(list((tmp_path / "runs" / "stages").glob("stage1-*.partial"))) == 1
