"""The examples of the configured data and their split, which all stages share."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from tract.common.errors import ConfigError
from tract.config.schema import Config

# A configuration names them as text (``_target_``); imported here, their code is part of what a stage's product depends on.
from tract.data.sources import feedback_collection, mapped_columns, prometheus_eval  # noqa: F401
from tract.data.sources.source import Source
from tract.data.splits import split_questions
from tract.data.store import ExampleStore, build_store
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)


def build_source(cfg: Config) -> Source:
    """The configured source.

    Raises:
        ConfigError: if it cannot be built.
    """
    try:
        source: Source = instantiate(cfg.data.source, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"data.source: cannot be built: {' '.join(str(cause).split())}") from error
    return source


def examples_of(cfg: Config, grid: ScoreGrid) -> ExampleStore:
    """The configured examples, from the cache if they are there."""
    return store_of(build_source(cfg), cfg, grid)


def store_of(source: Source, cfg: Config, grid: ScoreGrid) -> ExampleStore:
    """The examples of a source, by the rules of ``data``."""
    store = build_store(
        source,
        grid,
        on_bad_row=cfg.data.on_bad_row,
        group_annotations=cfg.data.group_annotations,
        cache_dir=Path(cfg.paths.cache),
        cue=cfg.prompt.cue,
    )
    if equal := store.counts.get("equal_rows_kept"):
        warn_once(
            cfg,
            f"data: {equal} rows are equal to an earlier one (prompt, feedback and score) and count as votes of other raters; name the "
            "column that says who rated (data.source.columns.rater) to drop true duplicates",
        )
    if rejected := store.counts.get("rows_rejected"):
        reasons = ", ".join(f"{reason}: {number}" for reason, number in store.counts["rejected_by_reason"].items())
        warn_once(cfg, f"data: {rejected} rows were left out ({reasons}), listed in {store.rejected_path}")
    return store


def splits_of(cfg: Config, store: ExampleStore) -> dict[str, list[int]]:
    """The rows of each split, whether they can be used or not."""
    data = cfg.data
    return split_questions(
        store.questions(), store.fixed_splits(), seed=data.split_seed, val_fraction=data.val_fraction, test_fraction=data.test_fraction
    )


def warn_once(cfg: Config, text: str) -> None:
    """Warns of the data once for each run in a process, however many of its stages read them."""
    _warn_of_run(cfg.paths.cache, cfg.run.name, cfg.run.variant, cfg.seed, text)


@lru_cache(maxsize=256)
def _warn_of_run(*run_and_text: object) -> None:
    log.warning("%s", run_and_text[-1])
