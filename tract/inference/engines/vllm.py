"""vLLM as the engine of a judge, in processes of its own beside this one."""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from tract.common.distributed import die_with_parent
from tract.common.errors import ConfigError, GenerationError
from tract.inference.engines.engine import Ask, Reply

# Ranks that vLLM accepts as the largest of its adapters.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_GIB = 2**30
# Where no size is given on a CPU, which has no memory of its own for it: this share of the machine's at the most.
_CPU_CACHE_SHARE = 0.25
# Of a step on a CPU, at least.
_CPU_BATCH_TOKENS = 4096
# For vLLM's processes to end by themselves.
_SHUTDOWN_S = 30.0
# Environment variable of vLLM's processes: the process id of this one.
_STARTED_BY = "TRACT_STARTED_VLLM"
# What torchrun and its like say of this process; vLLM's own processes are others.
_OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class VLLMSettings:
    """What an engine is started with.

    Attributes:
        model: folder or hub id of the weights. revision: on the hub. tokenizer: folder or hub id; it only turns tokens into text.
        adapter: folder of a LoRA adapter to serve beside them, or None. adapter_rank: its rank.
        dtype: of the arithmetic, e.g. "bfloat16". max_length: the most tokens of a sequence. seed: of the engine.
        sequences: the most that are worked on at a time. cpu: whether it runs on a CPU.
        devices: numbers of the GPUs, among those that this process sees. shared_cores: whether other engines work on the same CPU.
        trust_remote_code: run code that comes with the model.
        gpu_memory_utilization: share of each GPU's memory. kv_cache_gib: of the cache; None for what is left.
        enforce_eager: compile nothing and capture no graphs. engine: further arguments of vLLM's ``EngineArgs``.
    """

    model: str
    revision: str | None
    tokenizer: str
    adapter: str | None
    adapter_rank: int
    dtype: str
    max_length: int
    seed: int
    sequences: int
    cpu: bool
    devices: tuple[int, ...]
    shared_cores: bool
    trust_remote_code: bool
    gpu_memory_utilization: float
    kv_cache_gib: float | None
    enforce_eager: bool
    engine: Mapping[str, Any]


class VLLMEngine:
    """vLLM's asynchronous engine: continuous batching, and a prefix cache in which the CoTs of a prompt share it."""

    def __init__(self, settings: VLLMSettings) -> None:
        """Starts the engine; this takes a minute or more.

        Raises:
            ConfigError: if it does not start.
        """
        with _environment(settings):
            from vllm import SamplingParams
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.sampling_params import RequestOutputKind
            from vllm.v1.engine.async_llm import AsyncLLM

            try:
                self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(settings)))
            except (ValueError, TypeError, RuntimeError, OSError) as error:
                reason = " ".join(str(error).split())[:400]
                raise ConfigError(
                    f"generation.vllm: the engine does not start with {settings.model!r}: {reason}; look at vLLM's lines above, and at "
                    f"generation.vllm.gpu_memory_utilization, kv_cache_gib and tensor_parallel_size; sequences of {settings.max_length} "
                    "tokens must fit (a shorter generation.max_cot_tokens, or max_length of a judge that is loaded, makes them shorter)"
                ) from error
        self._adapter = LoRARequest("judge", 1, settings.adapter) if settings.adapter else None
        self._params, self._final = SamplingParams, RequestOutputKind.FINAL_ONLY
        self._numbers = count()

    async def complete(self, ask: Ask) -> Reply:
        """See ``Engine``."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        output: Any = None
        prompt: Any = {"prompt_token_ids": list(ask.ids)}
        try:
            async for so_far in self._engine.generate(prompt, self._sampling(ask), str(next(self._numbers)), lora_request=self._adapter):
                output = so_far
        except EngineDeadError as error:
            raise GenerationError(
                "vLLM's process has ended, see its lines above; if memory ran out, lower generation.batch_size or "
                "generation.vllm.gpu_memory_utilization, then run the same command again: it goes on where it stopped"
            ) from error
        except (EngineGenerateError, VLLMClientError, ValueError) as error:
            raise GenerationError(f"vLLM refuses a request of {len(ask.ids)} tokens: {' '.join(str(error).split())[:300]}") from error
        answer = output.outputs[0]
        ids = tuple(answer.token_ids)
        ended = answer.finish_reason == "stop" and bool(ids) and ids[-1] in ask.end_ids
        found = answer.logprobs[0] if ask.logprob_ids else {}
        return Reply(ids[:-1] if ended else ids, ended, {token: found[token].logprob for token in ask.logprob_ids if token in found})

    def _sampling(self, ask: Ask) -> Any:
        sampling = ask.sampling
        return self._params(
            max_tokens=ask.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature else 1.0,
            repetition_penalty=sampling.repetition_penalty,
            seed=ask.seed,
            # The layout's own end of turn and control tokens count, not what the model's files say.
            ignore_eos=True,
            stop_token_ids=list(ask.end_ids),
            stop=[ask.stop] if ask.stop else None,
            detokenize=bool(ask.stop),
            skip_special_tokens=False,
            logprob_token_ids=list(ask.logprob_ids) or None,
            output_kind=self._final,
        )

    async def close(self) -> None:
        """See ``Engine``."""
        self._engine.shutdown(timeout=_SHUTDOWN_S)
        self._engine = None
        gc.collect()  # else vLLM tidies up while Python ends, when half of it is gone


def end_with_parent() -> None:
    """Lets vLLM's processes die with the one that started them; without it a killed run leaves them at work, with their memory.

    A plugin of vLLM (entry point ``vllm.general_plugins``), which each of its processes calls when it starts. Does nothing in a vLLM
    that somebody else has started.
    """
    started_by = os.environ.get(_STARTED_BY)
    if started_by is not None and started_by != str(os.getpid()):
        die_with_parent(os.getppid())


async def start_vllm(settings: VLLMSettings) -> VLLMEngine:
    """A started engine, see ``VLLMEngine``."""
    return VLLMEngine(settings)


def _arguments(settings: VLLMSettings) -> dict[str, Any]:
    """Arguments of vLLM's ``EngineArgs``."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "revision": settings.revision,
        "tokenizer": settings.tokenizer,
        "trust_remote_code": settings.trust_remote_code,
        "dtype": settings.dtype,
        "max_model_len": settings.max_length,
        "max_num_seqs": settings.sequences,
        "seed": settings.seed,
        "tensor_parallel_size": len(settings.devices),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": settings.enforce_eager,
        "enable_prefix_caching": True,
        # Log-probabilities are those of the model, whatever temperature and penalty are.
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",  # no defaults of the model's files
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if settings.adapter:
        rank = next((rank for rank in _RANKS if rank >= settings.adapter_rank), settings.adapter_rank)
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    if settings.cpu:
        # A prompt that is cut into chunks ends vLLM's process for CPUs (0.32), which cannot take a discarded draw back.
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(settings.max_length, _CPU_BATCH_TOKENS)}
    if settings.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = math.ceil(settings.kv_cache_gib * _GIB)
    elif settings.cpu:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        arguments["kv_cache_memory_bytes"] = int(memory * _CPU_CACHE_SHARE)
    return {**arguments, **settings.engine}


@contextlib.contextmanager
def _environment(settings: VLLMSettings) -> Iterator[None]:
    """The environment that vLLM's processes start in, and inherit."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name in _OF_LAUNCHERS or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ["PYTHONSAFEPATH"] = "1"  # no file of the working directory stands in for a module of theirs
    os.environ[_STARTED_BY] = str(os.getpid())
    if settings.enforce_eager:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # else parts of its sampler are compiled all the same
    if not settings.cpu:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(number) for number in range(max(settings.devices) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[number] for number in settings.devices)
    elif settings.shared_cores:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
