"""Runs with made-up judgements, on the disk as the pipeline leaves them: written by the code that the evaluate stage uses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import write_manifest
from tract.artifacts.records import COMPLETE, RunRecord
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.results import Evaluation
from tract.evaluation.scored import Scored
from tract.evaluation.scoring import score_items
from tract.evaluation.statistics import report_of
from tract.inference.judgement import DIRECT, Judgement
from tract.pipeline.stages.evaluate import write_data
from tract.pipeline.stages.predict import Predictions
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
CUE = " So the overall score is "
NO_RECORD = Path()
# A name as somebody with bad intentions would choose it.
HOSTILE = "<script>alert(1)</script> | =1+1 $\\frac{$ `x` _y"
PREDICTORS = ("rail", "decode_free", "no_cot")
CONFIG: dict[str, Any] = {
    "seed": 0,
    "pipeline": ["stage1", "generate", "stage2", "predict", "evaluate"],
    "stage": "evaluate",
    "run": {"name": "tract", "ablation": None, "tags": [], "subprocess_stages": True},
    "objective": {"ce_weight": 1.0, "lambda": 1.0, "ce_on_score": False},
    "stage2": {"objective": {}},
    "data": {"source": {"seed": 0}, "num_workers": 0},
    "grid": {"labels": list(GRID.labels)},
    "evaluation": {"n_cot": 1, "benchmarks": ["test"], "predictors": list(PREDICTORS), "resamples": 40},
    "trainer": {"devices": 1, "precision": "32-true"},
    "paths": {"runs": "runs"},
}


def config_of(**changes: Any) -> dict[str, Any]:
    """A configuration with changes by dotted key, dots as double underscores: ``objective__lambda=0.1``."""
    config = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        *outer, last = name.split("__")
        node = config
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def items_of(benchmark: str, count: int = 24) -> list[BenchmarkItem]:
    """Three items for each question."""
    truth = np.random.default_rng(len(benchmark))
    return [BenchmarkItem(f"{benchmark}-{k}", k, f"q{k // 3}", float(truth.integers(1, 6)), 10 + k, "ok", {}) for k in range(count)]


def judgements_of(items: Sequence[BenchmarkItem], noise: float, seed: int, n_cot: int = 2, flat: bool = False) -> list[Judgement]:
    """Judgements with scores around the true ones, none of the last item; ``flat`` ones say the same about every item."""
    rng = np.random.default_rng(1000 * seed + round(100 * noise))
    found = []
    for item in items if flat else items[:-1]:
        for sample in (DIRECT, *range(n_cot)):
            centre = 3.0 if flat else item.target + rng.normal(0, noise * (2 if sample == DIRECT else 1))
            p = np.exp(-((np.asarray(GRID.values) - centre) ** 2))
            p = 0.99 * p / p.sum()
            written = "I do not know." if not flat and rng.random() < 0.2 else f"Well.{CUE}{int(np.clip(round(centre), 1, 5))}"
            free, finish = (None, "none") if sample == DIRECT else (written, "cue")
            found.append(Judgement(item.id, item.row, sample, (1, 2), "Well.", finish, tuple(p.tolist()), int(p.argmax()), free))
    return found


@dataclass(frozen=True)
class Made:
    """A run: its configuration, its product and the scores that this was computed from, by benchmark."""

    config: Mapping[str, Any]
    product: Path
    scored: Mapping[str, Scored]


def make_run(
    root: Path, noise: float, *, records: Path | None = None, link: bool = True, job: int | None = None, flat: bool = False,
    items: Mapping[str, Sequence[BenchmarkItem]] | None = None, **changes: Any,
) -> Made:  # fmt: skip
    """A complete run below ``root / "runs"``: product, link and record.

    Args:
        records: the folder of its record; None for the run's own, ``NO_RECORD`` for no record.
        noise: of the judge. flat: whether it says the same about every item. items: benchmark -> items; default: "test".
        link: whether the run's folder links to the product. job: its number in a sweep. changes: of the configuration.
    """
    config = config_of(**changes)
    name, seed = config["run"]["name"], config["seed"]
    chosen = {"test": items_of("test")} if items is None else items
    of = {benchmark: (list(own), judgements_of(own, noise, seed, flat=flat)) for benchmark, own in chosen.items()}
    scored = {benchmark: score_items(benchmark, *parts, PREDICTORS, GRID, CUE, 3.0) for benchmark, parts in of.items()}
    identity = StageIdentity(
        "evaluate",
        {"config": config, "noise": noise, "evaluation": {"confidence": 0.95, "failed_score": "middle"}},
        {"flat": str(flat), "items": str(chosen)},
        {},
    )
    folder = root / "runs" / "stages" / f"evaluate-{identity.key}"
    if not folder.exists():
        folder.mkdir(parents=True)
        reports = tuple(
            report_of(own, PREDICTORS, grid=(1, 5), seed=seed, resamples=40, confidence=0.95, bins=4, other=None, other_name=None)
            for own in scored.values()
        )
        write_data(folder, Predictions(GRID, CUE, of, {}), Evaluation("stage2", reports, (), (("confidence", 0.95),), PREDICTORS[0]))
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        write_manifest(folder, {"stage": "evaluate"}, identity)
    run = root / "runs" / name / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    if link:
        (run / folder.name).symlink_to(Path("..") / ".." / "stages" / folder.name)
    if records != NO_RECORD:
        where = run if records is None else records
        product = Path("..") / ".." / ".." / "stages" / folder.name if records is None else folder.resolve()
        overrides = (f"seed={seed}",)
        RunRecord(COMPLETE, config, overrides, {"evaluate": str(product)}, job=job, finished="2026-01-01T00:00:00").write(where)
    return Made(config, folder, scored)
