"""DeepSpeed ZeRO."""

from __future__ import annotations

import os
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn

from tract.common.distributed import barrier
from tract.common.errors import DataError
from tract.models.sharding import Build, create_zero3
from tract.training.strategies.folders import AtomicFolders
from tract.training.strategies.precision import UnchangedBatchesDeepSpeed
from tract.training.strategies.safe_unpickling import only_weights

# How DeepSpeed calls the folder of a checkpoint in its file ``latest``, and the one that ``_make_universal`` adds.
_TAGS = {"latest": "checkpoint", "latest_universal": "universal"}


class ZeRO(AtomicFolders, DeepSpeedStrategy):
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
        self._precision_plugin = UnchangedBatchesDeepSpeed(own.precision) if isinstance(plugin, DeepSpeedPrecision) else plugin

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
        with only_weights(path), torch.serialization.safe_globals(_deepspeed_classes()):
            if len(list((path / "checkpoint").glob("*_optim_states.pt"))) != self.world_size:
                if self.is_global_zero:
                    _make_universal(path)
                barrier()
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


def _deepspeed_classes() -> list[Any]:
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
