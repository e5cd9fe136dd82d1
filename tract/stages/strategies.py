"""Training strategies that spread weights, gradients or the optimizer over ranks: DeepSpeed ZeRO and FSDP.

Lightning's own with three additions: weights are made in shares (``create``), a checkpoint's folder gets its name when all of it
is written, and processes on CPUs are accepted, so that a configuration can be tried without a GPU.
"""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, DoublePrecision, HalfPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import nn

from tract.modeling import stored_in
from tract.ranks import wait_for_all
from tract.sharding import Build, create_fsdp, create_zero3

_PARTIAL = ".tmp"


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
        weights = {"state_dict": self.lightning_module_state_dict()}
        load(weights, checkpoint_id=path)
        set_model_state_dict(model, weights["state_dict"], options=_trained_shares())
        for number, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{number}": get_optimizer_state_dict(model, optimizer)}
            load(state, checkpoint_id=path)
            set_optimizer_state_dict(model, optimizer, state[f"optimizer_{number}"])
        rest: dict[str, Any] = torch.load(path / "meta.pt", map_location="cpu", weights_only=True)
        return rest


def _trained_shares() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(ignore_frozen_params=True, cpu_offload=True, strict=False)
