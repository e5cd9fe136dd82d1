"""A tiny run's judge: what it is asked in tests, and how an export of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from composing import composed
from tiny_pipeline import SMALL, Tiny

from tract.artifacts.judge_settings import read_settings
from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import Judgement, Prompt
from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout

FEEDBACK = Path(__file__).resolve().parents[1] / "fixtures" / "feedback_collection.jsonl"


@dataclass(frozen=True)
class Runs:
    """Runs in one store.

    Attributes:
        tiny: where. products: of the whole pipeline, with an adapter, by stage.
        whole: the stage of a judge whose weights were all trained. finished: that of one trained on finished prompts.
    """

    tiny: Tiny
    products: dict[str, Product]
    whole: Path
    finished: Path

    @property
    def folder(self) -> Path:
        """The folder of the run with an adapter."""
        return self.tiny.root / "runs" / "tiny" / "seed0"

    @property
    def cfg(self) -> Config:
        """Its configuration."""
        return validate(self.tiny.compose())


@dataclass(frozen=True)
class Questions:
    """Prompts with CoTs that a judge wrote for them, and what its own engine reads behind these."""

    prompts: list[Prompt]
    cots: list[list[tuple[int, tuple[int, ...]]]]

    def read(self, judge: HFJudge) -> torch.Tensor:
        """[N, K] score distributions behind all CoTs."""
        return torch.tensor([judgement.probabilities for judgement in judge.read(self.prompts, self.cots)])

    def judged(self, judge: HFJudge) -> list[Judgement]:
        """Judgements of the first two, with CoTs of its own."""
        return judge.judge(self.prompts[:2], 2, rows=4, without_cot=True, free=True)


def exported_judge(model: Any, tokenizer: Any, folder: Path) -> HFJudge:
    """A judge on a model that somebody else loaded from an export."""
    settings = read_settings(folder / "judge_config.json")
    layout = SequenceLayout.from_dict(tokenizer, dict(settings.layout))
    return HFJudge(model.eval(), layout, settings.sampling, settings.seed, None)


def run_on_finished_prompts(tiny: Tiny, data: Path = FEEDBACK, *overrides: str) -> Path:
    """The stage of a judge that was trained on the finished prompts of a file."""
    small = [override for override in SMALL if not override.startswith("data.source.")]
    paths = [f"paths.runs={tiny.root}/runs", f"paths.cache={tiny.root}/cache"]
    own = [
        "data=feedback_jsonl", f"data.path={data}", "prompt=finished_official", "stages=[stage1]", "run.name=finished",
        "train.max_steps=1", "data.val_fraction=0", "data.test_fraction=0",
    ]  # fmt: skip
    return run_pipeline(composed([*small, *paths, *own, *overrides]))["stage1"].path
