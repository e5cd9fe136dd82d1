"""Callbacks of the fit stage: throughput, and checkpoints that are whole when they are written and when they are read."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tract.common.durable import sync_file, write_json
from tract.common.errors import DataError
from tract.common.progress import EXAMPLES_AXIS, TOKENS_AXIS
from tract.common.ranks import broadcast_from_rank0
from tract.common.safe_paths import resolve_within
from tract.config.schema import TrainConfig
from tract.data.batches import JudgeBatch
from tract.inference.hf.paths import measured
from tract.inference.hf.sequences import take_rows
from tract.models.exactness import packing_difference, tolerance
from tract.models.packed_forward import takes_rows
from tract.models.precisions import arithmetic_of
from tract.models.sharding import whole_weights

log = logging.getLogger(__name__)

_PARTIAL = ".tmp"  # added to the name of a checkpoint that is being written
_DAMAGED = ".damaged"  # and of one that cannot be read
_ZIP_FOLDER = 0x10  # the mark of a folder among the attributes of a zip's part


class LookAtSequences(Callback):
    """Compares a packed row with each sequence alone before training, on the weights; where they differ, each becomes a row.

    First of the callbacks, since others validate at the same time. All ranks go through the model together.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks, and takes rows if any rank has seen a difference."""
        model: Any = pl_module.model
        if takes_rows(model):
            return
        with trainer.precision_plugin.forward_context():
            packed = measured(lambda: packing_difference(model))
        most = tolerance(model, arithmetic_of(str(trainer.precision)))
        differ = torch.tensor(float(packed[0] > most), device=pl_module.device)
        if bool(trainer.strategy.reduce(differ, reduce_op="sum")):
            take_rows(model, *packed)


class Throughput(Callback):
    """Logs trained tokens and examples: per second since the last log, validation time left out, and all so far.

    Tokens are those of the examples, a shared prompt counted for each, so that rates of different ways to train compare. The sums
    are over all ranks, up to the last step that was logged, and go on where a run is resumed; they are axes to plot metrics on, so
    validations have them too.
    """

    def __init__(self) -> None:
        self._tokens = self._examples = self._steps = 0
        self._begun = self._paused = 0.0
        self._so_far = torch.zeros(2, dtype=torch.float64)  # tokens, examples; of all ranks, at the last optimizer step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._steps = trainer.global_step
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
        self._examples += batch.scores.numel() * (not batch.is_padding)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: JudgeBatch, batch_idx: int) -> None:
        """Logs, when a step has ended that is logged."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = max(time.perf_counter() - self._begun, 1e-9)
            counts = torch.tensor([self._tokens, self._examples], dtype=torch.float64, device=pl_module.device)
            counts = trainer.strategy.reduce(counts, reduce_op="sum").cpu()
            self._so_far += counts
            tokens, examples = (counts / seconds).tolist()
            pl_module.log_dict({"train/tokens_per_s": tokens, "train/examples_per_s": examples, **self._axes()})
            self._restart()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the sums beside the metrics of the validation."""
        if trainer.state.fn == TrainerFn.FITTING:
            pl_module.log_dict(self._axes())

    def _axes(self) -> dict[str, float]:
        tokens, examples = self._so_far.tolist()
        return {TOKENS_AXIS: tokens, EXAMPLES_AXIS: examples}

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"so_far": self._so_far.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._so_far = torch.tensor(state_dict["so_far"], dtype=torch.float64)

    def _restart(self) -> None:
        self._tokens = self._examples = 0
        self._begun = time.perf_counter()


class OptimizerStepCheckpoint(ModelCheckpoint):
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
        """Saves, when it is time, if the micro-batch was the last of its step, but not of the training."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            if trainer.global_step != getattr(pl_module, "total_steps", None):
                super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves behind the last step with the validation that follows it: a run that goes on from there trains no more."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.global_step == getattr(pl_module, "total_steps", None):
            super().on_train_batch_end(trainer, pl_module, None, None, 0)


class ValidateAtStartAndEnd(Callback):
    """Validates before the first step, if that is wanted, behind the last one, if no validation was due there, and where a run resumes.

    Inside the training, since strategies that spread weights over ranks set a model up but once.

    Args:
        seed_metrics: where the metrics before the first step are kept, so that a resumed run has them too; None: not wanted.
    """

    def __init__(self, seed_metrics: Path | None) -> None:
        self._seed_metrics = seed_metrics
        self.seed_values: dict[str, float | None] = {}  # None where one is undefined

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reads what an earlier try has kept; a run that is done but for its export does not come to its start."""
        path = self._seed_metrics
        if path is not None and broadcast_from_rank0(path.is_file()):
            self.seed_values = json.loads(path.read_text(encoding="utf-8"))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The base model; or what a run was cut off in that had saved its step already, which Lightning would leave out."""
        module: Any = pl_module
        done, every = trainer.global_step * module.accumulate, trainer.val_check_batch
        if done and module.validated_at != trainer.global_step and sum(trainer.num_val_batches) and not done % every:
            trainer.fit_loop.epoch_loop.val_loop.restarting = False
            self._validate(trainer, pl_module)
        if self._seed_metrics is None or self.seed_values:
            return
        self.seed_values = self._validate(trainer, pl_module)
        if trainer.is_global_zero:
            write_json(self._seed_metrics, self.seed_values)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last step."""
        module: Any = pl_module
        if trainer.global_step == module.total_steps != module.validated_at and sum(trainer.num_val_batches):
            self._validate(trainer, pl_module)

    def _validate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float | None]:
        loop = trainer.fit_loop.epoch_loop.val_loop
        trainer.validating = True  # as the training loop itself does
        loop.run()
        trainer.training = True
        values: dict[str, float | None] = dict(pl_module.validation_metrics)  # type: ignore[arg-type]
        return values


class BestWeights(Callback):
    """Keeps the trained weights of the validation with the best of a metric, whole, whatever the strategy.

    ``<folder>/best-step=N.safetensors``, written by rank 0 beside its name first.

    Args:
        folder: of the checkpoints. monitor: key of the metric. mode: "min" or "max".
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        self._folder, self._monitor = folder, monitor
        self._sign = 1 if mode == "max" else -1
        self.score: float | None = None
        self.step = 0

    @property
    def path(self) -> Path:
        """The file of the best weights so far."""
        return self._folder / f"best-step={self.step}.safetensors"

    def load(self) -> dict[str, Tensor]:
        """The best weights so far, whole.

        Raises:
            DataError: if their file cannot be read.
        """
        with self._readable():
            return load_file(self.path)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{self.path}: the best weights so far cannot be read ({' '.join(str(error).split())[:200]}); remove the folder "
                f"{self._folder}, then training begins anew"
            ) from error

    def beats(self, value: float | None) -> bool:
        """Whether the kept weights are strictly better than a value of the metric; one that is undefined (None) never wins."""
        return self.score is not None and (value is None or not self._sign * value >= self._sign * self.score)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights if they are the best so far. Every rank takes part in putting them together."""
        module: Any = pl_module
        value = module.validation_metrics.get(self._monitor)
        if trainer.state.fn != TrainerFn.FITTING or trainer.global_step == 0 or value is None or not math.isfinite(value):
            return
        if self.score is not None and self._sign * value <= self._sign * self.score:
            return
        weights = whole_weights(module.model)
        old, self.score, self.step = self.path, value, trainer.global_step
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(self.path.name + _PARTIAL)
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)
            sync_file(partial)
            os.replace(partial, self.path)
            if old != self.path:
                old.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint; weights that a later best has replaced are found again when that validation is made again.

        Raises:
            DataError: if the file of the weights cannot be read.
        """
        self.score, self.step = state_dict["score"], int(state_dict["step"])  # a number, since it is part of a file's name
        if not self.path.is_file():
            self.score = None
        elif self.score is not None:
            with self._readable(), safe_open(self.path, framework="pt"):  # now, rather than when the training is done
                pass


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

    Raises:
        DataError: if one is a link out of the folder.
    """
    for left_over in [*folder.glob(f"*.ckpt{_PARTIAL}"), *folder.glob(f"best-*{_PARTIAL}")]:
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
