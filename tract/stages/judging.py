"""A judge at work on many prompts: batch after batch into a log that a killed run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tract.generation.batching import batches_by_length
from tract.generation.hf import HFJudge
from tract.generation.judgement import NO_COT, Prompt
from tract.stages.judgement_log import JudgementLog
from tract.stages.progress import Progress

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 15.0


def sample_judgements(
    judge: HFJudge,
    prompts: Sequence[Prompt],
    journal: JudgementLog,
    *,
    what: str,
    n_cot: int,
    without_cot: bool,
    free: bool,
    batch_size: int,
) -> None:
    """Samples the CoTs that the log lacks and reads the scores behind them.

    Args:
        judge: a loaded judge. prompts: all of them, whether done or not. journal: what was done, and where the rest goes.
        what: the name of the work in the log.
        n_cot: CoTs of each prompt. without_cot: whether to read the score right behind the prompt too.
        free: whether the judge writes its own score too. batch_size: sequences of a batch.
    """
    samples = [*([NO_COT] if without_cot else []), *range(n_cot)]
    missing = [prompt for prompt in prompts if journal.missing(prompt.row, samples)]
    if len(missing) < len(prompts):
        log.info("%s: %d of %d prompts were judged before; going on", what, len(prompts) - len(missing), len(prompts))
    done = sum((prompt.row, sample) in journal.done for prompt in prompts for sample in samples)
    progress = Progress(what, "judgements", len(prompts) * len(samples), done, log.info, every_s=_REPORT_EVERY_S)
    lacking = {prompt.row for prompt in missing}
    # Cut as if nothing were done, and made anew as a whole where something is missing: rounding depends on who shares a batch,
    # so a run that was cut off ends with the very numbers of one that was not.
    for batch in batches_by_length(prompts, batch_size, n_cot):
        if all(prompt.row not in lacking for prompt in batch):
            continue
        known = len(journal)
        judgements = judge.judge(batch, n_cot, without_cot=without_cot, free=free)
        journal.append(judgements)
        progress.advance(len(journal) - known)


def read_judgements(
    judge: HFJudge,
    prompts: Sequence[Prompt],
    cots: Mapping[int, Sequence[Sequence[int]]],
    journal: JudgementLog,
    *,
    what: str,
    without_cot: bool,
    batch_size: int,
) -> None:
    """Reads the scores behind given CoTs, as far as the log lacks them.

    Args:
        cots: row of a prompt -> token ids of its CoTs. The others as in ``sample_judgements``.
    """
    given = [
        (Prompt(prompt.id, prompt.row, prompt.prompt_ids), sample, cot)
        for prompt in prompts
        for sample, cot in ([(NO_COT, ())] if without_cot else []) + list(enumerate(cots.get(prompt.row, ())))
    ]
    done = sum(not journal.missing(prompt.row, [sample]) for prompt, sample, _ in given)
    progress = Progress(what, "judgements", len(given), done, log.info, every_s=_REPORT_EVERY_S)
    given.sort(key=lambda item: -len(item[0].prompt_ids) - len(item[2]))
    for first in range(0, len(given), batch_size):
        batch = given[first : first + batch_size]
        if not any(journal.missing(prompt.row, [sample]) for prompt, sample, _ in batch):
            continue
        known = len(journal)
        judgements = judge.read([prompt for prompt, _, _ in batch], [cot for _, _, cot in batch], [sample for _, sample, _ in batch])
        journal.append(judgements)
        progress.advance(len(journal) - known)
