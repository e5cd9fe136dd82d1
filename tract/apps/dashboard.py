"""The W&B workspace of a project: ``tract dashboard``; ``--spec FILE`` writes what it is made of and needs no network.

A workspace is a saved view of all runs of a project. Its panels are those that decide: the ablations with their spread over seeds,
validation by stage, the parts of the loss, score mass, throughput, CoTs and predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tract.common.command_line import install_command
from tract.common.errors import ConfigError
from tract.common.progress import STEP_AXIS, TOKENS_AXIS
from tract.common.user_paths import given_path
from tract.pipeline.tracking.tracker import VARIANT, wandb_mode

_METRICS = (("pearson_r", "Pearson r"), ("rmse", "RMSE, points"), ("score_mass", "score mass"))
_FILTER = ("kept", "dropped_truncated", "dropped_empty", "dropped_without_cue", "dropped_not_closest")


def workspace(entity: str, project: str, name: str, benchmark: str) -> Any:
    """The workspace, not saved.

    Args:
        entity: a user or team of W&B. project: its project. name: of the view. benchmark: whose evaluations are shown.

    Raises:
        ConfigError: if the package for it is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise ConfigError(f"dashboard: needs the package wandb-workspaces; run `{install_command('dashboard')}`") from None
    sections = [
        ws.Section(name=title, panels=panels, is_open=True)
        for title, panels in (
            ("Ablations (mean over seeds, whisker: standard error)", _ablations(benchmark)),
            ("Validation by stage", _by_stage("val/pearson_r", "val/rmse", "val/ce")),
            ("Loss parts", _lines("train/loss", "train/ce_loss", "train/score_loss", "train/squared_error")),
            ("Score mass", _by_stage("train/score_mass", "val/score_mass")),
            ("Throughput and optimizer", _lines("train/tokens_per_s", "train/examples_per_s", "train/grad_norm", "train/lr")),
            ("CoTs and predictions", _texts(benchmark)),
        )
    ]
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections)


def _ablations(benchmark: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    bars = [
        wr.BarPlot(
            title=f"{benchmark}: {label}", metrics=[wr.SummaryMetric(f"eval/{benchmark}/{metric}")], orientation="h",
            groupby=wr.Config(VARIANT), groupby_aggfunc="mean", groupby_rangefunc="stderr", max_bars_to_show=40,
        )
        for metric, label in _METRICS
    ]  # fmt: skip
    curves = [
        wr.ScatterPlot(title=f"{benchmark}: Pearson r by {key}", x=wr.Config(key), y=wr.SummaryMetric(f"eval/{benchmark}/pearson_r"))
        for key in ("objective.lambda", "evaluation.n_cot")
    ]
    return [*bars, *curves, wr.RunComparer(diff_only="split")]


def _by_stage(*metrics: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=metric, x=TOKENS_AXIS, y=[metric], groupby=wr.Config("stage"), groupby_aggfunc="mean", groupby_rangefunc="minmax")
        for metric in metrics
    ]


def _lines(*metrics: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [wr.LinePlot(title=metric, x=STEP_AXIS, y=[metric], max_runs_to_show=20) for metric in metrics]


def _texts(benchmark: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    filtered = wr.BarPlot(title="CoTs of stage 2", metrics=[wr.SummaryMetric(f"data/counts/cots/{name}") for name in _FILTER])
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("cots/sampled", "predictions")]
    scatter, line = "wandb/scatter/v0", "wandb/line/v0"
    charts = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"plots/{benchmark}/{plot}_table"}},
            chart_name=chart,
            chart_fields=fields,
            chart_strings={"title": f"{benchmark}: {plot.replace('_', ' ')}"},
        )
        for plot, chart, fields in (
            ("predicted_vs_true", scatter, {"x": "true score", "y": "predicted score"}),
            ("reliability", line, {"x": "predicted", "y": "true"}),
            ("scores", "wandb/histogram/v0", {"value": "predicted score"}),
        )
    ]
    return [filtered, *charts, *tables]


def spec(made: Any) -> dict[str, Any]:
    """What W&B keeps of a workspace, as plain containers."""
    content: dict[str, Any] = json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return content


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.description = "Makes the W&B workspace of a project."
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="user or team; default: WANDB_ENTITY, else your own")
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT", "tract"), help="default: WANDB_PROJECT, else tract")
    parser.add_argument("--benchmark", default="test", help="whose evaluations are shown; default: test")
    parser.add_argument("--name", default="TRACT judges", help="of the view")
    parser.add_argument("--spec", type=given_path, help="write the specification to this file, and send nothing")


def run(arguments: argparse.Namespace) -> None:
    """Saves the view and prints its address, or writes what it is made of.

    Raises:
        ConfigError: if there is no key for W&B, or W&B refuses.
    """
    if arguments.spec is not None:
        made = workspace(arguments.entity or "entity", arguments.project, arguments.name, arguments.benchmark)
        arguments.spec.write_text(json.dumps(spec(made), indent=2) + "\n", encoding="utf-8")
        sys.stdout.write(f"written: {arguments.spec}\n")
        return
    if wandb_mode() != "online":
        raise ConfigError(
            "dashboard: there is no key for W&B, or WANDB_MODE is not online; run `wandb login`, or write it with --spec FILE"
        )
    import wandb

    try:
        entity = arguments.entity or wandb.Api().default_entity
        made = workspace(entity, arguments.project, arguments.name, arguments.benchmark)
        made.save()
    except ConfigError:
        raise
    except Exception as error:  # of W&B, its server or the network
        raise ConfigError(f"dashboard: W&B refused ({type(error).__name__}: {' '.join(str(error).split())[:300]})") from error
    sys.stdout.write(f"{made.url}\n")
