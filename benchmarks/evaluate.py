"""Judged examples per second with several CoTs each: one live cache beside generate-then-rescore.

    python benchmarks/evaluate.py --data FEEDBACK.jsonl --items 2 --n-cot 5 --tokens 128

Both ways take a judge whose adapter is merged, sample the same number of tokens for each CoT (neither may stop before) and read
the expected score behind the cue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from reference import generate_then_rescore
from workload import arguments, configured, device_of, in_turn, items_of, loaded_judge, ratio, report

from tract.config.schema import Config
from tract.data.batches import TrainingItem
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.judgement import Prompt
from tract.inference.sampling import Sampling
from tract.pipeline.stages.prepare import Prepared


def plain_way(data: Prepared, model: Any, items: Sequence[TrainingItem], n_cot: int, tokens: int, batch: int) -> Callable[[], float]:
    """Generates with transformers in batches of prompts, then rescores; returns the number of examples."""

    def judge() -> float:
        for first in range(0, len(items), batch):
            prompts = [item.prompt_ids for item in items[first : first + batch]]
            generate_then_rescore(model, data.layout, prompts, n_cot, tokens, data.tokenizer.pad_token_id)
        return len(items)

    return judge


def our_way(
    cfg: Config, data: Prepared, model: Any, items: Sequence[TrainingItem], n_cot: int, tokens: int, rows: int
) -> Callable[[], float]:
    """The project's judge; returns the number of examples."""
    sampling = Sampling(cfg.generation.temperature, cfg.generation.top_p, cfg.generation.repetition_penalty, tokens)
    pack_linears(model)
    judge = HFJudge(model, data.layout, sampling, seed=0, autocast=None)
    never_ending(judge)
    prompts = [Prompt(item.id, row, item.prompt_ids) for row, item in enumerate(items)]

    def run() -> float:
        judgements = judge.judge(prompts, n_cot, rows=rows, without_cot=False, free=False)
        assert {len(judgement.cot_ids) for judgement in judgements} == {tokens}
        return len(items)

    return run


def never_ending(judge: HFJudge) -> None:
    """No token ends a CoT, so that all are as long as the limit."""
    judge._finder.end_ids = frozenset()
    judge._finder.cot_length = lambda ids: None  # type: ignore[method-assign]
    # Else sampling goes on for a cue that may have begun at the limit.
    judge._cue_margin = 0


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--n-cot", type=int, nargs="+", default=[5, 1], help="CoTs of each example (default 5 1)")
    parser.add_argument("--tokens", type=int, default=128, help="of each CoT (default 128)")
    parser.add_argument("--batch", type=int, default=2, help="prompts that go through the model together (default 2)")
    options = parser.parse_args()
    cfg, data = configured(*options.overrides, data=options.data)
    device = device_of(cfg)
    torch.manual_seed(0)
    plain_model, model = (loaded_judge(cfg, device, attention) for attention in ("sdpa", "tree"))
    items = items_of(cfg, data, options.items, 1)
    rows = []
    for n_cot in options.n_cot:
        rates = in_turn(
            {
                "generate, rescore": plain_way(data, plain_model, items, n_cot, options.tokens, options.batch),
                "live cache": our_way(cfg, data, model, items, n_cot, options.tokens, options.batch * n_cot),
            },
            options.rounds,
        )
        for way, found in rates.items():
            middle, least, most = ratio(rates, way, "generate, rescore")
            rows.append([n_cot, way, sorted(found)[len(found) // 2], middle, least, most])
    columns = ["n_cot", "way", "examples/s", "ratio", "least", "most"]
    report("evaluate", options.out, device, columns, rows, items=options.items, rounds=options.rounds, tokens=options.tokens)


if __name__ == "__main__":
    main()
