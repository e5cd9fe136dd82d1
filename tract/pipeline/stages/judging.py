"""A judge at work on many prompts: batch after batch into a log from which a killed run resumes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from tract.common import signals
from tract.common.distributed import rank_info
from tract.common.progress import Progress
from tract.inference.backend import JudgeBackend
from tract.inference.batching import batches_by_length
from tract.inference.judgement import DIRECT, Judgement, Prompt
from tract.pipeline.stages.rank_logs import RankLogs

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 15.0
# Full batches that are sampled as one part: places in a batch are refilled within it, and a killed run loses at most one.
_PART = 4


def sample_judgements(
    judge: JudgeBackend,
    prompts: Sequence[Prompt],
    journal: RankLogs,
    *,
    what: str,
    n_cot: int,
    without_cot: bool,
    free: bool,
    batch_size: int,
) -> None:
    """Samples the CoTs that the log lacks and reads the scores after them, this rank's share of them.

    Args:
        judge: at work. prompts: all of them, whether done or not. journal: what was done, and where the rest goes.
        what: the name of the work in the log.
        n_cot: CoTs of each prompt. without_cot: whether to read the score right after the prompt too.
        free: whether the judge writes its own score too. batch_size: sequences of a batch.
    """
    samples = [*([DIRECT] if without_cot else []), *range(n_cot)]
    # Cut as if nothing were done, and repeated as a whole where something is missing: rounding depends on who shares a batch,
    # so a run that was cut off ends with the very numbers of one that was not. An engine mixes requests as they come.
    share = -(-len(prompts) * max(1, n_cot) // rank_info().world_size)
    parts = batches_by_length(prompts, 1 if judge.independent else min(batch_size * _PART, share), n_cot)
    missing = [part for part in parts if any(journal.missing(prompt.row, samples) for prompt in part)]
    total, left = len(prompts) * len(samples), sum(map(len, missing)) * len(samples)
    if left < total:
        log.info("%s: %d of %d judgements were made before; going on", what, total - left, total)
    costs = [sum(len(prompt.prompt_ids) for prompt in part) for part in missing]
    mine = journal.own_share(missing, costs, judge.ranks_per_judge)
    if rank_info().world_size > 1:
        what, total, left = f"{what}, rank {rank_info().rank} of {rank_info().world_size}", *[sum(map(len, mine)) * len(samples)] * 2
    progress = Progress(what, "judgements", total, total - left, log.info, every_s=_REPORT_EVERY_S)
    made = judge.judge_parts(mine, n_cot, rows=batch_size, without_cot=without_cot, free=free, progress=progress.advance)
    _keep(made, journal, what, total - left, total)


def read_judgements(
    judge: JudgeBackend,
    prompts: Sequence[Prompt],
    cots: Mapping[int, Sequence[Sequence[int]]],
    journal: RankLogs,
    *,
    what: str,
    without_cot: bool,
    batch_size: int,
) -> None:
    """Reads the scores after given CoTs, as far as the log lacks them, this rank's share.

    Args:
        cots: row of a prompt -> token ids of its CoTs. The others as in ``sample_judgements``.
    """
    given = {prompt.row: [*([(DIRECT, ())] if without_cot else []), *enumerate(cots.get(prompt.row, ()))] for prompt in prompts}
    most = max(map(len, given.values()), default=1)
    missing = [
        batch
        for batch in batches_by_length(prompts, 1 if judge.independent else batch_size, most)
        if any(journal.missing(prompt.row, [sample for sample, _ in given[prompt.row]]) for prompt in batch)
    ]
    mine = journal.own_share(missing, [sum(len(prompt.prompt_ids) for prompt in batch) for batch in missing], judge.ranks_per_judge)
    left, total = (sum(len(given[prompt.row]) for batch in batches for prompt in batch) for batches in (mine, [prompts]))
    before = total - left if rank_info().world_size == 1 else 0
    progress = Progress(what, "judgements", left + before, before, log.info, every_s=_REPORT_EVERY_S)
    pairs = [[(prompt, given[prompt.row]) for prompt in batch] for batch in mine]
    _keep(judge.read_parts(pairs, rows=batch_size, progress=progress.advance), journal, what, before, left + before)


def _keep(made: Iterator[list[Judgement]], journal: RankLogs, what: str, done: int, total: int) -> None:
    """Writes judgements as they come. A signal breaks off what is being made, but not what is being written."""
    signals.set_status(f"in {what}, {done} of {total} judgements are saved")
    for judgements in made:
        with signals.postponed():
            journal.append(judgements)
            done += len(judgements)
            signals.set_status(f"in {what}, {done} of {total} judgements are saved")
