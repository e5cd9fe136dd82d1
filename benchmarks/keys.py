"""A sampling step with the keys of prompts shared (what a CPU does) and with all keys padded (what a GPU does), and its operations.

    python benchmarks/keys.py --threads 1

Random weights of SmolLM2-135M's shape, 10 CoTs: of 2 prompts, and of 10, of 800 to 890 tokens. Times are the process's own on a CPU, so
that others on the machine move them little, and the clock's on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM
from workload import ROOT, report

from tract.inference.hf.live import LiveCache, prefill
from tract.inference.hf.packed_linear import pack_linears

SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
TINY = {**SHAPE, "vocab_size": 512, "hidden_size": 72, "intermediate_size": 64, "num_hidden_layers": 2}
COTS = 10


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations_of(cache: LiveCache, tokens: torch.Tensor) -> int:
    """Operations that torch dispatches for one step."""
    with _Operations() as found:
        cache.append(tokens)
    return found.count


def seconds_of(cache: LiveCache, tokens: torch.Tensor, steps: int) -> float:
    """Of one step, the mean of several."""
    clock = time.process_time if tokens.device.type == "cpu" else time.perf_counter
    begun = clock()
    for _ in range(steps):
        cache.append(tokens)
    if tokens.device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - begun) / steps


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed, in turn (default 5)")
    parser.add_argument("--steps", type=int, default=3, help="in each round (default 3)")
    parser.add_argument("--prompt", type=int, default=800, help="tokens of the shortest prompt (default 800)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--tiny", action="store_true", help="a model of two small layers")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = AutoConfig.for_model("llama", **(TINY if options.tiny else SHAPE))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="tree").eval().requires_grad_(False).to(device)
    pack_linears(model)
    tokens = torch.full((COTS,), 7, device=device)
    caches: dict[tuple[int, bool], LiveCache] = {}
    with torch.no_grad():
        made, _ = prefill(model, [list(range(10, 10 + options.prompt + 10 * k)) for k in range(COTS)], device)
        for prompts in (2, COTS):
            for padded in (False, True):
                caches[prompts, padded] = LiveCache(model, device, padded)
                caches[prompts, padded].admit([made[row * prompts // COTS] for row in range(COTS)])
        operations = {way: operations_of(cache, tokens) for way, cache in caches.items()}
        seconds: dict[tuple[int, bool], list[float]] = {way: [] for way in caches}
        for _ in range(options.rounds):
            for way, cache in caches.items():
                seconds[way].append(seconds_of(cache, tokens, options.steps))
    rows: list[list[Any]] = []
    for (prompts, padded), found in seconds.items():
        ratios = [shared / own for shared, own in zip(seconds[prompts, False], found, strict=True)]
        kind = "padded" if padded else "shared"
        of_ratios = (statistics.median(ratios), min(ratios), max(ratios))
        rows.append([prompts, kind, operations[prompts, padded], 1000 * statistics.median(found), *of_ratios])
    columns = ["prompts", "keys", "operations", "ms", "ratio", "least", "most"]
    report("keys", options.out, device, columns, rows, cots=COTS, rounds=options.rounds, steps=options.steps)


if __name__ == "__main__":
    main()
