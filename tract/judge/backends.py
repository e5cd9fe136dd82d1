"""The options of the judge API that say who runs a judge's model, translated into a ``BackendSpec``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tract.artifacts.judge_files import JudgeFiles
from tract.common.command_line import install_command
from tract.common.errors import ConfigError
from tract.config.schema import ServerConfig
from tract.config.vllm import vllm_is_missing, vllm_options
from tract.inference.backends import CHAT, HF, SERVER, VLLM, BackendSpec, EngineStart, JudgeModel, live_worker
from tract.inference.worker import Worker
from tract.judge.arguments import APIS

log = logging.getLogger(__name__)

JUDGE_BACKENDS = ("auto", "hf", "vllm", "openai")


@dataclass(frozen=True)
class BackendOptions:
    """How the model is run; nothing here moves a score beyond rounding.

    Attributes:
        device: of "hf", e.g. "cuda:0"; None for a GPU if there is one.
        batch_size: CoTs that are sampled at a time, or requests.
        base_url, served_model, api, api_key_env, timeout_s, max_retries: of "openai", see ``tract.config.schema.ServerConfig``.
        vllm: of "vllm": tensor_parallel_size, gpu_memory_utilization, kv_cache_gib, enforce_eager, engine (further arguments).
        cache: where weights are written that another engine loads.
    """

    device: str | None
    batch_size: int
    base_url: str | None
    served_model: str | None
    api: str
    api_key_env: str
    timeout_s: float
    max_retries: int
    vllm: Mapping[str, Any]
    cache: Path


def start_worker(backend: str, files: JudgeFiles, options: BackendOptions) -> Worker:
    """The judge, loaded or started.

    Raises:
        ConfigError: if there is no such backend, or it does not start.
    """
    if options.batch_size < 1:
        raise ConfigError(f"batch_size: {options.batch_size} is not a number >= 1")
    if backend == "auto":
        backend = _chosen(files)
    if backend not in JUDGE_BACKENDS:
        raise ConfigError(f"backend: {backend!r} is not one of {', '.join(JUDGE_BACKENDS)}")
    extra = "vllm" if backend == "vllm" else "server"
    return live_worker(_spec(backend, files, options), partial(_installed, extra=extra))


def _chosen(files: JudgeFiles) -> str:
    """What "auto" stands for: vLLM where it runs on a GPU here and serves the judge, else this process; a line says which and why."""
    against = "vLLM does not serve judges on 4-bit weights" if files.four_bit else vllm_is_missing()
    backend = "hf" if against else "vllm"
    log.info("backend=auto: %s, since %s", backend, against or "a CUDA device and the package vllm are here")
    return backend


def _spec(backend: str, files: JudgeFiles, options: BackendOptions) -> BackendSpec:
    """The description of a backend that is not "auto"; options of other backends are not checked."""
    settings, model, device = files.settings, options.served_model, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = HF
    vllm: Mapping[str, Any] = {}
    if backend == "hf":
        device = _device(options.device)
    elif backend == "vllm":
        kind, vllm = VLLM, options.vllm
    elif options.api not in APIS:
        raise ConfigError(f"api: {options.api!r} is not one of {', '.join(APIS)}")
    elif options.api == "chat":
        kind, model = CHAT, model or settings.base_model.name_or_path
    elif options.base_url is None:
        raise ConfigError("base_url: backend='openai' needs the address of the server, e.g. base_url='http://localhost:8000/v1'")
    else:
        kind = SERVER
    engine = vllm_options(vllm, lora="merged" if settings.dtype == "float32" else "served")
    if kind == VLLM and files.four_bit:
        raise ConfigError("backend: vllm does not serve a judge on 4-bit weights (QLoRA); use backend='hf', or export it merged")
    return BackendSpec(
        kind=kind,
        judge=JudgeModel(settings.name, files.layout, files.model, files.weights, files.four_bit, files.seed),
        seed=settings.seed,
        rows=options.batch_size,
        device=device,
        cache=options.cache,
        vllm=engine,
        server=ServerConfig(options.base_url, model, options.api, options.api_key_env, options.timeout_s, options.max_retries),
        max_length=settings.max_length,
        extra_body=files.extra_body,
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device: {name!r} cannot be used here ({reason}); give cpu, cuda, cuda:N or mps") from error
    return device


def _installed(start: EngineStart, extra: str) -> EngineStart:
    """The start of an engine whose error for a missing package names the command that installs it."""

    async def run() -> Any:
        try:
            return await start()
        except ModuleNotFoundError as error:
            install = install_command(extra)
            raise ConfigError(f"backend: the package {error.name} is missing; run `{install}`") from error

    return run
