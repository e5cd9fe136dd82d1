"""Cost against the size of the data set, the length of prompts, the number of CoTs and the size of the vocabulary.

    python benchmarks/scaling.py --rounds 3
    python benchmarks/scaling.py --tables data --rows 1000 10000 100000
    python benchmarks/scaling.py --tables prompt n_cot --prompts 512 1024 --cots 1 2 model=tiny

data: generated tasks, one annotation each. Building is reading, checking and tokenising into an empty cache; opening is the same
with what that left there, up to the loaders of a training. Peaks are resident anonymous memory of a process of its own, models
apart; the second one includes an epoch over the training loader, or its first --micro-batches.
prompt: optimizer steps of one prompt of random tokens with 3 CoTs of 128, each length in a process of its own.
n_cot: steps of one prompt of 1024 random tokens with several CoTs of 128.
vocabulary: log-probabilities of 512 tokens from hidden states of 576, and their gradient, by tract.models.log_probs and by the log_softmax
of whole logits. Memory is the peak above the inputs, of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from memory import Peak, own_memory
from torch import Tensor
from train_step import our_step, plain_step
from workload import ALONE, PLAIN, SHARED, arguments, common_options, configured, device_of, in_child, in_turn, loaded, ratio, report

from tract.config.schema import Config
from tract.data.batches import TrainingItem
from tract.models.log_probs import chosen_log_probs
from tract.pipeline.stages.fit import build
from tract.pipeline.stages.prepare import Prepared, prepare

COT_TOKENS, PROMPT_TOKENS, PROMPT_COTS = 128, 1024, 3
POSITIONS, HIDDEN = 512, 576
CHUNKS = "chunks"


def small(options: argparse.Namespace) -> tuple[Config, Prepared]:
    """The configuration with a few generated tasks: what is measured here brings its own."""
    few = ["data.source.n_questions=20", "data.source.n_ood_questions=0", "data.source.annotations_per_response=1"]
    return configured(*few, *options.overrides)


def data_child(options: argparse.Namespace) -> dict[str, float]:
    """Builds the data of one size in a cache, or opens what is there and goes through the training loader."""
    cfg, _ = small(options)  # loads libraries and tokenizer, so that the clock sees the data alone
    cfg.data.source["n_questions"] = options.rows[0] // cfg.data.source["responses_per_question"]
    cfg.paths.cache = options.cache
    with Peak(torch.device("cpu")) as peak:
        begun = time.perf_counter()
        data = prepare(cfg)
        _, loaders = build(cfg, data)
        ready = time.perf_counter()
        if options.child == "build":
            items, seconds = 1, 0.0
        else:
            items = sum(len(batch.item_ids) for batch in islice(loaders.train_dataloader(), options.micro_batches))
            seconds = time.perf_counter() - ready
    return {"rows": len(data.store), "ready": ready - begun, "us": seconds / items * 1e6, "peak": peak.mib}


def data_table(options: argparse.Namespace) -> None:
    """Cost against the number of examples."""
    rows = []
    for size in options.rows:
        with tempfile.TemporaryDirectory() as cache:
            told = ["--cache", cache, "--micro-batches", options.micro_batches, "--rows", size, *common_options(options)]
            built, opened = (in_child(__file__, what, told) for what in ("build", "open"))
        rows.append([opened["rows"], built["ready"], built["peak"], opened["ready"], opened["us"], opened["peak"]])
    columns = ["rows", "build s", "build peak MiB", "open s", "us/item", "peak MiB"]
    report("scaling_data", options.out, torch.device("cpu"), columns, rows, micro_batches=options.micro_batches)


def random_item(data: Prepared, prompt_tokens: int, cots: int) -> TrainingItem:
    """A prompt and CoTs of random tokens; what they say moves no cost."""
    rng = random.Random(prompt_tokens)
    ids = sorted(data.tokenizer.get_vocab().values())
    continuations = [(rng.choices(ids, k=COT_TOKENS), rng.randrange(len(data.layout.grid.labels))) for _ in range(cots)]
    return TrainingItem(f"random-{prompt_tokens}", rng.choices(ids, k=prompt_tokens), continuations, data.layout.grid.values[0])


def prompt_child(options: argparse.Namespace) -> dict[str, float]:
    """Seconds and memory of steps of one prompt."""
    cfg, data = small(options)
    device = device_of(cfg)
    model = loaded(cfg, device, "sdpa" if options.child == PLAIN else "tree")
    own_memory(model)
    items = [random_item(data, options.prompts[0], PROMPT_COTS)]
    step = (plain_step if options.child == PLAIN else our_step)(cfg, data, model, items)
    with Peak(device) as peak:
        rates = in_turn({options.child: _returning(1.0, step)}, options.rounds)[options.child]
    return {"seconds": 1 / statistics.median(rates), "peak": peak.mib, "above": peak.mib - peak.before}


def prompt_table(options: argparse.Namespace) -> None:
    """Cost against the length of a prompt."""
    cfg, _ = small(options)
    rows = []
    for length in options.prompts:
        for way in (SHARED, PLAIN) if options.plain else (SHARED,):
            found = in_child(__file__, way, ["--prompts", length, *common_options(options)])
            rows.append([length, way, found["seconds"], found["peak"], found["above"]])
    columns = ["prompt tokens", "way", "s/step", "peak MiB", "above model MiB"]
    report("scaling_prompt", options.out, device_of(cfg), columns, rows, rounds=options.rounds, cots=PROMPT_COTS, cot_tokens=COT_TOKENS)


def n_cot_table(options: argparse.Namespace) -> None:
    """Cost against the number of CoTs of a prompt."""
    cfg, data = small(options)
    device = device_of(cfg)
    model = loaded(cfg, device, "tree")
    rows = []
    for cots in options.cots:
        items = [random_item(data, PROMPT_TOKENS, cots)]
        steps = {way: our_step(cfg, data, model, items, share_prompts=way == SHARED) for way in (ALONE, SHARED)}
        rates = in_turn({way: _returning(cots, step) for way, step in steps.items()}, options.rounds)
        rows += [[cots, way, 1 / statistics.median(rates[way]), *ratio(rates, way, ALONE)] for way in steps]
    columns = ["n_cot", "way", "s/example", "ratio", "least", "most"]
    report("scaling_n_cot", options.out, device, columns, rows, rounds=options.rounds, prompt_tokens=PROMPT_TOKENS, cot_tokens=COT_TOKENS)


def _returning(amount: float, step: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        step()
        return amount

    return run


def head_way(way: str, size: int, *, trained: bool, device: torch.device) -> Callable[[], float]:
    """Log-probabilities of chosen tokens and their gradient, one of two ways."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    hidden = torch.randn(POSITIONS, HIDDEN, generator=generator).to(device, dtype).requires_grad_()
    weight = (torch.randn(size, HIDDEN, generator=generator) / HIDDEN**0.5).to(device, dtype).requires_grad_(trained)
    rows = torch.arange(POSITIONS, device=device)
    tokens = torch.randint(0, size, (POSITIONS,), generator=generator).to(device)

    def log_probs() -> Tensor:
        if way == CHUNKS:
            return chosen_log_probs(hidden, weight, None, rows, tokens)
        return torch.log_softmax((hidden @ weight.T).float(), dim=-1)[rows, tokens]

    def run() -> float:
        log_probs().sum().backward()
        hidden.grad = weight.grad = None
        return 1.0

    return run


def head_child(options: argparse.Namespace) -> dict[str, float]:
    """Memory of one call."""
    cfg, _ = small(options)
    device = device_of(cfg)
    run = head_way(options.child.removeprefix("head "), options.vocabularies[0], trained=options.trained, device=device)
    with Peak(device) as peak:
        run()
    return {"above": peak.mib - peak.before}


def vocabulary_table(options: argparse.Namespace) -> None:
    """Cost of the LM head against the size of the vocabulary."""
    cfg, _ = small(options)
    device = device_of(cfg)
    rows = []
    for size in options.vocabularies:
        for head in ("frozen", "trained"):
            ways = {way: head_way(way, size, trained=head == "trained", device=device) for way in (PLAIN, CHUNKS)}
            rates = in_turn(ways, options.rounds)
            told = ["--vocabularies", size, *(["--trained"] if head == "trained" else []), *common_options(options)]
            above = {way: in_child(__file__, f"head {way}", told)["above"] for way in ways}
            rows += [
                [size, head, way, 1 / statistics.median(rates[way]), *ratio(rates, way, PLAIN), above[way], above[way] / above[PLAIN]]
                for way in ways
            ]
    columns = ["vocabulary", "head", "way", "s", "ratio", "least", "most", "above inputs MiB", "ratio of MiB"]
    report("scaling_vocabulary", options.out, device, columns, rows, rounds=options.rounds, positions=POSITIONS, hidden=HIDDEN)


TABLES = {"data": data_table, "prompt": prompt_table, "n_cot": n_cot_table, "vocabulary": vocabulary_table}
CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "build": data_child,
    "open": data_child,
    SHARED: prompt_child,
    PLAIN: prompt_child,
    f"head {PLAIN}": head_child,
    f"head {CHUNKS}": head_child,
}


def options_of(arguments_given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="which of them (default all)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="examples (default 1000 10000 100000)")
    parser.add_argument("--micro-batches", type=int, default=2_000, help="of an epoch that are loaded (default 2000)")
    parser.add_argument("--prompts", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192], help="tokens (default 512 .. 8192)")
    parser.add_argument("--plain", action="store_true", help="the plain way too, of the prompts' table; takes the memory it takes")
    parser.add_argument("--cots", type=int, nargs="+", default=[1, 2, 4, 8], help="CoTs of a prompt (default 1 2 4 8)")
    parser.add_argument(
        "--vocabularies", type=int, nargs="+", default=[2**15, 2**16, 2**17, 2**18], help="tokens (default 32768 .. 262144)"
    )
    parser.add_argument("--child", choices=list(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--trained", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments_given)


def main() -> None:
    """Makes the chosen tables."""
    options = options_of()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    for name in options.tables:
        print(f"{name}:", flush=True)
        TABLES[name](options)


if __name__ == "__main__":
    main()
