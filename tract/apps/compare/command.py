"""The command line of ``tract compare``. Nothing heavy is loaded before the arguments are read."""

from __future__ import annotations

import argparse
from pathlib import Path

from tract.apps.compare.options import DEFAULT_BASELINE, DEFAULT_METRICS, CompareOptions
from tract.common.durable import write_atomically
from tract.common.errors import ConfigError
from tract.common.terminal import say
from tract.common.user_paths import given_path

_DESCRIPTION = "Compares runs: means and intervals over seeds, paired differences to a baseline, tables, plots and a page."
_EPILOG = """\
examples:
  tract compare runs/tract_quickstart                        a run's seeds
  tract compare runs/tract_quickstart/multirun               all jobs of a sweep
  tract compare runs/tract_quickstart runs/ce_only_quickstart --predictor rail,decode_free
  tract compare runs --baseline stage1_only --metrics pearson_r,rmse --out comparison
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a comparison is asked for."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("runs", nargs="+", type=given_path, metavar="RUN", help="a run, an evaluate-KEY, a multirun or a folder above them")
    parser.add_argument(
        "--baseline", metavar="NAME", help=f"the variant that differences are to (default: {DEFAULT_BASELINE}, or the first)"
    )
    parser.add_argument(
        "--predictor",
        metavar="NAMES",
        help="how scores are read: names with commas between, or all (default: each one's main predictor)",
    )
    parser.add_argument(
        "--metrics", default=",".join(DEFAULT_METRICS), metavar="NAMES", help="names with commas between (default: %(default)s)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, metavar="SHARE", help="of the intervals (default: %(default)s)")
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the questions, for differences; 0 for none (default: %(default)s)"
    )
    parser.add_argument("--out", type=given_path, metavar="DIR", help="where the files go (default: comparison in the first RUN)")


def run(arguments: argparse.Namespace) -> None:
    """Compares, prints the tables and writes the files.

    Raises:
        TractError: for anything that the user can mend.
    """
    options = options_of(arguments)
    # They load numpy, scipy and pyarrow; matplotlib comes with the plots.
    from tract.apps.compare.comparison import compare
    from tract.apps.compare.tables import terminal
    from tract.artifacts.runs import find_runs, is_evaluation

    comparison = compare(find_runs(arguments.runs), options)
    say(terminal(comparison) + "\n")
    from tract.apps.compare.files import files_of

    first: Path = arguments.runs[0]
    out: Path = (
        arguments.out or (first.absolute().parent if is_evaluation(first) else first) / "comparison"
    )  # no file is added to a product
    for name, content in files_of(comparison, [str(run) for run in arguments.runs], out).items():
        say(str(write(out / name, content)))


def options_of(arguments: argparse.Namespace) -> CompareOptions:
    """What is compared by.

    Raises:
        ConfigError: if an option cannot be used.
    """
    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence: {arguments.confidence:g} is not between 0 and 1")
    if arguments.resamples < 0:
        raise ConfigError(f"--resamples: {arguments.resamples} is negative; 0 gives no intervals over questions")
    predictors = (
        None if arguments.predictor is None else () if arguments.predictor == "all" else _names_in(arguments.predictor, "--predictor")
    )
    return CompareOptions(
        arguments.baseline, predictors, _names_in(arguments.metrics, "--metrics"), arguments.confidence, arguments.resamples
    )


def _names_in(text: str, option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option}: no name is given; write names with commas between")
    return names


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file of the output folder, whole or not at all; returns its path.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, concurrent=True) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {path} ({error.strerror}); give a folder that can be made and written to") from error
    return path
