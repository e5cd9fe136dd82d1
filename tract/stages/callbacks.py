"""Callbacks of the fit stage: throughput, and checkpoints that are whole when they are written and when they are read."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.optim import Optimizer

from tract.config import TrainConfig
from tract.data.batches import JudgeBatch

log = logging.getLogger(__name__)

_PARTIAL = ".tmp"  # added to the name of a checkpoint that is being written
_DAMAGED = ".damaged"  # and of one that cannot be read
_ZIP_FOLDER = 0x10  # the mark of a folder among the attributes of a zip's part


class Throughput(Callback):
    """Logs trained tokens and examples per second since the last log; validation time is left out.

    Tokens are those of the examples, a shared prompt counted for each, so that rates of different ways to train compare.
    """

    def __init__(self) -> None:
        self._tokens = self._examples = 0
        self._begun = self._paused = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._restart()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lets the clock go on."""
        self._begun += time.perf_counter() - self._paused

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: JudgeBatch, batch_idx: int) -> None:
        """Counts."""
        self._tokens += batch.trained_tokens
        self._examples += batch.scores.numel()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Logs, when this step is logged."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = max(time.perf_counter() - self._begun, 1e-9)
            pl_module.log_dict({"train/tokens_per_s": self._tokens / seconds, "train/examples_per_s": self._examples / seconds})
            self._restart()

    def _restart(self) -> None:
        self._tokens = self._examples = 0
        self._begun = time.perf_counter()


class WholeStepCheckpoint(ModelCheckpoint):
    """Saves right after optimizer steps, never between the micro-batches of one.

    Lightning's own goes by the number of steps after each micro-batch: in a resumed run it saves behind the first one, and whoever
    resumes from there goes on without that one's gradient.
    """

    _steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes note of the steps that were taken before."""
        super().on_train_start(trainer, pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: JudgeBatch, batch_idx: int) -> None:
        """Saves, when it is time, if the micro-batch was the last of its step."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def checkpoints(cfg: TrainConfig, folder: Path, *, validates: bool) -> tuple[ModelCheckpoint, ModelCheckpoint | None]:
    """(the newest state, to resume from; the best weights by the monitored metric, if there is validation)."""
    newest = WholeStepCheckpoint(
        dirpath=folder,
        filename="last-{step}",
        every_n_train_steps=cfg.checkpoint_every_steps,
        monitor=None,  # with a monitor, the save at an epoch's last batch waits for a validation that may never come
        save_top_k=1,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    if not validates:
        return newest, None
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best-{step}",
        monitor=cfg.monitor,
        mode=cfg.monitor_mode,
        save_top_k=1,
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return newest, best


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint so that its file is whole or absent, whenever the process is killed.

    Lightning's own writes to the system's temporary folder and moves the file from there, which is a copy where that lies on
    another disk, and holds the whole file in memory before. This one writes straight to a file beside the final one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """Writes the checkpoint to ``path``, on a local disk.

        Raises:
            OSError: if it cannot be written, a full disk included; the error names ``path``.
        """
        assert storage_options is None, "a local file has no storage options"
        final = Path(path)
        partial = final.with_name(final.name + _PARTIAL)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)
        except (OSError, RuntimeError) as error:
            # torch's own error speaks of positions in the file; what the disk said is its context.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(cause.errno, cause.strerror, str(final)) from error
        finally:
            partial.unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint to resume from, if there is one.

    Damaged ones that are newer are moved aside, with a warning each. Older ones, and what a killed process left half-written, are
    removed.
    """
    for left_over in folder.glob(f"*.ckpt{_PARTIAL}"):
        left_over.unlink(missing_ok=True)
    damaged: dict[Path, str] = {}
    newest = None
    for path in sorted(folder.glob("last-step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]), reverse=True):
        if newest is not None:
            _remove(path)  # Lightning never removes the one that it resumed from, so each resumption would leave one behind
        elif (damage := _damage(path)) is None:
            newest = path
        else:
            damaged[path] = damage
    instead = f"going on from {newest.name} instead" if newest else "training starts from the beginning"
    for path, damage in damaged.items():
        aside = path.with_name(path.name + _DAMAGED)
        os.replace(path, aside)
        log.warning("checkpoint %s is damaged (%s) and was renamed to %s; %s", path, damage, aside.name, instead)
    return newest


def _remove(checkpoint: Path) -> None:
    # Other ranks remove it too, at the same moment.
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint, ignore_errors=True)
    else:
        checkpoint.unlink(missing_ok=True)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole. Reads every byte, but never all at once."""
    if path.is_dir():  # a sharded strategy's checkpoint, whose parts only that strategy knows
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            # Outside the checksums, and torch would leave the tensors of such a part unset.
            folders = [part.filename for part in archive.infolist() if part.external_attr & _ZIP_FOLDER]
            broken = archive.testzip() or next(iter(folders), None)
        if broken is not None:
            return f"its part {broken} is not what was written"
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    except OSError as error:
        if error.errno != errno.EINVAL:  # the disk's fault or a missing permission: nothing is known about the file
            raise
        return "it refers to a place outside itself"
    missing = [key for key in ("global_step", "state_dict") if not isinstance(content, dict) or key not in content]
    return f"it holds no {' and no '.join(missing)}" if missing else None
