"""``tract grade``: a file of responses in, the same file with grades out; goes on where it was cut off."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from tract.apps.cli.judges import INPUT_HELP, add_data_arguments, check_rubric, given_rubric, note_unused_columns, open_judge
from tract.apps.cli.output import interrupt_message, note, progress
from tract.common import signals
from tract.common.errors import ConfigError
from tract.common.terminal import say
from tract.common.user_paths import given_path
from tract.judge.arguments import add_judge_arguments, options_of, positive

if TYPE_CHECKING:
    from tract.apps.grading.files import GradingPlan

_DESCRIPTION = """\
Grades each row of a file. The output holds every row once, in order, its columns as they were, and the columns judge_score,
judge_status, judge_feedback(s), judge_distribution, judge_low and judge_high (90 %), judge_standard_error, judge_score_mass,
judge_raw_score, judge_shortened and judge_error. A row without a score has null there, and a status that says why.

The same command goes on where it was cut off: grades are kept in OUTPUT.partial until all are there. Rows that failed, e.g. because a
server was down, are graded again by the same command with --retry-failed. Exit status: 0; 1 if no row got a score; 2 for a mistake."""
_EPILOG = """\
examples:
  tract grade responses.jsonl --judge my_judge --rubric rubric.yaml -o graded.parquet
  tract grade answers.csv --judge my_judge --columns instruction=question response=answer -o graded.csv
  tract grade responses.jsonl --judge prometheus-eval/prometheus-7b-v2.0 --backend vllm --n-cot 4 -o graded.jsonl
"""
# Options that concern the machine, not the scores: they are never what differs.
_HOW = ("batch_size", "device", "timeout_s", "max_retries", "vllm", "cache_dir", "api_key_env")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("file", type=given_path, metavar="FILE", help=INPUT_HELP)
    parser.add_argument("-o", "--out", type=given_path, required=True, metavar="OUTPUT", help=".jsonl, .ndjson, .csv or .parquet")
    add_data_arguments(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="grade the first N rows only; the output holds no others")
    parser.add_argument("--restart", action="store_true", help="forget what an earlier command kept in OUTPUT.partial")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    parser.add_argument(
        "--retry-failed", action="store_true", help="grade only the rows of OUTPUT that have no score; all others stay as they are"
    )
    parser.add_argument("--keep-going", action="store_true", help="go on however many rows fail one after the other")
    add_judge_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Grades the file; returns the exit status.

    Raises:
        TractError: for a mistake of the user's.
    """
    with signals.handled(interrupt_message, once=True):
        signals.set_status("before a row was graded")
        return _grade(arguments)


def _grade(arguments: argparse.Namespace) -> int:
    begun = time.monotonic()
    options = options_of(arguments)
    if arguments.retry_failed and arguments.overwrite:
        raise ConfigError("--retry-failed: keeps the grades of OUTPUT and --overwrite drops them; give one of the two")
    plan = _plan(arguments)
    if plan.retry is not None:
        if not plan.retry.rows:
            say(f"{plan.out}: each of its {plan.facts.rows} rows has a score; nothing was graded")
            return 0
        reasons = ", ".join(f"{status}: {count}" for status, count in plan.retry.statuses.items())
        note(f"{plan.out}: {plan.retry.rows} of {plan.facts.rows} rows have no score ({reasons}); these are graded again")
    from tract.apps.grading.files import finish, grade_rows
    from tract.apps.grading.journal import Journal
    from tract.apps.grading.scales import shown_scale
    from tract.judge.grades import ERROR

    asked = {f"--{name.replace('_', '-')}": value for name, value in {"judge": arguments.judge, **options}.items() if name not in _HOW}
    if plan.rubric is not None:
        note_unused_columns(arguments.file, plan.columns)
        check_rubric(arguments.judge, options, plan.rubric, arguments.rubric)
    # Engines differ by rounding, and a server that knows no log-probabilities of tokens by more.
    engine = {"backend": options.get("backend", "hf"), "api": options.get("api")}
    with (
        open_judge(arguments.judge, options) as judge,
        Journal(plan.journal_path, {**plan.work(judge.fingerprint), **engine}, asked, restart=arguments.restart) as journal,
    ):
        if plan.rubric is not None and not plan.rubric.labels:
            own = shown_scale(judge.grid.labels)
            note(f"--rubric {arguments.rubric}: is a criterion without scores; the judge's own are given: {own}")
        before, rows = journal.done, plan.rows
        signals.set_status(lambda: f"in grading, after {journal.done} of {rows} rows, which are kept in {plan.journal_path}")
        if before:
            note(f"{plan.journal_path}: {before} of {rows} rows are graded already; going on")
        with progress("grading", rows, before) as advance:
            grade_rows(plan, judge, journal, advance, keep_going=arguments.keep_going)
        summary = finish(plan, journal, judge.grid)
    say("\n".join(summary.lines(_time(time.monotonic() - begun, rows - before, before))))
    if failed := summary.statuses[ERROR]:
        without = summary.rows - summary.scores.count
        say(f"\nrows without a score: {without}, errors: {failed}; the same command with --retry-failed grades these {without} again")
    say(f"\n{plan.out}")
    return 0 if summary.scores.count else 1


def _plan(arguments: argparse.Namespace) -> GradingPlan:
    from tract.apps.grading.columns import parse_columns
    from tract.apps.grading.files import plan_of

    given = parse_columns(arguments.columns)
    rubric = given_rubric(arguments)
    return plan_of(
        arguments.file, arguments.out, given, rubric, arguments.limit, overwrite=arguments.overwrite, retry_failed=arguments.retry_failed
    )


def _time(seconds: float, graded: int, before: int) -> str:
    from tract.common.progress import duration

    return f"{duration(seconds)} for {graded} rows" + (f"; {before} were graded before" if before else "")
