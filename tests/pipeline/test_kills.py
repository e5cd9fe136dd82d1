"""kill -9 at random moments of the pipeline, and the same command again: the predictions are those of an undisturbed run.

The moments are drawn from a seed, spread over all stages, and chosen by what is seen on the disk, so that some lie inside the
writing of a checkpoint, a journal or a manifest. Three kills by default, 50 with ``make test-kills``.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from crash_pipeline import copy_of, environment, predictions, product, start, undisturbed
from moments import CACHE, PATIENCE_S, Moment, files_in_work, output_of, stage_rank, wait_for_moment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to tell whether processes are gone"),
]
KILLS = int(os.environ.get("TRACT_KILLS", "50"))
SEED = int(os.environ.get("TRACT_KILLS_SEED", "0"))
_GONE_S = 15.0


# In the order of the pipeline. Names of temporary files are those that are seen only while something is being written.
PLACES = [
    ("", ""),
    ("", rf"{CACHE}/.*examples-.*/rows\.arrow$"),
    ("", rf"{CACHE}/.*tokens-.*\.partial/"),
    ("stage1", r"csv/"),
    ("stage1", r"seed_metrics\.json"),
    ("stage1", r"last-.*\.ckpt\.tmp$"),
    ("stage1", r"best-.*\.safetensors\.tmp$"),
    ("stage1", r"last-.*\.ckpt$"),
    ("stage1", r"adapter_model\.safetensors$"),
    ("stage1", r"manifest\.json\.tmp$"),
    ("generate", r"config\.yaml$"),
    ("generate", r"journal.*\.jsonl$"),
    ("generate", r"cots\.parquet\.tmp$"),
    ("generate", r"/cots\.parquet$"),
    ("generate", r"manifest\.json"),
    ("stage2", r"last-.*\.ckpt\.tmp$"),
    ("stage2", r"last-.*\.ckpt$"),
    ("stage2", r"best-.*\.safetensors$"),
    ("stage2", r"adapter_config\.json"),
    ("stage2", r"manifest\.json"),
    ("predict", r"journal-test.*\.jsonl$"),
    ("predict", r"journal-ood.*\.jsonl$"),
    ("predict", r"judgements-.*\.jsonl$"),
    ("predict", r"manifest\.json"),
    ("evaluate", r"predictions\."),
    ("evaluate", r"report\.html"),
    ("evaluate", r"short_table\.txt|manifest\.json"),  # the manifest is followed by the end at once
]


@pytest.mark.kills
@pytest.mark.timeout(1800)
def test_three_kills(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moments = [
        Moment("stage1", r"last-.*\.ckpt\.tmp$", 0.0, isolate=True, alone=True),  # the job must die by itself
        Moment("generate", r"journal.*\.jsonl$", 0.2),
        Moment("predict", r"journal-test.*\.jsonl$", 0.0),
    ]
    _kill_and_finish(tmp_path / "killed", moments, undisturbed(tmp_path_factory))


@pytest.mark.kills
@pytest.mark.timeout(0)  # each start has its own limit
def test_many_kills(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    _kill_and_finish(tmp_path / "killed", draw_moments(KILLS, random.Random(SEED)), undisturbed(tmp_path_factory))


# What is being written -> (stage, pattern of the path), for kills that come exactly then.
WRITES = {
    "validation metrics": ("stage1", r"stage1-.*/seed_metrics\.json\.tmp$"),
    "checkpoint": ("stage1", r"stage1-.*/last-step=3\.ckpt\.tmp$"),
    "best weights": ("stage1", r"stage1-.*/best-step=\d+\.safetensors\.tmp$"),
    "judgement shard": ("generate", r"generate-.*/journal/.*\.jsonl$"),
    "CoTs": ("generate", r"generate-.*/cots\.parquet"),
    "manifest of weights": ("stage2", r"stage2-.*/manifest\.json\.tmp$"),
    "manifest of predictions": ("predict", r"predict-.*/manifest\.json\.tmp$"),
}
# Python runs it at its start: a process that comes to the sync of such a file kills itself, with the file written and not synced.
_KILLS_ITSELF = """
import os, re, signal
sync = os.fsync
def killing(descriptor):
    if re.search(os.environ["TRACT_TEST_KILL_AT"], os.readlink(f"/proc/self/fd/{descriptor}")):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = killing
"""


@pytest.mark.kills
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", WRITES)
def test_a_kill_inside_a_write(what: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole, (stage, pattern) = undisturbed(tmp_path_factory), WRITES[what]
    place = copy_of(whole, tmp_path / "place")
    shutil.rmtree(product(place, stage))
    (tmp_path / "sitecustomize.py").write_text(_KILLS_ITSELF)
    paths = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    process = start(place, variables={"PYTHONPATH": paths, "TRACT_TEST_KILL_AT": pattern})
    assert process.wait(PATIENCE_S) == -signal.SIGKILL, output_of(place)
    left = [path for path in place.rglob("*") if re.search(pattern, path.as_posix())]
    assert left, "the file was not being written"
    assert not (place / "runs" / "stages" / product(whole, stage).name).exists()
    process = start(place)
    assert process.wait(PATIENCE_S) == 0, output_of(place)
    assert predictions(place) == predictions(whole)
    assert list((place / "runs").rglob("*.tmp")) == []


def draw_moments(number: int, rng: random.Random) -> list[Moment]:
    """Moments in the order of the pipeline: every place as often as any other, up to one; half of them at once, half a little later."""
    places = [place for _ in range(number // len(PLACES)) for place in PLACES] + rng.sample(PLACES, number % len(PLACES))
    moments = []
    for stage, writes in sorted(places, key=PLACES.index):
        at_once = rng.random() < 0.5 or stage == "evaluate"  # which is over in two seconds
        delay_s = rng.uniform(0, 6) if not writes else rng.uniform(0, 0.003 if at_once else 0.4)
        isolate = rng.random() < 0.3 and stage != "evaluate"
        moments.append(Moment(stage, writes, delay_s, isolate, alone=isolate and rng.random() < 0.7))
    return moments


def test_moments_are_spread_over_all_places() -> None:
    moments = draw_moments(30, random.Random(SEED))
    assert len(moments) == 30
    assert {(moment.stage, moment.writes) for moment in moments} == set(PLACES)
    assert any(moment.alone for moment in moments)
    assert draw_moments(30, random.Random(SEED)) == moments


def _kill_and_finish(place: Path, moments: list[Moment], whole: Path) -> None:
    """One kill for each moment, then the command until it ends by itself, and the comparison."""
    hits: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for number, moment in enumerate(moments):
        stage, left_over = _start_and_kill(place, moment)
        hits[stage] += 1
        inside.update(left_over)
        print(f"kill {number + 1}: wanted {moment}, hit {stage}, left {left_over}", flush=True)
    process = start(place)
    assert process.wait(PATIENCE_S) == 0, output_of(place)
    print(f"{hits.total()} kills: {dict(hits)}; left behind half-written: {dict(inside)}")
    assert hits["too late"] <= len(moments) // 10
    # On a busy machine a short stage may be over when the signal arrives; such a kill falls between two stages.
    assert {hit.removeprefix("after ") for hit in hits} >= {moment.stage or "start" for moment in moments}
    assert predictions(place) == predictions(whole)
    # Locks and the notes of who held them stay behind and hinder nobody.
    leftovers = [path.name for path in (place / "runs" / "stages").iterdir() if path.suffix not in ("", ".lock", ".holder")]
    assert leftovers == []


def _start_and_kill(place: Path, moment: Moment) -> tuple[str, list[str]]:
    """Starts the command and kills it; returns the stage that was at work and the half-written files it left."""
    for path in (place / "runs" / "stages").glob("evaluate-*"):
        if not path.suffix:  # complete: the last kill came too late to cut it off
            shutil.rmtree(path)
    if moment.writes.startswith(CACHE):  # it is written by the first command alone
        shutil.rmtree(place / CACHE, ignore_errors=True)
    before = files_in_work(place)
    process = start(place, f"run.subprocess_stages={'true' if moment.isolate else 'auto'}")
    try:
        stage = wait_for_moment(moment, before, place, process)
        if process.poll() is not None:
            assert process.returncode == 0, f"the command ended with {process.returncode} before {moment}: {output_of(place)}"
            return "too late", []
        if moment.alone:
            os.kill(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _expect_gone(process)
    finally:
        with contextlib.suppress(ProcessLookupError):  # of a failed test
            os.killpg(process.pid, signal.SIGKILL)
    after = files_in_work(place)
    left = after.keys() - before.keys()
    if stage != "start":
        changed = {name.partition("-")[0] for name, state in after.items() if before.get(name) != state and CACHE not in name}
        stage = max(changed, key=stage_rank, default=f"after {stage}")
    return stage, sorted(
        re.sub(r"[\d=]+", "N", name.partition("/")[2]) for name in left if re.search(r"\.tmp$|\.partial|/\.examples", name)
    )


def _expect_gone(process: subprocess.Popen[str]) -> None:
    """Nothing of the command's session lives on, though in some cases only one process was killed."""
    deadline = time.monotonic() + _GONE_S
    while alive := _session(process.pid):
        assert time.monotonic() < deadline, f"still at work: {alive}"
        time.sleep(0.01)


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()  # state, parent, group, session, ...
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z" and int(fields[3]) == leader:
            found.append(int(status.parent.name))
    return found
