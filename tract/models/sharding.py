"""Weights that are spread over ranks (ZeRO-3, FSDP): made without a whole copy on each rank, and put together again.

Rank 0 reads the weights into its memory; every other rank only ever holds its share and the parameter that is dealt out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from tract.common.distributed import rank_info

# Makes the model: build() with its weights; build(empty=True) the same one with parameters as the context around makes them;
# float32_adapter=False leaves an adapter's dtype alone.
Build = Callable[..., nn.Module]


def shape_of(parameter: Tensor) -> torch.Size:
    """The shape of the whole parameter, also where this rank holds a share of it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def elements_of(parameter: Tensor) -> int:
    """Elements of the whole parameter; of one that is packed in 4 bits those that it stands for."""
    packed: Any = getattr(parameter, "quant_state", None)
    return int(packed.shape.numel() if packed is not None else getattr(parameter, "ds_numel", parameter.numel()))


def own_share(parameter: Tensor) -> Tensor:
    """What this rank holds of a parameter: a share where weights are spread, else all of it."""
    spread: Any = parameter
    if getattr(spread, "ds_tensor", None) is not None:
        share: Tensor = spread.ds_tensor
        return share
    own: Tensor = spread.to_local() if hasattr(spread, "to_local") else parameter
    return own


def create_zero3(build: Build, sharded: AbstractContextManager[Any]) -> nn.Module:
    """The model with its parameters spread by DeepSpeed.

    Args:
        build: see ``Build``; its weights are used on rank 0 alone. sharded: ``deepspeed.zero.Init``.
    """
    import deepspeed

    source = build() if rank_info().is_first else None
    weights = dict(source.named_parameters()) if source is not None else {}
    with sharded:
        model = build(empty=True, float32_adapter=False)
    tie_weights(model)
    names = {id(p): name for name, p in model.named_parameters()}
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in names]
        with deepspeed.zero.GatheredParameters(own, modifier_rank=0, enabled=bool(own)), torch.no_grad():
            for p in own:
                name = names.pop(id(p))  # a parameter that two modules share is filled once
                if weights:
                    p.copy_(weights[name])
    _complete(model, source, next(iter(model.parameters())).device)
    return model


def create_fsdp(build: Build, mesh: Any, policy: Any, device: torch.device, *, offload: Any = None) -> nn.Module:
    """The model with its parameters spread as DTensors (FSDP2), a group for each layer and one for the rest.

    Args:
        build: see ``Build``; its weights are used on rank 0 alone.
        mesh: one-dimensional device mesh. policy: torch's ``MixedPrecisionPolicy``. offload: torch's ``OffloadPolicy``, or None.
        device: of this rank's shares.
    """
    from accelerate import init_empty_weights
    from torch.distributed.fsdp import fully_shard

    source = build() if rank_info().is_first else None
    with init_empty_weights(include_buffers=False):  # buffers hold what no file has, e.g. rotary frequencies
        model = build(empty=True)
    tie_weights(model)
    options = {"mesh": mesh, "mp_policy": policy, **({"offload_policy": offload} if offload is not None else {})}
    for layer in list(_layers(model)):
        fully_shard(layer, **options)
    fully_shard(model, **options)
    _deal_out(model, dict(source.named_parameters()) if source is not None else {}, device)
    _complete(model, source, device)
    return model


def tie_weights(model: nn.Module) -> None:
    """Lets modules share the parameters that they should; each was given its own where none was initialised."""
    for module in model.modules():
        if hasattr(module, "tie_weights"):
            module.tie_weights()  # type: ignore[operator]
            return


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The model's equal layers, by the names that transformers gives for not splitting them."""
    kinds = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return (module for module in model.modules() if type(module).__name__ in kinds)


def _deal_out(model: nn.Module, weights: dict[str, nn.Parameter], device: torch.device) -> None:
    """Puts this rank's shares of rank 0's weights in the place of parameters without memory."""
    from torch.distributed.tensor import distribute_tensor

    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            places[p].append((module, name))
    for name, p in list(model.named_parameters()):
        empty: Any = p
        whole = weights[name].detach().to(device, p.dtype) if weights else torch.empty(p.shape, dtype=p.dtype, device=device)
        share = nn.Parameter(distribute_tensor(whole, empty.device_mesh, empty.placements), requires_grad=p.requires_grad)
        for module, attribute in places[p]:  # tied weights stay one parameter
            setattr(module, attribute, share)


def _complete(model: nn.Module, source: nn.Module | None, device: torch.device) -> None:
    """What is no parameter: saved buffers go to all ranks, and settings of generation to rank 0, which saves the judge."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    saved_names = set(model.state_dict())
    saved = dict(source.named_buffers()) if source is not None else {}
    for name, buffer in model.named_buffers():
        if name in parameters or name not in saved_names:
            continue
        whole = (saved[name] if saved else buffer).to(device).contiguous()
        torch.distributed.broadcast(whole, src=0)
        buffer.data = whole.to(buffer.device)
    if source is not None and (settings := getattr(source, "generation_config", None)) is not None:
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        base.generation_config = settings


def whole_weights(model: nn.Module, *, trained: bool = True) -> dict[str, Tensor]:
    """The trained parameters put together, in the memory of rank 0; nothing on the others. Every rank must call it.

    Args:
        trained: False for those that are not trained.

    Returns:
        Name -> tensor on the CPU, in the parameter's dtype.
    """
    weights = {}
    for name, p in model.named_parameters():
        if p.requires_grad == trained and (whole := _whole(p)) is not None:
            weights[name] = whole
    return weights


def _whole(parameter: nn.Parameter) -> Tensor | None:
    first = rank_info().is_first
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone() if first else None
    gather = getattr(parameter, "full_tensor", None)
    whole: Tensor = gather().detach() if gather is not None else parameter.detach()
    return whole.cpu().clone() if first else None
