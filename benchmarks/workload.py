"""What the benchmarks share: examples, models, interleaved timing, and results with the facts of the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from tract.config.schema import Config
from tract.data.batches import JudgeBatch, MicroBatches, TrainingItem
from tract.method.objective import Objective
from tract.models.loading import load_judge, load_model
from tract.pipeline.entry import ALLOCATOR
from tract.pipeline.stages.prepare import Prepared, prepare
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[1]
# The ways of training that are compared.
PLAIN, ALONE, SHARED = "plain", "one sequence each", "shared prompts"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="JSON lines like the Feedback Collection's; default: generated tasks, 3 annotations each")
    parser.add_argument("--items", type=int, default=8, help="prompts (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed, in turn (default 3)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON files")
    parser.add_argument("overrides", nargs="*", help="of the configuration, e.g. model=smollm2_135m trainer=single")
    return parser


def configured(*overrides: str, data: str | None = None) -> tuple[Config, Prepared]:
    """The configuration of the quickstart with LoRA and the long prompts of the benchmark, and its data."""
    source = (
        ["data=feedback_jsonl", f"data.path={data}"]
        if data
        else ["data=rubric_check", "data.source.n_questions=400", "data.source.annotations_per_response=3"]
    )
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose(
            "train",
            [
                "experiment=tract_quickstart", "adapter=lora", "prompt=rubric", "grid=one_to_five", "data.max_train_items=null",
                "generation.max_cot_tokens=512", *source, *overrides,
            ],
        )  # fmt: skip
    typed = validate(cfg)
    return typed, prepare(typed)


def items_of(cfg: Config, data: Prepared, count: int, annotations: int) -> list[TrainingItem]:
    """The first training items with at least so many annotations, cut to that number; each of its own question."""
    supervised = Objective(**vars(cfg.objective)).supervised_kinds
    rows = MicroBatches(data.tokens.dataset, data.rows["train"], data.layout, supervised, share_prompts=True, ratings=False)
    found = []
    for number in range(len(data.rows["train"])):
        item = rows.item(number)
        if len(item.continuations) >= annotations:
            found.append(TrainingItem(item.id, item.prompt_ids, item.continuations[:annotations], item.target))
        if len(found) == count:
            return found
    raise SystemExit(f"--items {count}: the training split has only {len(found)} items with {annotations} annotations")


def loaded(cfg: Config, device: torch.device, attention: str) -> Any:
    """The model with its adapter, on a device; random weights are made there, where a large model's take seconds instead of minutes."""
    cfg.model.attn_implementation = attention
    with device if cfg.model.random_init else nullcontext():
        return load_model(cfg.model, cfg.adapter, seed=0).to(device)


def loaded_judge(cfg: Config, device: torch.device, attention: str) -> Any:
    """The model as a judge is loaded, its adapter merged: here the base model itself."""
    cfg.model.attn_implementation = attention
    with device if cfg.model.random_init else nullcontext():
        return load_judge(cfg.model, None, four_bit=False, seed=0).to(device)


def device_of(cfg: Config) -> torch.device:
    """Where the configured trainer would put the model."""
    return torch.device("cpu" if cfg.trainer["accelerator"] == "cpu" else "cuda")


def precision_of(cfg: Config, device: torch.device) -> Any:
    """The context of the configured trainer's arithmetic: autocast with bf16-mixed, which keeps the dtype of the weights otherwise."""
    mixed = cfg.trainer.get("precision") == "bf16-mixed"
    return torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext()


def in_turn(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Rates (what a way returns, by seconds) of each way, timed one after the other in each round; the first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            amount = way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begun
            print(f"  round {number}: {name}: {amount / seconds:.4g}/s ({seconds:.1f} s)", file=sys.stderr, flush=True)
            if number:
                rates[name].append(amount / seconds)
    return rates


def in_child(script: str, way: str, options: Sequence[object]) -> dict[str, Any]:
    """What a benchmark prints last, as JSON, that runs one way in a process of its own.

    The plain way gets the environment as it is, as a script of its own would; ours what the entry scripts add to it.

    Raises:
        SystemExit: if it fails, for lack of memory perhaps.
    """
    command = [sys.executable, script, "--child", way, *map(str, options)]
    environment = dict(os.environ) if way.endswith(PLAIN) else {**ALLOCATOR, **os.environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"exit status {done.returncode} of {' '.join(command)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def common_options(options: argparse.Namespace) -> list[object]:
    """What a child is told of the options that all benchmarks share; the overrides stand last."""
    data = ["--data", options.data] if options.data else []
    return ["--items", options.items, "--rounds", options.rounds, *data, *options.overrides]


def ratio(rates: dict[str, list[float]], way: str, reference: str) -> tuple[float, float, float]:
    """(median, least, most) over the rounds of one way's rate over another's."""
    by_round = [a / b for a, b in zip(rates[way], rates[reference], strict=True)]
    return statistics.median(by_round), min(by_round), max(by_round)


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a large square product, the best of several: what the machine gives."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        begun = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def model_flops(model: Any, batches: Sequence[JudgeBatch]) -> float:
    """FLOPs that forward and backward of these micro-batches need, nothing computed twice.

    A linear layer takes 2 per weight and token forward, 2 for the gradient of its input, and 2 for that of its weight if it is
    trained. Attention takes 4 per head dimension and pair of tokens that see each other forward, and 2.5 times that backward.
    The LM head works at the positions that are read.
    """
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    per_token = sum(module.weight.numel() * (6 if module.weight.requires_grad else 4) for module in layers)
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_pair = 3.5 * 4 * size * config.num_attention_heads * config.num_hidden_layers
    per_read = head.weight.numel() * (6 if head.weight.requires_grad else 4)
    total = 0.0
    for batch in batches:
        pairs = 0.0
        for run in batch.runs:
            own = run.end - run.start
            pairs += own * (own + 1) / 2 + own * sum(end - start for start, end in run.ancestors)
        total += batch.input_ids.numel() * per_token + pairs * per_pair + len(batch.read_positions) * per_read
    return total


def facts(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "tract", "conf"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "lightning")},
        "commit": commit + ("+changes" if changed else ""),
        "command": _command(),
    }


def _command() -> str:
    """The command without folders of this machine."""
    parts = sys.argv[:]
    if "--out" in parts:
        del parts[parts.index("--out") : parts.index("--out") + 2]
    return " ".join(["python", f"benchmarks/{Path(parts[0]).name}", *(Path(part).name if "/" in part else part for part in parts[1:])])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(name: str, out: Path, device: torch.device, columns: Sequence[str], rows: Sequence[Sequence[Any]], **more: Any) -> None:
    """Prints a table and writes it, with the facts of the machine, to ``<out>/<name>.json``."""
    texts = [list(columns), *[[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row] for row in rows]]
    widths = [max(len(row[k]) for row in texts) for k in range(len(columns))]
    for row in texts:
        print(
            "  ".join(text.ljust(width) if k == 0 else text.rjust(width) for k, (text, width) in enumerate(zip(row, widths, strict=True)))
        )
    out.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "facts": facts(device), "rows": [dict(zip(columns, row, strict=True)) for row in rows], **more}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
