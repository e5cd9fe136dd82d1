"""Trained tokens per second of whole optimizer steps, the project's way beside the plain one.

    python benchmarks/train_step.py --data FEEDBACK.jsonl --items 8 --rounds 3

All ways take the same examples through the same model and objective and step the same optimizer. Tokens are those of the
examples, each with its prompt, so that the rates compare. Reference: random padded batches of 4, logits at every position.

In each round the ways run in turn, each in a new process, as trainings do: in one process the memory that one way gives back is
what the next one must ask for anew. The first step of a process is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from reference import examples_of, loss_shares
from workload import (
    ALONE,
    PLAIN,
    SHARED,
    arguments,
    common_options,
    configured,
    device_of,
    in_child,
    items_of,
    loaded,
    matmul_peak,
    model_flops,
    precision_of,
    ratio,
    report,
)

from tract.config.schema import Config
from tract.data.batches import JudgeBatch, TrainingItem, collate
from tract.data.steps import Limits, StepSampler, StepTotals, cut_step
from tract.method.lit_module import TractLitModule
from tract.method.objective import Objective
from tract.pipeline.stages.prepare import Prepared

REFERENCE_BATCH = 4


def totals_of(items: Sequence[TrainingItem], data: Prepared) -> StepTotals:
    """Counts of the whole step."""
    fixed = len(data.layout.cue_ids) + 1
    return StepTotals(
        sum(len(cot) + fixed for item in items for cot, _ in item.continuations), sum(len(item.continuations) for item in items)
    )


def trained_tokens(items: Sequence[TrainingItem], data: Prepared) -> int:
    """Tokens of the examples, each with its own prompt."""
    return sum(len(data.layout.tree(prompt, [(cot, score)]).input_ids) for prompt, cot, score in examples_of(items))


def plain_step(cfg: Config, data: Prepared, model: Any, items: Sequence[TrainingItem], seed: int = 0) -> Callable[[], float]:
    """One optimizer step, the plain way."""
    optimizer = instantiate(cfg.optimizer)([p for p in model.parameters() if p.requires_grad])
    totals, tokens, rng = totals_of(items, data), trained_tokens(items, data), random.Random(seed)

    def step() -> float:
        examples = examples_of(items)
        rng.shuffle(examples)
        for first in range(0, len(examples), REFERENCE_BATCH):
            batch = examples[first : first + REFERENCE_BATCH]
            loss_shares(model, data.layout, batch, data.tokenizer.pad_token_id, totals.ce_tokens, totals.examples).backward()
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    return step


def our_batches(cfg: Config, data: Prepared, items: Sequence[TrainingItem], *, share_prompts: bool = True) -> list[JudgeBatch]:
    """The micro-batches of one step, as the project's sampler cuts it."""
    supervised = Objective(**vars(cfg.objective)).supervised_kinds
    totals = totals_of(items, data)

    def collated(some: Sequence[TrainingItem]) -> JudgeBatch:
        return collate(some, totals, data.layout, supervised, share_prompts=share_prompts)

    lengths = np.array([collated([item]).input_ids.shape[1] for item in items])
    limits = Limits(cfg.batch.micro_batch_size, cfg.batch.max_tokens_per_micro_batch)
    sampler = StepSampler(lengths, lengths, lengths, global_batch_size=len(items), limits=limits, seed=0)
    return [collated([items[k] for k in part]) for part in cut_step(lengths, sampler.micro_batches_per_step)]


def our_step(cfg: Config, data: Prepared, model: Any, items: Sequence[TrainingItem], *, share_prompts: bool = True) -> Callable[[], float]:
    """One optimizer step, the project's way, collating included."""
    objective, device = Objective(**vars(cfg.objective)), next(model.parameters()).device
    module = TractLitModule(lambda: model, data.layout.trie, data.layout.grid, objective, instantiate(cfg.optimizer), None, 1, 1)  # type: ignore[arg-type]
    module.configure_model()
    module.to(device)
    optimizer = instantiate(cfg.optimizer)([p for p in model.parameters() if p.requires_grad])
    tokens = trained_tokens(items, data)

    def step() -> float:
        for batch in our_batches(cfg, data, items, share_prompts=share_prompts):
            module.training_step(batch.to(device), 0).backward()
        module.step_record.values.clear()
        module.step_record.item_ids.clear()
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    return step


class ChildWork:
    """What a process that runs one way (``--child``) works on: data, items, and the model on its device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.way: str = options.child
        self.cfg, self.data = configured(*options.overrides, data=options.data)
        self.device = device_of(self.cfg)
        torch.manual_seed(0)
        self.items = items_of(self.cfg, self.data, options.items, options.annotations[0])
        self.model = loaded(self.cfg, self.device, "sdpa" if self.way == PLAIN else "tree")

    def step(self) -> Callable[[], float]:
        """One optimizer step, this way, in the precision of the configured trainer."""
        if self.way == PLAIN:
            step = plain_step(self.cfg, self.data, self.model, self.items)
        else:
            step = our_step(self.cfg, self.data, self.model, self.items, share_prompts=self.way == SHARED)

        def run() -> float:
            with precision_of(self.cfg, self.device):
                return step()

        return run


def child(options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one way in this process, and its share of the FLOP/s that a large product gets here."""
    work = ChildWork(options)
    step = work.step()
    seconds, tokens = 0.0, 0.0
    for number in range(options.steps + 1):
        begun = time.perf_counter()
        done = step()
        if work.device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            seconds, tokens = seconds + time.perf_counter() - begun, tokens + done
    rate = tokens / seconds
    batches = our_batches(work.cfg, work.data, work.items, share_prompts=work.way == SHARED)
    needed = model_flops(work.model, batches) / trained_tokens(work.items, work.data)
    return {"rate": rate, "share": needed * rate / matmul_peak(work.device, next(work.model.parameters()).dtype)}


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--annotations", type=int, nargs="+", default=[3, 1], help="annotations of a prompt (default 3 1)")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps that are timed in each process, after one (default 1)")
    parser.add_argument("--child", choices=[PLAIN, ALONE, SHARED], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    cfg, _ = configured(*options.overrides, data=options.data)  # fills the cache, so that no child has to
    rows: list[list[Any]] = []
    for count in options.annotations:
        ways = (PLAIN, ALONE, SHARED) if count > 1 else (PLAIN, ALONE)  # of one there is nothing to share
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(options.rounds):
            for way in ways:
                told = ["--annotations", count, "--steps", options.steps, *common_options(options)]
                found[way].append(in_child(__file__, way, told))
                print(f"  round {number}: {way}: {found[way][-1]['rate']:.4g} tokens/s", file=sys.stderr, flush=True)
        rates = {way: [each["rate"] for each in several] for way, several in found.items()}
        for way, several in rates.items():
            share = "-" if way == PLAIN else f"{statistics.median(each['share'] for each in found[way]):.0%}"
            rows.append([count, way, statistics.median(several), *ratio(rates, way, PLAIN), share])
    columns = ["annotations", "way", "tokens/s", "ratio", "least", "most", "of matmul peak"]
    more = {"items": options.items, "rounds": options.rounds, "steps": options.steps}
    report("train_step", options.out, device_of(cfg), columns, rows, **more)


if __name__ == "__main__":
    main()
