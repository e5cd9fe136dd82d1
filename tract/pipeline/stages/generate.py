"""The generate stage: a judge samples CoTs on the training and validation prompts, and the true score is attached to each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig

from tract.artifacts.identity import StageIdentity
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.products import JOURNAL, write_config
from tract.artifacts.run_folder import StageFolder
from tract.common import counts as in_words
from tract.common.distributed import rank_info
from tract.common.errors import DataError
from tract.config.ignored_fields import OF_STAGES
from tract.config.schema import Config
from tract.data.arrow_columns import StoredNumbers, lists_at, values_at
from tract.data.generated_cots.file import COTS_FILE, attached_score, write_cots
from tract.data.store import ExampleStore
from tract.data.tokens import TokenStore
from tract.inference.judgement import Judgement, Prompt
from tract.inference.prompt_budget import tokens_behind
from tract.method.predictors import expected_score
from tract.pipeline.backends import ignored_modules, keys_of_other_backends, open_backend, sequence_path_fields
from tract.pipeline.identity.keys import code_digests, key_fields
from tract.pipeline.stages.examples import examples_of, splits_of
from tract.pipeline.stages.judging import sample_judgements
from tract.pipeline.stages.prepare import Lengths, limited, limits_that_matter, sampling_tokens
from tract.pipeline.stages.rank_logs import RankLogs
from tract.pipeline.stages.stage import IGNORED_CODE, REPORTED_CODE
from tract.pipeline.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_SECTIONS = ("seed", "deterministic", "data", "generation", "trainer.precision")
_SPLITS = ("train", "val")


@dataclass
class GenerateStage:
    """Samples ``generation.n_cot`` CoTs on each prompt of the training and validation splits.

    Attributes:
        cfg: the typed configuration. resolved: the same as composed, for the run folder. judge: who samples.
    """

    cfg: Config
    resolved: DictConfig
    judge: JudgeFiles

    @property
    def name(self) -> str:
        """Generate."""
        return "generate"

    @cached_property
    def _store(self) -> ExampleStore:
        return examples_of(self.cfg, self.judge.layout.grid)

    @cached_property
    def _lengths(self) -> Lengths:
        return Lengths.of(self.cfg, self.judge.model, self.judge.layout)

    @cached_property
    def _tokens(self) -> TokenStore:
        return sampling_tokens(self.cfg, self._store, self.judge.template, self.judge.layout, self._lengths, trained=True)

    @property
    def _counts(self) -> dict[str, Any]:
        return {**self._store.counts, "prompt_budget": self._lengths.prompt, "examples_by_status": self._tokens.counts}

    @property
    def _longest(self) -> int:
        """The most tokens of a sequence, prompt included."""
        prompts = self._tokens.prompt_lengths([row for split in _SPLITS for row in self._rows[split]])
        return int(prompts.max(initial=0)) + tokens_behind(self.judge.layout, self.cfg.generation.max_cot_tokens)

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        return limited(self.cfg, self._tokens, splits_of(self.cfg, self._store))

    @cached_property
    def _given(self) -> tuple[list[StoredNumbers], list[StoredNumbers]]:
        """Of each row, the places in the grid of the scores with a CoT, and of those without."""
        rows = range(len(self._tokens.dataset))
        return lists_at(self._tokens.dataset, "score_index", rows), lists_at(self._tokens.dataset, "rating_index", rows)

    def _scores(self, row: int) -> list[int]:
        """The places in the grid of all scores that raters gave; one is attached to each generated CoT."""
        return [int(place) for given in self._given for place in given[row]]

    def identity(self) -> StageIdentity:
        """Configuration, content of the data, judge and code."""
        config = key_fields(self.resolved, _SECTIONS, (*OF_STAGES, *keys_of_other_backends(self.cfg)))
        config["generation"] |= sequence_path_fields(self.judge, self.cfg)
        config["data"] |= {"fingerprint": self._store.fingerprint, **limits_that_matter(self._tokens, self._lengths)}
        code = code_digests("tract.pipeline.stages.generate", ignored_fields=(*IGNORED_CODE, *REPORTED_CODE, *ignored_modules(self.cfg)))
        return StageIdentity(self.name, config, {"judge": self.judge.fingerprint}, code)

    def make(self, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
        """Samples what an earlier try left undone, then writes all CoTs in the order of the examples."""
        cfg = self.cfg
        if rank_info().is_first:
            write_config(folder.working, self.resolved)
        split_of = {row: split for split in _SPLITS for row in self._rows[split] if self._scores(row)}
        if not split_of:
            raise DataError("generate: no prompt of the training and validation splits has a score to attach; check data.path")
        self._lengths.report(self.name, self._tokens.counts)
        journal = RankLogs(folder.working / JOURNAL, cfg.generation.shard_size)
        with open_backend(self.judge, cfg, self._longest) as judge:
            sample_judgements(
                judge,
                prompts_at(self._tokens, sorted(split_of)),
                journal,
                what=self.name,
                n_cot=cfg.generation.n_cot,
                without_cot=False,
                free=False,
                batch_size=cfg.generation.sequences,
            )
        if not journal.finish():
            return {}
        finishes: Counter[str] = Counter()
        write_cots(folder.working / COTS_FILE, self._records(journal, split_of, finishes))
        by_split = dict(Counter(split_of.values()))
        ends = in_words.listed(finishes, in_words.ENDINGS)
        log.info("generate: %s for the prompts of %s; %s", in_words.several(finishes.total(), "CoT"), in_words.splits(by_split), ends)
        return {
            "parents": {"judge": str(self.judge.folder or self.judge.model_name)},
            "layout": self.judge.layout.fingerprint,
            "data": {"source": self._store.fingerprint, "counts": {**self._counts, "prompts_by_split": by_split}},
            "cots": {"count": finishes.total(), "by_finish": dict(sorted(finishes.items()))},
        }

    def _records(self, journal: RankLogs, split_of: dict[int, str], finishes: Counter[str]) -> Iterator[dict[str, Any]]:
        grid = torch.tensor(self.judge.layout.grid.values, dtype=torch.float32)
        for judgement in journal.ordered():
            if judgement.row not in split_of:
                continue
            finishes[judgement.finish] += 1
            yield self._record(judgement, split_of[judgement.row], grid)

    def _record(self, judgement: Judgement, split: str, grid: torch.Tensor) -> dict[str, Any]:
        score = attached_score(self._scores(judgement.row), judgement.id, judgement.sample)
        probabilities = torch.tensor(judgement.probabilities, dtype=torch.float32)
        return {
            "row": judgement.row,
            "id": judgement.id,
            "split": split,
            "sample": judgement.sample,
            "cot_ids": list(judgement.cot_ids),
            "cot": judgement.cot,
            "finish": judgement.finish,
            "score": self.judge.layout.grid.values[score],
            "score_index": score,
            "probabilities": list(judgement.probabilities),
            "rail": expected_score(probabilities[None], grid, normalize=False).item(),
            "score_mass": probabilities.sum().item(),
        }


def prompts_at(tokens: TokenStore, rows: list[int]) -> list[Prompt]:
    """The prompts in the given rows of a token store, where their token ids stay until they are read."""
    ids = values_at(tokens.dataset, "id", rows)
    return [Prompt(*prompt) for prompt in zip(ids, rows, lists_at(tokens.dataset, "prompt_ids", rows), strict=True)]
