"""The command line of ``tract export``. Nothing heavy is loaded before the arguments are read."""

from __future__ import annotations

import argparse
import os
import sys

from tract.apps.export.options import ExportOptions
from tract.common.errors import ConfigError
from tract.common.terminal import say
from tract.common.user_paths import given_path, given_text
from tract.config.vocabulary import DTYPES
from tract.judge.arguments import add_choice_arguments

_DESCRIPTION = "Writes the judge of a run as a standard Hugging Face folder, with its settings and a model card."
_EPILOG = """\
examples:
  tract export runs/tract_quickstart/seed0 my-judge                    merged weights
  tract export runs/tract_quickstart my-judge --best val/rmse          the best judge of a sweep
  tract export runs/tract_mistral/seed0/stage2-KEY my-judge --adapter  the LoRA adapter alone
  tract export runs/tract_mistral/seed0 my-judge --dtype bfloat16 --push me/my-judge --private
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what an export is asked for."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("run", type=given_path, metavar="RUN", help="a run (runs/NAME/seed0), a sweep (runs/NAME) or a stage (stage2-KEY)")
    parser.add_argument("out", type=given_path, metavar="OUT", help="the new folder; it is there as a whole or not at all")
    add_choice_arguments(parser)
    parser.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone, for PEFT, not merged weights")
    parser.add_argument(
        "--base", type=given_text, metavar="ID", help="with --adapter: hub id or folder of the base model (default: the run's)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: float32 where an adapter is merged, else their own)")
    parser.add_argument("--name", help="what the judge is called (default: the run's name)")
    parser.add_argument("--license", metavar="ID", help="of the export, e.g. apache-2.0 (default: that of the base model, where known)")
    parser.add_argument("--data-license", metavar="TEXT", help="of the training data (default: what is known of it)")
    parser.add_argument("--data", type=given_path, metavar="PATH", help="rows like the training data, to recover its prompt template from")
    parser.add_argument("--cache", type=given_path, metavar="DIR", help="for unpacked weights (default: $TRACT_CACHE, or ~/.cache/tract)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUT")
    parser.add_argument("--push", metavar="REPO", help="upload it to the Hugging Face hub too, as NAME or OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="with --push: make the repository private")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that came with the base model")


def run(arguments: argparse.Namespace) -> None:
    """Exports, and uploads on request.

    Raises:
        TractError: for anything that the user can mend.
    """
    if arguments.private and arguments.push is None:
        raise ConfigError("--private: nothing is uploaded; add --push REPO, or leave --private out")
    options = ExportOptions(
        adapter=arguments.adapter,
        base=arguments.base,
        dtype=arguments.dtype,
        name=arguments.name,
        licence=arguments.license,
        data_licence=arguments.data_license,
        overwrite=arguments.overwrite,
    )
    _export(arguments, options)


def _export(arguments: argparse.Namespace, options: ExportOptions) -> None:
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries fill a log file with lines
    # They load torch and transformers.
    from tract.apps.export.exporting import check_options, export, licence_hint
    from tract.apps.export.hub import check_push, push
    from tract.artifacts.judge_choice import Choice
    from tract.artifacts.standalone_judges import cache_folder

    choice = Choice(arguments.stage, arguments.variant, arguments.best)
    check_options(options)
    if arguments.push is not None:
        check_push(arguments.push)
    exported = export(
        arguments.run,
        arguments.out,
        options,
        trust_remote_code=arguments.trust_remote_code,
        cache=cache_folder(arguments.cache),
        data=arguments.data,
        to_hub=arguments.push is not None,
        choice=choice,
    )
    settings = exported.settings
    what = "adapter" if settings.adapter else f"whole weights, {exported.dtype}"
    measured = ", ".join(settings.metrics) or "nothing"
    say(f"{exported.folder}: {settings.name}, {what}, {exported.size / 1e6:.1f} MB; measured on: {measured}")
    say(f"judge: {exported.judge}, in {exported.stage}")
    if (hint := licence_hint(exported)) is not None:
        say(f"licence: {hint}")
    if arguments.push is not None:
        say(f"uploaded: {push(exported.folder, arguments.push, private=arguments.private)}")
