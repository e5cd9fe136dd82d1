"""Checkpoints that somebody replaced: nothing of them runs, and what is wrong is said in one line."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tract.common.errors import DataError
from tract.training.callbacks.best_weights import BestWeights
from tract.training.callbacks.checkpoints import newest_checkpoint
from tract.training.strategies import safe_unpickling
from tract.training.strategies.safe_unpickling import SafeReader, only_weights
from tract.training.strategies.zero import _check_tags, _deepspeed_classes


class Evil:
    """Whoever unpickles it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


class Indirect(Evil):
    """The same by a way that goes through what metadata may name."""

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (Path, "mkdir")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    mark = tmp_path / "code-was-run"
    yield mark
    assert not mark.exists()


# Of one file


@pytest.mark.parametrize("seal", ["pickle", "zip"])
def test_a_checkpoint_that_would_run_code_is_moved_aside(seal: str, tmp_path: Path, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"global_step": 4, "state_dict": {}}, folder / "last-step=4.ckpt")
    content = {"global_step": 8, "state_dict": {}, "evil": Evil(mark)}
    if seal == "zip":
        torch.save(content, folder / "last-step=8.ckpt")
    else:
        (folder / "last-step=8.ckpt").write_bytes(pickle.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(folder) == folder / "last-step=4.ckpt"
    assert "last-step=8.ckpt is damaged (" in caplog.text
    assert "going on from last-step=4.ckpt instead" in caplog.text


def test_a_checkpoint_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"global_step": 4, "state_dict": {}}, tmp_path / "elsewhere.ckpt")
    (folder / "last-step=4.ckpt").symlink_to("../elsewhere.ckpt")
    with pytest.raises(DataError, match=r"'last-step=4.ckpt' is refused, it leads out of the folder by a link"):
        newest_checkpoint(folder)


def test_the_names_in_an_archive_are_never_written(tmp_path: Path) -> None:
    """A checkpoint is a zip file, which torch reads where it lies."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"global_step": 4, "state_dict": {}}, folder / "last-step=4.ckpt")
    with zipfile.ZipFile(folder / "last-step=4.ckpt", "a") as archive:
        archive.writestr("../../outside", "x")
        archive.writestr("/tmp/../outside", "x")
    newest_checkpoint(folder)
    assert {path.name for path in tmp_path.rglob("*")} <= {"checkpoints", "last-step=4.ckpt", "last-step=4.ckpt.damaged"}


@pytest.mark.parametrize("junk", [b"", b"junk" * 99, b"\xff" * 99])
def test_best_weights_that_are_junk(junk: bytes, tmp_path: Path) -> None:
    best = BestWeights(tmp_path, "val/rmse", "min")
    path = tmp_path / "best-step=4.safetensors"
    save_file({"w": torch.ones(2)}, path)
    best.load_state_dict({"score": 1.0, "step": 4})
    assert torch.equal(best.load()["w"], load_file(path)["w"])
    path.write_bytes(junk)
    message = rf"^{re.escape(str(path))}: the best weights so far cannot be read \(.*; remove the folder .*, then training begins anew$"
    with pytest.raises(DataError, match=message):
        best.load_state_dict({"score": 1.0, "step": 4})
    with pytest.raises(DataError, match=message):
        best.load()


def test_the_step_of_the_best_weights_is_a_number(tmp_path: Path) -> None:
    """It is part of the name of a file that is read, and removed when a better one comes."""
    with pytest.raises(ValueError, match="invalid literal"):
        BestWeights(tmp_path / "checkpoints", "val/rmse", "min").load_state_dict({"score": 1.0, "step": "/../../x"})


# Of FSDP: torch.distributed.checkpoint


def state(value: float = 0.0) -> dict[str, Any]:
    return {
        "weights": torch.full((3,), value),
        "optimizer": {"lr": 0.1 + value, "betas": (0.9, 0.99), "amsgrad": False, "steps": [torch.tensor(value)]},
    }


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "last-step=8.ckpt"
    save(state(1.0), checkpoint_id=folder, no_dist=True)
    return folder


def read(folder: Path) -> dict[str, Any]:
    found = state()
    with only_weights(folder):
        SafeReader(folder).read_metadata()
        load(found, storage_reader=SafeReader(folder), no_dist=True)
    return found


def test_what_was_saved_is_read(sharded: Path) -> None:
    found = read(sharded)
    assert torch.equal(found["weights"], torch.ones(3))
    assert found["optimizer"]["lr"] == 1.1
    assert found["optimizer"]["betas"] == (0.9, 0.99)
    assert safe_unpickling._FORCED not in os.environ


@pytest.mark.parametrize("evil", [Evil, Indirect])
def test_metadata_that_would_run_code(evil: type[Evil], sharded: Path, mark: Path) -> None:
    (sharded / ".metadata").write_bytes(pickle.dumps(evil(mark)))
    with pytest.raises(
        DataError, match=r"^checkpoint .*last-step=8.ckpt: a part of it is not what a training writes, .*its metadata .*"
    ) as refused:
        read(sharded)
    assert "\n" not in str(refused.value)


def test_functions_in_the_modules_of_metadata_are_no_metadata(sharded: Path) -> None:
    for name in (b"FileSystem.rm_file", b"os.system", b"FileSystemWriter"):
        module = b"torch.distributed.checkpoint.filesystem"
        pickled = b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93."
        (sharded / ".metadata").write_bytes(pickled)
        with pytest.raises(DataError, match="its metadata name torch.distributed.checkpoint.filesystem"):
            read(sharded)


def test_an_optimizer_that_would_run_code(sharded: Path, mark: Path) -> None:
    """Torch's planner unpickles what is no tensor without looking, by itself."""
    content = state(1.0)
    content["optimizer"]["lr"] = Evil(mark)
    save(content, checkpoint_id=sharded, no_dist=True)
    if mark.exists():  # saving may copy the object, which makes it too
        mark.rmdir()
    with pytest.raises(DataError, match=r"a part of it is not what a training writes, .*UnpicklingError"):
        read(sharded)


@pytest.mark.parametrize("place", ["../elsewhere.distcp", "/tmp/elsewhere.distcp"])
def test_metadata_that_name_files_elsewhere(place: str, sharded: Path) -> None:
    metadata = pickle.loads((sharded / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = place
    (sharded / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError, match="only files of the folder itself are accepted"):
        read(sharded)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_sharded_checkpoint_that_is_junk(name: str, sharded: Path) -> None:
    (sharded / name).write_bytes(b"junk" * ((sharded / name).stat().st_size // 4 + 1))
    with pytest.raises(DataError, match=r"a part of it is not what a training writes, and is not loaded"):
        read(sharded)


# Of DeepSpeed, whose own code loads with weights_only=False


@pytest.mark.parametrize("seal", ["pickle", "zip"])
def test_parts_of_deepspeed_run_nothing(seal: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "checkpoint" / "mp_rank_00_model_states.pt"
    path.parent.mkdir()
    if seal == "zip":
        torch.save({"module": Evil(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"module": Evil(mark)}, protocol=2))
    with (
        pytest.raises(DataError, match=r"a part of it is not what a training writes, .*UnpicklingError") as raised,
        only_weights(tmp_path),
    ):
        torch.load(path, weights_only=False)
    assert "(UnpicklingError: GLOBAL posix.mkdir whose module" in str(raised.value), "what it holds, not how to load it all the same"


def test_a_part_that_is_junk(tmp_path: Path) -> None:
    path = tmp_path / "meta.pt"
    path.write_bytes(b"PK\x03\x04" + b"junk" * 99)
    with pytest.raises(DataError, match="a part of it is not what a training writes"), only_weights(tmp_path):
        torch.load(path, weights_only=True)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Connection closed by peer"), only_weights(tmp_path):
        raise RuntimeError("Connection closed by peer")


def test_the_variable_of_the_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(safe_unpickling._FORCED, "0")
    with only_weights(tmp_path):
        assert os.environ[safe_unpickling._FORCED] == "1"
    assert os.environ[safe_unpickling._FORCED] == "0"


@pytest.mark.parametrize("name", ["latest", "latest_universal"])
def test_a_checkpoint_of_deepspeed_lies_where_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("checkpoint")
    (tmp_path / "latest_universal").write_text("universal")
    _check_tags(tmp_path)
    (tmp_path / name).write_text("../elsewhere")
    with pytest.raises(DataError, match=rf"{name}: it names the folder '../elsewhere', '\w+' was written; remove the checkpoint"):
        _check_tags(tmp_path)


@pytest.mark.slow
def test_the_classes_of_deepspeed_are_there() -> None:
    assert len(_deepspeed_classes()) == 4
