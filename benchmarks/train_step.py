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
from workload import arguments, configured, device_of, in_turn, items_of, loaded, ratio, report

from tract.config import Config
from tract.data.batches import Item, collate
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


def our_step(cfg: Config, data: Prepared, model: Any, items: Sequence[Item], *, share_prompts: bool = True) -> Callable[[], float]:
    """One optimizer step, the project's way, with the micro-batches that its sampler cuts."""
    objective = Objective(**vars(cfg.objective))
    module = TractLitModule(lambda: model, data.layout.trie, data.layout.grid, objective, instantiate(cfg.optimizer), None, 1, 1)  # type: ignore[arg-type]
    module.configure_model()
    module.to(next(model.parameters()).device)
    optimizer = instantiate(cfg.optimizer)([p for p in model.parameters() if p.requires_grad])
    totals, tokens = totals_of(items, data), trained_tokens(items, data)
    lengths = np.array(
        [len(collate([item], totals, data.layout, objective.supervised_kinds, share_prompts=share_prompts).input_ids[0]) for item in items]
    )
    sampler = StepSampler(lengths, lengths, lengths, items_per_step=len(items), limits=Limits(None, cfg.batch.micro_batch_tokens), seed=0)
    parts = cut_step(lengths, sampler.micro_batches_per_step)

    def step() -> float:
        for part in parts:
            batch = collate([items[k] for k in part], totals, data.layout, objective.supervised_kinds, share_prompts=share_prompts)
            module.training_step(batch.to(lengths_device), 0).backward()
        module._step_parts.clear()
        module._step_items.clear()
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    lengths_device = next(model.parameters()).device
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
    rows = []
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
            middle, least, most = ratio(rates, way, "plain")
            rows.append([count, way, sorted(found)[len(found) // 2], middle, least, most])
    columns = ["annotations", "way", "tokens/s", "ratio", "least", "most"]
    report("train_step", options.out, device, columns, rows, items=options.items, rounds=options.rounds)


if __name__ == "__main__":
    main()
