"""Token ids of stored examples, in a second Arrow file cached by content; too long ones are shortened or dropped, and counted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from filelock import FileLock
from numpy.typing import NDArray

from tract.common.durable import sync_file, sync_folder
from tract.common.errors import ConfigError, DataError
from tract.data.arrow_columns import arrow_column, lengths_of, list_lengths
from tract.data.records import from_record
from tract.data.store import ExampleStore
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.schema import Annotation, JudgeExample
from tract.text.truncation import SHORTENABLE, shortened

log = logging.getLogger(__name__)

# Raise when the meaning of the stored columns changes.
TOKENS_VERSION = 5
# Statuses of examples that are too long; a status that begins with "dropped" leaves the example out.
SHORTENED, OVERLONG_PROMPT, OVERLONG = "shortened", "dropped_overlong_prompt", "dropped_overlong"
# Status of an example without a generated CoT, such as those of test splits: it is not trained on, but was not dropped.
WITHOUT_GENERATED_COT = "without_generated_cot"
OVERLONG_POLICIES = ("drop", "shorten", "raise")
UNANNOTATED_POLICIES = ("drop", "keep")

TOKEN_FEATURES = Features(
    {
        "row": Value("int32"),  # row of the example in the store
        "id": Value("string"),
        "prompt_ids": List(Value("int32")),
        "cot_ids": List(List(Value("int32"))),
        "score_index": List(Value("int32")),
        # Scores without a CoT that are no continuations: a fit stage trains on them by the squared error, a generate stage attaches them
        # to CoTs.
        "rating_index": List(Value("int32")),
        "target": Value("float32"),
        "length": Value("int32"),  # tokens of the longest sequence: prompt and one continuation
        "ce_tokens": Value("int32"),  # tokens of all continuations without those of the scores
        "score_tokens": Value("int32"),
        "status": Value("string"),
    }
)


@dataclass(frozen=True)
class TokenizeOptions:
    """What changes token ids beside template and layout.

    Attributes:
        prompt_budget: the most tokens of a prompt, see ``tract.inference.prompt_budget``; None for any number. Only it changes texts.
        max_length: the most tokens of a sequence that is trained on: prompt, CoT, cue, score and end of turn; None for any number.
        truncation: what is done with a prompt beyond the budget: "drop", "shorten" (leave out the middle of a field) or "raise"; the last
            applies to a sequence beyond ``max_length`` too, which is dropped otherwise.
        shorten: the fields to shorten, first one first.
        use_cot: whether the sequence has the CoT.
        unannotated: what is done with examples without annotations: "drop", or "keep" their prompt, with no continuation: CoTs are
            sampled on it later, so ``max_length`` does not apply to the annotated ones here.
            Without CoT, scores without a text are annotations too, and so is a target score that is on the grid where there are none.
        ratings: whether scores without a CoT are used; if not, an example that has nothing else is without annotations.
    """

    prompt_budget: int | None
    max_length: int | None
    truncation: str
    shorten: tuple[str, ...]
    use_cot: bool
    unannotated: str
    ratings: bool

    def __post_init__(self) -> None:
        if self.truncation not in OVERLONG_POLICIES:
            raise ConfigError(f"data.truncation: {self.truncation!r} is not one of {', '.join(OVERLONG_POLICIES)}")
        for field in self.shorten:
            if field not in SHORTENABLE:
                raise ConfigError(f"data.shorten: {field!r} cannot be shortened; accepted are {', '.join(SHORTENABLE)}")
        if self.unannotated not in UNANNOTATED_POLICIES:
            raise ValueError(f"unannotated: {self.unannotated!r} is not one of {', '.join(UNANNOTATED_POLICIES)}")


@dataclass(frozen=True)
class TokenStore:
    """Token ids of the examples that can be trained on.

    Attributes:
        dataset: columns of ``TOKEN_FEATURES``, memory-mapped, one row per example of the store, in its order.
        counts: examples by status: ok; shortened or dropped_overlong_prompt (the prompt is beyond its budget); dropped_overlong (the
            sequence is too long to be trained on); dropped_unannotated. ``tract.data.generated_cots.items`` adds dropped_no_cot and
            without_generated_cot.
        fingerprint: changes when any token id can change.
    """

    dataset: Dataset
    counts: dict[str, int]
    fingerprint: str

    @property
    def over_budget(self) -> bool:
        """Whether the budget changed a prompt: one was shortened or dropped for it."""
        return any(self.counts.get(status) for status in (SHORTENED, OVERLONG_PROMPT))

    def usable(self, rows: list[int]) -> list[int]:
        """Those of the given rows that were not dropped and, where CoTs are generated, have one."""
        status = arrow_column(self.dataset, "status")
        unusable = pc.or_(pc.starts_with(status, "dropped"), pc.equal(status, WITHOUT_GENERATED_COT)).to_numpy()
        return [row for row in rows if not unusable[row]]

    def cot_lengths(self) -> NDArray[np.int64]:
        """[N] int64: tokens of the CoT of each continuation, of all rows one after the other."""
        return lengths_of(pc.list_flatten(arrow_column(self.dataset, "cot_ids")))

    def with_cot(self, rows: list[int]) -> list[int]:
        """Those of the given rows that have a CoT to train on, or a score in its place where none is learned."""
        has = list_lengths(self.dataset, "score_index") > 0
        return [row for row in rows if has[row]]

    def first_with_all(self, rows: list[int]) -> int:
        """The index in ``rows`` of the first one with both a CoT and a rating; else of the first with a CoT, else 0."""
        cots, ratings = (list_lengths(self.dataset, name) > 0 for name in ("score_index", "rating_index"))
        index = np.asarray(rows, dtype=np.int64)
        return int(np.argmax(2 * cots[index] + (cots & ratings)[index]))

    def n_ratings(self, rows: list[int]) -> int:
        """How many scores without a CoT the given rows have in all."""
        return int(list_lengths(self.dataset, "rating_index")[np.asarray(rows, dtype=np.int64)].sum())

    def prompt_lengths(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """[len(rows)] int64: tokens of the prompts in the given rows; 0 where there is none."""
        return list_lengths(self.dataset, "prompt_ids")[np.asarray(rows, dtype=np.int64)]


def tokenize(
    store: ExampleStore, template: PromptTemplate, layout: SequenceLayout, options: TokenizeOptions, cache_dir: Path
) -> TokenStore:
    """Token ids of all examples of a store, from the cache if they were made before.

    Raises:
        DataError: if an example is too long and ``options.truncation`` is "raise", or a prompt cannot be rendered.
    """
    key_parts = [TOKENS_VERSION, store.fingerprint, layout.fingerprint, repr(template), repr(options)]
    worker = _ExampleTokenizer(template, layout, options)
    return cached_tokens(store.dataset, worker, key_parts, cache_dir, desc="Tokenising")


def cached_tokens(
    dataset: Dataset, worker: Callable[..., Any], key_parts: Sequence[object], cache_dir: Path, *, desc: str, **map_options: Any
) -> TokenStore:
    """The tokens that ``worker`` makes of the rows of a data set, from the cache if they were made before.

    Args:
        dataset: the rows.
        worker: takes what ``Dataset.map`` gives it, the indices too, and returns columns of ``TOKEN_FEATURES``.
        key_parts: all that changes a token id; JSON values.
        cache_dir: the tokens are kept in ``tokens-<key>.arrow`` below it.
        desc: the label of the progress bar.
        map_options: further arguments of ``Dataset.map``.
    """
    key = hashlib.sha256(json.dumps(key_parts).encode()).hexdigest()[:16]
    path = cache_dir / f"tokens-{key}.arrow"
    cache_dir.mkdir(parents=True, exist_ok=True)
    run = partial(
        dataset.map,
        worker,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=TOKEN_FEATURES,
        new_fingerprint=key,
        load_from_cache_file=True,
        desc=desc,
        **map_options,
    )
    with FileLock(f"{path}.lock"):
        if not path.exists():
            # In its own folder: `map` leaves its temporary file when the process is killed or the disk is full.
            work = cache_dir / f".{path.name}.partial"
            shutil.rmtree(work, ignore_errors=True)
            try:
                run(cache_file_name=str(work / path.name))
                sync_file(work / path.name)
                os.replace(work / path.name, path)
                sync_folder(cache_dir)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        made = run(cache_file_name=str(path))
    return TokenStore(made.with_format("numpy"), _status_counts(made), key)


def _status_counts(dataset: Dataset) -> dict[str, int]:
    """Examples by status."""
    return {str(found["values"]): int(found["counts"]) for found in pc.value_counts(arrow_column(dataset, "status")).to_pylist()}


class _ExampleTokenizer:
    """Tokenises one record of the store; picklable."""

    def __init__(self, template: PromptTemplate, layout: SequenceLayout, options: TokenizeOptions) -> None:
        self.template = template
        self.layout = layout
        self.options = options

    def __call__(self, record: dict[str, Any], row: int) -> dict[str, Any]:
        example = from_record(record)
        layout, options = self.layout, self.options
        annotations, ratings = example.annotations, example.ratings
        if not options.use_cot:  # only scores are learned
            annotations, ratings = (*annotations, *(Annotation("", rating.score) for rating in ratings)), ()
            if not annotations and example.target_score in layout.grid.values:
                annotations = (Annotation("", float(example.target_score)),)
        elif not options.ratings:
            ratings = ()
        cots = [layout.cot_ids(annotation.cot) if options.use_cot else [] for annotation in annotations]
        scores = [layout.grid.index(annotation.score) for annotation in annotations]
        longest = max((len(cot) for cot in cots), default=0) + layout.max_tail_tokens
        prompt_ids: list[int] = []
        status = "dropped_unannotated"
        if cots or ratings or options.unannotated == "keep":
            prompt_ids, status = self._fit_prompt(example)
            after = layout.max_tail_tokens if options.unannotated == "keep" else longest
            if not self._fits_training(example, len(prompt_ids), after):
                prompt_ids, status = [], OVERLONG
        return {
            "row": row,
            "id": example.id,
            "prompt_ids": prompt_ids,
            "cot_ids": cots,
            "score_index": scores,
            "rating_index": [layout.grid.index(rating.score) for rating in ratings],
            "target": example.target if example.target is not None else float("nan"),
            "length": len(prompt_ids) + longest,
            "ce_tokens": sum(len(cot) + len(layout.cue_ids) + 1 for cot in cots),
            "score_tokens": sum(len(layout.score_ids[score]) for score in scores),
            "status": status,
        }

    def _fit_prompt(self, example: JudgeExample) -> tuple[list[int], str]:
        """Token ids of the prompt, shortened to its budget if need be and allowed, and the example's status."""
        prompt = self.template.render(example, self.layout.grid)
        ids, budget = self.layout.prompt_ids(prompt), self.options.prompt_budget
        if budget is None or len(ids) <= budget:
            return ids, "ok"
        if self.options.truncation == "raise":
            raise DataError(
                f"data.truncation: the prompt of example {example.id} has {len(ids)} tokens, but the model's context leaves {budget} "
                "beside the longest CoT; lower generation.max_cot_tokens, or set data.truncation=shorten or data.truncation=drop"
            )
        if self.options.truncation == "shorten":
            shorter = shortened(prompt, self.layout, budget, self.options.shorten)
            if shorter is not None:
                return shorter, SHORTENED
        return [], OVERLONG_PROMPT

    def _fits_training(self, example: JudgeExample, prompt: int, after: int) -> bool:
        """Whether a prompt and what comes after it, both in tokens, are no longer than a training sequence may be."""
        most = self.options.max_length
        if most is None or not prompt or prompt + after <= most:
            return True
        if self.options.truncation == "raise":
            raise DataError(
                f"data.max_length: {most} tokens cannot hold example {example.id} (prompt {prompt} + CoT, cue and score {after}); "
                "raise it, or set data.truncation=drop to leave such examples out of training"
            )
        return False
