"""``tract inspect``: one example as the judge sees it, token by token; loads settings and tokenizer, no weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from tract.apps.cli.judges import INPUT_HELP, add_data_arguments, given_rubric, note_unused_columns
from tract.common.errors import ConfigError, DataError
from tract.common.user_paths import given_path
from tract.config.schema import with_added_keys
from tract.judge.arguments import add_judge_arguments, options_of, positive

if TYPE_CHECKING:
    from tract.artifacts.judge_files import JudgeFiles
    from tract.judge.rendering import RenderedPrompt
    from tract.judge.requests import GradeRequest
    from tract.method.objective import Objective
    from tract.text.layout import SequenceLayout
    from tract.training.preview import TokenLine

_DESCRIPTION = """\
Shows one example as the judge sees it: the text of its prompt, with the fields in colour; then its tokens, of which kind each is,
which training supervises by what, and where the score distribution is read. No weights are loaded."""
_EPILOG = """\
examples:
  tract inspect responses.jsonl --judge my_judge --rubric rubric.yaml --row 3
  tract inspect --instruction "Name a colour." --response "Blue." --judge my_judge --cot "It names one." --score 5
"""
_FIELDS = {"instruction": "cyan", "response": "green", "reference_answer": "magenta", "criteria": "yellow", "score_descriptions": "yellow",
           "rubric": "yellow"}  # fmt: skip
_KINDS = {"prompt": "dim", "cot": "green", "cue": "yellow", "score": "bold red", "end": "cyan", "branch": "red"}
# Prompt tokens that are shown at each end, unless all are asked for.
_ENDS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("file", type=given_path, nargs="?", metavar="FILE", help=INPUT_HELP)
    parser.add_argument("--row", type=positive, metavar="N", help="of the file, counted from 1 (default: 1)")
    parser.add_argument("--instruction", metavar="TEXT", help="in place of a file")
    parser.add_argument("--response", metavar="TEXT", help="in place of a file")
    parser.add_argument("--reference-answer", metavar="TEXT", help="in place of a file")
    add_data_arguments(parser)
    parser.add_argument("--cot", default="", metavar="TEXT", help="feedback to show behind the prompt (default: none)")
    parser.add_argument("--score", metavar="SCORE", help="to show behind the cue (default: the highest)")
    parser.add_argument("--all", action="store_true", help="show every token of the prompt")
    add_judge_arguments(parser, running=False)


def run(arguments: argparse.Namespace) -> None:
    """Shows the example.

    Raises:
        TractError: for a mistake of the user's.
    """
    from tract.artifacts.standalone_judges import open_judge_files
    from tract.judge.rendering import rendered_prompt

    options = options_of(arguments)
    place, request = _request(arguments)
    options.pop("calibrated", None)
    files = open_judge_files(arguments.judge, **options)
    layout = _layout(files, request)
    shown = rendered_prompt(request, layout, files.settings, files.settings.sampling)
    # Plain text without a terminal, and where the user wants no colour.
    plain = "NO_COLOR" in os.environ or not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR"))
    console = Console(file=sys.stdout, color_system=None if plain else "standard", force_terminal=not plain, highlight=False, markup=False)
    for line in list(_lines(files, layout, place, shown, arguments)):  # all of them, so that a mistake is told instead
        console.print(line, soft_wrap=True)


def _request(arguments: argparse.Namespace) -> tuple[str, GradeRequest]:
    """(where the example is from, its request)."""
    from tract.judge.requests import GradeRequest

    rubric = given_rubric(arguments)
    if arguments.file is not None:
        for name in ("instruction", "response", "reference_answer"):
            if getattr(arguments, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: is given beside a file; give one of them")
        return _row(arguments, rubric)
    if arguments.instruction is None or arguments.response is None:
        raise ConfigError("tract inspect: nothing to show; give a file, or --instruction and --response")
    for name in ("row", "columns"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name}: is for a file; leave it out, or give a file in place of --instruction and --response")
    return "the command line", GradeRequest(arguments.instruction, arguments.response, rubric, arguments.reference_answer)


def _row(arguments: argparse.Namespace, rubric: Any) -> tuple[str, GradeRequest]:
    from itertools import islice

    from tract.apps.grading.columns import columns_in, parse_columns
    from tract.apps.grading.scan import first_columns
    from tract.data.readers.files import read_rows

    given = parse_columns(arguments.columns)
    number = arguments.row or 1
    row = next(islice(read_rows(arguments.file), number - 1, None), None)
    if row is None:
        raise DataError(f"--row {number}: {arguments.file} holds fewer rows; rows are counted from 1")
    # Lines of JSON may leave out what they have none of.
    names = list({**row.data, **dict.fromkeys(first_columns(arguments.file))}) if isinstance(row.data, dict) else []
    try:
        # A row that could not be read says so itself.
        columns = columns_in(names, given, row.place) if names else columns_in(["instruction", "response"], {}, row.place)
        if rubric is not None:
            note_unused_columns(arguments.file, columns)
        return row.place, columns.request(row, rubric)
    except ValueError as error:
        raise error if row.place in str(error) else DataError(f"{row.place}: {error}") from None


def _layout(files: JudgeFiles, request: GradeRequest) -> SequenceLayout:
    from tract.artifacts.judge_options import with_grid
    from tract.judge.rendering import labels_for

    labels = labels_for(request.rubric, files.layout.grid, fixed=files.settings.fixed_grid)
    return files.layout if labels == files.layout.grid.labels else with_grid(files.layout, labels)


def _lines(files: JudgeFiles, layout: SequenceLayout, place: str, shown: RenderedPrompt, arguments: argparse.Namespace) -> Iterator[Text]:
    settings = files.settings
    base = settings.base_model.shown
    yield Text(f"judge {settings.name}" + ("" if base == settings.name else f" (made from {base})"), style="bold")
    how = f"{settings.n_cot} feedback(s) before the score" if settings.use_cot else "no feedback before the score"
    yield Text(f"scores {', '.join(layout.grid.labels)}; read by {settings.predictor}; {how}; example from {visible(place)}")
    yield from _prompt(shown)
    yield from _tokens(files, layout, shown, arguments)


def _prompt(shown: RenderedPrompt) -> Iterator[Text]:
    prompt = shown.prompt
    if prompt.system:
        yield Text("\nsystem turn", style="bold")
        yield Text(visible(prompt.system))
    fields = list(dict.fromkeys(part.field for part in prompt.parts if part.field))
    legend = Text("\nuser turn", style="bold")
    for number, field in enumerate(fields):
        legend.append(": " if not number else ", ", style="not bold")
        legend.append(field, style=f"not bold {_FIELDS.get(field, '')}")
    yield legend
    yield Text("").join(Text(visible(part.text), style=_FIELDS.get(part.field or "", "")) for part in prompt.parts)
    if shown.refusal:
        yield Text(f"\nover_length, so it is not judged: {shown.refusal}", style="bold red")
    if shown.shortened:
        yield Text("\nit does not fit: the middle of a field is left out, as the tokens below show (--all)", style="bold red")


def _tokens(files: JudgeFiles, layout: SequenceLayout, shown: RenderedPrompt, arguments: argparse.Namespace) -> Iterator[Text]:
    from tract.training.preview import token_lines

    index = _score_index(arguments.score, layout)
    if arguments.cot and not files.settings.use_cot:
        raise ConfigError("--cot: this judge writes no feedback; its score follows the prompt")
    tree = layout.tree(shown.ids, [(layout.cot_ids(arguments.cot), index)])
    objective, trained = _objective(files)
    lines = token_lines(tree, objective)
    yield Text(f"\n{len(shown.ids)} tokens of the prompt, {len(lines) - len(shown.ids)} behind it; {trained}", style="bold")
    if files.settings.use_cot and not arguments.cot:
        yield Text("the judge writes its feedback between prompt and cue; none was given (--cot)")
    yield Text("position | token | kind | trained by")
    for line in lines:
        if line.kind == "prompt" and not arguments.all and _ENDS <= line.position < len(shown.ids) - _ENDS:
            if line.position == _ENDS:
                yield Text(f"     ... {len(shown.ids) - 2 * _ENDS} more tokens of the prompt (--all shows them)", style="dim")
            continue
        yield _token(line, layout)
    reads = [line.position for line in lines if line.read]
    labels = ", ".join(f"{label} {list(ids)}" for label, ids in zip(layout.grid.labels, layout.score_ids, strict=True))
    yield Text(f"\n* the score distribution is read here: position {', '.join(map(str, reads))}. Token ids of the scores: {labels}")


def _token(line: TokenLine, layout: SequenceLayout) -> Text:
    text = Text(f"{line.position:8d}{'*' if line.read else ' '}| ")
    text.append(visible(repr(layout.tokenizer.decode([line.token_id]))), style=_KINDS[line.kind])
    text.append(f" | {line.kind}", style=_KINDS[line.kind])
    text.append(f" | {line.trained_by}", style="dim" if line.trained_by == "nothing" else "")
    return text


def _score_index(given: str | None, layout: SequenceLayout) -> int:
    if given is None:
        return len(layout.grid.labels) - 1
    try:
        return layout.grid.index(float(given))
    except ValueError:
        raise ConfigError(f"--score: {given!r} is not on the grid; accepted are {', '.join(layout.grid.labels)}") from None


def _objective(files: JudgeFiles) -> tuple[Objective, str]:
    """(the objective that the judge was trained with, what it is); TRACT's where there is none."""
    from tract.method.objective import Objective

    use_cot = files.settings.use_cot
    plain: dict[str, Any] = with_added_keys({"ce_weight": 1.0, "lambda": 1.0, "ce_on_score": False, "use_cot": use_cot,
                                             "normalize": False, "score_loss_scaling": "step"}, "objective.")  # fmt: skip
    kept = files.settings.training.get("objective")
    own = {name: value for name, value in kept.items() if name in plain} if isinstance(kept, dict) else {}
    values = {**plain, **own}
    objective = Objective(score_loss_weight=values.pop("lambda"), **values)
    return (
        objective,
        "supervised as the judge was trained" if own else "supervised as TRACT would train it; this judge says nothing of its training",
    )


def visible(text: str) -> str:
    """The text with escapes for characters that a terminal might act on or not show; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text)
