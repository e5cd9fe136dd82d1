"""Products of stages: their files and manifest, verified whenever one is read."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tract.artifacts import products
from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import MANIFEST, checked_by_leader, open_product, read_manifest, write_manifest
from tract.common.durable import json_line, sync_folder, write_json
from tract.common.errors import ConfigError, DataError

IDENTITY = StageIdentity("stage1", {"objective": {"score_loss_weight": 1.0}, "seed": 0}, {"cots": "f1"}, {"tract.method.objective": "c1"})
OTHER_CODE = replace(IDENTITY, code={"tract.method.objective": "c2"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete product."""
    return make(tmp_path / f"stage1-{IDENTITY.key}")


def make(folder: Path, content: str = "weights", weights: str = "model.safetensors", identity: StageIdentity = IDENTITY) -> Path:
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / weights).write_text(content)
    (folder / "sub" / "layout.json").write_text("{}")
    write_manifest(folder, {"commit": None}, identity)
    return folder


# Writing and digests


def test_the_manifest_has_facts_identity_and_files(folder: Path) -> None:
    content = write_manifest(folder, {"commit": "abc", "counts": {"kept": 3}}, IDENTITY)
    assert (content["commit"], content["counts"], content["key"]) == ("abc", {"kept": 3}, IDENTITY.key)
    assert read_manifest(folder) == (content, IDENTITY)
    product = open_product(folder)
    assert (product.path, product.manifest, product.fingerprint) == (folder, content, content["fingerprint"])


def test_files_and_fingerprint_are_of_the_product_alone(folder: Path) -> None:
    before = open_product(folder)
    for name in (
        "config.yaml",
        "preview.txt",
        "stage.log",
        "checkpoints/last.ckpt",
        "csv/v0/metrics.csv",
        "tensorboard/v0/events",
        "wandb/x",
        f"{MANIFEST}.tmp",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    product = open_product(make(folder))
    assert product.manifest["files"] == {
        "model.safetensors": [7, "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"],
        "sub/layout.json": [2, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"],
    }
    assert product.fingerprint == before.fingerprint


def test_fingerprint_follows_contents_and_names_but_neither_time_nor_identity(folder: Path, tmp_path: Path) -> None:
    first = open_product(folder)
    same = open_product(make(tmp_path / "same", identity=OTHER_CODE))
    other = open_product(make(tmp_path / "other", content="WEIGHTS"))
    renamed = open_product(make(tmp_path / "renamed", weights="adapter.safetensors"))
    assert first.fingerprint == same.fingerprint
    assert first.manifest["finished"] != same.manifest["finished"]
    assert len({first.fingerprint, other.fingerprint, renamed.fingerprint}) == 3


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    assert open_product(make(tmp_path / "product")).manifest["commit"] is None


def test_another_fault_of_a_folder_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


# Opening


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("model.safetensors", None, "the file is missing"),
        ("model.safetensors", "weight", "the file has 6 bytes, 7 were written"),
        ("sub/layout.json", "[]", "the content is not what was written"),
    ],
)
def test_a_damaged_product_is_refused(name: str, content: str | None, problem: str, folder: Path) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: {problem}; the product is damaged: rebuild it with force=stage1$"):
        open_product(folder)
    assert open_product(make(folder)).path == folder


# Contents that are known


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose contents are read, in a process that knows no product yet."""
    read: list[str] = []
    check = products._content_problem
    monkeypatch.setattr(products, "_known", {})

    def noted(file: Path, expected: list[Any]) -> str | None:
        read.append(file.name)
        return check(file, expected)

    monkeypatch.setattr(products, "_content_problem", noted)
    return read


def test_contents_are_read_once(folder: Path, contents: list[str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, folder, tmp_path / "link"):
        assert open_product(path).path == path
    assert sorted(contents) == ["layout.json", "model.safetensors"]


def test_contents_of_a_file_that_was_touched_are_read_again(folder: Path, contents: list[str]) -> None:
    open_product(folder)
    contents.clear()
    (folder / "model.safetensors").write_text("WEIGHTS")  # as long as before
    with pytest.raises(DataError, match="model.safetensors: the content is not what was written"):
        open_product(folder)
    make(folder)
    open_product(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    contents.clear()
    open_product(folder)
    assert "model.safetensors" in contents


def test_a_known_product_is_refused_for_its_sizes(folder: Path) -> None:
    open_product(folder)
    (folder / "model.safetensors").write_text("weight")
    for options in ({}, {"just_made": True}):
        with pytest.raises(DataError, match="the file has 6 bytes, 7 were written"):
            open_product(folder, **options)
    with checked_by_leader(), pytest.raises(DataError, match="the file has 6 bytes, 7 were written"):
        open_product(folder)


def test_another_product_in_the_same_place_is_read(folder: Path, contents: list[str]) -> None:
    open_product(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    make(folder, content="WEIGHTS")
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    contents.clear()
    open_product(folder)
    assert "model.safetensors" in contents


def test_contents_that_are_no_longer_right_are_never_known(folder: Path, contents: list[str]) -> None:
    (folder / "model.safetensors").write_text("WEIGHTS")
    for _ in range(2):
        with pytest.raises(DataError, match="the content is not what was written"):
            open_product(folder)
    with checked_by_leader():
        open_product(folder)  # whoever started this process has looked
    with pytest.raises(DataError, match="the content is not what was written"):
        open_product(folder)


def test_what_was_just_made_is_not_read_again(folder: Path, contents: list[str]) -> None:
    assert open_product(folder, just_made=True) == open_product(folder)
    assert contents == []
    os.utime(folder / "model.safetensors", ns=(1, 1))
    open_product(folder)
    assert contents


def test_immaterial_files_may_change(folder: Path) -> None:
    (folder / "preview.txt").write_text("other")
    assert open_product(folder).manifest["commit"] is None


@pytest.mark.parametrize(
    "content", ['{"identity": ', "[]", "{}", '{"identity": 3}', '{"identity": {"stage": "stage1", "config": 3}}', "\ud800"]
)
def test_an_unreadable_manifest_is_refused(content: str, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"manifest.json: the manifest cannot be used \(\w+: .*force=stage1, or remove the folder$"):
        open_product(folder)


@pytest.mark.parametrize("part", ["files", "fingerprint", "key", "identity"])
def test_a_manifest_that_was_changed_is_refused(part: str, folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest[part] = {"files": {}, "fingerprint": "0", "key": "0", "identity": OTHER_CODE.to_dict()}[part]
    write_json(folder / MANIFEST, manifest)
    with pytest.raises(DataError, match=r"manifest.json: the manifest was changed.*force=stage1"):
        open_product(folder)


def test_a_stage_that_is_not_complete_is_no_parent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no complete stage at .*stage1-0a \(it holds no manifest.json\); run stage1 first"):
        open_product(tmp_path / "stage1-0a")


# Paths


def named(folder: Path, name: str) -> Path:
    """The product with a further file in a manifest whose key and fingerprint fit it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = [1, "0" * 64]
    manifest["fingerprint"] = products._fingerprint(manifest["files"])
    write_json(folder / MANIFEST, manifest)
    return folder


@pytest.mark.parametrize("name", ["/etc/passwd", "../elsewhere", "sub/../../elsewhere", "..\\elsewhere", ""])
def test_a_manifest_names_files_of_its_folder_alone(name: str, folder: Path) -> None:
    (folder.parent / "elsewhere").write_text("x")
    with pytest.raises(DataError, match="only files of the folder itself are accepted") as refused:
        open_product(named(folder, name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "sub", "sub/layout.json", "config.yaml", MANIFEST, "tokenizer.json", "sub/model.safetensors.index.json"]
)
def test_a_product_has_no_link_out_of_its_folder(name: str, folder: Path, tmp_path: Path) -> None:
    """Also for files that no manifest names: libraries read what they find."""
    target = tmp_path / "elsewhere" / Path(name).name
    target.parent.mkdir()
    if (folder / name).exists():
        os.replace(folder / name, target)
    (folder / name).symlink_to(target)
    with pytest.raises(DataError, match=rf"{name}' is refused, it leads out of the folder by a link") as refused:
        open_product(folder)
    assert "\n" not in str(refused.value)


def test_links_within_a_product_and_among_what_nobody_reads_are_let_be(folder: Path, tmp_path: Path) -> None:
    (folder / "sub" / "again.json").symlink_to("layout.json")
    (folder / "wandb").mkdir()
    (folder / "wandb" / "debug.log").symlink_to(tmp_path / "elsewhere")
    assert open_product(folder).path == folder
    (tmp_path / "run").symlink_to(folder)  # as in the folder of a run
    assert open_product(tmp_path / "run").manifest["commit"] is None


# JSON


def test_json_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"a": "long text" * 9999, "b": object()})  # fails half-way
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é"}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


# Numbers that are none


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")])
def test_json_never_holds_a_number_that_is_none(tmp_path: Path, value: float, said: str) -> None:
    """Python would write NaN, which is no JSON; the key is named, and what stood there before stays."""
    path = tmp_path / "metrics.json"
    write_json(path, {"rmse": 1.0})
    with pytest.raises(DataError, match=rf"metrics.json: judge.rows\[1\].rmse is {said}, which is no number; nothing was written"):
        write_json(path, {"judge": {"rows": [{"rmse": 1.0}, {"rmse": value}]}})
    assert json.loads(path.read_text()) == {"rmse": 1.0}
    with pytest.raises(DataError, match=f"predictions.jsonl, e1: rail is {said}, which is no number"):
        json_line({"id": "e1", "rail": value}, "predictions.jsonl, e1")
    assert not list(tmp_path.glob("*.tmp"))
