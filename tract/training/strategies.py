"""Training strategies that spread weights, gradients or the optimizer over ranks: DeepSpeed ZeRO and FSDP.

Lightning's own with three additions: weights are made in shares (``create``), a checkpoint's folder gets its name when all of it
is written, and processes on CPUs are accepted, so that a configuration can be tried without a GPU. What the parts of a checkpoint
are unpickled from are numbers and names alone: the libraries by themselves would run whatever a part that was replaced says.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, DoublePrecision, HalfPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

from tract.common.errors import DataError, TractError
from tract.common.ranks import wait_for_all
from tract.common.safe_paths import resolve_within
from tract.models.loading import stored_in
from tract.models.sharding import Build, create_fsdp, create_zero3

_PARTIAL = ".tmp"
# Torch's own: ``torch.load`` keeps to weights, whatever a library that calls it says.
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# How DeepSpeed calls the folder of a checkpoint in its file ``latest``, and the one that ``_make_universal`` adds.
_TAGS = {"latest": "checkpoint", "latest_universal": "universal"}
# What the metadata of a checkpoint of FSDP are made of, beside dtypes: shapes and names of files.
_OF_METADATA = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "pathlib": ("Path", "PosixPath"),
    "pathlib._local": ("Path", "PosixPath"),
}  # fmt: skip
# What torch says of a file that is no archive of its own.
_NO_ARCHIVE = "PytorchStreamReader"
# What a part holds beside weights, in torch's words, among its advice to load it all the same.
_UNSAFE = re.compile(r"GLOBAL \S+[^.\n]*")


@contextmanager
def _only_weights(path: Path) -> Iterator[None]:
    """Lets nothing be unpickled but numbers and plain containers.

    Raises:
        DataError: if the checkpoint holds something else, or a part of it cannot be read.
    """
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        yield
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _NO_ARCHIVE not in str(error):
            raise
        raise _refused(path, error) from error
    except CheckpointException as error:  # of torch.distributed.checkpoint, with what went wrong on each rank
        first = next(failure for failure, _ in error.failures.values())
        if isinstance(first, (TractError, OSError)):
            raise first from error
        raise _refused(path, first) from error
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


def _refused(path: Path, error: BaseException) -> DataError:
    text = str(error)
    named = _UNSAFE.search(text)
    reason = " ".join((named[0] if named else text).split())[:200]
    return DataError(
        f"checkpoint {path}: a part of it is not what a training writes, and is not loaded ({type(error).__name__}: {reason}); remove "
        "this checkpoint: the same command then goes on from an older one, or begins anew"
    )


class _MetadataUnpickler(pickle.Unpickler):
    """Unpickles the metadata of a checkpoint, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function that the pickle names.

        Raises:
            UnpicklingError: if metadata hold nothing of this kind.
        """
        if (module, name) == ("builtins", "getattr"):
            return _member  # how Python pickles members of enumerations
        if name in _OF_METADATA.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata name {module}.{name}")


def _member(kind: Any, name: str) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise pickle.UnpicklingError(f"its metadata ask for {name!r} of {kind!r}")
    return kind[name]


class _SafeReader(FileSystemReader):
    """Torch's reader, which by itself unpickles the metadata without looking."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata of the checkpoint.

        Raises:
            UnpicklingError: if they hold anything but metadata. DataError: if they name a file outside of the checkpoint.
        """
        path = Path(self.path)
        with (path / ".metadata").open("rb") as file:
            metadata: Any = _MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"its metadata are a {type(metadata).__name__}")
        for place in (metadata.storage_data or {}).values():
            resolve_within(path, place.relative_path)
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata


class _WholeFolders:
    """Writes the folder of a checkpoint beside its final name and renames it when every rank has written its part."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Writes the checkpoint, all ranks together.

        Raises:
            OSError: if it cannot be written.
        """
        final = Path(filepath)
        partial = final.with_name(final.name + _PARTIAL)
        strategy: Any = self
        if strategy.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
        wait_for_all()
        super().save_checkpoint(checkpoint, partial, storage_options)  # type: ignore[misc]
        wait_for_all()
        if strategy.is_global_zero:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
        wait_for_all()

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Removes a checkpoint."""
        strategy: Any = self
        if strategy.is_global_zero:
            shutil.rmtree(filepath, ignore_errors=True)


class _ScoresAsTheyAre(DeepSpeedPrecision):
    """Leaves batches alone: true scores are float32 whatever the model computes in, and batches are read-only."""

    def convert_input(self, data: Any) -> Any:
        """The same."""
        return data


class _WholeHalf(HalfPrecision):
    """Weights in half precision; batches, metrics, the grid's values and rotary frequencies are left alone."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """The module with the weights of its model in this precision; the metrics beside it would be rounded too."""
        own: Any = module
        stored_in(own.model, self._desired_input_dtype)
        return module

    def convert_input(self, data: Any) -> Any:
        """The same."""
        return data


class _WholeDouble(DoublePrecision):
    """Weights in float64; batches are left alone."""

    def convert_input(self, data: Any) -> Any:
        """The same."""
        return data


def own_precision(precision: str) -> Precision | None:
    """The plugin for a precision whose own one in Lightning rounds true scores too, and refuses batches that are read-only."""
    if precision == "64-true":
        return _WholeDouble()
    return _WholeHalf(precision) if precision in ("bf16-true", "16-true") else None  # type: ignore[arg-type]


class ZeRO(_WholeFolders, DeepSpeedStrategy):
    """DeepSpeed ZeRO: stage 2 spreads gradients and optimizer over the ranks, stage 3 the weights too.

    Arguments are those of ``lightning.pytorch.strategies.DeepSpeedStrategy``.
    """

    def __init__(self, **kwargs: Any) -> None:
        # The batch size is only for DeepSpeed's own log.
        super().__init__(**{"logging_batch_size_per_gpu": 1, "exclude_frozen_parameters": True, **kwargs})

    @property
    def precision_plugin(self) -> Any:
        """How the model computes."""
        return self._precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        own: Any = plugin
        self._precision_plugin = _ScoresAsTheyAre(own.precision) if isinstance(plugin, DeepSpeedPrecision) else plugin

    @property
    def root_device(self) -> torch.device:
        """This rank's device; DeepSpeed wants a number of it on CPUs too."""
        device: torch.device = super().root_device
        return torch.device("cpu", 0) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        """As Lightning's, on CPUs too."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """As Lightning's, without asking for the numbers of GPUs."""
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def model_sharded_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Nothing: ``create`` decides what is made in shares, and what is not."""
        self._init_config_if_needed()
        return nullcontext()

    def create(self, build: Build) -> nn.Module:
        """The model; with stage 3 its weights are spread when they are made."""
        import deepspeed

        self._init_config_if_needed()
        if not self.zero_stage_3:
            return build()
        return create_zero3(build, deepspeed.zero.Init(remote_device=self.remote_device, config_dict_or_path=self.config))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads this rank's shares; a checkpoint of another number of ranks is put together by DeepSpeed's converter first."""
        path, config = Path(checkpoint_path), self.deepspeed_engine._config
        _check_tags(path)
        with _only_weights(path), torch.serialization.safe_globals(_of_deepspeed()):
            if len(list((path / "checkpoint").glob("*_optim_states.pt"))) != self.world_size:
                if self.is_global_zero:
                    _make_universal(path)
                wait_for_all()
                config.load_universal_checkpoint = True
            try:
                loaded: dict[str, Any] = super().load_checkpoint(path, weights_only)
            finally:
                config.load_universal_checkpoint = False
        return loaded


def _check_tags(path: Path) -> None:
    """Refuses a checkpoint that says that it lies elsewhere."""
    for name, expected in _TAGS.items():
        file = path / name
        if file.is_file() and (found := file.read_text(encoding="utf-8", errors="replace").strip()) != expected:
            raise DataError(f"{file}: it names the folder {found!r}, {expected!r} was written; remove the checkpoint {path}")


def _of_deepspeed() -> list[Any]:
    """The classes beside tensors that DeepSpeed writes into checkpoints; none of them does anything when it is made."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def _make_universal(path: Path) -> None:
    """Adds to a checkpoint of ZeRO one that any number of ranks can read."""
    from deepspeed.checkpoint.ds_to_universal import main

    settings = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    # It prints its progress.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        main(Namespace(input_folder=str(path / "checkpoint"), output_folder=str(path / "universal"), **settings))


class FSDP(_WholeFolders, ModelParallelStrategy):
    """Fully sharded data parallelism (torch's ``fully_shard``): weights, gradients and optimizer are spread over the ranks.

    Args:
        offload: keep the shares in the machines' memory instead of the GPUs'.
    """

    def __init__(self, offload: bool, **kwargs: Any) -> None:
        super().__init__(data_parallel_size="auto", tensor_parallel_size=1, save_distributed_checkpoint=True, **kwargs)
        self._offload = offload

    def setup_environment(self) -> None:
        """As Lightning's, with all ranks in one data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def create(self, build: Build) -> nn.Module:
        """The model with its weights spread when they are made."""
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

        half = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}.get(str(self.precision_plugin.precision))
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
        offload = CPUOffloadPolicy() if self._offload else None
        device = torch.device("cpu") if self._offload else self.root_device
        return create_fsdp(build, self.device_mesh["data_parallel"], policy, device, offload=offload)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shares of the trained weights."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        assert self.model is not None
        shares = get_model_state_dict(self.model, options=_trained_shares())
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        return {name: share for name, share in shares.items() if name in trained}  # torch leaves second names of frozen ones in

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads this rank's shares, of a checkpoint of any number of ranks; returns the rest."""
        from torch.distributed.checkpoint.state_dict import (
            get_optimizer_state_dict,
            set_model_state_dict,
            set_optimizer_state_dict,
        )
        from torch.distributed.checkpoint.state_dict_loader import load

        path, model = Path(checkpoint_path), self.model
        assert model is not None
        with _only_weights(path):
            _SafeReader(path).read_metadata()  # here first: torch prints tracebacks of an error and asks once more
            weights = {"state_dict": self.lightning_module_state_dict()}
            load(weights, storage_reader=_SafeReader(path))
            set_model_state_dict(model, weights["state_dict"], options=_trained_shares())
            for number, optimizer in enumerate(self.optimizers):
                state = {f"optimizer_{number}": get_optimizer_state_dict(model, optimizer)}
                load(state, storage_reader=_SafeReader(path))
                set_optimizer_state_dict(model, optimizer, state[f"optimizer_{number}"])
            rest: dict[str, Any] = torch.load(path / "meta.pt", map_location="cpu", weights_only=True)
        return rest


def _trained_shares() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(ignore_frozen_params=True, cpu_offload=True, strict=False)
