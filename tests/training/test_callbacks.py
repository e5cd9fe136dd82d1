"""Checkpoints: written whole or not at all, and a damaged one is passed over when training resumes."""

from __future__ import annotations

import errno
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from tract.training.callbacks.checkpoints import AtomicCheckpointIO, checkpoints, newest_checkpoint

Damage = Callable[[bytes], bytes]


def content(step: int) -> dict[str, Any]:
    """What a checkpoint holds, as far as these tests go."""
    weights = torch.arange(2000, dtype=torch.float32) + step
    return {"global_step": step, "state_dict": {"w": weights}, "optimizer_states": [{"state": {0: weights}}], "loops": {"a": [1, None]}}


def write(folder: Path, *steps: int) -> list[Path]:
    """Checkpoints of these steps."""
    paths = [folder / f"last-step={step}.ckpt" for step in steps]
    for path, step in zip(paths, steps, strict=True):
        AtomicCheckpointIO().save_checkpoint(content(step), path)
    return paths


def flipped_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 4]) + data[middle + 4 :]


def flipped_folder_mark(data: bytes) -> bytes:
    """One bit of the zip's directory, without which torch reads a tensor from unset memory and says nothing."""
    record = data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/0"))
    return data[: record + 38] + bytes([data[record + 38] ^ 0x10]) + data[record + 39 :]


def impossible_place(data: bytes) -> bytes:
    """The zip's last record, with a place of the directory far behind the end of the file."""
    end = data.rindex(b"PK\x06\x06")
    return data[: end + 48] + b"\xff\xff\xff\x7f" + data[end + 52 :]


DAMAGES = {
    "empty": lambda data: b"",
    "no zip": lambda data: b"x" * len(data),
    "first half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "zeros at the end": lambda data: data[:-500] + bytes(500),
    "zeros in the middle": lambda data: data[: len(data) // 3] + bytes(700) + data[len(data) // 3 + 700 :],
    "flipped middle": flipped_middle,
    "flipped folder mark": flipped_folder_mark,
    "impossible place": impossible_place,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_moved_aside_and_an_older_one_used(
    damage: Damage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = write(tmp_path, 9, 10)
    data = newer.read_bytes()
    broken = damage(data)
    assert broken != data
    newer.write_bytes(broken)
    with caplog.at_level(logging.WARNING, logger="tract"):
        assert newest_checkpoint(tmp_path) == older
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"checkpoint {newer} is damaged (")
    assert warning.endswith("and was renamed to last-step=10.ckpt.damaged; going on from last-step=9.ckpt instead")
    assert "\n" not in warning
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-step=10.ckpt.damaged", "last-step=9.ckpt"]
    assert (tmp_path / "last-step=10.ckpt.damaged").read_bytes() == broken
    caplog.clear()
    assert newest_checkpoint(tmp_path) == older
    assert not caplog.records, "what was moved aside is not looked at again"


def test_nothing_whole_means_the_beginning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in write(tmp_path, 2, 4):
        path.write_bytes(b"")
    assert newest_checkpoint(tmp_path) is None
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == ["training starts from the beginning"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-step=2.ckpt.damaged", "last-step=4.ckpt.damaged"]


def test_the_newest_is_chosen_by_its_number_and_older_ones_are_removed_unread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newest, _ = write(tmp_path, 9, 100, 20)
    older.write_bytes(b"")
    (tmp_path / "best-step=500.ckpt").write_bytes(b"")
    os.utime(newest, (0, 0))  # times say nothing: files may have been copied
    (tmp_path / "last-step=8.ckpt").mkdir()  # of a sharded strategy
    assert newest_checkpoint(tmp_path) == newest
    assert {path.name for path in tmp_path.iterdir()} == {newest.name, "best-step=500.ckpt"}
    assert not caplog.records


def test_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"state_dict": {}}, "it holds no global_step"),
        ({"weights": {}}, "it holds no global_step and no state_dict"),
        ([1, 2], "it holds no global_step and no state_dict"),
        ({"global_step": 1, "state_dict": {}, "path": Path("x")}, "UnpicklingError: "),
    ],
)
def test_a_whole_file_with_other_content_is_not_resumed(
    other: object, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(other, tmp_path / "last-step=1.ckpt")
    assert newest_checkpoint(tmp_path) is None
    assert f"is damaged ({reason}" in caplog.text


def test_a_checkpoint_of_another_kind_of_strategy_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "last-step=3.ckpt").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "last-step=3.ckpt"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_is_not_called_damaged(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(tmp_path, 1)

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        newest_checkpoint(tmp_path)
    assert path.exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (newest,) = write(tmp_path, 3)
    (tmp_path / "last-step=6.ckpt.tmp").write_bytes(b"PK")
    assert newest_checkpoint(tmp_path) == newest
    assert list(tmp_path.iterdir()) == [newest]


# --- writing


def test_a_checkpoint_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last-step=7.ckpt"
    for step in (1, 7):  # the second time over the first
        AtomicCheckpointIO().save_checkpoint(content(step), path)
    loaded = AtomicCheckpointIO().load_checkpoint(path, weights_only=True)
    assert loaded["global_step"] == 7
    torch.testing.assert_close(loaded["state_dict"], content(7)["state_dict"], rtol=0, atol=0)
    assert list(path.parent.iterdir()) == [path]


def test_the_name_is_given_only_to_bytes_that_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size > 8000
        events.append("fsync")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        assert not target.exists()
        assert source.parent == target.parent, "a move from another disk would be a copy"
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write(tmp_path, 1)
    assert events == ["fsync", "replace"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device without space")
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    (tmp_path / "last-step=1.ckpt.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*/last-step=1\.ckpt'$") as caught:
        AtomicCheckpointIO().save_checkpoint(content(2), path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == [path]
    assert torch.load(path, weights_only=True)["global_step"] == 1


def test_what_cannot_be_saved_at_all_is_ours(tmp_path: Path) -> None:
    """No error of the disk: it arrives as it is, and nothing is left behind."""
    with pytest.raises(AttributeError, match="<lambda>"):
        AtomicCheckpointIO().save_checkpoint({"function": lambda: None}, tmp_path / "last-step=1.ckpt")
    assert not list(tmp_path.iterdir())


class Tiny(L.LightningModule):
    """One weight vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def tiny_fit(folder: Path, steps: int, resume: Path | None = None) -> L.Trainer:
    saver = ModelCheckpoint(folder, "last-{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, callbacks=[saver], plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Tiny(), DataLoader(torch.ones(8, 3), batch_size=1), ckpt_path=resume, weights_only=True)
    return trainer


@pytest.mark.filterwarnings("ignore:.*exists and is not empty", "ignore:.*your dataloader is not resumable")
def test_a_trainer_writes_through_it_and_resumes_after_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_fit(tmp_path, 3)
    newest = tmp_path / "last-step=3.ckpt"
    newest.write_bytes(flipped_middle(newest.read_bytes()))
    resume = newest_checkpoint(tmp_path)
    assert resume == tmp_path / "last-step=2.ckpt"
    assert tiny_fit(tmp_path, 4, resume).global_step == 4
    names = [f"last-step={step}.ckpt" for step in (2, 3, 4)]  # the first was older than the one to resume from
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "last-step=3.ckpt.damaged"])
    caplog.clear()
    assert newest_checkpoint(tmp_path) == tmp_path / "last-step=4.ckpt"
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:.*exists and is not empty", "ignore:.*your dataloader is not resumable")
def test_checkpoints_are_saved_between_optimizer_steps_alone(tmp_path: Path, tiny_config: Any) -> None:
    """At an epoch's last batch too, with validation ahead; and a resumed run saves none in the middle of its first step."""
    train = replace(tiny_config()[0].train, checkpoint_every_steps=1)
    saved: list[tuple[int, int]] = []

    class Watching(AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            saved.append((checkpoint["global_step"], progress["ready"]))
            super().save_checkpoint(checkpoint, path, storage_options)

    def run(steps: int, resume: Path | None) -> None:
        newest, _ = checkpoints(train, tmp_path, validates=True)
        trainer = L.Trainer(
            accelerator="cpu", max_steps=steps, logger=False, callbacks=[newest], plugins=[Watching()], accumulate_grad_batches=2,
            val_check_interval=6, check_val_every_n_epoch=None, limit_val_batches=1, num_sanity_val_steps=0,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        data = DataLoader(torch.ones(8, 3), batch_size=1)
        trainer.fit(Validated(), data, data, ckpt_path=resume, weights_only=True)

    run(5, None)  # four steps of an epoch, each of two micro-batches
    assert saved == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["last-step=5.ckpt"]
    saved.clear()
    run(7, newest_checkpoint(tmp_path))
    assert saved == [(6, 4), (7, 6)]


class Validated(Tiny):
    """The same, with validation."""

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/rmse", self.layer(batch).mean())
