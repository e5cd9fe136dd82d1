"""``generation.backend`` of a configuration, translated into a ``BackendSpec``; stages see a ``JudgeBackend`` alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tract.artifacts.judge_files import JudgeFiles
from tract.common.distributed import rank_info
from tract.common.errors import ConfigError
from tract.config.schema import BATCH_SIZES, Config
from tract.inference import backends
from tract.inference.backend import JudgeBackend
from tract.inference.backends import BackendSpec, JudgeModel
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.sequences import judges_by_rows
from tract.pipeline.config_rules import sampling_of

_GPU = ("gpu", "cuda")
_SECTIONS = {"vllm": "generation.vllm", "openai_server": "generation.server"}


def ignored_modules(cfg: Config) -> tuple[str, ...]:
    """Modules that only other backends run."""
    own = backends.MODULES[cfg.generation.backend]
    return tuple(name for modules in backends.MODULES.values() for name in modules if name not in own)


def keys_of_other_backends(cfg: Config) -> tuple[str, ...]:
    """Sections of ``generation`` that other backends read."""
    return tuple(section for backend, section in _SECTIONS.items() if backend != cfg.generation.backend)


def sequence_path_fields(judge: JudgeFiles, cfg: Config) -> dict[str, bool]:
    """What the key of a product says of how a judge of this process works: whether each sequence is a row of its own."""
    return {"by_rows": judges_by_rows(judge.model)} if cfg.generation.backend == "hf" else {}


@contextmanager
def open_backend(judge: JudgeFiles, cfg: Config, longest: int) -> Iterator[JudgeBackend]:
    """The judge, loaded or served, until the block ends.

    Args:
        judge: who is run. cfg: the configuration. longest: the most tokens of a sequence that it is asked for, prompt included.

    Raises:
        ConfigError: if it cannot be loaded, or not by this backend.
    """
    kind = cfg.generation.backend
    if judge.four_bit and kind == backends.VLLM:
        raise ConfigError(f"generation.backend: vllm does not serve {judge.name}, a judge on 4-bit weights (QLoRA); set generation=hf")
    backend = backends.judge_backend(_spec(kind, judge, cfg, longest), sampling_of(cfg.generation))
    try:
        yield backend
    finally:
        backend.close()


def hf_judge(judge: JudgeFiles, cfg: Config) -> HFJudge:
    """The judge in this process, loaded to the configured device, whatever ``generation.backend`` says."""
    return backends.hf_judge(_spec(backends.HF, judge, cfg, 0), sampling_of(cfg.generation))


def _spec(kind: str, judge: JudgeFiles, cfg: Config, longest: int) -> BackendSpec:
    return BackendSpec(
        kind=kind,
        judge=JudgeModel(judge.name, judge.layout, judge.model, judge.weights, judge.four_bit, judge.seed),
        seed=cfg.seed,
        rows=cfg.generation.batch_size or BATCH_SIZES[kind],
        device=_device(cfg),
        cache=Path(cfg.paths.cache),
        vllm=cfg.generation.vllm,
        server=cfg.generation.server,
        precision=str(cfg.trainer.get("precision", "32-true")),
        max_length=longest,
        first_gpu=rank_info().local_rank,
        shared_cores=rank_info().world_size > 1,
    )


def _device(cfg: Config) -> torch.device:
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    if accelerator in (*_GPU, "auto") and torch.cuda.is_available():
        return torch.device("cuda", rank_info().local_rank)
    if accelerator in _GPU:
        raise ConfigError(f"trainer.accelerator: {accelerator!r} is set but torch finds no GPU; set trainer=cpu")
    if accelerator in ("mps", "auto") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
