"""A judge at work: what the log holds is not done again, and every prompt gets all its samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tract.inference.backend import BatchJudge
from tract.inference.judgement import DIRECT, END, GIVEN, NONE, GivenCots, Judgement, Prompt
from tract.pipeline.stages.judging import read_judgements, sample_judgements
from tract.pipeline.stages.rank_logs import RankLogs

PROMPTS = [Prompt(f"e{row}", row, tuple(range(3 + row * 5 % 7))) for row in range(5)]


class Scripted(BatchJudge):
    """Stands in for an ``HFJudge``: says what it was asked, and fails when it is told to."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.fail_after = fail_after

    def judge(
        self, prompts: Sequence[Prompt], n_cot: int, *, rows: int, without_cot: bool, free: bool, progress: Callable[[int], None]
    ) -> list[Judgement]:
        self._count([prompt.row for prompt in prompts])
        progress(len(prompts) * (n_cot + without_cot))
        samples = [*([DIRECT] if without_cot else []), *range(n_cot)]
        text = "free" if free else None
        return [self._judgement(prompt, sample, (7, sample + 1), text) for prompt in prompts for sample in samples]

    def read(self, prompts: Sequence[Prompt], cots: Sequence[GivenCots]) -> list[Judgement]:
        self._count([prompt.row for prompt in prompts])
        return [self._judgement(p, sample, tuple(cot), None) for p, given in zip(prompts, cots, strict=True) for sample, cot in given]

    def _count(self, rows: list[int]) -> None:
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(rows)

    @staticmethod
    def _judgement(prompt: Prompt, sample: int, cot: tuple[int, ...], text: str | None) -> Judgement:
        finish = NONE if sample == DIRECT else GIVEN if text is None else END
        return Judgement(prompt.id, prompt.row, sample, () if sample == DIRECT else cot, "", finish, (0.5, 0.5), 0, text)


def sample(judge: Any, folder: Path, **changed: Any) -> RankLogs:
    journal = RankLogs(folder, 3)
    how = {"what": "predict", "n_cot": 2, "without_cot": True, "free": True, "batch_size": 1, **changed}
    sample_judgements(judge, PROMPTS, journal, **how)
    return journal


def keys(journal: RankLogs) -> list[tuple[int, int]]:
    return [(judgement.row, judgement.sample) for judgement in journal.ordered()]


def test_every_prompt_gets_all_its_samples(tmp_path: Path) -> None:
    judge = Scripted()
    journal = sample(judge, tmp_path)
    assert keys(journal) == [(row, k) for row in range(5) for k in (DIRECT, 0, 1)]
    assert [len(batch) for batch in judge.batches] == [2, 2, 1]  # four times one sequence, two of each prompt
    lengths = [len(PROMPTS[row].prompt_ids) for batch in judge.batches for row in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_without_a_reading_without_cot(tmp_path: Path) -> None:
    assert keys(sample(Scripted(), tmp_path, without_cot=False)) == [(row, k) for row in range(5) for k in (0, 1)]
    assert keys(sample(Scripted(), tmp_path / "none", n_cot=0)) == [(row, DIRECT) for row in range(5)]


def test_what_was_done_is_not_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = Scripted(fail_after=1)
    with pytest.raises(KeyboardInterrupt):
        sample(first, tmp_path)
    again = Scripted()
    journal = sample(again, tmp_path)
    assert keys(journal) == [(row, k) for row in range(5) for k in (DIRECT, 0, 1)]
    assert not {row for batch in first.batches for row in batch} & {row for batch in again.batches for row in batch}
    assert "predict: 6 of 15 judgements were made before; going on" in caplog.text
    whole = Scripted()
    sample(whole, tmp_path)
    assert whole.batches == []


COTS = {0: [(1, 2, 3)], 2: [(1,), (4, 5)], 4: [()]}


def read(judge: Any, folder: Path, **changed: Any) -> RankLogs:
    journal = RankLogs(folder, 3)
    read_judgements(judge, PROMPTS, COTS, journal, **{"what": "predict", "without_cot": True, "batch_size": 3, **changed})
    return journal


def test_given_cots_are_read_each_once(tmp_path: Path) -> None:
    judge = Scripted()
    journal = read(judge, tmp_path)
    found = {(judgement.row, judgement.sample): judgement.cot_ids for judgement in journal.ordered()}
    assert found == {
        **{(row, DIRECT): () for row in range(5)},
        **{(row, k): cot for row, cots in COTS.items() for k, cot in enumerate(cots)},
    }
    assert [len(batch) for batch in judge.batches] == [1] * 5  # three sequences, as many as one prompt may have
    again = Scripted()
    read(again, tmp_path)
    assert again.batches == []


def test_an_interrupted_reading_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(Scripted(fail_after=2), tmp_path)
    again = Scripted()
    assert len(keys(read(again, tmp_path))) == 9
    assert sum(len(batch) for batch in again.batches) == 3  # prompts
