"""The store of stage products: complete or absent, verified, found again, and made by one process at a time."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tract.artifacts import run_folder
from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import MANIFEST, open_product
from tract.artifacts.run_folder import StageFolder, find, provenance, reason, version_changes
from tract.common.errors import ConfigError, DataError
from tract.pipeline.identity.keys import key_fields

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = StageIdentity("stage1", {"objective": {"score_loss_weight": 1.0}, "seed": 0}, {"cots": "f1"}, {"tract.method.objective": "c1"})
OTHER_CODE = replace(IDENTITY, code={"tract.method.objective": "c2"})


def weighted(weight: float, **changes: Any) -> StageIdentity:
    return replace(IDENTITY, config={"objective": {"score_loss_weight": weight}, "seed": 0, **changes})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def folder(runs: Path) -> StageFolder:
    return find(runs, IDENTITY, "redo")


NOTHING = "making it (nothing to reuse)"


def why(runs: Path, identity: StageIdentity, judge: str | None = None) -> str:
    """The reason in the run "mine" with seed 0."""
    return reason(runs, identity, runs / "mine" / "seed0", judge=judge)


def make(folder: StageFolder, content: str = "weights", overwrite: bool = False, **facts: Any) -> StageFolder:
    folder.begin(overwrite=overwrite)
    (folder.working / "model.safetensors").write_text(content)
    (folder.working / "sub").mkdir(exist_ok=True)
    (folder.working / "sub" / "layout.json").write_text("{}")
    folder.finish({"commit": None, "run": "mine", "seed": 0, **facts})
    return folder


# Complete or absent


def test_path_names_stage_and_key(folder: StageFolder, runs: Path) -> None:
    assert folder.path == runs / "stages" / f"stage1-{IDENTITY.key}"
    assert folder.working.name == f"stage1-{IDENTITY.key}.partial"
    assert folder.key == IDENTITY.key


def test_folder_is_absent_until_it_is_complete(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    (folder.working / "weights").write_text("w")
    assert not folder.path.exists()
    assert not folder.is_complete
    folder.finish({"commit": "abc"})
    assert folder.is_complete
    assert not folder.working.exists()
    assert (folder.path / "weights").read_text() == "w"
    manifest = json.loads((folder.path / MANIFEST).read_text())
    assert manifest["commit"] == "abc"
    assert manifest["key"] == IDENTITY.key
    assert StageIdentity.from_dict(manifest["identity"]) == IDENTITY


def test_finish_returns_what_opening_reads(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    (folder.working / "x").write_text("x")
    assert folder.finish({"counts": {"kept": 3}}) == open_product(folder.path)


def test_journals_stay_until_the_product_is_complete_and_are_no_part_of_it(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.begin(overwrite=False)
    (folder.working / "x").write_text("x")
    (folder.working / "journal-test").mkdir()
    (folder.working / "journal-test" / "00000.jsonl").write_text("half a line")
    monkeypatch.setattr(run_folder.os, "replace", lambda *_: pytest.fail("power cut"))
    with pytest.raises(pytest.fail.Exception, match="power cut"):
        folder.finish({})
    assert (folder.working / "journal-test" / "00000.jsonl").is_file()
    monkeypatch.undo()
    product = folder.finish({})
    assert set(product.manifest["files"]) == {"x"}
    assert {path.name for path in folder.path.iterdir()} == {"x", MANIFEST}


def test_crash_before_the_rename_leaves_the_partial_folder(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.begin(overwrite=False)
    replace_ = os.replace

    def crash(source: Any, target: Any) -> None:
        if Path(target) == folder.path:
            raise OSError("power cut")
        replace_(source, target)

    monkeypatch.setattr(run_folder.os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        folder.finish({})
    assert not folder.path.exists()
    assert (folder.working / MANIFEST).is_file()
    assert why(folder.path.parents[1], IDENTITY) == NOTHING  # its manifest does not count
    monkeypatch.undo()
    make(folder)  # the next try goes on there
    assert set(open_product(folder.path).manifest["files"]) == {"model.safetensors", "sub/layout.json"}


def test_a_full_disk_is_let_through_and_leaves_no_complete_folder(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.begin(overwrite=False)
    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        folder.finish({})
    assert caught.value.errno == errno.ENOSPC
    assert not folder.path.exists()
    assert list(folder.working.iterdir()) == []  # no half-written file is taken for a part of the product
    with pytest.raises(OSError, match="No space left"), folder.locked(wait=False):
        pass
    monkeypatch.undo()
    with folder.locked(wait=False):
        make(folder)
    assert folder.is_complete


def test_files_and_folders_are_on_the_disk_before_the_rename(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are known on Linux only")
    monkeypatch.setattr(run_folder.os, "fsync", record)
    make(folder)
    assert {"model.safetensors", "layout.json", f"{MANIFEST}.tmp", "sub", folder.working.name} <= set(synced)
    assert synced[-1] == "stages"


# Begin


def test_begin_keeps_what_an_earlier_try_left(folder: StageFolder) -> None:
    folder.begin(overwrite=False)
    (folder.working / "checkpoint").write_text("c")
    folder.begin(overwrite=False)
    assert (folder.working / "checkpoint").read_text() == "c"


def test_overwrite_removes_partial_and_complete_folder(folder: StageFolder) -> None:
    make(folder)
    folder.working.mkdir()
    (folder.working / "checkpoint").write_text("c")
    folder.begin(overwrite=True)
    assert not folder.path.exists()
    assert list(folder.working.iterdir()) == []
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.working.name]


def test_a_damaged_product_is_made_anew_by_overwriting(folder: StageFolder) -> None:
    make(folder)
    (folder.path / "model.safetensors").write_text("weight")
    with pytest.raises(DataError, match="rebuild it with force=stage1"):
        open_product(folder.path)
    make(folder, overwrite=True)
    assert open_product(folder.path).path == folder.path


def test_a_removal_that_is_cut_off_leaves_no_half_of_a_product(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder)

    def cut_off(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        folder.begin(overwrite=True)
    assert not folder.path.exists()
    assert why(folder.path.parents[1], IDENTITY) == NOTHING
    monkeypatch.undo()
    make(folder, overwrite=True)
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.path.name]


def test_a_folder_without_manifest_in_the_place_of_the_product_is_refused(folder: StageFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=rf"paths.runs: .*stage1-{IDENTITY.key} holds no manifest.json.*force=stage1"):
        folder.begin(overwrite=False)
    assert (folder.path / "notes.txt").exists()


# Finding and reasons


def test_the_same_identity_finds_its_product(runs: Path, folder: StageFolder) -> None:
    make(folder)
    assert find(runs, IDENTITY, "redo").is_complete
    assert find(runs, IDENTITY, "reuse") == folder
    assert not find(runs, weighted(2.0), "reuse").is_complete
    assert not find(runs, replace(IDENTITY, parents={"cots": "f2"}), "reuse").is_complete


def test_other_code_is_redone_or_reused(runs: Path, folder: StageFolder, caplog: pytest.LogCaptureFixture) -> None:
    make(folder)
    with caplog.at_level(logging.INFO):
        assert find(runs, OTHER_CODE, "redo").path != folder.path
        assert caplog.messages == []
        found = find(runs, OTHER_CODE, "reuse")
    assert found.path == folder.path
    assert caplog.messages == [
        f"stage1: reusing {folder.path} of other code (run.on_code_change=reuse): code of tract.method.objective changed"
    ]
    with pytest.raises(AssertionError, match="of other code is only read"):
        found.begin(overwrite=True)


def test_a_product_of_before_a_key_is_reused(
    runs: Path, compose_config: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Its manifest has no such key, and other code. With the key at another value it is another product."""
    older = key_fields(compose_config("model=tiny"), ["objective"], [])
    assert "score_loss" not in older["objective"]
    assert "score_loss" in compose_config("model=tiny").objective
    product = make(find(runs, StageIdentity("stage1", older, {}, {"tract.method.objective": "of before"}), "redo"))
    now = StageIdentity("stage1", older, {}, {"tract.method.objective": "of today"})
    assert not find(runs, now, "redo").is_complete
    assert find(runs, now, "reuse").path == product.path
    other = key_fields(compose_config("model=tiny", "objective.score_loss=mine.huber"), ["objective"], [])
    assert not find(runs, replace(now, config=other), "reuse").is_complete
    with caplog.at_level(logging.INFO):
        assert 'objective.score_loss: (absent) -> "mine.huber"' in why(runs, replace(now, config=other))


def test_of_several_products_of_other_code_the_newest_is_reused_and_the_exact_one_is_preferred(runs: Path) -> None:
    made = [make(find(runs, replace(IDENTITY, code={"tract.method.objective": f"d{number}"}), "redo")).path for number in range(4)]
    assert find(runs, OTHER_CODE, "reuse").path == made[-1]
    exact = make(find(runs, OTHER_CODE, "redo"))
    make(find(runs, replace(IDENTITY, code={"tract.method.objective": "d9"}), "redo"))
    assert find(runs, OTHER_CODE, "reuse") == exact


def test_on_code_change_is_checked(runs: Path) -> None:
    with pytest.raises(ConfigError, match="run.on_code_change: found 'ask'; redo or reuse is accepted"):
        find(runs, IDENTITY, "ask")


def test_reason_without_any_product(runs: Path, folder: StageFolder) -> None:
    assert why(runs, IDENTITY) == NOTHING
    folder.begin(overwrite=False)
    make(find(runs, replace(IDENTITY, stage="stage1-long"), "redo"))  # another stage with a similar name
    assert why(runs, IDENTITY) == NOTHING


CHANGE = "objective.score_loss_weight: 1.0 -> 2.0"


def test_a_product_of_the_same_run_and_seed_is_rebuilt(runs: Path) -> None:
    make(find(runs, weighted(5.0, seed=1), "redo"), run="mine", seed=0)
    near = make(find(runs, IDENTITY, "redo"), run="mine", seed=0)
    make(find(runs, weighted(2.0, more=1), "redo"), run="theirs", seed=0)  # as similar, but another run's
    assert why(runs, weighted(2.0)) == f"rebuilding, since {CHANGE} (was {near.path.name})"


@pytest.mark.parametrize(("run", "seed"), [("theirs", 0), ("mine", 1)])
def test_a_product_of_another_run_or_seed_is_not_mentioned(runs: Path, run: str, seed: int) -> None:
    make(find(runs, weighted(5.0, more=1), "redo"), run=run, seed=seed)
    near = make(find(runs, IDENTITY, "redo"), run=run, seed=seed)
    assert why(runs, weighted(2.0)) == NOTHING
    # A product that this run shares is linked in its folder.
    near.link(runs / "mine" / "seed0")
    assert why(runs, weighted(2.0)) == f"rebuilding, since {CHANGE} (was {near.path.name})"


def test_a_product_of_another_variant_is_not_rebuilt(runs: Path) -> None:
    near = make(find(runs, IDENTITY, "redo"), run="mine", variant="a=1", seed=0)
    own = reason(runs, weighted(2.0), runs / "mine" / "a=1" / "seed0")
    assert own == f"rebuilding, since {CHANGE} (was {near.path.name})"
    assert reason(runs, weighted(2.0), runs / "mine" / "a=2" / "seed0") == NOTHING


def test_predictions_of_another_judge_are_no_earlier_version(runs: Path) -> None:
    """The judge that is compared to is predicted for behind the run's own."""
    own = make(find(runs, replace(IDENTITY, stage="predict", parents={"judge": "stage2's"}), "redo"), judge={"name": "stage2"})
    other = replace(IDENTITY, stage="predict", parents={"judge": "seed's"})
    assert why(runs, other, judge="seed") == NOTHING
    changed = replace(IDENTITY, stage="predict", parents={"judge": "another stage2's"})
    assert why(runs, changed, judge="stage2") == f"rebuilding, since parent judge changed (was {own.path.name})"


def test_reason_when_the_same_is_made_on_request(runs: Path, folder: StageFolder) -> None:
    make(folder)
    assert why(runs, IDENTITY) == f"rebuilding, though {folder.path} has the same inputs"


def test_a_product_that_cannot_be_read_is_left_out_with_a_line(runs: Path, folder: StageFolder, caplog: pytest.LogCaptureFixture) -> None:
    make(folder)
    (folder.path / MANIFEST).write_text("{")
    assert why(runs, OTHER_CODE) == NOTHING
    assert find(runs, OTHER_CODE, "reuse").path != folder.path
    assert [message.partition(" (")[0] for message in caplog.messages] == [f"{folder.path / MANIFEST}: the manifest cannot be used"] * 2


# Links


def test_link_is_relative_and_replaced_when_stale(runs: Path, folder: StageFolder, tmp_path: Path) -> None:
    make(folder)
    run = runs / "ablation" / "seed0"
    link = run / folder.path.name
    run.mkdir(parents=True)
    link.symlink_to("../../stages/gone")
    for _ in range(2):
        folder.link(run)
        assert os.readlink(link) == f"../../stages/{folder.path.name}"
        assert (link / "model.safetensors").read_text() == "weights"
        assert [path.name for path in run.iterdir()] == [link.name]
    os.rename(runs, tmp_path / "moved")
    assert open_product(tmp_path / "moved" / link.relative_to(runs)).manifest["key"] == folder.key


def test_where_links_are_impossible_one_line_says_so(
    runs: Path, folder: StageFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    make(folder)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder.link(runs / "run")
    place = runs / "run" / folder.path.name
    assert caplog.messages == [f"stage1: {place} cannot be made a link (Operation not permitted); the product is in {folder.path}"]


def test_a_real_folder_in_the_place_of_the_link_is_kept(runs: Path, folder: StageFolder, caplog: pytest.LogCaptureFixture) -> None:
    make(folder)
    place = runs / "run" / folder.path.name
    place.mkdir(parents=True)
    (place / "mine").write_text("x")
    folder.link(runs / "run")
    assert (place / "mine").exists()
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    assert "cannot be made a link" in caplog.text


# Two processes

OTHER_PROCESS = """
import json, logging, sys, time
from pathlib import Path
from tract.common.errors import ConfigError
from tract.artifacts import run_folder
from tract.artifacts.identity import StageIdentity

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
run_folder._REMIND_S, run_folder._POLL_S = 0.3, 0.02
folder = run_folder.find(Path(sys.argv[1]), StageIdentity.from_dict(json.loads(sys.argv[2])), "redo")
try:
    with folder.locked(wait=sys.argv[3] == "wait"):
        print("complete" if folder.is_complete else "free", flush=True)
        if sys.argv[3] == "hold":
            time.sleep(60)
except ConfigError as error:
    print(error)
"""


@contextmanager
def other_process(runs: Path, action: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER_PROCESS, str(runs), json.dumps(IDENTITY.to_dict()), action]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_a_second_process_is_refused(runs: Path, folder: StageFolder) -> None:
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with folder.locked(wait=False), other_process(runs, "refuse") as process:
        expected = f"run.when_locked=refuse: {me} is working on {folder.working}; wait for it, or set run.when_locked=wait"
        assert line_of(process) == expected
    with other_process(runs, "refuse") as process:
        assert line_of(process) == "free"


def test_a_second_process_waits_says_for_whom_and_goes_on(runs: Path, folder: StageFolder) -> None:
    with other_process(runs, "wait") as process:
        with folder.locked(wait=True):
            lines = [line_of(process) for _ in range(3)]  # at once, and again and again
            make(folder)
        me = f"stage1: process {os.getpid()} on {socket.gethostname()} is working on {folder.path}; waiting ("
        assert all(line.startswith(me) for line in lines)
        assert lines[0].endswith("(0 s)")
        while (line := line_of(process)).startswith(me):
            pass
        assert line == "complete"
        assert process.wait(timeout=30) == 0


def test_the_lock_of_a_killed_process_does_not_block(runs: Path, folder: StageFolder) -> None:
    with other_process(runs, "hold") as process:
        assert line_of(process) == "free"
        message = f"process {process.pid} on {socket.gethostname()} is working on"
        with pytest.raises(ConfigError, match=message), folder.locked(wait=False):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        with folder.locked(wait=False):
            make(folder)
    assert not [path for path in folder.path.parent.iterdir() if path.suffix == ".holder"]


def test_who_holds_the_lock_may_be_unknown(runs: Path, folder: StageFolder) -> None:
    with other_process(runs, "hold") as process:
        assert line_of(process) == "free"
        folder.path.with_name(folder.path.name + ".holder").write_text("{")
        with pytest.raises(ConfigError, match="refuse: another process is working on"), folder.locked(wait=False):
            pass


def test_lock_is_given_back_after_an_error(folder: StageFolder) -> None:
    with pytest.raises(RuntimeError), folder.locked(wait=False):
        raise RuntimeError
    with folder.locked(wait=False):
        pass


# Provenance


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that are installed; tests may change them."""
    versions = {"torch": "2.8.0+cu129", "transformers": "4.57.1", "peft": "0.17.1", "tokenizers": "0.22.1", "numpy": "2.3.0"}
    monkeypatch.setattr(run_folder, "version", lambda name: versions[name])
    return versions


@pytest.mark.parametrize(
    ("made", "changes"),
    [
        ({"torch": "2.7.1+cu129"}, ["torch 2.7.1+cu129 -> 2.8.0+cu129"]),
        ({"torch": "2.8.0+cpu"}, []),  # another build
        ({"torch": "2.8.0"}, []),
        ({"peft": "0.16.0", "torch": "2.9.0"}, ["torch 2.9.0 -> 2.8.0+cu129", "peft 0.16.0 -> 0.17.1"]),
        ({"transformers": "4.57.0", "tokenizers": "0.22.2"}, ["transformers 4.57.0 -> 4.57.1", "tokenizers 0.22.2 -> 0.22.1"]),
        ({"numpy": "1.26.0", "python": "3.8.0"}, []),  # these move nothing by themselves
    ],
)
def test_versions_that_changed_are_named(made: dict[str, str], changes: list[str], installed: dict[str, str]) -> None:
    assert version_changes({"versions": {**installed, **made}}) == changes


@pytest.mark.parametrize("manifest", [{}, {"versions": None}, {"versions": {}}, {"versions": {"python": "3.11"}}])
def test_a_manifest_without_versions_says_nothing(manifest: dict[str, Any], installed: dict[str, str]) -> None:
    assert version_changes(manifest) == []


def test_of_products_of_other_code_those_of_other_versions_are_not_reused_when_they_are_to_be_redone(runs: Path) -> None:
    old = make(find(runs, IDENTITY, "redo"), versions={"torch": "0.1"}).path
    assert find(runs, OTHER_CODE, "reuse", "reuse").path == old
    assert find(runs, OTHER_CODE, "reuse", "redo").path != old
    same = make(find(runs, replace(IDENTITY, code={"tract.method.objective": "c3"}), "redo"), versions=provenance()["versions"]).path
    assert find(runs, OTHER_CODE, "reuse", "redo").path == same


def test_provenance_names_commit_versions_and_machine() -> None:
    found = provenance()
    assert {"python", "torch", "lightning", "transformers", "peft", "hydra-core"} <= set(found["versions"])
    assert all(isinstance(version, str) and version for version in found["versions"].values())
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40
    assert found["machine"]["cpus"] == os.cpu_count()
    json.dumps(found)
