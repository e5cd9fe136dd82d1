"""The dry run: what a pipeline's stages will need, from configuration, data and an empty model; nothing is trained or downloaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import psutil
from omegaconf import DictConfig

from tract.artifacts.products import Product, open_product
from tract.common.errors import ConfigError
from tract.common.model_name import model_name
from tract.common.terminal import folded, folds
from tract.config.schema import Config
from tract.config.vocabulary import FIT_STAGES
from tract.inference.hf.sequences import path_of
from tract.inference.prompt_budget import tokens_behind
from tract.pipeline.backend_choice import decided
from tract.pipeline.checks import check_before_start
from tract.pipeline.dry_run.advice import advise
from tract.pipeline.dry_run.device import Device, find_device, hours
from tract.pipeline.dry_run.memory import FRAGMENTATION, GIB, MemoryPart, engine_memory, sampling_memory, total
from tract.pipeline.dry_run.model_facts import ModelFacts, describe_model, forward_flops, training_flops
from tract.pipeline.dry_run.plan import FitPlan, Workload, needs, plan_of
from tract.pipeline.dry_run.training_setup import Strategy, TrainingSetup, precision_of, setup_of, strategy_of
from tract.pipeline.launching.launch import isolated
from tract.pipeline.plan import is_forced, planned_stages, stage_inputs
from tract.pipeline.stage_tasks import StageTask, build_stage, stage_config
from tract.pipeline.stages.stage import folder_of, outdated
from tract.pipeline.validation import typed

log = logging.getLogger(__name__)

_ENGINE_GPUS = (2, 4, 8)  # of one vLLM engine that are tried


def dry_run_pipeline(cfg: Config, resolved: DictConfig) -> None:
    """Logs what each fit stage of a pipeline needs, and what sampling does, and makes no folder.

    Args:
        cfg: the typed configuration. resolved: the same as composed.

    Raises:
        TractError: if the data cannot be used.
        ConfigError: if a stage does not fit the device, with changes that would.
    """
    stages = planned_stages(cfg)
    check_before_start(cfg, resolved, stages)
    resolved = decided(resolved, stages)
    cfg = typed(resolved)
    fits = [name for name in stages if name in FIT_STAGES]
    generated = _generated_cots(cfg, resolved, stages) if "stage2" in fits else None
    plans = [plan_of(name, typed(stage_config(resolved, name)), generated) for name in fits or ["stage1"]]
    device = find_device(cfg)
    starts = [startup_s() if place == 0 or isolated(cfg) else 0.0 for place in range(len(fits))]
    refusals = [_report_fit(plan, device, start) for plan, start in zip(plans, starts, strict=False)]
    if sampling := [name for name in stages if name in ("generate", "predict")]:
        refusals.append(_report_sampling(plans[0], sampling, cfg, device))
    if any(refusals):
        raise ConfigError("; ".join(filter(None, refusals)))


def _generated_cots(cfg: Config, resolved: DictConfig, stages: list[str]) -> Product | None:
    """The CoTs for stage 2, if they are there already and would be used."""
    found: dict[str, Product] = {}
    for name in stages[: stages.index("stage2")]:
        folder = folder_of(build_stage(StageTask(name, stage_inputs(name, cfg, found), False), resolved), cfg, force=False)
        if is_forced(name, cfg) or not folder.is_complete or outdated(folder, cfg):
            break
        found[name] = open_product(folder.path)
    return found.get("generate")


@lru_cache
def startup_s() -> float:
    """Seconds from the start of this process until now, as it was asked first: to load libraries, configuration, data and tokenizer.

    The process of a stage takes about as long before it works.
    """
    return time.time() - psutil.Process().create_time()


def _report_fit(plan: FitPlan, device: Device, start_s: float) -> str:
    """Logs one stage's figures, with the seconds that its process takes to start; what to say if it does not fit, else ""."""
    work, parts = needs(plan, plan.cfg)
    lines = [*_model_lines(plan, device), *_memory_lines(parts, device), *_step_lines(plan, work)]
    _log([plan.name], [*lines, *_time_lines(plan, work, device, start_s)])
    if device.memory is None or total(parts) <= device.memory:
        return ""
    largest = max(parts, key=lambda part: part.device)
    advice = advise(plan, device.memory)
    fits = f"by the same estimate would fit: {advice.overrides} ({size(advice.device)})" if advice else ""
    return (
        f"{'run.device_memory_gib' if plan.cfg.run.device_memory_gib else 'trainer'}: {plan.name} needs {size(total(parts))} per device "
        f"of {size(device.memory)}, most of it {largest.name} ({size(largest.device)}); "
        f"{fits or 'nothing that was tried would fit; take a smaller model'}"
    )


def _model_lines(plan: FitPlan, device: Device) -> Iterator[str]:
    cfg, model, strategy = plan.cfg, describe_model(plan.cfg), strategy_of(plan.cfg)
    setup = setup_of(cfg, model, strategy)
    name = model_name(cfg.model.name_or_path, cfg.model.package)
    yield _row("model", f"{name}, adapter.kind={cfg.adapter.kind}, {precision_of(cfg)}")
    yield _row("sequences", str(path_of(cfg.model) or "packed rows, looked at when the weights are loaded"))
    yield _row("parameters", f"{model.elements:,}, of which {model.trained:,} are trained")
    kept = f"{setup.frozen:.3g} (frozen), " if model.frozen else ""
    each = f"gradient {setup.trained}, optimizer {setup.master + setup.optimizer:g}"
    yield _row("bytes of each", f"{kept}{setup.trained} (trained), {each}")
    spread = {"whole": "each holds everything", "ddp": "each holds everything", "zero2": "gradients and optimizer are spread"}
    yield _row("devices", f"{strategy.devices} ({device.name}); {spread.get(strategy.kind, 'weights, gradients and optimizer are spread')}")
    if device.note:
        yield _row("", device.note)


def _memory_lines(parts: Sequence[MemoryPart], device: Device) -> Iterator[str]:
    on_host = sum(part.host for part in parts)
    yield ""
    yield f"  {'memory':<28}{'per device':>14}" + (f"{'host':>14}" if on_host else "")
    for part in parts:
        if part.device or part.host:
            host = f"{size(part.host):>14}" if part.host else ""
            yield f"  {part.name:<28}{size(part.device):>14}{host}"
    of = f" of {size(device.memory)}, {total(parts) / device.memory:.0%}" if device.memory else "; the device's memory is not known"
    yield f"  {'in all':<28}{size(total(parts)):>14}{f'{size(on_host):>14}' if on_host else ''}{of}"
    if on_host:
        yield "  host: memory of each machine, for all of its devices"
    yield f"  margin: {FRAGMENTATION:.0%} of what comes and goes, for memory that the allocator cannot use again"
    yield ""


def _step_lines(plan: FitPlan, work: Workload) -> Iterator[str]:
    epochs = f"{work.steps_per_epoch} an epoch, {work.total_steps / work.steps_per_epoch:.2g} epochs"
    yield _row("optimizer steps", f"{work.total_steps} ({epochs})")
    items = plan.cfg.batch.global_batch_size
    yield _row("a step", f"{items} items, {work.step.tokens:,.0f} tokens on average, at most {work.most_tokens:,}")
    largest = f"the largest has {work.micro.tokens:,} tokens"
    yield _row("micro-batches", f"{work.micro_batches} of each step on each device; {largest}")
    each = f"{work.validations} times {work.validation_batches} micro-batches on each device"
    yield _row("validation", f"{each}, {work.validation.tokens:,.0f} tokens in all each time")
    if plan.assumed:
        yield _row("", plan.assumed)


def _time_lines(plan: FitPlan, work: Workload, device: Device, start_s: float) -> Iterator[str]:
    model = describe_model(plan.cfg)
    step = training_flops(model, work.step, checkpointing=plan.cfg.model.gradient_checkpointing)
    whole = step * work.total_steps + forward_flops(model, work.validation) * work.validations
    yield _row("FLOPs", f"{step:.3g} a step, {whole:.3g} in all")
    if device.peak is None:
        yield _row("time", "needs the device, whose peak is not known here")
        return
    takes = hours(whole, device.peak, device.share, device.count) + start_s / 3600
    assumed = f"assuming {device.share:.0%} of the {device.peak / 1e12:.3g} TFLOP/s of {device.name}"
    yield _row("time", f"{duration(takes)}, {assumed}")
    if start_s:
        yield _row("", f"of it {duration(start_s / 3600)} to start, as this process took to load libraries and data")


def _report_sampling(plan: FitPlan, stages: list[str], cfg: Config, device: Device) -> str:
    """Logs what the sampling stages need; what to say if it does not fit, else ""."""
    if cfg.generation.backend == "openai_server":
        _log(stages, [_row("sampled", f"by the server at {cfg.generation.server.base_url}, which is not asked")])
        return ""
    return (_report_engine if cfg.generation.backend == "vllm" else _report_hf)(plan, stages, cfg, device)


def _report_hf(plan: FitPlan, stages: list[str], cfg: Config, device: Device) -> str:
    counts = {"generate": cfg.generation.n_cot, "predict": max(1, cfg.evaluation.n_cot)}
    n_cot, batch = min(counts[name] for name in stages), cfg.generation.sequences
    model, setup = _sampled_as(cfg)
    weights = model.frozen * setup.frozen + model.trained * setup.trained
    if not setup.gpu and setup.compute > 2 and cfg.adapter.kind != "qlora":  # matrices in 4 bits stay as they are
        # Packed beside it, see tract.inference.hf.packed_linear.
        weights += model.layers * (model.layer.frozen + model.layer.trained) * (setup.frozen or setup.trained)
    lengths = plan.longest_prompt, cfg.generation.max_cot_tokens

    def parts_of(batch: int) -> list[MemoryPart]:
        return sampling_memory(model, weights, setup.compute, max(1, batch // n_cot), n_cot, *lengths, gpu=setup.gpu)

    parts = parts_of(batch)
    shown = f"{max(1, batch // n_cot) * n_cot} CoTs of up to {lengths[1]} tokens at a time, prompts of up to {lengths[0]} tokens"
    _log(stages, [_row("sampled", shown), *_memory_lines(parts, device)])
    if device.memory is None or total(parts) <= device.memory:
        return ""
    halves = (batch >> times for times in range(1, batch.bit_length()))
    enough = next((half for half in halves if total(parts_of(half)) <= device.memory), None)
    advice = f"set generation.batch_size={enough}" if enough else "sampling keeps the model whole on each device; take a smaller one"
    return f"generation.batch_size: sampling needs {size(total(parts))} per device of {size(device.memory)}; {advice}"


def _report_engine(plan: FitPlan, stages: list[str], cfg: Config, device: Device) -> str:
    """The same for vLLM, which fills the memory that it may take with its cache."""
    vllm = cfg.generation.vllm
    model, setup = _sampled_as(cfg)
    longest = plan.longest_prompt + tokens_behind(plan.data.layout, cfg.generation.max_cot_tokens)
    least = partial(engine_memory, model, setup.compute, longest, gpu=setup.gpu)
    parts = least(vllm.tensor_parallel_size)
    room = device.memory * (vllm.gpu_memory_utilization if setup.gpu else 1.0) if device.memory else None
    shown = f"{cfg.generation.sequences} CoTs at a time by vLLM, on {vllm.tensor_parallel_size} of the devices for each engine"
    _log(stages, [_row("sampled", shown), *_memory_lines(parts, device)])
    if room is None or total(parts) <= room:
        return ""
    enough = next((number for number in _ENGINE_GPUS if number > vllm.tensor_parallel_size and total(least(number)) <= room), None)
    more = f"set generation.vllm.tensor_parallel_size={enough}, and trainer.devices to a multiple"
    return (
        f"generation.vllm: an engine needs at least {size(total(parts))} per device of {size(room)} "
        f"(gpu_memory_utilization={vllm.gpu_memory_utilization:g}); {more if enough and setup.gpu else 'take a smaller model'}"
    )


def _sampled_as(cfg: Config) -> tuple[ModelFacts, TrainingSetup]:
    """The model that samples, whole on each device, and in how many bytes."""
    model = describe_model(cfg)
    return model, setup_of(cfg, model, Strategy("whole", 1))


def size(number: float) -> str:
    """Bytes for people."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / 2**20:.2f} MiB"


def duration(number: float) -> str:
    """Hours for people."""
    return f"{number:.1f} h" if number >= 1 else f"{number * 60:.1f} min" if number >= 1 / 60 else f"{number * 3600:.1f} s"


def _log(stages: list[str], lines: list[str]) -> None:
    log.info("dry run: %s\n\n%s\n", ", ".join(stages), "\n".join(lines))


def _row(name: str, text: str) -> str:
    row = f"  {name:<20}{text}"
    return folded(row, " " * 22) if folds() else row
