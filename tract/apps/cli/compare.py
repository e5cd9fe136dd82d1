"""``tract compare``: of graded files, whose answers are better; of folders, the comparison of runs."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract.apps.compare import command as runs
from tract.common.errors import ConfigError, DataError
from tract.common.terminal import say

if TYPE_CHECKING:
    from tract.apps.grading.pairs import AnswerPairs, GradedFile
    from tract.evaluation.paired import PairedComparison

_DESCRIPTION = """\
Graded files (see `tract grade`): each further file is compared with the first one, or with that of --baseline. Answers are paired by
id, else by instruction; a pair counts if both have a score, and all others are counted with their reasons. Intervals are percentile
bootstraps over questions. Scores on different scales are refused unless --normalize is given. Folders: compares runs of the training
pipeline."""
_EPILOG = """\
examples:
  tract compare graded_a.jsonl graded_b.jsonl --tie-margin 0.25
  tract compare old.csv new1.csv new2.csv --columns instruction=question --by instruction
  tract compare runs/tract_quickstart runs/ce_only_quickstart --predictor rail,decode_free
"""
_STRETCHES = 9
_FILES_ONLY = ("by", "tie_margin", "normalize", "seed", "columns")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of both comparisons."""
    runs.add_arguments(parser)
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    group = parser.add_argument_group("graded files")
    group.add_argument("--by", choices=("id", "instruction"), help="what pairs answers (default: id if every file has it)")
    group.add_argument(
        "--tie-margin", type=float, metavar="POINTS", help="scores that differ by no more are a tie (default: what rounding can do)"
    )
    group.add_argument(
        "--normalize", action="store_true", default=None,
        help="compare (score - lowest) / (highest - lowest) of each score's own scale; --tie-margin is in these units",
    )  # fmt: skip
    group.add_argument("--seed", type=int, metavar="N", help="of the resamples (default: 0)")
    group.add_argument("--columns", nargs="+", action="extend", metavar="FIELD=COLUMN", help="which columns hold id and instruction")


def run(arguments: argparse.Namespace) -> None:
    """Compares.

    Raises:
        TractError: for a mistake of the user's.
    """
    if missing := [path for path in arguments.runs if not path.exists()]:
        raise ConfigError(f"tract compare: there is no file or folder {missing[0]}; give graded files, or folders of runs")
    files = [path for path in arguments.runs if path.is_file()]
    if not files:
        if given := [name for name in _FILES_ONLY if getattr(arguments, name) is not None]:
            raise ConfigError(f"--{given[0].replace('_', '-')}: is for graded files; {arguments.runs[0]} is none")
        runs.run(arguments)
        return
    if len(files) < len(arguments.runs):
        other = next(path for path in arguments.runs if not path.is_file())
        raise ConfigError(f"tract compare: {files[0]} is a file and {other} is none; give graded files, or folders of runs")
    _compare_files(files, arguments)


def _compare_files(files: list[Path], arguments: argparse.Namespace) -> None:
    from tract.apps.grading.columns import parse_columns
    from tract.apps.grading.pairs import key_of, pairs_of, read_graded
    from tract.evaluation.paired import compared
    from tract.judge.relative import TIE_MARGIN

    if arguments.predictor is not None:
        raise ConfigError("--predictor: is for runs; a graded file holds the scores of one predictor")
    options = runs.options_of(arguments)
    margin = TIE_MARGIN if arguments.tie_margin is None else arguments.tie_margin
    if not 0 <= margin < math.inf:
        raise ConfigError(f"--tie-margin: {margin} is not a number of points >= 0")
    files = _with_baseline_first(files, arguments.baseline)
    given = parse_columns(arguments.columns or [])
    key = arguments.by or key_of(files, given)
    names = _file_names(files)
    baseline = read_graded(files[0], key, given)
    say(_file_line(names[0], baseline))
    content = []
    for path, name in zip(files[1:], names[1:], strict=True):
        other = read_graded(path, key, given)
        pairs = pairs_of(baseline, other, (names[0], name), key, normalize=bool(arguments.normalize))
        say(f"{_file_line(name, other)}\n\n{_pairs_line(pairs, key)}")
        if not len(pairs.first):
            raise DataError(f"tract compare: no answer of {names[0]} and {name} pairs up by {key}; give --by, or --columns {key}=COLUMN")
        found = compared(
            pairs.first, pairs.second, pairs.questions, margin=margin, seed=arguments.seed or 0,
            resamples=options.resamples, confidence=options.confidence, normalized=pairs.normalized,
        )  # fmt: skip
        say("\n".join(_comparison_lines(found, (names[0], name), options.confidence)))
        say("\n".join(_difference_histogram(pairs, (names[0], name))) + "\n")
        content.append({"first_file": names[0], "second_file": name, "by": key, **asdict(found), "confidence": options.confidence,
                        "left_out": dict(pairs.left_out), "not_ok": dict(pairs.not_ok),
                        "first_scales": pairs.scales[0], "second_scales": pairs.scales[1]})  # fmt: skip
    if arguments.out is not None:
        say(str(runs.write(arguments.out / "comparison.json", json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")))


def _with_baseline_first(files: list[Path], baseline: str | None) -> list[Path]:
    if len(files) < 2:
        raise ConfigError(f"tract compare: {files[0]} is alone; give two graded files or more")
    if baseline is None:
        return files
    found = [path for path in files if baseline in (str(path), path.name, path.stem)]
    if len(found) != 1:
        raise ConfigError(f"--baseline: {baseline!r} is not one of {', '.join(map(str, files))}")
    return [found[0], *(path for path in files if path != found[0])]


def _file_names(files: Sequence[Path]) -> list[str]:
    """The names of the files, or their paths where names are the same."""
    names = [path.name for path in files]
    return names if len(set(names)) == len(names) else [str(path) for path in files]


def _file_line(name: str, file: GradedFile) -> str:
    from tract.apps.grading.scales import shown_scales

    scales = f" ({shown_scales(file.scales)})" if file.scales else ""
    repeats = f"; {file.repeats} rows repeat an answer and its grade, which count once" if file.repeats else ""
    return f"{name}: {file.rows} rows, {file.scored} answers with a score{scales}{repeats}{_reason_counts(file.left_out, '; rows ')}"


def _pairs_line(pairs: AnswerPairs, key: str) -> str:
    not_ok = _reason_counts(pairs.not_ok, "; of the paired scores with another status than ok: ")
    return (
        f"{len(pairs.first)} pairs by {key}, {len(set(pairs.questions))} questions{_reason_counts(pairs.left_out, '; left out: ')}{not_ok}"
    )


def _reason_counts(counts: Mapping[str, int], head: str) -> str:
    return head + ", ".join(f"{reason}: {count}" for reason, count in counts.items()) if counts else ""


def _comparison_lines(found: PairedComparison, names: tuple[str, str], confidence: float) -> list[str]:
    from tract.evaluation.cells import estimate_text, name_value_lines

    first, second = names
    rows = [
        (f"mean score of {first}", estimate_text(found.first, ".3f")),
        (f"mean score of {second}", estimate_text(found.second, ".3f")),
        (f"difference, {second} minus {first}", estimate_text(found.difference, "+.3f")),
    ]
    shares = ((f"{second} wins", found.wins), ("ties", found.ties), (f"{second} loses", found.losses))
    rows += [(name, estimate_text(share, ".1f", scale=100.0, unit=" %")) for name, share in shares]
    margin = f"ties: differences of at most {found.margin:g} {'of the normalized scores' if found.normalized else 'points'}"
    head = (
        f"{100 * confidence:g} % intervals, clustered by question; {margin}" if found.first.low is not None else f"no intervals; {margin}"
    )
    lines = [head, *name_value_lines(rows)]
    note = "scores are normalized: (score - lowest) / (highest - lowest) of each one's own scale, from 0 to 1"
    return [note, *lines] if found.normalized else lines


def _difference_histogram(pairs: AnswerPairs, names: tuple[str, str]) -> list[str]:
    """Of the differences, in stretches of equal width around zero."""
    from tract.evaluation.text_histogram import Histogram

    differences: Any = pairs.second - pairs.first
    most = float(abs(differences).max())
    if most == 0:
        return ["", "all differences are 0"]
    histogram = Histogram.between(-most, most, _STRETCHES, "+.2f")
    for value in differences:
        histogram.add(float(value))
    return ["", f"differences, {names[1]} minus {names[0]}", *histogram.lines()]
