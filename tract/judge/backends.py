"""Who runs a judge's model: this process, vLLM, or a server that speaks OpenAI's protocol; each as a ``Worker``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tract.artifacts.judge_files import JudgeFiles
from tract.common.command_line import install_command
from tract.common.errors import ConfigError
from tract.config.devices import vllm_is_missing
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.hf.sequences import load_on, path_of, settle
from tract.judge.arguments import APIS
from tract.judge.engine_worker import EngineWorker, by_text
from tract.judge.local_worker import LocalWorker
from tract.judge.worker import Worker

log = logging.getLogger(__name__)

BACKENDS = ("auto", "hf", "vllm", "openai")
_VLLM: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "gpu_memory_utilization": 0.9,
    "kv_cache_gib": None,
    "enforce_eager": False,
    "engine": {},
}


@dataclass(frozen=True)
class BackendOptions:
    """How the model is run; nothing here moves a score beyond rounding.

    Attributes:
        device: of "hf", e.g. "cuda:0"; None for a GPU if there is one.
        batch_size: CoTs that are sampled at a time, or requests.
        base_url, served_model, api, api_key_env, timeout_s, max_retries: of "openai", see ``server_engine.ServerSettings``.
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
    """The judge at work.

    Raises:
        ConfigError: if there is no such backend, or it does not start.
    """
    if options.batch_size < 1:
        raise ConfigError(f"batch_size: {options.batch_size} is not a number >= 1")
    if backend == "auto":
        backend = _chosen(files)
    if backend == "hf":
        return _local(files, options)
    if backend == "vllm":
        return _vllm(files, options)
    if backend == "openai":
        return _server(files, options)
    raise ConfigError(f"backend: {backend!r} is not one of {', '.join(BACKENDS)}")


def _chosen(files: JudgeFiles) -> str:
    """What "auto" comes to: vLLM where there is one on a GPU and it serves the judge, else this process; a line says which and why."""
    against = "vLLM does not serve judges on 4-bit weights" if files.four_bit else vllm_is_missing()
    backend = "hf" if against else "vllm"
    log.info("backend=auto: %s, since %s", backend, against or "a CUDA device and the package vllm are here")
    return backend


def _local(files: JudgeFiles, options: BackendOptions) -> LocalWorker:
    device = _device(options.device)
    model = load_on(device, files.model, files.weights, four_bit=files.four_bit, seed=files.seed)
    pack_linears(model)
    settle(model, path_of(files.model))
    return LocalWorker(model, seed=files.settings.seed, autocast=None, rows=options.batch_size)


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


def _vllm(files: JudgeFiles, options: BackendOptions) -> EngineWorker:
    from tract.inference.engines.vllm import VLLMSettings, start_vllm
    from tract.models.engine_files import serving_files

    given = _vllm_given(options.vllm)
    if files.four_bit:
        raise ConfigError("backend: vllm does not serve a judge on 4-bit weights (QLoRA); use backend='hf', or export it merged")
    settings, gpu = files.settings, torch.cuda.is_available()
    served = serving_files(files.model, files.weights, merge=settings.dtype == "float32", seed=files.seed, cache=options.cache)
    longest = settings.max_length or served.max_positions
    if longest is None:
        raise ConfigError(f"max_length: vllm needs one, and {settings.name} states none; give max_length=4096, or what its prompts need")
    engine = VLLMSettings(
        model=served.model,
        revision=served.revision,
        tokenizer=served.tokenizer,
        adapter=str(served.adapter) if served.adapter else None,
        adapter_rank=served.adapter_rank,
        dtype=settings.dtype,
        max_length=min(longest, served.max_positions or longest),
        seed=settings.seed,
        sequences=options.batch_size,
        cpu=not gpu,
        devices=tuple(range(given["tensor_parallel_size"])),
        shared_cores=False,
        trust_remote_code=files.model.trust_remote_code,
        gpu_memory_utilization=given["gpu_memory_utilization"],
        kv_cache_gib=given["kv_cache_gib"],
        enforce_eager=given["enforce_eager"],
        engine=given["engine"],
    )
    return EngineWorker(_installed(partial(start_vllm, engine), "vllm"), seed=settings.seed, rows=options.batch_size)


def _vllm_given(own: Mapping[str, Any]) -> dict[str, Any]:
    """All options of vLLM's engine, those of the user's checked: a wrong one would be told by vLLM itself, a minute later."""
    if unknown := [name for name in own if name not in _VLLM]:
        raise ConfigError(f"vllm.{unknown[0]}: unknown; accepted are {', '.join(_VLLM)}")
    given = {**_VLLM, **own}
    cards, share, cache = given["tensor_parallel_size"], given["gpu_memory_utilization"], given["kv_cache_gib"]
    if isinstance(cards, bool) or not isinstance(cards, int) or cards < 1:
        raise ConfigError(f"vllm.tensor_parallel_size: found {cards!r}; a number of GPUs >= 1 is accepted")
    if not _number(share) or not 0 < share <= 1:
        raise ConfigError(f"vllm.gpu_memory_utilization: found {share!r}; a share of each GPU's memory, above 0 and at most 1, is accepted")
    if cache is not None and (not _number(cache) or not 0 < cache < math.inf):
        raise ConfigError(f"vllm.kv_cache_gib: found {cache!r}; a number of GiB > 0, or null for what is left, is accepted")
    if not isinstance(given["enforce_eager"], bool):
        raise ConfigError(f"vllm.enforce_eager: found {given['enforce_eager']!r}; true or false is accepted")
    if not isinstance(given["engine"], Mapping):
        raise ConfigError(f"vllm.engine: found {given['engine']!r}; a mapping of arguments of vLLM's engine is accepted")
    return given


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _server(files: JudgeFiles, options: BackendOptions) -> EngineWorker:
    from tract.inference.engines.server import EndpointSettings, connect

    if options.api not in APIS:
        raise ConfigError(f"api: {options.api!r} is not one of {', '.join(APIS)}")
    if options.api == "chat":
        return _chat(files, options)
    if options.base_url is None:
        raise ConfigError("base_url: backend='openai' needs the address of the server, e.g. base_url='http://localhost:8000/v1'")
    layout = files.layout
    server = EndpointSettings(
        base_url=options.base_url,
        model=options.served_model,
        api=options.api,
        api_key_env=options.api_key_env,
        timeout_s=options.timeout_s,
        max_retries=options.max_retries,
        encode=layout.cot_ids,
        score_ids=dict(zip(layout.grid.labels, layout.score_ids, strict=True)),
    )
    return EngineWorker(_installed(partial(connect, server), "server"), seed=files.settings.seed, rows=options.batch_size)


def _chat(files: JudgeFiles, options: BackendOptions) -> EngineWorker:
    from tract.inference.chat.engine import ChatSettings, connect_chat

    model = options.served_model or files.settings.base_model.name_or_path
    chat = ChatSettings(options.base_url, model, options.api_key_env, options.timeout_s, options.max_retries, files.extra_body)
    start = _installed(partial(connect_chat, chat), "server")
    return EngineWorker(start, seed=files.settings.seed, rows=options.batch_size, asking=by_text)


def _installed(start: Any, extra: str) -> Any:
    """The start with a missing package told as one line."""

    async def run() -> Any:
        try:
            return await start()
        except ModuleNotFoundError as error:
            install = install_command(extra)
            raise ConfigError(f"backend: the package {error.name} is missing; run `{install}`") from error

    return run
