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
# Full batches that are sampled as one part: places in a batch are taken anew within it, and a killed run loses at most one.
_PART = 4


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
    # Cut as if nothing were done, and made anew as a whole where something is missing: rounding depends on who shares a batch,
    # so a run that was cut off ends with the very numbers of one that was not.
    parts = batches_by_length(prompts, batch_size * _PART, n_cot)
    missing = [part for part in parts if any(journal.missing(prompt.row, samples) for prompt in part)]
    total, left = len(prompts) * len(samples), sum(map(len, missing)) * len(samples)
    if left < total:
        log.info("%s: %d of %d judgements were made before; going on", what, total - left, total)
    progress = Progress(what, "judgements", total, total - left, log.info, every_s=_REPORT_EVERY_S)
    for part in missing:
        journal.append(judge.judge(part, n_cot, rows=batch_size, without_cot=without_cot, free=free, progress=progress.advance))


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
    given = {prompt.row: [*([(NO_COT, ())] if without_cot else []), *enumerate(cots.get(prompt.row, ()))] for prompt in prompts}
    done = sum(not journal.missing(row, [sample]) for row, pairs in given.items() for sample, _ in pairs)
    progress = Progress(what, "judgements", sum(map(len, given.values())), done, log.info, every_s=_REPORT_EVERY_S)
    most = max(map(len, given.values()), default=1)
    for batch in batches_by_length(prompts, batch_size, most):
        if not any(journal.missing(prompt.row, [sample for sample, _ in given[prompt.row]]) for prompt in batch):
            continue
        known = len(journal)
        journal.append(judge.read(batch, [given[prompt.row] for prompt in batch]))
        progress.advance(len(journal) - known)
