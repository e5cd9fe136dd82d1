"""What every stage needs before a model is loaded: examples, one split, layout and token ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from tract.config import Config
from tract.data.splits import split_questions
from tract.data.store import ExampleStore, build_store
from tract.data.tokens import TokenizeOptions, TokenStore, tokenize
from tract.errors import ConfigError
from tract.layout import SequenceLayout
from tract.modeling import load_tokenizer
from tract.prompts import PromptTemplate
from tract.score_grid import ScoreGrid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Everything about the data of a stage.

    Attributes:
        store: the examples. tokens: their token ids. tokenizer, layout: made them. template: worded the prompts.
        rows: rows of ``tokens`` that can be used, by split.
        counts: what was read, kept and dropped and why, for the manifest.
    """

    store: ExampleStore
    tokens: TokenStore
    tokenizer: Any
    layout: SequenceLayout
    template: PromptTemplate
    rows: Mapping[str, list[int]]
    counts: dict[str, Any]


def prepare(cfg: Config) -> Prepared:
    """Reads, splits and tokenises the configured data."""
    grid = ScoreGrid(tuple(cfg.grid.labels))
    template = PromptTemplate(**{**vars(cfg.prompt), "blocks": tuple(cfg.prompt.blocks)})
    tokenizer = load_tokenizer(cfg.model)
    layout = SequenceLayout.build(
        tokenizer, system=bool(template.system), cue=template.cue, grid=grid, chat_template_kwargs=cfg.model.chat_template_kwargs
    )
    cache = Path(cfg.paths.cache)
    source = _build_source(cfg)
    log.info("data: %s", source.describe())
    store = build_store(source, grid, on_bad_row=cfg.data.on_bad_row, group_annotations=cfg.data.group_annotations, cache_dir=cache)
    options = TokenizeOptions(cfg.data.max_length, cfg.data.overlong, tuple(cfg.data.shorten), cfg.objective.use_cot)
    tokens = tokenize(store, template, layout, options, cache)
    splits = split_questions(
        store.questions(),
        store.fixed_splits(),
        seed=cfg.data.split_seed,
        val_fraction=cfg.data.val_fraction,
        test_fraction=cfg.data.test_fraction,
    )
    rows = {name: tokens.usable(members) for name, members in splits.items()}
    for name, limit in (("train", cfg.data.max_train_items), ("val", cfg.data.max_val_items)):
        rows[name] = rows[name][:limit]
    counts = {**store.counts, "examples_by_status": tokens.counts, "items_by_split": {name: len(members) for name, members in rows.items()}}
    _report(counts, store)
    return Prepared(store, tokens, tokenizer, layout, template, rows, counts)


def _build_source(cfg: Config) -> Any:
    try:
        return instantiate(cfg.data.source, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"data.source: cannot be built: {' '.join(str(cause).split())}") from error


def _report(counts: dict[str, Any], store: ExampleStore) -> None:
    status = counts["examples_by_status"]
    by_status = ", ".join(f"{number} {name}" for name, number in sorted(status.items()))
    log.info("data: %s; items by split %s", by_status, counts["items_by_split"])
    if counts.get("rows_rejected"):
        log.warning("data: %d rows were left out, listed with reasons in %s", counts["rows_rejected"], store.rejected_path)
    dropped = {name: number for name, number in status.items() if name != "ok"}
    if dropped:
        log.warning("data: not used as they are: %s (data.max_length, data.overlong)", dropped)
    if not counts["items_by_split"]["train"]:
        raise ConfigError(f"data: no usable item in the training split ({status}); check data.path, data.max_length and the annotations")
