"""What a stage needs before a model is loaded: examples, one split for all stages, layout and token ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from tract.config import Config
from tract.data.cot_filter import CotFilter, FilterResult, filter_cots
from tract.data.cot_items import with_cots
from tract.data.cots import check_splits, cots_fingerprint, read_cots
from tract.data.score_leak import check_score_leak
from tract.data.sources import Source
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
    """Everything about the data of a fit stage.

    Attributes:
        store: the examples. tokens: their token ids. tokenizer, layout: made them. template: worded the prompts.
        rows: rows of ``tokens`` that can be used, by split.
        counts: what was read, kept and dropped and why, for the manifest.
        chosen: which generated CoTs are kept and why; None for annotated ones.
    """

    store: ExampleStore
    tokens: TokenStore
    tokenizer: Any
    layout: SequenceLayout
    template: PromptTemplate
    rows: Mapping[str, list[int]]
    counts: dict[str, Any]
    chosen: FilterResult | None = None

    def scores_in_cots(self) -> str:
        """How the annotated CoTs stated their scores, and how often what is left holds them; "" without CoTs."""
        forms, leak = self.counts["scores_in_cots"], self.counts.get("score_leak", {})
        if not forms:
            return ""
        last = (
            f"; the last {leak['last_tokens']} tokens of {leak['own_score']:.1%} hold their own score, {leak['by_chance']:.1%} by chance"
            if leak.get("cots")
            else ""
        )
        return f"scores stated in annotated CoTs, which are cut: {', '.join(f'{number} {form}' for form, number in forms.items())}{last}"

    def report(self) -> None:
        """Says in the log what was read, kept and dropped."""
        if stated := self.scores_in_cots():
            log.info("data: %s", stated)
        status, by_split = self.counts["examples_by_status"], self.counts["items_by_split"]
        log.info("data: %s; items by split %s", ", ".join(f"{number} {name}" for name, number in sorted(status.items())), by_split)
        dropped = {name: number for name, number in status.items() if name not in ("ok", "dropped_not_generated")}
        if dropped:
            log.warning("data: not used as they are: %s (data.max_length, data.overlong)", dropped)
        if self.chosen is not None:
            counts = ", ".join(f"{number} {name}" for name, number in self.chosen.counts.items())
            log.info("stage2: of the generated CoTs %s (stage2.filter)", counts)
            for cot in self.chosen.examples:
                log.info("  dropped as %s: %s, sample %d: %r", cot.reason, cot.id, cot.sample, cot.text)


def seed_layout(cfg: Config) -> tuple[Any, SequenceLayout, PromptTemplate]:
    """(tokenizer, layout, prompt template) of the configured seed LLM."""
    grid = ScoreGrid(tuple(cfg.grid.labels))
    template = PromptTemplate(**{**vars(cfg.prompt), "blocks": tuple(cfg.prompt.blocks)})
    tokenizer = load_tokenizer(cfg.model)
    layout = SequenceLayout.build(
        tokenizer, system=bool(template.system), cue=template.cue, grid=grid, chat_template_kwargs=cfg.model.chat_template_kwargs
    )
    return tokenizer, layout, template


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
    if store.counts.get("rows_rejected"):
        log.warning("data: %d rows were left out, listed with reasons in %s", store.counts["rows_rejected"], store.rejected_path)
    return store


def splits_of(cfg: Config, store: ExampleStore) -> dict[str, list[int]]:
    """The rows of each split, whether they can be used or not."""
    data = cfg.data
    return split_questions(
        store.questions(), store.fixed_splits(), seed=data.split_seed, val_fraction=data.val_fraction, test_fraction=data.test_fraction
    )


def sampling_tokens(cfg: Config, store: ExampleStore, template: PromptTemplate, layout: SequenceLayout) -> TokenStore:
    """Token ids with room for a sampled CoT behind each prompt: what CoTs are sampled on, and what stage 2 trains on."""
    options = TokenizeOptions(
        cfg.data.max_length, cfg.data.overlong, tuple(cfg.data.shorten), True, reserve=cfg.generation.max_cot_tokens, unannotated="keep"
    )
    return tokenize(store, template, layout, options, Path(cfg.paths.cache))


def limited(cfg: Config, tokens: TokenStore, splits: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The rows of each split that can be used, no more than ``data.max_train_items`` and ``data.max_val_items`` say."""
    rows = {name: tokens.usable(members) for name, members in splits.items()}
    for name, limit in (("train", cfg.data.max_train_items), ("val", cfg.data.max_val_items)):
        rows[name] = rows[name][:limit]
    return rows


def prepare(cfg: Config) -> Prepared:
    """Reads, splits and tokenises the configured data with its annotated CoTs."""
    tokenizer, layout, template = seed_layout(cfg)
    store = examples_of(cfg, layout.grid)
    options = TokenizeOptions(
        cfg.data.max_length, cfg.data.overlong, tuple(cfg.data.shorten), cfg.objective.use_cot, reserve=0, unannotated="drop"
    )
    tokens = tokenize(store, template, layout, options, Path(cfg.paths.cache))
    leak = check_score_leak(tokens, layout, cfg.data.on_score_leak)
    rows = limited(cfg, tokens, splits_of(cfg, store))
    return Prepared(store, tokens, tokenizer, layout, template, rows, {**_counted(store, tokens, rows), "score_leak": leak.to_dict()})


def prepare_generated(cfg: Config, cots_path: Path, fingerprint: str | None = None) -> Prepared:
    """The same with CoTs that a judge generated in place of the annotated ones, or beside them (``stage2.cots``).

    Args:
        cfg: the configuration. cots_path: the file of CoTs. fingerprint: its SHA-256, where it is known.

    Raises:
        DataError: if the CoTs do not belong to these examples or this split.
    """
    tokenizer, layout, template = seed_layout(cfg)
    store = examples_of(cfg, layout.grid)
    splits = splits_of(cfg, store)
    cache = Path(cfg.paths.cache)
    fingerprint = fingerprint or cots_fingerprint(cots_path)
    cots = read_cots(cots_path, cache, fingerprint)
    check_splits(cots, splits)
    chosen = filter_cots(cots, CotFilter(**vars(cfg.stage2.filter)))
    tokens = with_cots(
        sampling_tokens(cfg, store, template, layout),
        cots,
        chosen.keep,
        cfg.stage2.cots,
        layout,
        cache,
        fingerprint,
        splits["train"],
        max_length=cfg.data.max_length,
    )
    rows = limited(cfg, tokens, splits)
    counts = _counted(store, tokens, rows)
    return Prepared(store, tokens, tokenizer, layout, template, rows, {**counts, "cots": chosen.counts}, chosen)


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


def _counted(store: ExampleStore, tokens: TokenStore, rows: Mapping[str, list[int]]) -> dict[str, Any]:
    """The counts for the manifest."""
    status = tokens.counts
    if not rows["train"]:
        raise ConfigError(f"data: no usable item in the training split ({status}); check data.path, data.max_length and the annotations")
    return {**store.counts, "examples_by_status": status, "items_by_split": {name: len(members) for name, members in rows.items()}}
