"""Sampled tokens per second, and what the share of CoTs that end early costs: places taken anew beside batches that wait.

    python benchmarks/generate.py --data FEEDBACK.jsonl --items 8 --n-cot 1 --rows 4

CoTs of very different lengths are sampled: a length is drawn for each, between a few tokens and the limit. "waiting" begins the
next prompts when all of a batch have ended; "refilled, shared keys" is what the project does on a CPU, "refilled, padded keys" what it
does on a GPU. All draw the same tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from workload import arguments, configured, device_of, in_turn, items_of, loaded_judge, ratio, report

from tract.config.schema import Config
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.judgement import Prompt
from tract.inference.sampling import Sampling
from tract.pipeline.stages.prepare import Prepared


def judge_with_lengths(cfg: Config, data: Prepared, model: Any, tokens: int, *, padded: bool) -> HFJudge:
    """A judge whose CoTs end by chance: each sampled token may be the last one."""
    sampling = Sampling(cfg.generation.temperature, cfg.generation.top_p, cfg.generation.repetition_penalty, tokens)
    judge = HFJudge(model, data.layout, sampling, seed=0, autocast=None, padded=padded)
    judge._cue_margin = 0
    judge._finder.end_ids = frozenset()
    chances: dict[tuple[int, ...], int] = {}

    def ended(ids: Sequence[int]) -> int | None:
        # The first tokens decide when it ends, so that both ways end alike.
        limit = chances.setdefault(tuple(ids[:4]), random.Random(repr(ids[:4])).randint(min(8, tokens), tokens))
        return len(ids) if len(ids) >= max(limit, 5) else None

    judge._finder.cot_length = ended  # type: ignore[method-assign]
    return judge


def sampler(judge: HFJudge, prompts: Sequence[Prompt], n_cot: int, rows: int, *, refill: bool) -> Callable[[], float]:
    """Samples all CoTs; returns the number of their tokens."""
    per_batch = max(1, rows // n_cot)
    parts = [prompts] if refill else [prompts[first : first + per_batch] for first in range(0, len(prompts), per_batch)]

    def run() -> float:
        found = [j for part in parts for j in judge.judge(part, n_cot, rows=rows, without_cot=False, free=False)]
        return sum(len(judgement.cot_ids) for judgement in found)

    return run


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--n-cot", type=int, default=1, help="CoTs of each prompt (default 1)")
    parser.add_argument("--tokens", type=int, default=128, help="of the longest CoT (default 128)")
    parser.add_argument("--rows", type=int, default=4, help="CoTs that are sampled together (default 4)")
    options = parser.parse_args()
    cfg, data = configured(*options.overrides, data=options.data)
    device = device_of(cfg)
    model = loaded_judge(cfg, device, "tree")
    items = sorted(items_of(cfg, data, options.items, 1), key=lambda item: -len(item.prompt_ids))
    prompts = [Prompt(item.id, row, item.prompt_ids) for row, item in enumerate(items)]
    pack_linears(model)
    shared, padded = (judge_with_lengths(cfg, data, model, options.tokens, padded=padded) for padded in (False, True))
    torch.manual_seed(0)
    rates = in_turn(
        {
            "waiting": sampler(shared, prompts, options.n_cot, options.rows, refill=False),
            "refilled, shared keys": sampler(shared, prompts, options.n_cot, options.rows, refill=True),
            "refilled, padded keys": sampler(padded, prompts, options.n_cot, options.rows, refill=True),
        },
        options.rounds,
    )
    rows = [[way, sorted(found)[len(found) // 2], *ratio(rates, way, "waiting")] for way, found in rates.items()]
    more = {"items": options.items, "rounds": options.rounds, "n_cot": options.n_cot, "tokens": options.tokens, "together": options.rows}
    report("generate", options.out, device, ["way", "tokens/s", "ratio", "least", "most"], rows, **more)


if __name__ == "__main__":
    main()
