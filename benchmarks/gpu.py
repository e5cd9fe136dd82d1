"""All figures of docs/performance.md that need a GPU, by one command, in under ten minutes and without a network.

    python benchmarks/gpu.py                                  (make bench-gpu) on a GPU; writes benchmarks/results/gpu.json
    python benchmarks/gpu.py --small --out gpu.json           the very same parts with tiny shapes, on a CPU
    python benchmarks/gpu.py --tables                         writes the tables of docs/performance.md from benchmarks/results/gpu.json

Models: random weights in the shape of Mistral-7B, made on the device, and the packaged SmolLM2-135M. Each part runs in a process of its
own with a time limit, and what it found is written before the next one begins. A part that fails, or is too slow, is kept as a text,
never as a number, and costs nothing but itself. Random weights train and sample as fast as trained ones; what they write says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract.common.durable import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
DOCS = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/gpu.py --tables: begin -->", "<!-- benchmarks/gpu.py --tables: end -->"
NOT_MEASURED = "not measured; `make bench-gpu`"
LIMIT_S = 580.0  # for all parts together
PLAIN, ALONE, SHARED = "plain", "one sequence each", "shared prompts"
WAYS = {"plain": PLAIN, "alone": ALONE, "shared": SHARED}
STRATEGIES = ("single", "ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp")
MIB = 2**20


@dataclass(frozen=True)
class Part:
    """What is measured in one process.

    Attributes:
        name: in the results, words with "/" between; the first one says what is run. limit_s: the longest that it may take.
    """

    name: str
    limit_s: float


def parts_of() -> list[Part]:
    """All parts, in the order in which they are run: what is wanted most comes first, since the time is limited."""
    models = {
        model: [
            *[Part(f"train/{model}/{way}", 90) for way in WAYS],
            *[Part(f"judge/{model}/{way}", 120) for way in ("hf", "vllm", "plain")],
        ]
        for model in ("mistral", "smollm2")
    }
    steps = [Part(f"strategy/{name}", 60) for name in STRATEGIES]
    return [Part("facts", 60), Part("matmul", 60), *models["mistral"], *steps, Part("tests", 240), *models["smollm2"]]


# --- the process that runs the parts


def run_all(parts: Sequence[Part], out: Path, small: bool, limit_s: float = LIMIT_S, *, keep: bool = False) -> dict[str, Any]:
    """Runs each part in a process of its own and writes all results after each; returns them.

    Args:
        keep: leaves what the file has of other parts. limit_s: for all parts together.
    """
    begun, found = time.monotonic(), {"benchmark": "gpu", "small": small, "parts": {}}
    if keep and out.is_file() and (there := json.loads(out.read_text(encoding="utf-8")))["small"] == small:
        found["parts"] = there["parts"]
    for part in parts:
        left = limit_s - (time.monotonic() - begun)
        found["parts"][part.name] = run_part(part, small, left) if left > 1 else {"error": f"left out: the {limit_s:.0f} s were over"}
        _write(out, found)
        print(f"{part.name}: {json.dumps(found['parts'][part.name])[:300]}", file=sys.stderr, flush=True)
    return found


def run_part(part: Part, small: bool, left_s: float) -> dict[str, Any]:
    """What a part found, with the seconds that it took; of one that failed, the text of its end."""
    limit, begun = min(part.limit_s, left_s), time.monotonic()
    command = [sys.executable, __file__, "--part", part.name, *(["--small"] if small else [])]
    # DeepSpeed compiles with ninja, which is on no PATH where .venv was not activated.
    before = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
    paths = {name: os.pathsep.join(filter(None, [first, os.environ.get(name)])) for name, first in before.items()}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **paths}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, start_new_session=True)
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: what it started ends with it
            process.communicate()
            return {"error": f"took longer than its {limit:.0f} s"}
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    try:
        if process.returncode:
            raise ValueError
        content: dict[str, Any] = json.loads(printed.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": f"exit status {process.returncode}: {(lines or ['it said nothing'])[-1].strip()[:300]}"}
    return {**content, "took_s": round(time.monotonic() - begun, 1)}


def _write(out: Path, found: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(out, concurrent=True) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# --- what a part does, in its own process


@dataclass(frozen=True)
class Sizes:
    """How much is measured: on a GPU, or small."""

    items: int = 8  # prompts of a training step, 3 annotations each
    steps: int = 2
    prompts: int = 32  # that are judged, one CoT each
    tokens: int = 128
    rows: int = 16  # sequences of hf at a time; of vLLM four times as many
    matmul: int = 8192


SMALL = Sizes(items=2, steps=1, prompts=2, tokens=4, rows=2, matmul=128)


def overrides_of(model: str, small: bool, folder: Path) -> list[str]:
    """The model and the device, for ``workload.configured``."""
    from shapes import MISTRAL_7B, write_shape
    from shapes import SMALL as SMALL_SHAPE

    data = ["data.source.n_questions=12", "data.source.n_ood_questions=0"] if small else ["data.source.n_questions=60"]
    device = ["trainer=cpu"] if small else ["trainer=single", "batch.max_tokens_per_micro_batch=8192"]
    if model == "smollm2":
        return ["model=tiny" if small else "model=smollm2_packaged", *([] if small else ["model.dtype=bfloat16"]), *device, *data]
    shape = SMALL_SHAPE if small else {**MISTRAL_7B, **({"num_hidden_layers": 8} if model == "mistral_8_layers" else {})}
    return [*write_shape(folder / "shape", shape), *device, *data, *(["model.dtype=float32"] if small else [])]


def facts_part(_: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """The device and the versions."""
    import torch
    from workload import facts

    if not small and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --small runs everything on a CPU")
    device = torch.device("cpu" if small else "cuda")
    memory = {} if small else {"memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)}
    return {**facts(device), **memory, "command": "python benchmarks/gpu.py" + " --small" * small}


def matmul_part(_: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """FLOP/s of a large square product."""
    import torch
    from workload import matmul_peak

    device, dtype = (torch.device("cpu"), torch.float32) if small else (torch.device("cuda"), torch.bfloat16)
    return {"tflops": matmul_peak(device, dtype, _sizes(small).matmul) / 1e12, "dtype": str(dtype).removeprefix("torch.")}


def train_part(names: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """Tokens per second and peak memory of whole optimizer steps, one way, after a step that is not counted."""
    import torch
    from memory import Peak
    from train_step import ChildWork, our_batches, trained_tokens
    from workload import matmul_peak, model_flops

    (model, way), sizes = names, _sizes(small)
    given = argparse.Namespace(
        child=WAYS[way], overrides=overrides_of(model, small, folder), data=None, items=sizes.items, annotations=[3]
    )  # fmt: skip
    work = ChildWork(given)
    step = work.step()
    with Peak(work.device) as peak:
        step()
        seconds = _timed(step, work.device, sizes.steps)
    tokens = trained_tokens(work.items, work.data)
    needed = model_flops(work.model, our_batches(work.cfg, work.data, work.items, share_prompts=work.way == SHARED))
    measured = matmul_peak(work.device, torch.float32 if small else torch.bfloat16, sizes.matmul)
    return {
        "tokens_per_s": tokens / seconds,
        "peak_mib": peak.mib,
        "share_of_matmul_peak": None if way == "plain" else needed / seconds / measured,
        "tokens": tokens,
    }


def judge_part(names: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """Judged examples per second, one CoT of a fixed length each, one way, after a warm-up."""
    import torch
    from workload import configured, device_of, items_of, loaded_judge

    from evaluate import our_way, plain_way

    (model, way), sizes = names, _sizes(small)
    cfg, data = configured(*overrides_of(model, small, folder))
    device = device_of(cfg)
    torch.manual_seed(0)
    items = items_of(cfg, data, sizes.prompts, 1)
    if way == "vllm":
        return _judged_by_vllm(cfg, data, items, sizes, small)
    loaded = loaded_judge(cfg, device, "sdpa" if way == "plain" else "tree")
    make = plain_way(data, loaded, items, 1, sizes.tokens, sizes.rows) if way == "plain" else None
    run = make or our_way(cfg, data, loaded, items, 1, sizes.tokens, sizes.rows)
    if device.type == "cuda":
        (plain_way(data, loaded, items[:2], 1, 4, 2) if way == "plain" else our_way(cfg, data, loaded, items[:2], 1, 4, 2))()
    return {"examples_per_s": len(items) / _timed(run, device, 1), "together": sizes.rows, "tokens": sizes.tokens}


def _judged_by_vllm(cfg: Any, data: Any, items: Sequence[Any], sizes: Sizes, small: bool) -> dict[str, Any]:
    """The same by vLLM, with random weights that it makes itself; its CoTs may end a little earlier, so their tokens are counted."""
    from functools import partial

    from tract.inference.engines.judge import EngineJudge
    from tract.inference.engines.vllm import VLLMSettings, start_vllm
    from tract.inference.judgement import Prompt
    from tract.inference.sampling import Sampling
    from tract.models.engine_files import serving_files

    random = cfg.model.random_init and cfg.model.package is None
    location = cfg.model.name_or_path if random else serving_files(cfg.model, None, merge=False, seed=0, cache=Path(cfg.paths.cache)).model
    longest = max(len(item.prompt_ids) for item in items) + sizes.tokens + 64
    settings = VLLMSettings(
        model=location, revision=None, tokenizer=location, adapter=None, adapter_rank=0, dtype="float32" if small else "bfloat16",
        max_length=longest, seed=0, sequences=4 * sizes.rows, cpu=small, devices=(0,), shared_cores=False, trust_remote_code=False,
        gpu_memory_utilization=0.8, kv_cache_gib=0.25 if small else None, enforce_eager=small,
        engine={"load_format": "dummy"} if random else {},
    )  # fmt: skip
    sampling = Sampling(cfg.generation.temperature, cfg.generation.top_p, cfg.generation.repetition_penalty, sizes.tokens)
    judge = EngineJudge(partial(start_vllm, settings), data.layout, sampling, 0)
    prompts = [Prompt(item.id, row, item.prompt_ids) for row, item in enumerate(items)]

    def judged(some: Sequence[Any]) -> int:
        made = judge.judge_parts([some], 1, rows=4 * sizes.rows, without_cot=False, free=False, progress=lambda _: None)
        return sum(len(each.cot_ids) for part in made for each in part)

    judged([Prompt(f"warm-up {n}", n, prompt.prompt_ids[::-1]) for n, prompt in enumerate(prompts[:2])])  # else its keys would be cached
    begun = time.perf_counter()
    tokens = judged(prompts)
    seconds = time.perf_counter() - begun
    judge.close()
    return {"examples_per_s": len(items) / seconds, "together": 4 * sizes.rows, "tokens": tokens / len(items)}


def strategy_part(names: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """Step and peak memory of the fit stage's trainer with a strategy on one device, beside the dry run's estimate."""
    import lightning as L
    import torch
    from hydra import compose, initialize_config_dir
    from memory import Peak

    from tract.pipeline.dry_run.memory import PROCESS_BYTES, total
    from tract.pipeline.dry_run.model_facts import describe_model, training_flops
    from tract.pipeline.dry_run.plan import needs, plan_of
    from tract.pipeline.stages.fit import build, trainer_factory
    from tract.pipeline.validation import validate
    from tract.training.trainer import build_trainer

    sizes = _sizes(small)
    trainer = ["trainer=cpu" if names[0] == "single" else f"trainer={names[0]}", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    given = [each for each in overrides_of("mistral_8_layers", small, folder) if not each.startswith("trainer=")]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        resolved = compose(
            "train",
            [
                "experiment=tract_quickstart", "adapter=lora", "prompt=rubric", "grid=one_to_five", "data=rubric_check", *given,
                *(trainer if small else [f"trainer={names[0]}"]), "trainer.devices=1", "trainer.enable_progress_bar=false", "logger=none",
                f"paths.runs={folder}/runs", f"train.max_steps={sizes.steps + 1}", f"batch.global_batch_size={sizes.items}",
                "data.max_train_items=64", "train.keep_weights=last", "data.val_fraction=0", "train.validate_base_model=false",
            ],
        )  # fmt: skip
    cfg = validate(resolved)
    plan = plan_of("stage1", cfg, None)
    work, estimate = needs(plan, cfg)
    device, ends = torch.device("cpu" if small else "cuda"), []

    class Clock(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            if len(ends) < trainer.global_step:
                ends.append(time.perf_counter())

    module, datamodule = build(cfg, plan.data)
    with Peak(device) as peak:
        fit = build_trainer(cfg, trainer_factory(cfg), [Clock()], [], folder, module.accumulate, validates=False)
        fit.fit(module, datamodule=datamodule)
    flops = training_flops(describe_model(cfg), work.step, checkpointing=cfg.model.gradient_checkpointing)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {
        "step_s": seconds,
        "flops_per_s": flops / seconds,
        "peak_mib": peak.mib - (peak.before if small else 0.0),
        "estimate_mib": (total(estimate) - PROCESS_BYTES["cpu" if small else "gpu"]) / MIB,
    }


def tests_part(_: Sequence[str], small: bool, folder: Path) -> dict[str, Any]:
    """What `make test-gpu` runs, and how it ended; small: that it can be started."""
    chosen = ["--collect-only", "tests/gpu"] if small else ["-m", "(gpu or multigpu) and not network"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "pytest", "-q", *chosen]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line.partition(" ")[2][:200] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"status": done.returncode, "summary": lines[-1] if lines else "", "failed": failed}


PARTS: dict[str, Callable[[Sequence[str], bool, Path], dict[str, Any]]] = {
    "facts": facts_part, "matmul": matmul_part, "train": train_part, "judge": judge_part, "strategy": strategy_part, "tests": tests_part,
}  # fmt: skip


def _sizes(small: bool) -> Sizes:
    return SMALL if small else Sizes()


def _timed(run: Callable[[], Any], device: Any, times: int) -> float:
    """Seconds of one run, the mean of several."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / times


# --- tables


def tables(found: Mapping[str, Any]) -> str:
    """The tables of docs/performance.md; what was not measured says so, and what failed has no number."""
    return "\n".join(_lines(found.get("parts", {})))


def _lines(parts: Mapping[str, Any]) -> Iterator[str]:
    facts = parts.get("facts", {})
    if "device" in facts:
        yield f"On one {facts['device']}, torch {facts['torch']}; `make bench-gpu`, commit {facts['commit'][:10]}."
    else:
        yield "No GPU was at hand: every cell says so, and `make bench-gpu` fills them."
    yield ""
    yield "| training, LoRA, bf16-mixed, 3 annotations | tokens/s | ratio | peak MiB | ratio | of the matmul peak |"
    yield "|---|---|---|---|---|---|"
    for model, name in (("mistral", "Mistral-7B's shape"), ("smollm2", "SmolLM2-135M")):
        for way, words in WAYS.items():
            key = f"train/{model}/{way}"
            cells = [_cell(parts, key, "tokens_per_s", ",.0f"), _ratio(parts, key, f"train/{model}/plain", "tokens_per_s")]
            cells += [_cell(parts, key, "peak_mib", ",.0f"), _ratio(parts, key, f"train/{model}/plain", "peak_mib")]
            yield _row(f"{name}, {words}", *cells, "-" if way == "plain" else _cell(parts, key, "share_of_matmul_peak", ".0%"))
    yield ""
    yield "| judging, one CoT of 128 tokens | together | examples/s | ratio |"
    yield "|---|---|---|---|"
    for model, name in (("mistral", "Mistral-7B's shape"), ("smollm2", "SmolLM2-135M")):
        for way, words in (("plain", "generate, rescore"), ("hf", "generation=hf"), ("vllm", "generation=vllm")):
            key = f"judge/{model}/{way}"
            rate = _cell(parts, key, "examples_per_s", ".3g")
            yield _row(
                f"{name}, {words}", _cell(parts, key, "together", "d"), rate, _ratio(parts, key, f"judge/{model}/plain", "examples_per_s")
            )
    yield ""
    yield "| trainer, one device, 8 layers of Mistral-7B | s per step | TFLOP/s | peak MiB | the dry run's estimate, MiB |"
    yield "|---|---|---|---|---|"
    for strategy in STRATEGIES:
        key = f"strategy/{strategy}"
        speed = _cell(parts, key, "flops_per_s", "tera")
        yield _row(
            f"`trainer={strategy}`",
            _cell(parts, key, "step_s", ".3g"),
            speed,
            *(_cell(parts, key, k, ",.0f") for k in ("peak_mib", "estimate_mib")),
        )
    yield ""
    yield "| what | result |"
    yield "|---|---|"
    yield _row("matmul peak, TFLOP/s", _cell(parts, "matmul", "tflops", ",.0f"))
    yield _row("`make test-gpu`", _cell(parts, "tests", "summary", "s"))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(parts: Mapping[str, Any], part: str, key: str, form: str) -> str:
    if part not in parts:
        return NOT_MEASURED
    if "error" in parts[part]:
        return f"failed: {parts[part]['error']}".replace("|", "/")
    value = parts[part][key]
    return f"{value / 1e12:,.1f}" if form == "tera" else str(value) if form == "s" else format(value, form)


def _ratio(parts: Mapping[str, Any], part: str, base: str, key: str) -> str:
    values = [parts.get(name, {}).get(key) for name in (part, base)]
    return f"{values[0] / values[1]:.2f}" if all(values) else "-"


def fill(docs: Path, found: Mapping[str, Any]) -> None:
    """Writes the tables into a page, between the two marks.

    Raises:
        SystemExit: if the page has no marks, or the results are those of a small run.
    """
    if found.get("small"):
        raise SystemExit("these are results of --small, which measure nothing; run `make bench-gpu` on a GPU")
    before, begin, rest = docs.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{docs}: has no marks {BEGIN} and {END}")
    docs.write_text(f"{before}{BEGIN}\n{tables(found)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Runs all parts, one part, or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes on a CPU: does it run?")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file (default benchmarks/results/gpu.json)")
    parser.add_argument(
        "--only", nargs="+", metavar="PREFIX", help="parts whose names begin so, e.g. train judge/mistral; others keep their results"
    )
    parser.add_argument("--tables", nargs="?", type=Path, const=RESULT, metavar="FILE", help="write docs/performance.md from results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tables:
        fill(DOCS, json.loads(options.tables.read_text(encoding="utf-8")) if options.tables.is_file() else {})
    elif options.part:
        kind, *names = options.part.split("/")
        with tempfile.TemporaryDirectory(prefix="tract-gpu-") as folder:
            print(json.dumps(PARTS[kind](names, options.small, Path(folder))))
    else:
        slower = 5 if options.small else 1  # a busy CPU takes minutes to start what a GPU's machine starts in seconds
        chosen = [Part(part.name, slower * part.limit_s) for part in parts_of()]
        chosen = [part for part in chosen if not options.only or part.name.startswith(tuple(options.only))]
        found = run_all(chosen, options.out, options.small, slower * LIMIT_S, keep=bool(options.only))
        print(tables(found))
        if any("error" in each for each in found["parts"].values()):
            raise SystemExit("some parts failed; their texts are in " + options.out.name)


if __name__ == "__main__":
    main()
