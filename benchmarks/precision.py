"""How much bfloat16 moves a judge's scores: the same items with the same given CoTs, judged in float32 and in bfloat16.

    python benchmarks/precision.py --items 40                                   generated tasks, the packaged base model
    python benchmarks/precision.py --items 40 --judge RUNS/stages/stage2-...    a trained judge, with its own prompt and grid
    python benchmarks/precision.py --items 40 --data vicuna_eval.json           a benchmark file, its first feedback as the CoT

Judges are loaded and read as the predict stage does it. |RAIL difference| is in points, by item. What the rounding of the weights
does is told apart from the rest by float32 arithmetic on weights that were rounded to bfloat16: against float32 its difference is
that of the weights, and bf16-true's against it is that of the activations. Intervals: 95 %, bootstrap by question.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from workload import ROOT, device_of, report

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judges import find_judge
from tract.config.schema import Config
from tract.evaluation.bootstrap import estimates
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.weighted import TieGroups, weighted_mean, weighted_spearman
from tract.inference.batching import batches_by_length
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.packed_linear import pack_linears
from tract.inference.judgement import Prompt
from tract.models.loading import load_judge
from tract.pipeline.backends import hf_judge
from tract.pipeline.config_rules import sampling_of
from tract.pipeline.stages.generate import prompts_at
from tract.pipeline.stages.predict import PredictStage
from tract.pipeline.validation import validate

FLOAT32, AGAIN, ROUNDED, MIXED, TRUE, STORED = (
    "32-true",
    "32-true, batches of 1",
    "32-true on weights rounded to bf16",
    "bf16-mixed",
    "bf16-true",
    "model.dtype=bfloat16",
)
WAYS = (FLOAT32, AGAIN, ROUNDED, MIXED, TRUE, STORED)
# What is compared with what, and what that says.
PAIRS = (
    (AGAIN, FLOAT32, "rounding of float32"),
    (ROUNDED, FLOAT32, "weights"),
    (TRUE, ROUNDED, "activations"),
    (TRUE, FLOAT32, "both"),
    (MIXED, FLOAT32, "both"),
    (STORED, FLOAT32, "both"),
)
CONFIDENCE, RESAMPLES = 0.95, 2000


def given_items(options: argparse.Namespace) -> tuple[Config, JudgeFiles, list[Prompt], dict[int, tuple[int, ...]], list[str]]:
    """(configuration, judge, prompts, row -> token ids of the CoT, question of each prompt)."""
    source = ["grid=one_to_five", "prompt=finished", f"evaluation.benchmarks=[{options.data}]", "evaluation.prompt=finished"]
    given = [
        "experiment=tract_quickstart", "generation=hf", "evaluation.cots=annotated", f"evaluation.max_items={options.items}",
        "evaluation.n_cot=1", "evaluation.predictors=[rail]", *(source if options.data else []), *options.overrides,
    ]  # fmt: skip
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        resolved = compose("train", given)
    cfg = validate(resolved)
    judge = find_judge(options.judge, cfg)
    stage = PredictStage(cfg, resolved, judge)
    (benchmark,) = stage._benchmarks
    cots = {row: tuple(found[0]) for row, found in stage._given_cots(benchmark).items()}
    asked = stage._asked(benchmark)
    tokens, rows = asked.tokens, asked.judged
    if len(rows) < options.items:
        print(f"{len(rows)} items instead of {options.items}: no more have a CoT and fit the context")
    return cfg, judge, prompts_at(tokens, rows), cots, [benchmark.store.example(row).question_id for row in rows]


def judge_in(way: str, judge: JudgeFiles, cfg: Config) -> HFJudge:
    """The judge at work in one of ``WAYS``."""
    if way == ROUNDED:
        model = load_judge(judge.model, judge.weights, four_bit=judge.four_bit, seed=judge.seed)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(p.bfloat16())
        model = model.to(device_of(cfg))
        pack_linears(model)
        return HFJudge(model, judge.layout, sampling_of(cfg.generation), cfg.seed, autocast=None)
    cfg.trainer["precision"] = way if way in (MIXED, TRUE) else FLOAT32
    return hf_judge(replace(judge, model=replace(judge.model, dtype="bfloat16")) if way == STORED else judge, cfg)


def read(judge: HFJudge, prompts: Sequence[Prompt], cots: dict[int, tuple[int, ...]], size: int) -> tuple[Array, Array]:
    """(RAIL in points, score mass), each [n] float64 in the order of the prompts."""
    found: dict[int, Array] = {}
    for batch in batches_by_length(prompts, size, 1):
        for judgement in judge.read(batch, [[(0, cots[prompt.row])] for prompt in batch]):
            found[judgement.row] = np.asarray(judgement.probabilities, dtype=np.float64)
    probabilities = np.stack([found[prompt.row] for prompt in prompts])
    return probabilities @ np.asarray(judge.layout.grid.values), probabilities.sum(axis=1)


def weighted_quantile(weights: Array, values: Array, share: float) -> Array:
    """[R] float64: the least value with at least ``share`` of the weight at or below it; weights [R, n], values [n]."""
    order = np.argsort(values)
    running = np.cumsum(weights[:, order], axis=1)
    place = (running < share * running[:, -1:]).sum(axis=1)
    found: Array = values[order][np.minimum(place, len(values) - 1)]
    return found


def compared(rail: dict[str, Array], questions: Sequence[str]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """For each of ``PAIRS`` mean, median and 95th percentile of |RAIL difference|, and Spearman's rho, with intervals."""

    def compute(weights: Array) -> dict[tuple[str, str], dict[str, Array]]:
        table = {}
        for way, other, _ in PAIRS:
            difference = np.abs(rail[way] - rail[other])
            table[way, other] = {
                "mean": weighted_mean(weights, difference),
                "median": weighted_quantile(weights, difference, 0.5),
                "p95": weighted_quantile(weights, difference, 0.95),
                "spearman": weighted_spearman(weights, TieGroups.of(rail[way]), TieGroups.of(rail[other])),
            }
        return table

    return estimates(compute, questions, seed=0, resamples=RESAMPLES, confidence=CONFIDENCE)


def rows_of(rail: dict[str, Array], mass: dict[str, Array], questions: Sequence[str]) -> list[list[Any]]:
    """The rows of the table."""
    rows = []
    for (way, other), values in compared(rail, questions).items():
        (says,) = (about for a, b, about in PAIRS if (a, b) == (way, other))
        cells = [values[name] for name in ("mean", "median", "p95")]
        spread = [
            text for cell in cells for text in (f"{cell.value:.2g}", f"{cell.low:.2g}-{cell.high:.2g}" if cell.low is not None else "-")
        ]
        most = float(np.abs(rail[way] - rail[other]).max())
        rho = values["spearman"].value
        rows.append([way, other, says, *spread, most, float(mass[way].mean()), "-" if rho is None else f"{rho:.5f}"])
    return rows


def main() -> None:
    """Judges in each way, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a prometheus-eval file; default: the test split of the quickstart's generated tasks")
    parser.add_argument("--judge", default="base", help="folder of a complete fit stage; default: the base model")
    parser.add_argument("--items", type=int, default=40, help="items to judge (default 40)")
    parser.add_argument("--batch", type=int, default=4, help="prompts that go through the model together (default 4)")
    parser.add_argument("--name", default="precision", help="of the JSON file (default precision)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON files")
    parser.add_argument("overrides", nargs="*", help="of the configuration, e.g. model=smollm2_135m trainer=single")
    options = parser.parse_args()
    cfg, judge, prompts, cots, questions = given_items(options)
    device = device_of(cfg)
    rail, mass, seconds = {}, {}, {}
    for way in WAYS:
        at_work = judge_in(way, judge, cfg)
        begun = time.perf_counter()
        rail[way], mass[way] = read(at_work, prompts, cots, 1 if way == AGAIN else options.batch)
        seconds[way] = round(time.perf_counter() - begun, 1)
        print(f"  {way}: {seconds[way]} s", file=sys.stderr, flush=True)
        del at_work
    columns = ["way", "against", "says", "mean", "95 %", "median", "95 %  ", "p95", "95 % ", "max", "mass", "spearman"]
    items = {"ids": [prompt.id for prompt in prompts], "rail": {way: [float(value) for value in values] for way, values in rail.items()}}
    lengths = [len(prompt.prompt_ids) + len(cots[prompt.row]) for prompt in prompts]
    report(
        options.name, options.out, device, columns, rows_of(rail, mass, questions),
        items=len(prompts), questions=len(set(questions)), judge="base" if options.judge == "base" else judge.name,
        tokens=int(np.mean(lengths)), rail_spread=float(rail[FLOAT32].std()), seconds=seconds, by_item=items,
    )  # fmt: skip


if __name__ == "__main__":
    main()
