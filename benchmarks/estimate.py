"""The memory that a dry run estimates beside the peak of the training itself, on a CPU; each in a process of its own.

    python benchmarks/estimate.py

The training is stage 1 of the quickstart, by the trainer of the fit stage: two optimizer steps, so that gradients and optimizer are
there when the second forward pass ends. The peak is that of resident anonymous memory, as in memory.py; what the process held
before the model was loaded is reported apart, beside what the estimate assumes for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from memory import Peak, own_memory, resident_mib
from workload import ROOT, arguments, in_child, report

from tract.models.loading import load_model
from tract.pipeline.dry_run.memory import PROCESS_BYTES, total
from tract.pipeline.dry_run.plan import needs, plan_of
from tract.pipeline.stages import fit as fit_stage
from tract.pipeline.validation import validate

MIB = 2**20
WAYS = tuple(f"adapter={adapter} model.gradient_checkpointing={on}" for adapter in ("full", "lora") for on in ("false", "true"))


def owned_model(*arguments: Any, **options: Any) -> Any:
    """The model with its weights copied out of the file that they may be mapped from, so that frozen ones count."""
    model = load_model(*arguments, **options)
    own_memory(model)
    return model


def child(way: str, overrides: list[str], steps: int) -> dict[str, float]:
    """Estimates one training, then runs it."""
    fit_stage.load_model = owned_model  # type: ignore[assignment]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")), tempfile.TemporaryDirectory() as runs:
        resolved = compose(
            "train",
            [
                "experiment=tract_quickstart", *way.split(), f"paths.runs={runs}", "logger=none", "trainer.enable_progress_bar=false",
                f"train.max_steps={steps}", "batch.global_batch_size=8", "data.max_train_items=16", "data.max_val_items=2", *overrides,
            ],
        )  # fmt: skip
        cfg = validate(resolved)
        plan = plan_of("stage1", cfg, None)
        work, parts = needs(plan, cfg)
        before = resident_mib()
        with Peak(torch.device("cpu")) as peak:
            fit_stage.fit(cfg, resolved)
    return {
        "tokens": work.micro.tokens,
        "estimate": (total(parts) - PROCESS_BYTES["cpu"]) / MIB,
        "measured": peak.mib - before,
        "process": before,
    }


def main() -> None:
    """Measures each way and writes the table."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps (default 2)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.overrides, options.steps)))
        return
    rows = []
    for way in WAYS:
        found = in_child(__file__, way, ["--steps", options.steps, *options.overrides])
        ratio = found["estimate"] / found["measured"]
        print(f"  {way}: {found}", file=sys.stderr, flush=True)
        rows.append([way, found["tokens"], found["estimate"], found["measured"], ratio, found["process"]])
    columns = ["way", "tokens", "estimate MiB", "measured MiB", "ratio", "process MiB"]
    report("estimate", options.out, torch.device("cpu"), columns, rows, steps=options.steps)


if __name__ == "__main__":
    main()
