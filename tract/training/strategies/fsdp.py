"""Fully sharded data parallelism of torch (FSDP2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from tract.models.sharding import Build, create_fsdp
from tract.training.strategies.folders import AtomicFolders
from tract.training.strategies.safe_unpickling import SafeReader, only_weights


class FSDP(AtomicFolders, ModelParallelStrategy):
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
        shares = get_model_state_dict(self.model, options=_trained_only())
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
        with only_weights(path):
            SafeReader(path).read_metadata()  # here first: torch prints tracebacks of an error and asks once more
            weights = {"state_dict": self.lightning_module_state_dict()}
            load(weights, storage_reader=SafeReader(path))
            set_model_state_dict(model, weights["state_dict"], options=_trained_only())
            for number, optimizer in enumerate(self.optimizers):
                state = {f"optimizer_{number}": get_optimizer_state_dict(model, optimizer)}
                load(state, storage_reader=SafeReader(path))
                set_optimizer_state_dict(model, optimizer, state[f"optimizer_{number}"])
            rest: dict[str, Any] = torch.load(path / "meta.pt", map_location="cpu", weights_only=True)
        return rest


def _trained_only() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(ignore_frozen_params=True, cpu_offload=True, strict=False)
