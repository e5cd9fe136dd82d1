"""Who runs a judge: what an engine is started with, and which keys and code belong to a backend."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tract.artifacts.judges import find_judge
from tract.common.distributed import RankInfo
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.inference.engines.judge import EngineJudge
from tract.inference.hf.judge import HFJudge
from tract.models.locating import context_of
from tract.pipeline import backends
from tract.pipeline.backends import open_backend
from tract.pipeline.stages.generate import GenerateStage
from tract.pipeline.validation import validate


@pytest.fixture
def compose(whole: Any, vllm_counts_as_installed: None) -> Any:
    """The tiny configuration; vLLM counts as installed."""
    return whole.tiny.compose


def settings_of(spec: str, cfg: Config, longest: int = 500) -> Any:
    """What vLLM would be started with."""
    with open_backend(find_judge(spec, cfg), cfg, longest) as judge:
        assert isinstance(judge, EngineJudge)
        (settings,) = judge._start.args  # type: ignore[attr-defined]
        return settings


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("bf16-true", "bfloat16"), ("16-true", "float16")]
)
def test_vllm_computes_as_the_trainer_says(precision: str, dtype: str, compose: Any) -> None:
    cfg = validate(compose("generation=vllm", f"trainer.precision={precision}"))
    settings = settings_of("base", cfg)
    assert settings.dtype == dtype
    assert (settings.cpu, settings.sequences, settings.adapter, settings.devices) == (True, 16, None, (0,))
    # What is asked for, and no more than the model is made for, whatever training sequences may have.
    assert settings.max_length == 500
    assert settings_of("base", cfg, 10**6).max_length == context_of(cfg.model) == 8192


def test_an_adapter_is_served_or_merged(compose: Any, whole: Any) -> None:
    stage1 = str(whole.products["stage1"].path)
    served = settings_of(stage1, validate(compose("generation=vllm")))
    assert (served.adapter, served.adapter_rank) == (stage1, 8)
    merged = settings_of(stage1, validate(compose("generation=vllm", "generation.vllm.lora=merged")))
    assert (merged.adapter, merged.adapter_rank) == (None, 0)
    assert "merged-" in merged.model


def test_each_engine_takes_gpus_of_its_own(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = validate(compose("generation=vllm", "trainer.devices=4", "generation.vllm.tensor_parallel_size=2", "run.subprocess_stages=true"))
    monkeypatch.setattr(backends, "rank_info", lambda: RankInfo(6, 8, 2))
    settings = settings_of("base", cfg)
    assert (settings.devices, settings.shared_cores) == ((2, 3), True)


def test_judges_on_4_bit_weights_are_refused(compose: Any) -> None:
    cfg = validate(compose("generation=vllm"))
    judge = dataclasses.replace(find_judge("base", cfg), four_bit=True)
    with pytest.raises(ConfigError, match="vllm does not serve base, a judge on 4-bit weights"), open_backend(judge, cfg, 500):
        pass


def test_hf_runs_in_this_process(compose: Any) -> None:
    cfg = validate(compose("generation=hf"))
    with open_backend(find_judge("base", cfg), cfg, 500) as judge:
        assert isinstance(judge, HFJudge)


def identity(compose: Any, *overrides: str) -> Any:
    resolved = compose(*overrides)
    cfg = validate(resolved)
    return GenerateStage(cfg, resolved, find_judge("base", cfg)).identity()


def test_a_stage_depends_on_its_own_backend_alone(compose: Any) -> None:
    hf, vllm = identity(compose, "generation=hf"), identity(compose, "generation=vllm")
    assert hf.key != vllm.key
    assert identity(compose, "generation=hf", "generation.vllm.lora=merged", "generation.server.api=openai").key == hf.key
    assert identity(compose, "generation=vllm", "generation.vllm.lora=merged").key != vllm.key
    for change in ("generation.vllm.kv_cache_gib=2", "generation.vllm.gpu_memory_utilization=0.5", "generation.batch_size=7"):
        assert identity(compose, "generation=vllm", change).key == vllm.key
    assert "tract.inference.hf.live" in hf.code
    assert "tract.inference.engines.vllm" not in hf.code
    assert "tract.inference.hf.live" not in vllm.code
    assert "tract.inference.engines.vllm" in vllm.code
    assert "tract.inference.engines.server" not in vllm.code


def test_a_server_is_asked_with_the_judges_own_tokens(compose: Any, whole: Any) -> None:
    address = "http://localhost:8000/v1"
    stage2 = str(whole.products["stage2"].path)
    cfg = validate(compose("generation=openai_server", f"generation.server.base_url={address}", f"judge={stage2}", "compare_to=null"))
    settings = settings_of(stage2, cfg)
    assert (settings.base_url, settings.api, settings.model) == (address, "vllm", None)
    layout = find_judge(stage2, cfg).layout
    assert settings.encode("Good.") == layout.cot_ids("Good.")
    assert settings.score_ids["5"] == layout.score_ids[4]
