"""What a pipeline on a 7B model costs by arithmetic: tokens counted on real rows, FLOPs and bytes of the repository's own estimate.

    python benchmarks/cost.py --data feedback_collection_format.jsonl
    python benchmarks/cost.py --data vicuna_feedback.jsonl experiment=tract_mistral

Nothing is measured. Counted: tokens of each row, by Mistral's tokenizer and the experiment's own prompt. Computed from them: FLOPs of
training (``tract.pipeline.dry_run.model_facts``, what ``dry_run=true`` prints), and bytes that sampling moves: with each step all weights,
and the keys and values of all sequences. From the datasheet: the device's peak and bandwidth. So the time of sampling is a least one: no
engine is faster than its memory, and none reaches all of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from shapes import MISTRAL_7B, write_shape
from workload import ROOT

from tract.config.schema import BATCH_SIZES, Config
from tract.pipeline.dry_run.device import SHARE, hours
from tract.pipeline.dry_run.model_facts import ModelFacts, TokenCounts, describe_model, forward_flops, training_flops
from tract.pipeline.dry_run.plan import items_of
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import validate

# Datasheet of the H100 SXM: dense bfloat16, and its memory.
DEVICE, PEAK, BANDWIDTH = "H100 SXM", 989.4e12, 3.35e12
BYTES = 2  # of bfloat16


@dataclass(frozen=True)
class Counts:
    """Tokens of one row, on average over so many; ``longest`` is the longest row's."""

    rows: int
    prompt: float
    cot: float
    whole: float
    longest: int


@dataclass(frozen=True)
class Cost:
    """Hours of one device for a stage, and what they are made of."""

    tokens: float
    flops: float
    hours: float


def configured(data: str, folder: Path, overrides: list[str]) -> Config:
    """The experiment on a file, with the tokenizer and shape of Mistral-7B; all rows are trained on, none shares its prompt."""
    experiment = [] if any(each.startswith("experiment=") for each in overrides) else ["experiment=tract_mistral"]
    given = [
        *experiment, "data=feedback_jsonl", f"data.path={data}", *write_shape(folder, MISTRAL_7B), "data.val_fraction=0",
        "data.test_fraction=0", "train.keep_weights=last", "logger=none", "data.group_annotations=false", *overrides,
    ]  # fmt: skip
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return validate(compose("train", given))


def training(cfg: Config, rows: float) -> tuple[Counts, Cost]:
    """Tokens of the rows that are there, and a fit stage on so many like them."""
    data, facts = prepare(cfg), describe_model(cfg)
    items, nodes = items_of(cfg, data, "train"), len(data.layout.trie.paths)
    cots = items.own / items.examples - data.layout.max_tail_tokens  # cue, score and end of turn
    counts = Counts(
        int(items.examples.sum()),
        float(np.average(items.prompts, weights=items.examples)),
        float(cots.mean()),
        float((items.prompts + items.own).mean()),
        int((items.prompts + items.own).max()),
    )
    amount = items.counts(nodes, rows / counts.rows * cfg.train.max_epochs)
    flops = training_flops(facts, amount, checkpointing=cfg.model.gradient_checkpointing)
    return counts, Cost(amount.tokens, flops, hours(flops, PEAK, SHARE["gpu"], 1))


def sampling(facts: ModelFacts, counts: Counts, prompts: float, sequences: int) -> Cost:
    """One CoT for each prompt, so many at a time: prompts by FLOPs at the same share as training, tokens by bytes."""
    step = step_bytes(facts, counts, sequences)
    steps = prompts * counts.cot / sequences
    prefill = prompts * forward_flops(facts, _prompt(counts))
    return Cost(prompts * counts.cot, prefill, hours(prefill, PEAK, SHARE["gpu"], 1) + steps * step / BANDWIDTH / 3600)


def step_bytes(facts: ModelFacts, counts: Counts, sequences: int) -> float:
    """What a step that samples a token for each sequence reads: all weights, and keys and values up to the middle of a CoT."""
    each = 2 * facts.layers * facts.layer.keys * BYTES
    return facts.elements * BYTES + sequences * (counts.prompt + counts.cot / 2) * each


def _prompt(counts: Counts) -> TokenCounts:
    return TokenCounts(counts.prompt, reads=1, pairs=counts.prompt * (counts.prompt + 1) / 2)


def costs(cfg: Config, rows: float) -> dict[str, Any]:
    """Counts of the rows that are there, and what a pipeline on so many like them takes of one device."""
    facts = describe_model(cfg)
    counts, fit = training(cfg, rows)
    sampled = {name: asdict(sampling(facts, counts, rows, BATCH_SIZES[name])) for name in ("hf", "vllm")}
    steps = {
        str(size): {"bytes": step_bytes(facts, counts, size), "ms": step_bytes(facts, counts, size) / BANDWIDTH * 1e3}
        for size in (1, 16, 256)
    }
    assumed = {"device": DEVICE, "peak": PEAK, "bandwidth": BANDWIDTH, "share_of_peak": SHARE["gpu"]}
    model = {"parameters": facts.elements, "bytes": facts.elements * BYTES}
    return {
        "counts": asdict(counts), "rows": rows, "epochs": cfg.train.max_epochs, "model": model, "fit": asdict(fit), "sampling": sampled,
        "steps": steps, "not_measured": assumed,
    }  # fmt: skip


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    counts, model, fit = found["counts"], found["model"], found["fit"]
    yield (
        f"counted on {counts['rows']:,} rows: prompt {counts['prompt']:,.0f} tokens, CoT {counts['cot']:,.0f}, in all "
        f"{counts['whole']:,.0f} (the longest {counts['longest']:,})"
    )
    yield f"model: {model['parameters']:,} parameters, {model['bytes'] / 1e9:.1f} GB in bfloat16"
    yield (
        f"a fit stage on {found['rows']:,.0f} rows, {found['epochs']} epochs: {fit['tokens']:.3g} tokens, {fit['flops']:.3g} FLOPs, "
        f"{fit['hours']:.1f} h at {SHARE['gpu']:.0%} (assumed) of the {PEAK / 1e12:.0f} TFLOP/s of one {DEVICE} (datasheet)"
    )
    for name, cost in found["sampling"].items():
        yield f"CoTs by {name}, {BATCH_SIZES[name]} at a time: {cost['tokens']:.3g} tokens, at least {cost['hours']:.1f} h"
    for size, step in found["steps"].items():
        yield f"a sampling step of {size}: {step['bytes'] / 1e9:.1f} GB, {step['ms']:.1f} ms at {BANDWIDTH / 1e12:.2f} TB/s (datasheet)"


def main() -> None:
    """Counts, computes, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="JSON lines in the schema of the Feedback Collection")
    parser.add_argument("--rows", type=float, default=98_000, help="that are trained on (default 98000: 98 %% of the Feedback Collection)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("overrides", nargs="*", help="of the configuration, e.g. experiment=tract_mistral (the default)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = costs(configured(options.data, Path(folder) / "shape", options.overrides), options.rows)
    print("\n".join(lines_of(found)))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
