"""Who runs a judge's model: this process, vLLM, or a server. ``inference.backend`` says it; stages see a ``JudgeBackend`` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from tract.artifacts.judge_files import JudgeFiles
from tract.common.distributed import rank_info
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.inference.backend import JudgeBackend
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.hf.rows import hf_judge_of
from tract.inference.hf.sequences import judges_by_rows, load_on, path_of, settle
from tract.models.engine_files import serving_files
from tract.models.loading import check_finite, stored_in
from tract.models.precisions import AUTOCAST, STORED, arithmetic_of
from tract.pipeline.config_rules import sampling_of

# Which dtype the arithmetic has where it is not that of the weights, by Lightning's name of the precision.
_GPU = ("gpu", "cuda")
# The code of each backend, which moves no product of another one.
_CODE = {
    "hf": (
        "tract.inference.hf.judge",
        "tract.inference.hf.live",
        "tract.inference.hf.packed_linear",
        "tract.inference.hf.padded_keys",
        "tract.inference.hf.shared_keys",
        "tract.inference.hf.rows",
        "tract.inference.hf.slots",
    ),
    "vllm": ("tract.inference.engines.engine", "tract.inference.engines.vllm"),
    "openai_server": ("tract.inference.engines.engine", "tract.inference.engines.server"),
}
_SECTIONS = {"vllm": "generation.vllm", "openai_server": "generation.server"}


def immaterial_code(cfg: Config) -> tuple[str, ...]:
    """Modules that only other backends run."""
    own = _CODE[cfg.generation.backend]
    return tuple(name for modules in _CODE.values() for name in modules if name not in own)


def keys_of_other_backends(cfg: Config) -> tuple[str, ...]:
    """Sections of ``generation`` that other backends read."""
    return tuple(section for backend, section in _SECTIONS.items() if backend != cfg.generation.backend)


def way_of(judge: JudgeFiles, cfg: Config) -> dict[str, bool]:
    """What the key says of how a judge of this process works: whether each sequence is a row, should that ever be decided anew."""
    return {"by_rows": judges_by_rows(judge.model)} if cfg.generation.backend == "hf" else {}


@contextmanager
def at_work(judge: JudgeFiles, cfg: Config, longest: int) -> Iterator[JudgeBackend]:
    """The judge, loaded or served, for as long as it is wanted.

    Args:
        judge: who works. cfg: the configuration. longest: the most tokens of a sequence that it is asked for, prompt included.

    Raises:
        ConfigError: if it cannot be loaded, or not by this backend.
    """
    backend = _BACKENDS[cfg.generation.backend](judge, cfg, longest)
    try:
        yield backend
    finally:
        backend.close()


def hf_judge(judge: JudgeFiles, cfg: Config, longest: int = 0) -> HFJudge:
    """The judge in this process, loaded to the configured device; its cache grows with what it is asked, whatever ``longest`` says."""
    precision = _precision(cfg)
    model = load_on(_device(cfg), judge.model, judge.weights, four_bit=judge.four_bit, seed=judge.seed)
    if precision in STORED:
        model = stored_in(model, STORED[precision])
        check_finite(model, judge.weights, dtype=STORED[precision])
    if precision not in AUTOCAST:
        pack_linears(model)
    autocast = AUTOCAST.get(precision)
    settle(model, path_of(judge.model), autocast=autocast)
    return hf_judge_of(model)(model, judge.layout, sampling_of(cfg.generation), cfg.seed, autocast=autocast)


def _vllm(judge: JudgeFiles, cfg: Config, longest: int) -> JudgeBackend:
    from tract.inference.engines.engine import EngineJudge
    from tract.inference.engines.vllm import VLLMSettings, start_vllm

    if judge.four_bit:
        raise ConfigError(f"generation.backend: vllm does not serve {judge.name}, a judge on 4-bit weights (QLoRA); set generation=hf")
    given = cfg.generation.vllm
    files = serving_files(judge.model, judge.weights, merge=given.lora == "merged", seed=judge.seed, cache=Path(cfg.paths.cache))
    arithmetic = arithmetic_of(_precision(cfg))
    gpu, first = _device(cfg).type == "cuda", rank_info().local_rank
    settings = VLLMSettings(
        model=files.model,
        revision=files.revision,
        tokenizer=files.tokenizer,
        adapter=str(files.adapter) if files.adapter else None,
        adapter_rank=files.adapter_rank,
        dtype=str(arithmetic).removeprefix("torch.") if arithmetic else judge.model.dtype,
        max_length=min(longest, files.max_positions or longest),
        seed=cfg.seed,
        sequences=cfg.generation.sequences,
        cpu=not gpu,
        devices=tuple(range(first, first + given.tensor_parallel_size)),
        shared_cores=rank_info().world_size > 1,
        trust_remote_code=judge.model.trust_remote_code,
        gpu_memory_utilization=given.gpu_memory_utilization,
        kv_cache_gib=given.kv_cache_gib,
        enforce_eager=given.enforce_eager,
        engine=given.engine,
    )
    start = partial(start_vllm, settings)
    return EngineJudge(start, judge.layout, sampling_of(cfg.generation), cfg.seed, ranks_per_judge=given.tensor_parallel_size)


def _openai_server(judge: JudgeFiles, cfg: Config, longest: int) -> JudgeBackend:
    from tract.inference.engines.engine import EngineJudge
    from tract.inference.engines.server import EndpointSettings, connect

    server, layout = cfg.generation.server, judge.layout
    assert server.base_url is not None, "by the rules of the configuration"
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
    return EngineJudge(partial(connect, settings), layout, sampling_of(cfg.generation), cfg.seed)


_BACKENDS: dict[str, Callable[[JudgeFiles, Config, int], JudgeBackend]] = {"hf": hf_judge, "vllm": _vllm, "openai_server": _openai_server}


def _precision(cfg: Config) -> str:
    return str(cfg.trainer.get("precision", "32-true"))


def _device(cfg: Config) -> torch.device:
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    if accelerator in (*_GPU, "auto") and torch.cuda.is_available():
        return torch.device("cuda", rank_info().local_rank)
    if accelerator in _GPU:
        raise ConfigError(f"trainer.accelerator: {accelerator!r} is set but torch finds no GPU; set trainer=cpu")
    if accelerator in ("mps", "auto") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
