"""What a judge is evaluated on: splits of the configured data, and benchmark files by path or folder."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from tract.common.errors import ConfigError, DataError
from tract.config.schema import Config
from tract.config.vocabulary import SPLITS
from tract.data.perturbed import Perturbed
from tract.data.readers.formats import ACCEPTED, format_of
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.data.store import ExampleStore, build_store
from tract.models.base_layout import base_layout
from tract.pipeline.stages.examples import examples_of, splits_of, store_of
from tract.text.perturbations import Scale, perturbation_names
from tract.text.prompts import PromptTemplate
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """Examples with a true score.

    Attributes:
        name: of the split or file. store: its examples. rows: those to judge, ascending.
        without_target: examples that were left out because nothing says what they are worth.
        base, perturbation: of which benchmark these are the items, and how they were changed; None for a benchmark as it is.
        unchanged: items of ``base`` that the perturbation does not apply to, or whose prompts do not show it.
    """

    name: str
    store: ExampleStore
    rows: tuple[int, ...]
    without_target: int
    base: str | None = None
    perturbation: str | None = None
    unchanged: int = 0


def find_benchmarks(cfg: Config, grid: ScoreGrid) -> list[Benchmark]:
    """The benchmarks of ``evaluation.benchmarks``; a folder stands for each of its files.

    Raises:
        ConfigError, DataError: if there is none, or one has no example with a true score.
    """
    found: list[Benchmark] = []
    for name in cfg.evaluation.benchmarks:
        if name in SPLITS:
            store = examples_of(cfg, grid)
            found.append(_benchmark(name, store, splits_of(cfg, store)[name], cfg))
            continue
        for path in _files(name):
            store = store_of(PrometheusEval(str(path)), cfg, grid)
            found.append(_benchmark(path.stem, store, list(range(len(store))), cfg))
    names = [benchmark.name for benchmark in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"evaluation.benchmarks: {twice} stand for several files or splits; give each its own name")
    return found


def perturbed_benchmarks(base: Benchmark, cfg: Config, grid: ScoreGrid, template: PromptTemplate) -> list[Benchmark]:
    """The items of a benchmark under each perturbation of ``evaluation.perturbations`` that shows in a prompt of theirs.

    Args:
        base: the benchmark. cfg: the configuration. grid: the judge's scores. template: words the prompts.
    """
    found = []
    for name in perturbation_names(cfg.evaluation.perturbations):
        source = Perturbed(base.store, base.rows, name, Scale(grid, template.cue), template)
        if not source.examples:
            log.info("evaluate: %s applies to no item of %s, or its prompt does not show it", name, base.name)
            continue
        store = build_store(source, grid, on_bad_row="raise", group_annotations=False, cache_dir=Path(cfg.paths.cache), cue=None)
        unchanged = len(base.rows) - len(store)
        found.append(Benchmark(f"{base.name}+{name}", store, tuple(range(len(store))), 0, base.name, name, unchanged))
    return found


def check_benchmarks(cfg: Config) -> None:
    """Refuses benchmarks that the configured judge could not read, before anything is trained.

    Raises:
        ConfigError, DataError: as ``find_benchmarks``, or if a prompt cannot be made of an example.
    """
    _, layout, template = base_layout(cfg)
    for benchmark in find_benchmarks(cfg, layout.grid):
        worded_for(cfg, template).render(benchmark.store.example(benchmark.rows[0]), layout.grid)


def worded_for(cfg: Config, template: PromptTemplate) -> PromptTemplate:
    """The judge's prompt template as the evaluation uses it: its own wording, or the benchmark's finished prompts."""
    if cfg.evaluation.prompt == "own":
        return template
    return replace(template, source="finished", system="", require_cue_in_prompt=False)


def target_of(example: JudgeExample, target: str) -> float | None:
    """The true score in points: the fact, where the data knows it and ``target`` is "true", else what was annotated."""
    fact = example.meta.get("true_score") if target == "true" else None
    return example.target if fact is None else float(fact)


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if format_of(file) is not None)
        if not files:
            raise DataError(f"evaluation.benchmarks: the folder {name!r} holds no file that ends in {ACCEPTED}")
        return files
    if not path.is_file():
        raise ConfigError(f"evaluation.benchmarks: {name!r} is neither a split ({', '.join(SPLITS)}) nor a file or folder")
    return [path]


def _benchmark(name: str, store: ExampleStore, rows: list[int], cfg: Config) -> Benchmark:
    worth = [row for row in rows if target_of(store.example(row), cfg.evaluation.target) is not None]
    if not worth:
        hint = f"set data.{name}_fraction above 0" if name in ("val", "test") else "give one that has"
        raise ConfigError(f"evaluation.benchmarks: {name!r} has no example with a true score; {hint}")
    if len(worth) < len(rows):
        log.warning("evaluate: %d of the %d examples of %s have no true score and are left out", len(rows) - len(worth), len(rows), name)
    # Ranked by a hash of the id, so that the first so many are spread over the questions and do not depend on the file's order.
    ranked = sorted(worth, key=lambda row: hashlib.sha256(store.dataset[row]["id"].encode()).digest())
    return Benchmark(name, store, tuple(sorted(ranked[: cfg.evaluation.max_items])), len(rows) - len(worth))
