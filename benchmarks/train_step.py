"""Trained tokens per second of whole optimizer steps, the project's way beside the plain one.

    python benchmarks/train_step.py --data FEEDBACK.jsonl --items 8 --rounds 3

Both ways take the same examples through the same model and objective and step the same optimizer. Tokens are those of the
examples, each with its prompt, so that the rates compare. Reference: random padded batches of 4, logits at every position.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from reference import examples_of, loss_shares
from workload import arguments, configured, device_of, in_turn, items_of, loaded, matmul_peak, model_flops, ratio, report

from tract.config import Config
from tract.data.batches import Item, JudgeBatch, collate
from tract.data.steps import Limits, StepSampler, cut_step
from tract.lit_module import TractLitModule
from tract.objective import Objective, StepTotals
from tract.stages.prepare import Prepared

REFERENCE_BATCH = 4


def totals_of(items: Sequence[Item], data: Prepared) -> StepTotals:
    """Counts of the whole step."""
    fixed = len(data.layout.cue_ids) + 1
    return StepTotals(
        sum(len(cot) + fixed for item in items for cot, _ in item.continuations), sum(len(item.continuations) for item in items)
    )


def trained_tokens(items: Sequence[Item], data: Prepared) -> int:
    """Tokens of the examples, each with its own prompt."""
    return sum(len(data.layout.tree(prompt, [(cot, score)]).input_ids) for prompt, cot, score in examples_of(items))


def plain_step(cfg: Config, data: Prepared, model: Any, items: Sequence[Item], seed: int = 0) -> Callable[[], float]:
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


def our_batches(cfg: Config, data: Prepared, items: Sequence[Item], *, share_prompts: bool = True) -> list[JudgeBatch]:
    """The micro-batches of one step, as the project's sampler cuts it."""
    supervised = Objective(**vars(cfg.objective)).supervised_kinds
    totals = totals_of(items, data)

    def collated(some: Sequence[Item]) -> JudgeBatch:
        return collate(some, totals, data.layout, supervised, share_prompts=share_prompts)

    lengths = np.array([collated([item]).input_ids.shape[1] for item in items])
    limits = Limits(cfg.batch.micro_batch_size, cfg.batch.micro_batch_tokens)
    sampler = StepSampler(lengths, lengths, lengths, items_per_step=len(items), limits=limits, seed=0)
    return [collated([items[k] for k in part]) for part in cut_step(lengths, sampler.micro_batches_per_step)]


def our_step(cfg: Config, data: Prepared, model: Any, items: Sequence[Item], *, share_prompts: bool = True) -> Callable[[], float]:
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
        module._step_parts.clear()
        module._step_items.clear()
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    return step


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--annotations", type=int, nargs="+", default=[3, 1], help="annotations of a prompt (default 3 1)")
    options = parser.parse_args()
    cfg, data = configured(*options.overrides, data=options.data)
    device = device_of(cfg)
    torch.manual_seed(0)
    plain_model, model = loaded(cfg, device, "sdpa"), loaded(cfg, device, "tree")
    peak = matmul_peak(device, next(model.parameters()).dtype)
    rows: list[list[Any]] = []
    for count in options.annotations:
        items = items_of(cfg, data, options.items, count)
        ways = {
            "plain": plain_step(cfg, data, plain_model, items),
            "one sequence each": our_step(cfg, data, model, items, share_prompts=False),
            "shared prompts": our_step(cfg, data, model, items),
        }
        if count == 1:  # there is nothing to share
            del ways["shared prompts"]
        rates = in_turn(ways, options.rounds)
        for way, found in rates.items():
            rate = sorted(found)[len(found) // 2]
            flops = "-"
            if way != "plain":
                needed = model_flops(model, our_batches(cfg, data, items, share_prompts=way == "shared prompts"))
                flops = f"{needed / trained_tokens(items, data) * rate / peak:.0%}"
            rows.append([count, way, rate, *ratio(rates, way, "plain"), flops])
    columns = ["annotations", "way", "tokens/s", "ratio", "least", "most", "of matmul peak"]
    more = {"items": options.items, "rounds": options.rounds, "matmul_peak_flops": peak}
    report("train_step", options.out, device, columns, rows, **more)


if __name__ == "__main__":
    main()
