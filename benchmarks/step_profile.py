"""Where the time of a training step and of a sampling step goes, by kind of kernel.

    python benchmarks/step_profile.py --data FEEDBACK.jsonl --items 2 --n-cot 5 --steps 32

Under torch's profiler, after a step that is not counted. "between kernels" is what the clock shows beyond the kernels without the
profiler: Python and the dispatch of operations, the most that static shapes and compilation could save besides fused elementwise
kernels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from train_step import our_step
from workload import arguments, configured, device_of, items_of, loaded, loaded_judge, report

from tract.config.schema import Config
from tract.data.batches import TrainingItem
from tract.inference.hf.live import LiveCache, prefill
from tract.inference.hf.packed_linear import pack_linears
from tract.pipeline.stages.prepare import Prepared

# Kind -> parts of the names of torch's operations; what fits none is elementwise work and copies.
KINDS = {
    "attention": ("attention", "flash"),
    "linear layers": ("::mm", "::addmm", "_linear_pointwise"),
    "batched products": ("::bmm", "::baddbmm"),
}
ELEMENTWISE, BETWEEN = "elementwise, copies", "between kernels"


def kind_of(operation: str) -> str:
    """What an operation is counted as."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), ELEMENTWISE)


def shares(step: Callable[[], Any], device: torch.device, steps: int) -> dict[str, float]:
    """Seconds of one step by kind, the mean of several; they add up to what the clock shows."""

    def timed() -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / steps

    step()
    whole = timed()
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch.profiler.profile(activities=activities) as profile:
        timed()
    found: Counter[str] = Counter()
    for event in profile.key_averages():
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found[kind_of(event.key)] += own / 1e6 / steps
    return {**{kind: found[kind] for kind in (*KINDS, ELEMENTWISE)}, BETWEEN: whole - found.total()}


def sampling_step(cfg: Config, data: Prepared, items: list[TrainingItem], n_cot: int) -> Callable[[], torch.Tensor]:
    """One more token for each of the CoTs of some prompts, the prompts' keys at hand."""
    device = device_of(cfg)
    model = loaded_judge(cfg, device, "tree").eval()
    pack_linears(model)
    with torch.inference_mode():
        prompts, _ = prefill(model, [item.prompt_ids for item in items], device)
        live = LiveCache(model, device)
        live.admit([prompt for prompt in prompts for _ in range(n_cot)])
    tokens = torch.full((len(live),), items[0].prompt_ids[-1], device=device)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        return live.append(tokens)

    return step


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--n-cot", type=int, default=5, help="CoTs of each prompt (default 5)")
    parser.add_argument("--steps", type=int, default=32, help="sampling steps; an eighth as many of training (default 32)")
    options = parser.parse_args()
    cfg, data = configured(*options.overrides, data=options.data)
    device = device_of(cfg)
    torch.manual_seed(0)
    items = items_of(cfg, data, options.items, 1)
    training = our_step(cfg, data, loaded(cfg, device, "tree"), items)
    found = {
        "training": shares(training, device, max(1, options.steps // 8)),
        "sampling": shares(sampling_step(cfg, data, items, options.n_cot), device, options.steps),
    }
    rows = [[work, kind, 1000 * seconds, seconds / sum(parts.values())] for work, parts in found.items() for kind, seconds in parts.items()]
    more = {"items": options.items, "n_cot": options.n_cot, "steps": options.steps}
    report("step_profile", options.out, device, ["step", "part", "ms", "share"], rows, **more)


if __name__ == "__main__":
    main()
