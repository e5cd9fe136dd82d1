"""What vLLM needs and accepts: the checks of a configuration, and of the options of the judge API."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tract.common.command_line import install_command
from tract.common.errors import ConfigError
from tract.config.schema import Config, VLLMConfig

# Of the judge API; the configuration has its defaults in YAML.
_DEFAULTS: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "gpu_memory_utilization": 0.9,
    "kv_cache_gib": None,
    "enforce_eager": False,
    "engine": {},
}


def vllm_is_missing() -> str | None:
    """Why no vLLM can run on a GPU here, in words that follow "since"; None where it can."""
    import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if importlib.util.find_spec("vllm") is None:
        return "the package vllm is not installed"
    return None


def vllm_does_not_fit(cfg: Config) -> str | None:
    """Why the configuration keeps ``generation=auto`` from vLLM, wherever it runs; None where it does not."""
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    if accelerator not in ("gpu", "cuda", "auto"):
        return f"trainer.accelerator={accelerator}"
    if cfg.deterministic:
        return "deterministic=true binds no other"
    if cfg.trainer.get("precision") == "64-true":
        return "vLLM does not compute in trainer.precision=64-true"
    if cfg.adapter.kind == "qlora" and cfg.judge is None:
        return "vLLM does not serve judges on 4-bit weights (adapter=qlora)"
    return None


def vllm_problems(cfg: Config) -> Iterator[str]:
    """What vLLM needs that is not there, and what it does not go with; one line each."""
    if importlib.util.find_spec("vllm") is None:
        how = "`make setup-vllm`" if cfg.trainer.get("accelerator") == "cpu" else f"`{install_command('vllm')}`"
        yield f"generation.backend: vllm needs the package vllm; run {how}, or set generation=hf"
    yield from vllm_setting_problems(cfg)
    if cfg.adapter.kind == "qlora" and cfg.judge is None:
        yield "generation.backend: vllm does not serve judges on 4-bit weights (adapter=qlora); set generation=hf"
    if cfg.trainer.get("precision") == "64-true":
        yield "trainer.precision: vllm does not compute in 64-true; set 32-true, or generation=hf"


def vllm_setting_problems(cfg: Config) -> Iterator[str]:
    """Values of generation.vllm that no engine takes; with ``generation=auto`` too, so that they are told on the first machine."""
    vllm, devices = cfg.generation.vllm, str(cfg.trainer.get("devices", 1))
    if not 0 < vllm.gpu_memory_utilization <= 1:
        yield f"generation.vllm.gpu_memory_utilization: {vllm.gpu_memory_utilization} is outside (0, 1]"
    if vllm.kv_cache_gib is not None and not vllm.kv_cache_gib > 0:
        yield f"generation.vllm.kv_cache_gib: {vllm.kv_cache_gib} is not a number > 0; null takes what is left"
    if devices.isdecimal() and int(devices) % max(1, vllm.tensor_parallel_size):
        yield (
            f"generation.vllm.tensor_parallel_size: {vllm.tensor_parallel_size} does not divide trainer.devices={devices}; each engine "
            "takes as many of the devices, so change one of them"
        )


def vllm_options(own: Mapping[str, Any], *, lora: str) -> VLLMConfig:
    """The options of an engine for the judge API, checked here: vLLM itself would refuse a wrong one a minute later.

    Args:
        own: what the user gives. lora: "served" or "merged".

    Raises:
        ConfigError: if an option is unknown, or a value is not accepted.
    """
    if unknown := [name for name in own if name not in _DEFAULTS]:
        raise ConfigError(f"vllm.{unknown[0]}: unknown; accepted are {', '.join(_DEFAULTS)}")
    given = {**_DEFAULTS, **own}
    cards, share, cache = given["tensor_parallel_size"], given["gpu_memory_utilization"], given["kv_cache_gib"]
    if isinstance(cards, bool) or not isinstance(cards, int) or cards < 1:
        raise ConfigError(f"vllm.tensor_parallel_size: found {cards!r}; a number of GPUs >= 1 is accepted")
    if not _is_number(share) or not 0 < share <= 1:
        raise ConfigError(f"vllm.gpu_memory_utilization: found {share!r}; a share of each GPU's memory, above 0 and at most 1, is accepted")
    if cache is not None and (not _is_number(cache) or not 0 < cache < math.inf):
        raise ConfigError(f"vllm.kv_cache_gib: found {cache!r}; a number of GiB > 0, or null for what is left, is accepted")
    if not isinstance(given["enforce_eager"], bool):
        raise ConfigError(f"vllm.enforce_eager: found {given['enforce_eager']!r}; true or false is accepted")
    if not isinstance(given["engine"], Mapping):
        raise ConfigError(f"vllm.engine: found {given['engine']!r}; a mapping of arguments of vLLM's engine is accepted")
    return VLLMConfig(lora=lora, **given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
