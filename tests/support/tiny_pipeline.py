"""The tiny pipeline of the tests: a few items, a random model, everything in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composing import composed
from omegaconf import DictConfig

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.stages.examples import examples_of

# 24 questions: 48 items, of which 6 are validation, 6 test, and 4 ood.
SMALL = (
    "model=tiny", "data.source.n_questions=24", "data.source.n_ood_questions=2", "data.val_fraction=0.125", "data.test_fraction=0.125",
    "logger=none", "trainer.enable_progress_bar=false", "run.subprocess_stages=false", "run.name=tiny",
    "batch.global_batch_size=4", "batch.micro_batch_size=4", "batch.max_tokens_per_micro_batch=null",
    "train.max_steps=2", "train.keep_weights=last", "train.validate_base_model=false",
    "optimizer.lr=0.01", "data.max_train_items=8",
    "generation.max_cot_tokens=12", "generation.n_cot=2", "generation.batch_size=16",
    "evaluation.n_cot=2", "evaluation.resamples=20", "evaluation.benchmarks=[test,ood]",
)  # fmt: skip


@contextmanager
def captured() -> Iterator[list[str]]:
    """The lines that the package logs meanwhile."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("tract"), Lines(logging.INFO)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@dataclass(frozen=True)
class Tiny:
    """A store of runs and a cache, in which tiny pipelines are run."""

    root: Path

    def compose(self, *overrides: str, config: str = "train") -> DictConfig:
        """The configuration of a tiny pipeline; later overrides win."""
        paths = [f"paths.runs={self.root}/runs", f"paths.cache={self.root}/cache"]
        given = {override.partition("=")[0] for override in overrides}
        small = [override for override in (*SMALL, *paths) if override.partition("=")[0] not in given]
        return composed([*small, *overrides], config)

    def run(self, *overrides: str, config: str = "train") -> tuple[dict[str, Product], list[str]]:
        """(products, log lines) of a pipeline."""
        resolved = self.compose(*overrides, config=config)
        with captured() as lines:
            products = run_pipeline(resolved)
        return products, lines

    @property
    def store(self) -> set[str]:
        """The names of all complete products."""
        return {path.parent.name for path in (self.root / "runs" / "stages").glob("*/manifest.json")}

    def links(self, name: str = "tiny") -> set[str]:
        """The names of the links in the folder of a run."""
        return {path.name for path in (self.root / "runs" / name / "seed0").iterdir() if path.is_symlink()}


def made(lines: Sequence[str]) -> list[str]:
    """The stages that were made, in order, by the log."""
    return [_stage_of(line) for line in lines if ": finished, " in line]


def reused(lines: Sequence[str]) -> list[str]:
    """The stages that were reused, in order, by the log."""
    return [_stage_of(line) for line in lines if ": reused, " in line]


def _stage_of(line: str) -> str:
    return line.partition(":")[0].partition(" (")[0]


def records(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(product: Product) -> dict[str, Any]:
    """The content of ``metrics.json``."""
    content: dict[str, Any] = json.loads((product.path / "metrics.json").read_text(encoding="utf-8"))
    return content


def prompts_of(judge: JudgeFiles, cfg: Config) -> dict[str, list[int]]:
    """Id -> token ids of the prompt of each example, worded and encoded anew."""
    store = examples_of(cfg, judge.layout.grid)
    examples = (store.example(row) for row in range(len(store)))
    return {example.id: judge.layout.prompt_ids(judge.template.render(example, judge.layout.grid)) for example in examples}
