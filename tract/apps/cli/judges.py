"""What the commands that read files of responses share: where a row's fields stand, and the judge that is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract.common.errors import ConfigError, DataError
from tract.common.user_paths import given_text

if TYPE_CHECKING:
    from tract.apps.grading.columns import Columns
    from tract.artifacts.judge_files import JudgeFiles
    from tract.judge.judge import Judge
    from tract.text.schema import Rubric

# What is said of an input of responses.
INPUT_HELP = "JSONL, JSON, CSV, TSV (also compressed: .gz, .bz2, .xz) or Parquet"
# Options of ``Judge.from_pretrained`` that say how a judge is run, not what it is.
_RUNNING = ("backend", "device", "batch_size", "base_url", "served_model", "api", "api_key_env", "timeout_s", "max_retries", "vllm",
            "calibrated")  # fmt: skip


def open_judge(path: str, options: dict[str, Any]) -> Judge:
    """The judge.

    Raises:
        ConfigError, DataError: if it cannot be opened so.
    """
    from tract.judge.judge import Judge

    return Judge.from_pretrained(path, **options)


def given_rubric(arguments: argparse.Namespace) -> Rubric | None:
    """The rubric of ``--rubric``, for all rows; None where it is not given.

    Raises:
        DataError: if the file cannot be used.
    """
    from tract.apps.grading.rubric_file import read_rubric

    return None if arguments.rubric is None else read_rubric(Path(arguments.rubric))


def check_rubric(path: str, options: dict[str, Any], rubric: Rubric, file: Path, *, own_grid: bool = False) -> None:
    """Checks that the judge gives the scores that a rubric describes; reads settings and tokenizer, no weights.

    Args:
        path, options: as in ``open_judge``. file: of the rubric, for messages. own_grid: whether they must be the judge's own scores.

    Raises:
        ConfigError, DataError: if it does not, or there is no such judge.
    """
    from tract.artifacts.judge_options import with_grid
    from tract.judge.rendering import labels_for

    files = _files(path, options)
    own = files.layout.grid
    try:
        labels = labels_for(rubric, own, fixed=files.settings.fixed_grid)
        if labels != own.labels:
            with_grid(files.layout, labels)
            if own_grid:
                found, accepted = (", ".join(each) for each in (labels, own.labels))
                raise DataError(f"rubric.descriptions: the scores are {found}, the judge's own are {accepted}; describe these, all or none")
    except (ConfigError, DataError) as error:
        raise DataError(f"--rubric {file}: {error}") from None


def note_unused_columns(file: Path, columns: Columns) -> None:
    """Says which columns of rubrics are not used, where --rubric is for all rows."""
    from tract.apps.cli.output import note

    for field in ("rubric", "criteria"):
        if field in columns.of:
            note(f"{file}: the column {columns.of[field]!r} is not used, since --rubric is for all rows")


def _files(path: str, options: dict[str, Any]) -> JudgeFiles:
    from tract.artifacts.standalone_judges import hosted_judge, open_judge_files

    what = {name: value for name, value in options.items() if name not in _RUNNING}
    return hosted_judge(path, **what) if options.get("api") == "chat" else open_judge_files(path, **what)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says where a row's fields stand."""
    parser.add_argument(
        "--rubric",
        type=given_text,
        metavar="FILE",
        help="YAML with criteria and descriptions, or the text of a rubric (.txt, .md), for all rows (default: that of each row, if any)",
    )
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="FIELD=COLUMN", action="extend",
        help="which columns hold instruction, response, reference_answer, id, rubric, criteria, score_descriptions.SCORE "
        "(default: those of the same names)",
    )  # fmt: skip
