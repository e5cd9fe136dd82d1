"""Checkpoints that are whole when they are written and when they are read."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tract.common.durable import TEMPORARY, write_atomically
from tract.common.safe_paths import resolve_within
from tract.config.schema import TrainConfig
from tract.data.batches import JudgeBatch
from tract.training.callbacks.best_weights import BestWeights

log = logging.getLogger(__name__)
_DAMAGED = ".damaged"  # and of one that cannot be read
_ZIP_FOLDER = 0x10  # the mark of a folder among the attributes of a zip's part


class OptimizerStepCheckpoint(ModelCheckpoint):
    """Saves right after optimizer steps, never between the micro-batches of one.

    Lightning's own looks at the number of steps after each micro-batch: in a resumed run it saves after the first one, and a run that
    resumes from there lacks the gradient of that one.
    """

    _steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remembers the steps that were taken before."""
        super().on_train_start(trainer, pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: JudgeBatch, batch_idx: int) -> None:
        """Saves, when it is due, after the last micro-batch of a step, but of the last step."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            if trainer.global_step != getattr(pl_module, "total_steps", None):
                super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after the last step and its validation: a run that resumes from there trains no more."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.global_step == getattr(pl_module, "total_steps", None):
            super().on_train_batch_end(trainer, pl_module, None, None, 0)


def checkpoints(cfg: TrainConfig, folder: Path, *, validates: bool) -> tuple[ModelCheckpoint, BestWeights | None]:
    """(the newest state, to resume from; the best weights by the monitored metric, if there is validation)."""
    newest = OptimizerStepCheckpoint(
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
    return newest, BestWeights(folder, cfg.monitor, cfg.monitor_mode)


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
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(final) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch's own error speaks of positions in the file; what the disk said is its context.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(cause.errno, cause.strerror, str(final)) from error


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint to resume from, if there is one.

    Damaged ones that are newer are moved aside, with a warning each. Older ones, and what a killed process left half-written, are
    removed.

    Raises:
        DataError: if one is a link out of the folder.
    """
    for left_over in [*folder.glob(f"*.ckpt{TEMPORARY}"), *folder.glob(f"best-*{TEMPORARY}")]:
        _remove(left_over)
    damaged: dict[Path, str] = {}
    newest = None
    for path in sorted(folder.glob("last-step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]), reverse=True):
        resolve_within(folder, path.name)
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
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint, ignore_errors=True)
    else:
        checkpoint.unlink(missing_ok=True)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole. Reads every byte, but never all at once."""
    if path.is_dir():  # of a strategy that spreads weights, whose parts only that knows; it is renamed when all are written
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
