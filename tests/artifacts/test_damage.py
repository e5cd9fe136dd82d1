"""Damaged runs: each ends in one clear line or in a clean redo, and in the predictions of an undamaged run after that."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_pipeline import copy_of, predictions, product, run_here, undisturbed

from tract.artifacts.products import MANIFEST
from tract.common.errors import ConfigError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory)


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    return copy_of(whole, tmp_path / "copy")


def flip_byte(path: Path) -> None:
    """Flips a bit of 128 bytes that follow each other: a checkpoint has up to 63 between its parts that mean nothing."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 128] = bytes(byte ^ 1 for byte in content[middle : middle + 128])
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Damaged products of complete stages


# (stage, file, damage, what is said of it)
DAMAGES = [
    ("generate", "cots.parquet", flip_byte, "the content is not what was written; .*force=generate"),
    ("evaluate", "predictions.jsonl", halve, r"the file has \d+ bytes, \d+ were written; .*force=evaluate"),
]
MORE_DAMAGES = [
    ("stage2", "layout.json", Path.unlink, "the file is missing; .*force=stage2"),
    ("predict", "items-ood.jsonl", Path.unlink, "the file is missing; .*force=predict"),
    ("generate", MANIFEST, halve, "the manifest cannot be used .*force=generate"),
    ("stage1", "adapter_model.safetensors", flip_byte, "the content is not what was written; .*force=stage1"),
    ("stage2", "adapter_model.safetensors", halve, r"the file has \d+ bytes, \d+ were written; .*force=stage2"),
    ("predict", "judgements-test.jsonl", flip_byte, "the content is not what was written; .*force=predict"),
]


@pytest.mark.parametrize(
    ("stage", "file", "damage", "message"),
    [*DAMAGES, *(pytest.param(*more, marks=pytest.mark.kills) for more in MORE_DAMAGES)],
)
def test_a_damaged_product_is_named_and_force_mends_it(
    place: Path, whole: Path, stage: str, file: str, damage: Callable[[Path], None], message: str
) -> None:
    path = product(place, stage) / file
    damage(path)
    with pytest.raises(DataError, match=f"{path.name}: {message}") as caught:
        run_here(place)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    run_here(place, f"force=[{stage}]")
    assert predictions(place) == predictions(whole)
    # What was made anew has the bytes of the first time, so later stages were not made again.
    assert {folder.name for folder in stages(place)} == {folder.name for folder in stages(whole)}


@pytest.mark.parametrize("stage", ["stage1", *(pytest.param(name, marks=pytest.mark.kills) for name in ("generate", "stage2", "predict"))])
def test_a_parent_without_its_manifest_is_no_product(place: Path, whole: Path, stage: str) -> None:
    folder = product(place, stage)
    (folder / MANIFEST).unlink()
    with pytest.raises(ConfigError, match=rf"{folder.name} holds no manifest.json, .*remove it, or set force={stage}"):
        run_here(place)
    run_here(place, f"force=[{stage}]")
    assert predictions(place) == predictions(whole)


@pytest.mark.kills
def test_a_missing_parent_is_made_anew_with_the_same_bytes(place: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also: the run folder's link to it dangled meanwhile, which hinders nothing and is whole again."""
    folder = product(place, "generate")
    link = place / "runs" / "tiny" / "seed0" / folder.name
    shutil.rmtree(folder)
    assert link.is_symlink()
    assert not link.exists()
    caplog.set_level(logging.INFO)
    run_here(place)
    assert "generate: making it (nothing to reuse)" in caplog.text
    assert "stage2: reused" in caplog.text
    assert link.resolve() == folder.resolve()
    assert predictions(place) == predictions(whole)


def test_a_missing_parent_of_a_stage_that_runs_alone(place: Path, whole: Path) -> None:
    shutil.rmtree(product(place, "generate"))
    with pytest.raises(ConfigError, match=r"stages: generate is needed, but it is not complete .*stages=\[generate,...\]"):
        run_here(place, "stages=[stage2]")
    judge = product(place, "stage1")
    shutil.rmtree(judge)
    with pytest.raises(ConfigError, match=f"judge: there is no folder '{judge}'"):
        run_here(place, "stages=[generate]", f"judge={judge}")
    run_here(place)
    assert predictions(place) == predictions(whole)


@pytest.mark.kills
def test_a_dangling_link_or_a_file_in_the_place_of_a_product(place: Path, whole: Path) -> None:
    folder = product(place, "predict")
    shutil.rmtree(folder)
    folder.symlink_to(place / "nowhere")
    with pytest.raises(ConfigError, match=rf"{folder.name} holds no manifest.json, .*remove it, or set force=predict"):
        run_here(place)
    run_here(place, "force=[predict]")
    assert predictions(place) == predictions(whole)
    shutil.rmtree(product(place, "evaluate"))
    (place / "runs" / "stages" / product(whole, "evaluate").name).write_text("no folder")
    with pytest.raises(ConfigError, match=r"holds no manifest.json, .*remove it, or set force=evaluate"):
        run_here(place)
    run_here(place, "force=[evaluate]")
    assert predictions(place) == predictions(whole)


@pytest.mark.kills
def test_a_file_in_the_place_of_the_working_folder(place: Path, whole: Path) -> None:
    folder = product(place, "evaluate")
    shutil.rmtree(folder)
    folder.with_name(folder.name + ".partial").write_text("no folder")
    with pytest.raises(ConfigError, match=r"evaluate-\w+\.partial is no folder; remove it, or set force=evaluate"):
        run_here(place)
    run_here(place, "force=[evaluate]")
    assert predictions(place) == predictions(whole)


# Damaged work of a stage that was cut off


def stages(place: Path) -> list[Path]:
    return [path for path in (place / "runs" / "stages").iterdir() if not path.suffix]


def cut_off(place: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline up to the moment before a stage is complete; returns its working folder, without manifest."""
    folder = product(place, stage)
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tract.artifacts.run_folder.write_manifest", _power_cut)
        with pytest.raises(KeyboardInterrupt):
            run_here(place)
    working = folder.with_name(folder.name + ".partial")
    assert working.is_dir()
    return working


def _power_cut(*_: object) -> None:
    raise KeyboardInterrupt


def finish(place: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    caplog.set_level(logging.INFO)
    run_here(place)
    assert predictions(place) == predictions(whole)
    assert {folder.name for folder in stages(place)} == {folder.name for folder in stages(whole)}
    return caplog.text


@pytest.mark.parametrize("stage", ["generate", "predict"])
def test_a_torn_and_a_changed_line_of_a_journal_are_made_again(
    place: Path, whole: Path, stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    working = cut_off(place, stage, monkeypatch)
    shard = sorted(working.glob("journal*/rank0/*.jsonl"))[-1]
    lines = shard.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"cot": "', b'"cot": "!', 1)
    lines[-1] = lines[-1][: len(lines[-1]) // 2]
    shard.write_bytes(b"".join(lines))
    assert "2 incomplete or damaged lines were left out" in finish(place, whole, caplog)
    assert not list(working.with_suffix("").glob("journal*"))


@pytest.mark.kills
def test_nothing_is_sampled_again_after_a_cut_in_the_last_second(
    place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(place, "predict", monkeypatch)
    monkeypatch.setattr("tract.inference.hf.judge.HFJudge.judge", _power_cut)
    said = finish(place, whole, caplog)
    assert said.count("judgements were made before; going on") == 2  # of both benchmarks


@pytest.mark.parametrize("damage", [flip_byte, pytest.param(halve, marks=pytest.mark.kills)])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_or_the_start(
    place: Path, whole: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    working = cut_off(place, "stage1", monkeypatch)
    (checkpoint,) = working.glob("checkpoints/last-step=*.ckpt")
    damage(checkpoint)
    said = finish(place, whole, caplog)
    assert f"checkpoint {checkpoint} is damaged" in said
    assert "training starts from the beginning" in said


@pytest.mark.kills
def test_half_written_products_of_a_cut_off_stage_are_written_over(
    place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    working = cut_off(place, "stage2", monkeypatch)
    halve(working / "adapter_model.safetensors")
    halve(working / "layout.json")
    (working / f"{MANIFEST}.tmp").write_text("{")
    assert "resuming from what an earlier try left" in finish(place, whole, caplog)
