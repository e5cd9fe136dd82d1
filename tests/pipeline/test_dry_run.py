"""The dry run: what it prints, what it refuses with which advice, and that it leaves no run behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tiny_pipeline import captured

from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.inference.prompt_budget import tokens_behind
from tract.pipeline.dry_run import device, memory
from tract.pipeline.dry_run import report as dry_run
from tract.pipeline.dry_run.memory import total
from tract.pipeline.dry_run.plan import needs, plan_of
from tract.pipeline.dry_run.report import startup_s
from tract.pipeline.dry_run.training_setup import strategy_of
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.validation import typed

TinyConfig = Callable[..., tuple[Config, DictConfig]]
GPUS = ("trainer=deepspeed_zero3", "trainer.devices=4", "batch.micro_batch_size=null", "batch.max_tokens_per_micro_batch=2048")


@pytest.fixture
def dry(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a dry run of the tiny configuration prints."""
    monkeypatch.setattr(device, "cpu_peak", lambda _: 1e11)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*overrides: str) -> str:
        with captured() as lines:
            assert run_pipeline(tiny_config("dry_run=true", *overrides)[1]) == {}
        return "\n".join(lines)

    return run


def test_it_prints_each_stage_and_leaves_no_run(dry: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tract.pipeline.dry_run.report.startup_s", lambda: 7.0)
    shown = dry("run.device_memory_gib=2")
    started = r" s, assuming .*\n +of it 7\.0 s to start, as this process took to load libraries and data"
    assert len(re.findall(started, shown)) == 1, "stages of one process start once"
    assert re.search(rf"time +(7|8)\.\d+{started}", shown)
    isolated = dry("run.device_memory_gib=2", "run.subprocess_stages=true")
    assert len(re.findall(started, isolated)) == 2, "each in a process of its own starts by itself"
    for stage in ("stage1", "stage2", "generate, predict"):
        assert f"dry run: {stage}\n" in shown
    flat = re.sub(r"\n {15,}", " ", shown)  # rows that were folded
    for pattern in (
        r"parameters +150,848, of which 19,456 are trained",
        r"weights +0\.58 MiB",
        r"gradients +0\.07 MiB",
        r"optimizer +0\.15 MiB",
        r"in all +0\.5\d GiB of 2\.00 GiB, 2\d%",
        r"optimizer steps +4 \(5 an epoch, 0\.8 epochs\)",
        r"a step +4 items, [\d,]+ tokens on average, at most [\d,]+",
        r"micro-batches +2 of each step on each device; the largest has [\d,]+ tokens",
        r"validation +2 times \d+ micro-batches",
        r"FLOPs +[\d.e+]+ a step",
        r"time +[\d.]+ s, assuming 60% of the 0\.1 TFLOP/s of CPU",
        r"its CoTs are not generated yet: 1 of each prompt, as long as the annotated ones, are assumed",
        r"keys and values of CoTs +\d",
    ):
        assert re.search(pattern, flat), pattern
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "cache").glob("tokens-*"))  # used again by the real run


def test_the_figures_are_those_of_the_loaders(tiny_config: TinyConfig) -> None:
    """Tokens, micro-batches and steps of the plan are what the fit stage's own loaders give."""
    from tract.pipeline.stages.fit import build
    from tract.pipeline.stages.prepare import prepare

    cfg, _ = tiny_config("batch.micro_batch_size=null", "batch.max_tokens_per_micro_batch=1500", "train.max_steps=-1", "train.max_epochs=2")
    work, _ = needs(plan_of("stage1", cfg, None), cfg)
    module, datamodule = build(cfg, prepare(cfg))
    assert (work.total_steps, work.micro_batches) == (module.total_steps, module.accumulate)
    largest, steps = (0, 0), []
    for epoch in range(2):
        datamodule.train_sampler.set_epoch(epoch)
        loader = datamodule.train_dataloader()
        sizes = [(batch.input_ids.shape[1], len(batch.read_positions)) for batch in loader]
        largest = max([largest, *sizes])
        tokens = [size for size, _ in sizes]
        steps += [sum(tokens[first : first + module.accumulate]) for first in range(0, len(tokens), module.accumulate)]
    assert work.micro.tokens == largest[0]
    assert work.micro.reads == pytest.approx(largest[1], rel=0.02)  # cue's last place is read twice
    assert work.most_tokens == max(steps)
    assert work.step.tokens == pytest.approx(sum(steps) / len(steps))
    assert work.validation_batches == len(datamodule.val_sampler)
    assert work.validation.tokens == sum(batch.input_ids.shape[1] for batch in datamodule.val_dataloader())


def test_planning_for_gpus_that_are_not_here(dry: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    shown = dry(*GPUS, "run.device_memory_gib=80")
    assert re.search(r"devices +4 \(GPU\); weights, gradients and optimizer are spread", shown)
    assert re.search(r"in all +\d\.\d\d GiB of 80\.00 GiB", shown)
    assert "needs the device, whose peak is not known here" in shown
    unknown = dry("trainer=ddp")
    assert "trainer.devices=auto, but no GPU is here: the figures assume 1; set a number" in unknown
    assert "the device's memory is not known" in unknown


def test_offload_names_the_machines_memory(dry: Callable[..., str]) -> None:
    shown = dry("trainer=deepspeed_zero3_offload", "optimizer=cpu_adamw", "trainer.devices=2", "run.device_memory_gib=80")
    assert "host: memory of each machine, for all of its devices" in shown
    # 19,456 trained parameters, 12 bytes each: masters and two moments.
    assert re.search(r"optimizer +0\.00 MiB +0\.22 MiB", shown)


def test_what_does_not_fit_is_refused_behind_the_table(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_peak", lambda _: 1e11)
    cfg, resolved = tiny_config("dry_run=true", "adapter=full", "model.attn_implementation=eager", "stages=[stage1]")
    room = total(needs(plan_of("stage1", cfg, None), cfg)[1]) / 2**30 - 0.001
    resolved.run.device_memory_gib = room
    with captured() as lines, pytest.raises(ConfigError) as refused:
        run_pipeline(resolved)
    assert "dry run: stage1" in lines[-1]
    message = str(refused.value)
    assert re.match(
        r"run\.device_memory_gib: stage1 needs 0\.\d\d GiB per device of 0\.\d\d GiB, most of it \w+ \(0\.\d\d GiB\); by the same", message
    )
    assert "\n" not in message
    assert "model.gradient_checkpointing=true (" in message


def test_advice_fits_by_the_same_estimate(tiny_config: TinyConfig, compose_config: Callable[..., DictConfig]) -> None:
    """The overrides, given to the configuration as a user would, need what the advice says, and that fits."""
    from tract.pipeline.dry_run.advice import advise

    base = ["model=tiny", "data.source.n_questions=12", "data.source.n_ood_questions=1", *GPUS, "trainer=single", "trainer.devices=1"]
    base += ["adapter=full", "batch.global_batch_size=8", "batch.max_tokens_per_micro_batch=4096"]
    cfg = typed(compose_config(*base))
    plan = plan_of("stage1", cfg, None)
    whole = total(needs(plan, cfg)[1])
    advice = advise(plan, whole - 2**20)
    assert advice is not None
    assert advice.device <= whole - 2**20
    changed = typed(compose_config(*base, *advice.overrides.split()))
    assert total(needs(plan, changed)[1]) == pytest.approx(advice.device)
    assert advise(plan, 2**20) is None


def test_kinds_of_advice(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes are tried in order of how much they change."""
    from tract.pipeline.dry_run import advice

    cfg, _ = tiny_config("trainer=single", "adapter=full", *GPUS[2:])
    plan = plan_of("stage1", cfg, None)
    tried: list[str] = []

    def fits(plan: Any, series: list[Any], room: float) -> None:
        tried.append(series[0][0])

    monkeypatch.setattr(advice, "_first_that_fits", fits)
    assert advice.advise(plan, 0) is None
    assert [re.sub(r"=\d+", "=N", overrides) for overrides in tried] == [
        "model.gradient_checkpointing=true",
        "batch.max_tokens_per_micro_batch=N",
        "model.gradient_checkpointing=true batch.max_tokens_per_micro_batch=N",
        "adapter=lora",
        "trainer=deepspeed_zero3 trainer.devices=N",
        "trainer=deepspeed_zero3_offload optimizer=cpu_adamw",
        "adapter=qlora trainer=single",
    ]


def test_stage_2_uses_cots_that_are_there(whole: Any) -> None:
    """A dry run beside the finished pipeline reads its CoTs, and changes nothing there."""
    before = sorted(path.relative_to(whole.tiny.root) for path in whole.tiny.root.rglob("*"))
    with captured() as lines:
        run_pipeline(whole.tiny.compose("dry_run=true", "run.name=planned"))
    shown = "\n".join(lines)
    assert "dry run: stage2" in shown
    assert "not generated yet" not in shown
    assert sorted(path.relative_to(whole.tiny.root) for path in whole.tiny.root.rglob("*")) == before


def test_sampling_that_does_not_fit_names_a_smaller_batch(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_peak", lambda _: 1e11)
    _, resolved = tiny_config("dry_run=true", "stages=[generate]", "generation.batch_size=4096", "run.device_memory_gib=1.0")
    with pytest.raises(
        ConfigError, match=r"generation.batch_size: sampling needs .* of 1\.00 GiB; set generation.batch_size=(\d+)"
    ) as refused:
        run_pipeline(resolved)
    fits = re.search(r"set generation.batch_size=(\d+)", str(refused.value))
    assert fits is not None
    resolved.generation.batch_size = int(fits[1])
    run_pipeline(resolved)


@pytest.mark.usefixtures("vllm_counts_as_installed")
def test_an_engine_that_does_not_fit_names_how_many_gpus_would(
    dry: Callable[..., str], tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (*GPUS, "generation=vllm", "run.device_memory_gib=80")
    assert re.search(r"256 CoTs at a time by vLLM, on 1 of the devices for each engine", dry(*gpus))
    asked: list[int] = []
    whole = dry_run.engine_memory
    monkeypatch.setattr(dry_run, "engine_memory", lambda *a, **k: asked.append(a[2]) or whole(*a, **k))
    dry(*gpus, "data.max_length=2000")
    cfg, _ = tiny_config(*gpus)
    plan = plan_of("stage1", cfg, None)
    # The longest sequence that is asked for, whatever training sequences may have and the model is made for.
    prompts = max(int(items.prompts.max()) for items in (plan.train, plan.val))
    assert set(asked) == {prompts + tokens_behind(plan.data.layout, cfg.generation.max_cot_tokens)}
    monkeypatch.setitem(memory.PROCESS_BYTES, "gpu", 71 * 2**30)
    monkeypatch.setattr(dry_run, "engine_memory", lambda *a, **k: [memory.MemoryPart("weights", 100 * 2**30 / a[3])])
    with pytest.raises(ConfigError, match=r"generation.vllm: an engine needs at least 100.00 GiB per device of 72.00 GiB .*size=2, and"):
        run_pipeline(tiny_config("dry_run=true", *gpus)[1])


def test_strategy_divides_what_the_plan_needs(tiny_config: TinyConfig) -> None:
    def sizes(*overrides: str) -> dict[str, float]:
        cfg, _ = tiny_config("adapter=full", "run.device_memory_gib=80", *overrides)
        plan = plan_of("stage1", cfg, None)
        assert strategy_of(cfg).devices in (1, 4)
        return {part.name: part.device for part in needs(plan, cfg)[1]}

    one, zero3 = sizes("trainer=single"), sizes(*GPUS)
    assert zero3["weights"] == one["weights"] / 2 / 4  # bfloat16, a quarter each
    assert zero3["optimizer"] == one["optimizer"] * 12 / 8 / 4
    assert zero3["gathered weights"] == one["weights"] / 2  # all of so small a model
    fsdp = sizes("trainer=fsdp", *GPUS[1:])
    assert fsdp["weights"] == one["weights"] / 4
    assert fsdp["gradients"] == one["gradients"] / 4


def test_sizes_for_people() -> None:
    assert dry_run.size(80 * 2**30) == "80.00 GiB"
    assert dry_run.size(2**20 * 5) == "5.00 MiB"
    assert dry_run.duration(0.5) == "30.0 min"
    assert dry_run.duration(0.01) == "36.0 s"
    assert dry_run.duration(26.04) == "26.0 h"


def test_the_start_is_measured_once() -> None:
    startup_s.cache_clear()
    first = startup_s()
    assert first > 0
    assert startup_s() == first
