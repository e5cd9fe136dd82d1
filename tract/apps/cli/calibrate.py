"""``tract calibrate``: fits a judge's scores to true ones, says honestly what that gains, and keeps it in the judge's settings."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract.apps.cli.judges import INPUT_HELP, add_data_arguments, check_rubric, given_rubric, note_unused_columns, open_judge
from tract.apps.cli.output import interrupt_message, progress
from tract.common import signals
from tract.common.counts import GRADES
from tract.common.errors import ConfigError, DataError
from tract.common.terminal import say
from tract.common.user_paths import given_path
from tract.judge.arguments import add_judge_arguments, options_of, positive, share

if TYPE_CHECKING:
    from tract.apps.grading.calibrating import Effect
    from tract.apps.grading.scan import FileFacts
    from tract.apps.grading.validation import Validation
    from tract.artifacts.judge_settings import JudgeSettings
    from tract.evaluation.calibration import Calibration
    from tract.text.schema import Rubric

_DESCRIPTION = """\
Fits a calibration on a validation file with true scores and writes it into the judge's judge_config.json. It is off when judging
unless --calibrated (or Judge.from_pretrained(..., calibrated=True)) switches it on. The errors after it are those on questions that
it was not fitted on (cross-validation); a calibration that raises the error is not written without --force. The file may be one that
`tract grade` wrote with this judge, uncalibrated."""
_EPILOG = """\
examples:
  tract calibrate --judge my_judge --data val.jsonl --target human_score
  tract calibrate --judge my_judge --data graded_val.parquet --target human_score --method isotonic --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument(
        "--data",
        type=given_path,
        required=True,
        metavar="FILE",
        help=f"{INPUT_HELP}; graded or not",
    )
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the true score of each row, in points")
    add_data_arguments(parser)
    parser.add_argument(
        "--method", choices=("temperature", "isotonic"),
        help="a temperature of the score distribution, or an ascending map of the score (default: temperature, where it moves the score)",
    )  # fmt: skip
    parser.add_argument("--folds", type=positive, default=5, metavar="K", help="of the cross-validation (default: 5)")
    parser.add_argument("--confidence", type=share, default=0.95, metavar="SHARE", help="of the intervals (default: 0.95)")
    parser.add_argument("--resamples", type=positive, default=2000, metavar="N", help="of the questions (default: 2000)")
    parser.add_argument("--fold-seed", type=int, default=0, metavar="N", help="of folds and resamples (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--force", action="store_true", help="write a calibration that raises the error, too")
    add_judge_arguments(parser, settings=False)


def run(arguments: argparse.Namespace) -> None:
    """Calibrates.

    Raises:
        TractError: for a mistake of the user's.
    """
    with signals.handled(interrupt_message, once=True):
        signals.set_status("before anything was written; to keep grades, grade the file first (tract grade) and calibrate on that")
        _calibrate(arguments)


def _calibrate(arguments: argparse.Namespace) -> None:
    from tract.apps.grading.calibrating import effect, fitted, held_out
    from tract.apps.grading.coverage import interval_lines
    from tract.artifacts.judge_settings import SETTINGS_FILE, read_settings

    folder = Path(arguments.judge)
    if not (folder / SETTINGS_FILE).is_file():
        raise ConfigError(f"--judge: {folder} holds no {SETTINGS_FILE} to write to; export the judge first: tract export RUN FOLDER")
    if arguments.folds < 2:
        raise ConfigError("--folds: 1 leaves nothing to fit on; give 2 or more")
    settings = read_settings(folder / SETTINGS_FILE)
    method = _method(arguments.method, settings)
    found, facts = _validation(arguments, settings, method)
    examples, grid = found.examples, settings.grid
    say(_examples_line(arguments.data, found))
    after = held_out(examples, grid, settings.predictor, method, arguments.folds, arguments.fold_seed)
    gain = effect(
        examples,
        after,
        folds=arguments.folds,
        seed=arguments.fold_seed,
        resamples=arguments.resamples,
        confidence=arguments.confidence,
    )  # fmt: skip
    calibration = fitted(examples, grid, settings.predictor, method, _facts(arguments, facts, found, gain))
    say("\n".join([*_effect_lines(calibration, gain, arguments.confidence), *interval_lines(gain), _training_line(folder, found)]))
    if arguments.dry_run:
        say("nothing was written (--dry-run)")
        return
    worse = _raises_error(gain)
    if worse and not arguments.force:
        say("nothing was written: the calibration raises the error; keep the scores as they are, or write it all the same with --force")
        return
    try:
        written = replace(settings, calibration=calibration).write(folder)
    except OSError as error:
        raise ConfigError(
            f"--judge: cannot write {folder / SETTINGS_FILE} ({error.strerror}); give a folder that can be written to"
        ) from None
    if worse:
        say(f"{written}\nit holds a calibration that raises the error (--force); without --calibrated, scores are given as they are")
        return
    command = shlex.join(["tract", "grade", "FILE", "--judge", str(arguments.judge), "--calibrated", "-o", "graded.jsonl"])
    say(f"{written}\ncalibrated scores are given with --calibrated, as in:\n  {command}")


def _method(asked: str | None, settings: JudgeSettings) -> str:
    from tract.judge.grades import EXPECTATIONS

    if settings.predictor in EXPECTATIONS:
        return asked or "temperature"
    if asked == "temperature":
        raise ConfigError(f"--method: a temperature does not move scores that are read by {settings.predictor}; use --method isotonic")
    return "isotonic"


def _validation(arguments: argparse.Namespace, settings: JudgeSettings, method: str) -> tuple[Validation, FileFacts]:
    from tract.apps.grading.columns import columns_in, parse_columns
    from tract.apps.grading.scan import scan
    from tract.apps.grading.validation import RATER, graded_already

    options = options_of(arguments)  # also where they are not needed, so that mistakes in them are told
    rubric = given_rubric(arguments)
    facts = scan(arguments.data, None)
    names, file = list(facts.kinds), str(arguments.data)
    if arguments.target not in names:
        raise DataError(_no_target(arguments.target, names, file))
    given = parse_columns(arguments.columns, others=(RATER,))
    if {"judge_score", "judge_distribution"} <= set(names):
        columns = columns_in(names, given, file, required=("instruction",), others=(RATER,))
        return graded_already(arguments.data, columns, arguments.target, settings.grid, method), facts
    return _graded_now(arguments, options, rubric, facts, columns_in(names, given, file, others=(RATER,))), facts


def _no_target(target: str, names: Sequence[str], file: str) -> str:
    """What to say of a --target that is no column of the file; one that lists a column for each rater is told how to write them."""
    from tract.data.readers.fields import did_you_mean

    parts = [part.strip() for part in target.strip("[]()").split(",")]
    if len(parts) > 1 and set(parts) <= set(names):
        return (
            f"{file}: --target takes one column, found {len(parts)} ({', '.join(parts)}); give a column of their means, or a file "
            "with one row for each rating and --columns rater=COLUMN"
        )
    return f"{file}: has no column {target!r} (--target){did_you_mean(target, names)}; it has {', '.join(names)}"[:500]


def _graded_now(
    arguments: argparse.Namespace, options: dict[str, Any], rubric: Rubric | None, facts: FileFacts, columns: Any
) -> Validation:
    from tract.apps.grading.validation import graded_now

    if rubric is not None:
        note_unused_columns(arguments.data, columns)
        check_rubric(arguments.judge, options, rubric, arguments.rubric, own_grid=True)
    with open_judge(arguments.judge, options) as judge, progress("calibrating", facts.rows, 0) as advance:
        return graded_now(arguments.data, columns, arguments.target, rubric, judge, advance)


def _examples_line(path: Path, found: Validation) -> str:
    left_out = ", ".join(f"{reason}: {count}" for reason, count in found.left_out.items())
    questions = len({example.question for example in found.examples})
    head = f"{path}: {len(found.examples)} examples with a score and a target, {questions} questions"
    if found.ratings > len(found.examples):
        equal = "" if found.by_rater else "; equal rows count as different raters, --columns rater=COLUMN tells them apart"
        head += f"; a target is the mean over the raters of a response, of {found.ratings} ratings in all{equal}"
    explained = [
        f"  {status}: {words}" for status, words in GRADES.items() if status != "error" and f"no score ({status})" in found.left_out
    ]
    failures = [f"  {line}" for line in found.failures.lines()]
    return "\n".join([f"{head}; left out: {left_out}" if left_out else head, *explained, *failures])


def _training_line(folder: Path, found: Validation) -> str:
    """Whether the judge was trained on what it is calibrated on, as far as that can be told."""
    from tract.artifacts.trained_on import TRAINED_ON_FILE, read_trained_on

    known = read_trained_on(folder)
    contents = [example.content for example in found.examples if example.content]
    if known is None or not contents:
        what = f"the judge has no {TRAINED_ON_FILE}" if known is None else "the file does not hold the responses"
        return f"whether the judge was trained on these rows is not known, since {what}; on such rows its errors look smaller than they are"
    if trained := sum(content in known for content in contents):
        return (
            f"warning: the judge was trained on {trained:,} of these {len(found.examples):,} responses (or chosen by them), so that "
            "errors and intervals look better than they are on new ones; calibrate on rows that it has not seen"
        )
    return f"the judge was trained on none of these {len(contents):,} responses"


def _facts(arguments: argparse.Namespace, facts: FileFacts, found: Validation, gain: Effect) -> dict[str, Any]:
    return {
        "file": facts.path.name,
        "sha256": facts.sha256,
        "target": arguments.target,
        "left_out": dict(found.left_out),
        "ratings": found.ratings,
        "confidence": arguments.confidence,
        **gain.to_dict(),
    }


def _effect_lines(calibration: Calibration, gain: Effect, confidence: float) -> list[str]:
    from tract.evaluation.cells import estimate_text, name_value_lines

    fitted = f"temperature {calibration.temperature:.4g}" if calibration.temperature else f"a map with {len(calibration.raw)} knots"
    rows = [
        ("RMSE before", estimate_text(gain.rmse_before, ".3f")),
        (f"RMSE after, on held-out questions ({gain.folds} folds)", estimate_text(gain.rmse_after, ".3f")),
        ("after minus before", estimate_text(gain.difference, "+.3f")),
        ("90 % intervals that hold the target, before", estimate_text(gain.coverage_before, ".3f")),
        ("90 % intervals that hold the target, after", estimate_text(gain.coverage_after, ".3f")),
    ]
    wider = f"intervals of grades wider by {calibration.margin:.3g} on both sides"
    table = [f"{calibration.method}: {fitted}, {wider}; below {100 * confidence:g} % intervals, clustered by question"]
    table += name_value_lines(rows)
    if _raises_error(gain):
        table.append("the calibration raises the error on questions that it was not fitted on")
    elif gain.difference.high is None or gain.difference.high >= 0:
        table.append("this data does not show that the calibration lowers the error")
    return table


def _raises_error(gain: Effect) -> bool:
    """Whether the interval of the paired difference lies above 0."""
    return gain.difference.low is not None and gain.difference.low > 0
