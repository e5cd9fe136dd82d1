"""A full disk: one line and status 2, and the same command completes with the same predictions when there is space again.

Everywhere, the disk is played by ``os.fsync``, at which many file systems first say that there is no space. Where a user may
mount one, a real file system of a few kilobytes is filled.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash_pipeline import ROOT, copy_of, environment, predictions, product, run_here, undisturbed

from tract.pipeline.entry import guarded

pytestmark = pytest.mark.slow
# What is being written -> (stage, pattern of the path).
WRITES = {
    "checkpoint": ("stage1", r"stage1-.*/last-step=3\.ckpt(\.tmp)?$"),
    "checkpoint of the second epoch's first step": ("stage1", r"stage1-.*/last-step=5\.ckpt(\.tmp)?$"),
    "weights": ("stage1", r"stage1-.*/adapter_model\.safetensors$"),
    "journal": ("generate", r"generate-.*/journal/.*\.jsonl$"),
    "parquet": ("generate", r"generate-.*/cots\.parquet$"),
    "manifest": ("stage2", r"stage2-.*/manifest\.json\.tmp$"),
}
IN_CI = ("checkpoint", "manifest")  # the others with `make test-kills`
# The same for files that are not synced one by one, or whose content is too long for a buffer: there the write itself fails.
UNSYNCED = {
    "facts of the cached examples": ("stage1", r"examples-.*/store\.json$"),
    "metrics for people": ("stage1", r"stage1-.*/metrics\.csv$"),
    "configuration": ("generate", r"generate-.*/config\.yaml$"),
    "judgements": ("predict", r"predict-.*/judgements-test\.jsonl$"),
    "predictions": ("evaluate", r"evaluate-.*/predictions\.jsonl$"),
}
STEP_KB = 240  # a checkpoint
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory)


def before(whole: Path, stage: str, to: Path) -> Path:
    """A copy of the undisturbed run that lacks a stage's product."""
    place = copy_of(whole, to)
    shutil.rmtree(product(place, stage))
    return place


@pytest.mark.parametrize("what", [what if what in IN_CI else pytest.param(what, marks=pytest.mark.kills) for what in WRITES])
def test_a_disk_that_is_full_at_the_sync(
    what: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, pattern = WRITES[what]
    place = before(whole, stage, tmp_path / "place")
    sync = os.fsync
    refused = []

    def full(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else ""
        if re.search(pattern, path):
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell which file is synced")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        fails_in_one_line(place, capsys)
    assert refused
    goes_on(place, stage, whole)


@pytest.mark.kills
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without space")
@pytest.mark.parametrize("what", UNSYNCED)
def test_a_disk_that_is_full_at_the_write(
    what: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, pattern = UNSYNCED[what]
    place = before(whole, stage, tmp_path / "place")
    shutil.rmtree(place / "cache")
    really_open = io.open
    refused = []

    def opened(file: Any, mode: str = "r", *arguments: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, os.PathLike)) and mode[0] in "wax" and re.search(pattern, os.fspath(file)):
            refused.append(file)
            file = "/dev/full"
        return really_open(file, mode, *arguments, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        fails_in_one_line(place, capsys)
    assert refused
    goes_on(place, stage, whole)


def fails_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        guarded(run_here)(place)
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert re.fullmatch(r"error: disk full: .*; free space and run the same command again: it goes on where it stopped", line)


def goes_on(place: Path, stage: str, whole: Path) -> None:
    """The stage was not made, and is when there is space again."""
    names = {path.name for path in (whole / "runs" / "stages").glob(f"{stage}-*") if not path.suffix}
    assert len(names - {path.name for path in (place / "runs" / "stages").iterdir()}) == 1
    run_here(place)
    assert predictions(place) == predictions(whole)


def _may_mount() -> bool:
    try:
        return subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.kills
@pytest.mark.timeout(1500)
@pytest.mark.skipif(sys.platform != "linux" or not _may_mount(), reason="this user may not mount a tmpfs in a namespace (unshare, mount)")
def test_a_file_system_of_a_few_kilobytes(whole: Path, tmp_path: Path) -> None:
    """Free space that ends at ever later places of the pipeline: each time one line, and after the last the same predictions.

    A checkpoint takes 238 KB; those of earlier tries do not stay, so the space that is needed in the end is that of one try.
    """
    (tmp_path / "small").mkdir()
    done = subprocess.run(
        [*UNSHARE, sys.executable, __file__, str(tmp_path / "small"), str(tmp_path / "result")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result" / "ends.json").read_text())
    print(result)
    for code, lines in result:
        assert code == 2
        assert len(lines) == 1
        assert lines[0].startswith("error: disk full: ")
    assert len(result) >= 5
    assert predictions(tmp_path / "result") == predictions(whole)


def _fill(place: Path, result: Path) -> None:
    """In a namespace of its own: mounts a small file system at ``place``, and enlarges it a little after each failure."""
    kilobytes, ends = 192, []
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], check=True)
    while True:
        code, lines = _attempt(place)
        if code == 0:
            break
        ends.append((code, lines))
        print(f"{kilobytes} KiB: {lines}", file=sys.stderr)
        assert len(ends) < 200, "space does not help"
        kilobytes += STEP_KB
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
    shutil.copytree(place / "runs", result / "runs", symlinks=True)
    (result / "ends.json").write_text(json.dumps(ends))


def _attempt(place: Path) -> tuple[int, list[str]]:
    """One try of the command, in a child of this process, which has loaded the libraries already."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 2)
        os.close(reading)
        os.close(writing)
        try:
            guarded(run_here)(place)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException as error:
            os.write(2, f"error: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), [line for line in said.splitlines() if line.startswith("error:")]


if __name__ == "__main__":
    _fill(Path(sys.argv[1]), Path(sys.argv[2]))
