"""Which backends there are, and how a judge is run by each: in this process ("hf"), by vLLM, or by a server of OpenAI's protocols.

Stages and the judge API translate their configuration into a ``BackendSpec``. A stage then takes a ``JudgeBackend``, which works off
many prompts; the API takes a ``Worker``, whose requests come one by one. Both ask the same engines and the same live cache.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tract.common.errors import ConfigError
from tract.config.schema import ModelConfig, ServerConfig, VLLMConfig
from tract.inference.backend import JudgeBackend
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.hf.rows import hf_judge_of
from tract.inference.hf.sequences import apply_sequence_path, load_on, path_of
from tract.inference.sampling import Sampling
from tract.inference.worker import Worker
from tract.models.engine_files import serving_files
from tract.models.loading import check_finite, stored_in
from tract.models.precisions import AUTOCAST, STORED, arithmetic_of
from tract.text.layout import SequenceLayout

HF, VLLM, SERVER, CHAT = "hf", "vllm", "openai_server", "chat"
_ENGINE_MODULES = ("tract.inference.worker", "tract.inference.engines.driver", "tract.inference.engines.engine")
_ENGINE_JUDGE = (*_ENGINE_MODULES, "tract.inference.engines.judge")
_WORKERS = ("tract.inference.engines.worker", "tract.inference.hf.worker", "tract.inference.chat*")
# The modules of each backend of a stage, which move no product of another one.
MODULES = {
    HF: (
        "tract.inference.hf.cots",
        "tract.inference.hf.judge",
        "tract.inference.hf.live",
        "tract.inference.hf.packed_linear",
        "tract.inference.hf.padded_keys",
        "tract.inference.hf.shared_keys",
        "tract.inference.hf.readout",
        "tract.inference.hf.rows",
        "tract.inference.hf.slots",
    ),
    VLLM: (*_ENGINE_JUDGE, "tract.inference.engines.vllm"),
    SERVER: (*_ENGINE_JUDGE, "tract.inference.engines.server"),
    CHAT: _WORKERS,
}

# Starts an engine or connects to one.
EngineStart = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class JudgeModel:
    """A judge that is not loaded yet, as far as a backend has to know it.

    Attributes:
        name: for messages. layout: cue, grid and end of turn.
        model: the base model. weights: folder of an adapter or of trained weights that belong on it, or None.
        four_bit: whether the base model is quantised (QLoRA). seed: of weights that are made at random.
    """

    name: str
    layout: SequenceLayout
    model: ModelConfig
    weights: Path | None
    four_bit: bool
    seed: int


@dataclass(frozen=True)
class BackendSpec:
    """How a judge is run.

    Attributes:
        kind: "hf", "vllm", "openai_server" or "chat". judge: who is run. seed: of all draws.
        rows: the most CoTs that are sampled at a time.
        device: of "hf"; "vllm" takes GPUs where this is one. first_gpu: number of vLLM's first GPU among those that are visible.
        shared_cores: whether other engines work on the same CPU.
        precision: Lightning's name of the arithmetic's precision; None for the dtype of the model.
        max_length: of "vllm": the most tokens of a sequence; None for what the model is made for.
        cache: folder where weights are written that another engine loads.
        vllm, server: of these backends. extra_body: of "chat": further parameters of each request.
    """

    kind: str
    judge: JudgeModel
    seed: int
    rows: int
    device: torch.device
    cache: Path
    vllm: VLLMConfig
    server: ServerConfig
    precision: str | None = None
    max_length: int | None = None
    first_gpu: int = 0
    shared_cores: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)


def judge_backend(spec: BackendSpec, sampling: Sampling) -> JudgeBackend:
    """The judge of a stage; an engine starts with the first judgement.

    Raises:
        ConfigError: if the model cannot be loaded.
    """
    if spec.kind == HF:
        return hf_judge(spec, sampling)
    from tract.inference.engines.judge import EngineJudge

    ranks = spec.vllm.tensor_parallel_size if spec.kind == VLLM else 1
    return EngineJudge(_engine_start(spec), spec.judge.layout, sampling, spec.seed, ranks_per_judge=ranks)


def hf_judge(spec: BackendSpec, sampling: Sampling) -> HFJudge:
    """The judge of a stage in this process, loaded to its device.

    Raises:
        ConfigError: if the model cannot be loaded.
    """
    model, autocast = _loaded(spec)
    return hf_judge_of(model)(model, spec.judge.layout, sampling, spec.seed, autocast=autocast)


def live_worker(spec: BackendSpec, starting: Callable[[EngineStart], EngineStart] = lambda start: start) -> Worker:
    """The worker of the judge API, loaded or started.

    Args:
        spec: how the judge is run. starting: wraps the start of an engine, e.g. to give its errors other words.

    Raises:
        ConfigError: if the model cannot be loaded, or the engine does not start.
    """
    if spec.kind == HF:
        from tract.inference.hf.worker import LocalWorker

        model, autocast = _loaded(spec)
        return LocalWorker(model, seed=spec.seed, autocast=autocast, rows=spec.rows)
    from tract.inference.chat.engine import by_text
    from tract.inference.engines.worker import EngineWorker, by_token_ids

    judge_with = by_text if spec.kind == CHAT else by_token_ids
    return EngineWorker(starting(_engine_start(spec)), seed=spec.seed, rows=spec.rows, judge_with=judge_with)


def _loaded(spec: BackendSpec) -> tuple[nn.Module, torch.dtype | None]:
    """(the judge's model on its device, the dtype of autocast or None)."""
    judge, precision = spec.judge, spec.precision or ""
    model = load_on(spec.device, judge.model, judge.weights, four_bit=judge.four_bit, seed=judge.seed)
    if precision in STORED:
        model = stored_in(model, STORED[precision])
        check_finite(model, judge.weights, dtype=STORED[precision])
    if precision not in AUTOCAST:
        pack_linears(model)
    autocast = AUTOCAST.get(precision)
    apply_sequence_path(model, path_of(judge.model), autocast=autocast)
    return model, autocast


def _engine_start(spec: BackendSpec) -> EngineStart:
    return {VLLM: _vllm_start, SERVER: _server_start, CHAT: _chat_start}[spec.kind](spec)


def _vllm_start(spec: BackendSpec) -> EngineStart:
    from tract.inference.engines.vllm import VLLMSettings, start_vllm

    judge, given = spec.judge, spec.vllm
    files = serving_files(judge.model, judge.weights, merge=given.lora == "merged", seed=judge.seed, cache=spec.cache)
    longest = spec.max_length or files.max_positions
    if longest is None:
        raise ConfigError(f"max_length: vllm needs one, and {judge.name} states none; give max_length=4096, or what its prompts need")
    arithmetic = arithmetic_of(spec.precision) if spec.precision else None
    settings = VLLMSettings(
        model=files.model,
        revision=files.revision,
        tokenizer=files.tokenizer,
        adapter=str(files.adapter) if files.adapter else None,
        adapter_rank=files.adapter_rank,
        dtype=str(arithmetic).removeprefix("torch.") if arithmetic else judge.model.dtype,
        max_length=min(longest, files.max_positions or longest),
        seed=spec.seed,
        sequences=spec.rows,
        cpu=spec.device.type != "cuda",
        devices=tuple(range(spec.first_gpu, spec.first_gpu + given.tensor_parallel_size)),
        shared_cores=spec.shared_cores,
        trust_remote_code=judge.model.trust_remote_code,
        gpu_memory_utilization=given.gpu_memory_utilization,
        kv_cache_gib=given.kv_cache_gib,
        enforce_eager=given.enforce_eager,
        engine=given.engine,
    )
    return partial(start_vllm, settings)


def _server_start(spec: BackendSpec) -> EngineStart:
    from tract.inference.engines.server import EndpointSettings, connect

    server, layout = spec.server, spec.judge.layout
    assert server.base_url is not None, "checked where the configuration is read"
    settings = EndpointSettings(
        base_url=server.base_url,
        model=server.model,
        api=server.api,
        api_key_env=server.api_key_env,
        timeout_s=server.timeout_s,
        max_retries=server.max_retries,
        encode=layout.cot_ids,
        score_ids=dict(zip(layout.grid.labels, layout.score_ids, strict=True)),
    )
    return partial(connect, settings)


def _chat_start(spec: BackendSpec) -> EngineStart:
    from tract.inference.chat.engine import ChatSettings, connect_chat

    server = spec.server
    model = server.model or spec.judge.model.name_or_path
    chat = ChatSettings(server.base_url, model, server.api_key_env, server.timeout_s, server.max_retries, spec.extra_body)
    return partial(connect_chat, chat)
