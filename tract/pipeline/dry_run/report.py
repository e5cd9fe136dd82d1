"""The dry run: what a pipeline's stages will need, from configuration, data and an empty model; nothing is trained or downloaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import psutil

from tract.common.errors import ConfigError
from tract.common.model_name import model_name
from tract.common.terminal import folded, folds
from tract.config.schema import Config
from tract.inference.hf.live import PREFILL_TOKENS
from tract.inference.hf.sequences import path_of
from tract.inference.prompt_budget import tokens_behind
from tract.pipeline.dry_run.advice import advise
from tract.pipeline.dry_run.device import Device, find_device
from tract.pipeline.dry_run.facts import GIB, SamplingLoad
from tract.pipeline.dry_run.fit_plan import FitPlan, described_once, hosted, needs, total
from tract.pipeline.dry_run.flops import SHARE, forward_flops, hours, training_flops
from tract.pipeline.dry_run.memory import FRAGMENTATION, MemoryPart, engine_memory, sampling_memory
from tract.pipeline.dry_run.model_facts import HALF, on_gpu, storage_of, strategy_of
from tract.pipeline.dry_run.workload import Workload
from tract.pipeline.launching.launch import isolated, processes

log = logging.getLogger(__name__)

_ENGINE_GPUS = (2, 4, 8)  # of one vLLM engine that are tried
_GROWTH = 1.5  # by which tract.inference.hf.live adds places for tokens


def dry_run(plans: Sequence[FitPlan], fits: int, sampling: Sequence[str], cfg: Config) -> None:
    """Logs what each fit stage needs, and what sampling does, and refuses what does not fit.

    Args:
        plans: at least one, which knows the data that is sampled on. fits: how many of them are to be trained.
        sampling: names of the stages that sample. cfg: of the pipeline.

    Raises:
        ConfigError: if a stage does not fit the device, with changes that would.
    """
    device = find_device(cfg)
    starts = [startup_s() if place == 0 or isolated(cfg) else 0.0 for place in range(fits)]
    found = (_fit_stage(plan, device, start) for plan, start in zip(plans, starts, strict=False))
    refusals = [refusal for refusal in found if refusal is not None]
    if sampling:
        refusals += _SAMPLING[cfg.generation.backend](plans[0], sampling, cfg, device)
    if refusals:
        raise ConfigError("; ".join(refusals))


@lru_cache
def startup_s() -> float:
    """Seconds from the start of this process until now, as it was asked first: to load libraries, configuration, data and tokenizer.

    The process of a stage takes about as long before it works.
    """
    return time.time() - psutil.Process().create_time()


def _fit_stage(plan: FitPlan, device: Device, start_s: float) -> str | None:
    """Logs one stage's figures, with the seconds that its process takes to start; what to say if it does not fit."""
    work, parts = needs(plan, plan.cfg)
    lines = [*_model_lines(plan, device), *_memory_lines(parts, device), *_step_lines(plan, work)]
    lines += _time_lines(plan, work, device, start_s)
    log.info("dry run: %s\n\n%s\n", plan.name, "\n".join(lines))
    if device.memory is None or total(parts) <= device.memory:
        return None
    largest = max(parts, key=lambda part: part.device)
    advice = advise(plan, device.memory)
    fits = f"by the same estimate would fit: {advice.overrides} ({size(advice.device)})" if advice else ""
    what_to_do = fits or "nothing that was tried would fit; take a smaller model"
    return (
        f"{device.key}: {plan.name} needs {size(total(parts))} per device of {size(device.memory)}, most of it {largest.name} "
        f"({size(largest.device)}); {what_to_do}"
    )


def _model_lines(plan: FitPlan, device: Device) -> Iterator[str]:
    cfg, strategy = plan.cfg, strategy_of(plan.cfg)
    facts = described_once(cfg).facts
    storage = storage_of(cfg, described_once(cfg), strategy)
    precision = cfg.trainer.get("precision", "32-true")
    yield _row("model", f"{model_name(cfg.model.name_or_path, cfg.model.package)}, adapter.kind={cfg.adapter.kind}, {precision}")
    yield _row("sequences", str(path_of(cfg.model) or "packed rows, looked at when the weights are loaded"))
    yield _row("parameters", f"{facts.elements:,}, of which {facts.trained:,} are trained")
    kept = f"{storage.frozen:.3g} (frozen), " if facts.frozen else ""
    each = f"gradient {storage.gradient}, optimizer {storage.master + storage.optimizer:g}"
    yield _row("bytes of each", f"{kept}{storage.trained} (trained), {each}")
    spread = {"whole": "each holds everything", "ddp": "each holds everything", "zero2": "gradients and optimizer are spread"}
    yield _row("devices", f"{strategy.devices} ({device.name}); {spread.get(strategy.kind, 'weights, gradients and optimizer are spread')}")
    if device.note:
        yield _row("", device.note)


def _memory_lines(parts: Sequence[MemoryPart], device: Device) -> Iterator[str]:
    with_host = hosted(list(parts)) > 0
    yield ""
    yield f"  {'memory':<28}{'per device':>14}" + (f"{'host':>14}" if with_host else "")
    for part in parts:
        if part.device or part.host:
            host = f"{size(part.host):>14}" if part.host else ""
            yield f"  {part.name:<28}{size(part.device):>14}{host}"
    of = f" of {size(device.memory)}, {total(list(parts)) / device.memory:.0%}" if device.memory else "; the device's memory is not known"
    whole = f"{size(hosted(list(parts))):>14}" if with_host else ""
    yield f"  {'in all':<28}{size(total(list(parts))):>14}{whole}{of}"
    if with_host:
        yield "  host: memory of each machine, for all of its devices"
    yield f"  margin: {FRAGMENTATION:.0%} of what comes and goes, for memory that the allocator cannot use again"
    yield ""


def _step_lines(plan: FitPlan, work: Workload) -> Iterator[str]:
    cfg = plan.cfg
    epochs = f"{work.steps_per_epoch} an epoch, {work.total_steps / work.steps_per_epoch:.2g} epochs"
    yield _row("optimizer steps", f"{work.total_steps} ({epochs})")
    yield _row("a step", f"{cfg.batch.global_batch_size} items, {work.mean_tokens:,.0f} tokens on average, at most {work.most_tokens:,}")
    largest = f"the largest has {work.micro.tokens:,} tokens"
    yield _row("micro-batches", f"{work.micro_batches} of each step on each device; {largest}")
    each = f"{work.validations} times {work.validation_batches} micro-batches on each device"
    yield _row("validation", f"{each}, {work.validation.tokens:,.0f} tokens in all each time")
    if plan.assumed:
        yield _row("", plan.assumed)


def _time_lines(plan: FitPlan, work: Workload, device: Device, start_s: float) -> Iterator[str]:
    facts = described_once(plan.cfg).facts
    step = training_flops(facts, work.step, checkpointing=plan.cfg.model.gradient_checkpointing)
    whole = step * work.total_steps + forward_flops(facts, work.validation) * work.validations
    yield _row("FLOPs", f"{step:.3g} a step, {whole:.3g} in all")
    share = SHARE["gpu" if on_gpu(plan.cfg) else "cpu"]
    if device.peak is None:
        yield _row("time", "needs the device, whose peak is not known here")
        return
    takes = hours(whole, device.peak, share, device.speeds(processes(plan.cfg))) + start_s / 3600
    yield _row("time", f"{duration(takes)}, assuming {share:.0%} of the {device.peak / 1e12:.3g} TFLOP/s of {device.name}")
    if start_s:
        yield _row("", f"of it {duration(start_s / 3600)} to start, as this process took to load libraries and data")


def _sampling(plan: FitPlan, names: Sequence[str], cfg: Config, device: Device) -> Iterator[str]:
    """Logs what sampling needs; yields what to say if it does not fit."""
    counts = {"generate": cfg.generation.n_cot, "predict": max(1, cfg.evaluation.n_cot)}
    n_cot = min(counts[name] for name in names)
    batch = cfg.generation.sequences
    work, parts = _sampled(plan, cfg, n_cot, batch)
    shown = f"{work.sequences} CoTs of up to {work.cot_tokens} tokens at a time, prompts of up to {work.prompt_tokens} tokens"
    log.info("dry run: %s\n\n%s\n", ", ".join(names), "\n".join([_row("sampled", shown), *_memory_lines(parts, device)]))
    if device.memory is None or (needed := total(parts)) <= device.memory:
        return
    while batch > 1 and total(parts) > device.memory:
        batch //= 2
        parts = _sampled(plan, cfg, n_cot, batch)[1]
    fits = total(parts) <= device.memory
    advice = f"set generation.batch_size={batch}" if fits else "sampling keeps the model whole on each device; take a smaller one"
    yield f"generation.batch_size: sampling needs {size(needed)} per device of {size(device.memory)}; {advice}"


def _engine(plan: FitPlan, names: Sequence[str], cfg: Config, device: Device) -> Iterator[str]:
    """The same for vLLM, which fills the memory that it may take with its cache."""
    vllm, gpu = cfg.generation.vllm, on_gpu(cfg)
    least = partial(_least_of_engine, plan, cfg, gpu=gpu)
    parts = least(vllm.tensor_parallel_size)
    room = device.memory * (vllm.gpu_memory_utilization if gpu else 1.0) if device.memory else None
    shown = f"{cfg.generation.sequences} CoTs at a time by vLLM, on {vllm.tensor_parallel_size} of the devices for each engine"
    log.info("dry run: %s\n\n%s\n", ", ".join(names), "\n".join([_row("sampled", shown), *_memory_lines(parts, device)]))
    if room is None or total(parts) <= room:
        return
    enough = next((number for number in _ENGINE_GPUS if number > vllm.tensor_parallel_size and total(least(number)) <= room), None)
    advice = (
        f"set generation.vllm.tensor_parallel_size={enough}, and trainer.devices to a multiple"
        if enough and gpu
        else "take a smaller model"
    )
    yield (
        f"generation.vllm: an engine needs at least {size(total(parts))} per device of {size(room)} "
        f"(gpu_memory_utilization={vllm.gpu_memory_utilization:g}); {advice}"
    )


def _least_of_engine(plan: FitPlan, cfg: Config, gpus: int, *, gpu: bool) -> list[MemoryPart]:
    model = described_once(plan.cfg)
    stored = 2 if str(cfg.trainer.get("precision", "32-true")) in HALF else model.frozen_bytes or model.trained_bytes
    longest = _longest_prompt(plan) + tokens_behind(plan.data.layout, cfg.generation.max_cot_tokens)
    return engine_memory(model.facts, model.facts.elements * stored, int(stored), longest, gpus, gpu=gpu)


def _longest_prompt(plan: FitPlan) -> int:
    return max(int(items.prompts.max()) for items in (plan.train, plan.val) if len(items))


def _server(plan: FitPlan, names: Sequence[str], cfg: Config, device: Device) -> Iterator[str]:
    """Nothing is held here."""
    log.info(
        "dry run: %s\n\n%s\n", ", ".join(names), _row("sampled", f"by the server at {cfg.generation.server.base_url}, which is not asked")
    )
    return iter(())


def _sampled(plan: FitPlan, cfg: Config, n_cot: int, batch: int) -> tuple[SamplingLoad, list[MemoryPart]]:
    """What is sampled at a time with so many sequences in a batch, and what a device holds for it."""
    prompts = max(1, batch // n_cot)
    work = SamplingLoad(prompts * n_cot, prompts, _longest_prompt(plan), cfg.generation.max_cot_tokens, PREFILL_TOKENS, _GROWTH)
    model, gpu, precision = described_once(plan.cfg), on_gpu(cfg), str(cfg.trainer.get("precision", "32-true"))
    half = precision in HALF
    widest = 2 if precision.endswith("16-true") else 8
    stored, trained = min(widest, model.frozen_bytes or model.trained_bytes), min(widest, model.trained_bytes)
    weights = model.facts.frozen * stored + model.facts.trained * trained
    if not gpu and not half and cfg.adapter.kind != "qlora":  # matrices in 4 bits stay as they are
        weights += model.facts.layers * model.facts.layer.matrices * stored  # packed beside it, see tract.inference.hf.packed_linear
    return work, sampling_memory(model.facts, weights, 2 if half else model.stream_bytes, work, gpu=gpu)


def size(number: float) -> str:
    """Bytes for people."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / 2**20:.2f} MiB"


def duration(number: float) -> str:
    """Hours for people."""
    return f"{number:.1f} h" if number >= 1 else f"{number * 60:.1f} min" if number >= 1 / 60 else f"{number * 3600:.1f} s"


def _row(name: str, text: str) -> str:
    row = f"  {name:<20}{text}"
    return folded(row, " " * 22) if folds() else row


# By backend: logs what the sampling stages need, yields what to say where it does not fit.
_SAMPLING = {"hf": _sampling, "vllm": _engine, "openai_server": _server}
