"""What a stage needs before a model is loaded: examples, one split for all stages, layout and token ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tract.common import counts as in_words
from tract.common.errors import ConfigError
from tract.config.schema import Config, ModelConfig
from tract.data.data_warnings import data_warnings
from tract.data.generated_cots.checks import check_splits
from tract.data.generated_cots.file import cots_fingerprint, read_cots
from tract.data.generated_cots.filter import CotFilter, FilterResult, filter_cots
from tract.data.generated_cots.items import with_cots
from tract.data.score_leak import check_score_leak
from tract.data.store import ExampleStore
from tract.data.tokens import OVERLONG, OVERLONG_PROMPT, SHORTENED, TokenizeOptions, TokenStore, tokenize
from tract.evaluation.agreement import RaterAgreement, rater_agreement
from tract.inference.prompt_budget import prompt_budget
from tract.method.objective import Objective
from tract.models.base_layout import base_layout
from tract.models.locating import context_of
from tract.pipeline.stages.examples import build_source, examples_of, splits_of, store_of, warn_once
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.score_statement import NOT_STATED

log = logging.getLogger(__name__)

DEBUG = "debug"  # the name of the runs of conf/debug, which write a few words for speed


@dataclass(frozen=True)
class Lengths:
    """The limits on length in a stage.

    Attributes:
        prompt: the most tokens of a prompt, in every stage the same for a model and a length of CoTs; None for any number.
        training: the most tokens of a sequence that is trained on. longest_cot: the most tokens of a CoT.
    """

    prompt: int | None
    training: int
    longest_cot: int

    @classmethod
    def of(cls, cfg: Config, model: ModelConfig, layout: SequenceLayout) -> Lengths:
        """Those of a model with its layout; only its configuration is read.

        Raises:
            ConfigError: if the model's context has no room for a prompt.
        """
        context, longest_cot = context_of(model), cfg.generation.max_cot_tokens
        budget = prompt_budget(context, longest_cot, layout, repr(model.name_or_path))
        return cls(budget, min(cfg.data.max_length, context or cfg.data.max_length), longest_cot)

    def report(self, what: str, counts: Mapping[str, int]) -> None:
        """Says in the log how many examples were too long for what, from their counts by status."""
        room = f"{self.prompt} tokens, what the model's context leaves beside a CoT of generation.max_cot_tokens={self.longest_cot}"
        if number := counts.get(SHORTENED):
            log.warning(
                "%s: %d prompts are longer than %s; they were shortened, in every stage alike (data.truncation)", what, number, room
            )
        if number := counts.get(OVERLONG_PROMPT):
            log.warning("%s: %d prompts are longer than %s; they are left out (data.truncation)", what, number, room)
        if number := counts.get(OVERLONG):
            log.warning("%s: %d examples are longer than %d tokens and cannot be trained on (data.max_length)", what, number, self.training)


@dataclass(frozen=True)
class Prepared:
    """Everything about the data of a fit stage.

    Attributes:
        store: the examples. tokens: their token ids. tokenizer, layout: made them. template: worded the prompts.
        lengths: the limits on length that they were made with. rows: rows of ``tokens`` that can be used, by split.
        counts: what was read, kept and dropped and why, for the manifest.
        chosen: which generated CoTs are kept and why; None for annotated ones.
    """

    store: ExampleStore
    tokens: TokenStore
    tokenizer: Any
    layout: SequenceLayout
    template: PromptTemplate
    lengths: Lengths
    rows: Mapping[str, list[int]]
    counts: dict[str, Any]
    chosen: FilterResult | None = None

    def scores_in_cots(self) -> str:
        """How the annotated CoTs stated their scores, and how often what is left holds them; "" without CoTs."""
        forms, leak = self.counts["scores_in_cots"], self.counts.get("score_leak", {})
        if not forms:
            return ""
        said = f"statements of scores in annotated CoTs, cut by form: {in_words.listed(forms, {})}"
        if set(forms) == {NOT_STATED}:
            said = f"none of {in_words.several(forms[NOT_STATED], 'annotated CoT')} states its score"
        if not leak.get("cots"):
            return said
        return (
            f"{said}; the last {leak['last_tokens']} tokens of {leak['own_score']:.1%} hold their own score, by chance it would be "
            f"{leak['by_chance']:.1%}"
        )

    def raters(self) -> str:
        """How many scores the rows gave, and what became of equal ones; "" where each row has a text and none is equal."""
        counts = self.counts
        if not (counts.get("ratings") or counts.get("equal_rows_kept")):
            return ""
        return (
            f"scores of raters: {counts['annotations']} with a text, {counts['ratings']} without, of {counts['examples']} examples; "
            f"{counts['equal_rows_kept']} equal rows count as votes of other raters, {counts['duplicates_dropped']} duplicates were dropped"
        )

    @cached_property
    def agreement(self) -> RaterAgreement | None:
        """How well the raters of all examples agree, in whatever split; None where no example has two scores."""
        return rater_agreement(self.store.scores_by_rater())

    def ratings_in_training(self) -> str:
        """What training makes of the scores without a CoT in its split; "" without any, and where no CoTs are learned."""
        found = self.counts.get("ratings_in_training")
        if not found or not found["given"]:
            return ""
        left = found["given"] - found["trained_on"]
        said = f"{found['trained_on']} of {found['given']} scores without a CoT in the training split are trained on by the squared error"
        return f"{said}; {left} are left out ({found['left_out_since']})" if left else said

    def report(self) -> None:
        """Says in the log what was read, kept and dropped."""
        if raters := self.raters():
            log.info("data: %s", raters)
        if self.agreement is not None:
            log.info("data: agreement of raters: %s", self.agreement.sentence())
        if trained := self.ratings_in_training():
            log.info("data: %s", trained)
        if number := self.counts.get("val_items_without_cot"):
            left_out = "1 item without a CoT is" if number == 1 else f"{number} items without a CoT are"
            log.info("data: validation in training reads scores after annotated CoTs; %s left out of it", left_out)
        if stated := self.scores_in_cots():
            log.info("data: %s", stated)
        status, by_split = self.counts["examples_by_status"], self.counts["items_by_split"]
        found, items = in_words.listed(status, in_words.EXAMPLES, "example"), in_words.splits(by_split)
        log.info("data: %s; usable items by split: %s", found, items)
        self.lengths.report("data", status)
        dropped = {name: number for name, number in status.items() if name in ("dropped_unannotated", "dropped_no_cot")}
        if dropped:
            log.warning("data: not trained on: %s", in_words.listed(dropped, in_words.EXAMPLES, "example"))
        if self.chosen is not None:
            log.info("stage2: %s (stage2.filter)", in_words.filtered(self.chosen.counts))
            for cot in self.chosen.examples:
                log.info("  dropped as %s: %s, sample %d: %r", cot.reason, cot.id, cot.sample, cot.text)


def _warn_of_long_cots(cfg: Config, tokens: TokenStore) -> None:
    """Says how many annotated CoTs are longer than the judge's own may be: it learns to write such, and is cut off."""
    lengths = tokens.cot_lengths()
    most = cfg.generation.max_cot_tokens
    if cfg.run.name == DEBUG or not cfg.objective.use_cot:
        return
    if longer := int((lengths > most).sum()):
        warn_once(
            cfg,
            f"data: {longer} of {len(lengths)} annotated CoTs are longer than generation.max_cot_tokens={most}, where the judge's own are "
            f"cut off; the longest has {lengths.max()} tokens, so set generation.max_cot_tokens={lengths.max()} or more",
        )


def sampling_tokens(
    cfg: Config, store: ExampleStore, template: PromptTemplate, layout: SequenceLayout, lengths: Lengths, *, trained: bool
) -> TokenStore:
    """Token ids of prompts that a judge samples CoTs on, or reads given ones behind.

    Args:
        cfg: the configuration. store: the examples. template, layout, lengths: of the judge.
        trained: whether what is sampled is trained on, so that prompts are left out which are too long for that by themselves.
    """
    most = lengths.training if trained else None
    options = TokenizeOptions(lengths.prompt, most, cfg.data.truncation, tuple(cfg.data.shorten), True, "keep", ratings=True)
    return tokenize(store, template, layout, options, Path(cfg.paths.cache))


def limits_that_matter(tokens: TokenStore, lengths: Lengths) -> dict[str, int | None]:
    """The limits on length that moved token ids or left examples out, for an identity: other limits that move nothing redo nothing."""
    found: dict[str, int | None] = {"prompt_budget": lengths.prompt} if tokens.over_budget else {}
    return found | ({"max_length": lengths.training} if tokens.counts.get(OVERLONG) else {})


def limited(cfg: Config, tokens: TokenStore, splits: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The rows of each split that can be used, no more than ``data.max_train_items`` and ``data.max_val_items`` say."""
    rows = {name: tokens.usable(members) for name, members in splits.items()}
    for name, limit in (("train", cfg.data.max_train_items), ("val", cfg.data.max_val_items)):
        rows[name] = rows[name][:limit]
    return rows


def prepare(cfg: Config, *, ratings: bool = True) -> Prepared:
    """Reads, splits and tokenises the configured data with its annotated CoTs.

    Args:
        cfg: the configuration.
        ratings: whether scores without a CoT are trained on beside those with one, if ``objective`` says so; False as if it did not.

    Raises:
        DataError, ConfigError: if the data cannot be used, or CoTs are to be learned and there is none.
    """
    tokenizer, layout, template = base_layout(cfg)
    source = build_source(cfg)
    store = store_of(source, cfg, layout.grid)
    for line in data_warnings(source, store, template, grouped=cfg.data.group_annotations):
        warn_once(cfg, f"data: {line}")
    lengths = Lengths.of(cfg, cfg.model, layout)
    trains_ratings = ratings and Objective(**vars(cfg.objective)).trains_ratings
    options = TokenizeOptions(
        lengths.prompt, lengths.training, cfg.data.truncation, tuple(cfg.data.shorten), cfg.objective.use_cot, "drop", trains_ratings
    )
    tokens = tokenize(store, template, layout, options, Path(cfg.paths.cache))
    _warn_of_long_cots(cfg, tokens)
    leak = check_score_leak(tokens, layout, cfg.data.on_score_leak)
    splits = splits_of(cfg, store)
    # Validation reads scores after annotated CoTs, as an evaluation on these does.
    with_cot = tokens.with_cot(tokens.usable(splits["val"]))
    without_cot = len(tokens.usable(splits["val"])) - len(with_cot)
    rows = limited(cfg, tokens, {**splits, "val": with_cot})
    counts = {**_counted(store, tokens, rows, lengths), "val_items_without_cot": without_cot, "score_leak": leak.to_dict()}
    if cfg.objective.use_cot:
        _check_cots(tokens, rows["train"])
        counts["ratings_in_training"] = {
            "given": store.n_ratings(splits["train"]),
            "trained_on": tokens.n_ratings(rows["train"]),
            "left_out_since": _why_left_out(cfg) if not trains_ratings else "their items are left out",
        }
    return Prepared(store, tokens, tokenizer, layout, template, lengths, rows, counts)


def prepare_generated(cfg: Config, cots_path: Path, fingerprint: str | None = None) -> Prepared:
    """The same with CoTs that a judge generated in place of the annotated ones, or beside them (``stage2.cots``).

    Args:
        cfg: the configuration. cots_path: the file of CoTs. fingerprint: its SHA-256, where it is known.

    Raises:
        DataError: if the CoTs do not belong to these examples or this split.
    """
    tokenizer, layout, template = base_layout(cfg)
    store = examples_of(cfg, layout.grid)
    splits = splits_of(cfg, store)
    cache = Path(cfg.paths.cache)
    fingerprint = fingerprint or cots_fingerprint(cots_path)
    cots = read_cots(cots_path, cache, fingerprint)
    check_splits(cots, splits)
    chosen = filter_cots(cots, CotFilter(**vars(cfg.stage2.filter)))
    lengths = Lengths.of(cfg, cfg.model, layout)
    tokens = with_cots(
        sampling_tokens(cfg, store, template, layout, lengths, trained=True),
        cots,
        chosen.keep,
        cfg.stage2.cots,
        layout,
        cache,
        fingerprint,
        splits["train"],
        max_length=lengths.training,
    )
    rows = limited(cfg, tokens, splits)
    counts = {**_counted(store, tokens, rows, lengths), "cots": chosen.counts}
    return Prepared(store, tokens, tokenizer, layout, template, lengths, rows, counts, chosen)


def _check_cots(tokens: TokenStore, train: list[int]) -> None:
    if not tokens.with_cot(train):
        raise ConfigError(
            f"data: none of the {len(train)} items of the training split has a CoT to learn, only scores; map the column with the feedback "
            "(data.source.columns.cot), or train on scores alone: +ablation=regression_only"
        )


def _why_left_out(cfg: Config) -> str:
    """The key for which scores without a CoT are not trained on."""
    return "objective.lambda=0" if cfg.objective.score_loss_weight == 0 else "objective.train_on_ratings=false"


def _counted(store: ExampleStore, tokens: TokenStore, rows: Mapping[str, list[int]], lengths: Lengths) -> dict[str, Any]:
    """The counts for the manifest."""
    status = tokens.counts
    if not rows["train"]:
        found = in_words.listed(status, in_words.EXAMPLES, "example")
        raise ConfigError(f"data: no usable item in the training split ({found}); check data.path, data.max_length and the annotations")
    items = {name: len(members) for name, members in rows.items()}
    return {**store.counts, "prompt_budget": lengths.prompt, "examples_by_status": status, "items_by_split": items}
