"""The HTML report of an evaluation: one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tract.evaluation.metrics import METRIC_TABLE
from tract.evaluation.plots import benchmark_png, data_uri, shifts_png
from tract.evaluation.predictors import PREDICTORS, meanings_of
from tract.evaluation.results import BenchmarkReport, Evaluation
from tract.evaluation.robustness_tables import MEANINGS, robust_benchmarks, robustness_on, robustness_tables
from tract.evaluation.tables import (
    METRIC_LABELS,
    absent_on,
    counts,
    difference_rows,
    interval_name,
    judges_on,
    metric_rows,
    summary_rows,
)
from tract.perturbations import PERTURBATIONS

TEMPLATE = Path(__file__).with_name("report.html.jinja")

# One sentence each; a reader need not know the paper.
METRIC_MEANINGS = {name: metric.meaning for name, metric in METRIC_TABLE.items()}
PREDICTOR_MEANINGS = meanings_of(PREDICTORS)
BASELINE_MEANINGS = {
    "constant": "the mean of the true scores for every item.",
    "length": "the log of the response's number of words: its correlations, and the errors of the least-squares line on it.",
}


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Writes ``html(evaluation)`` as UTF-8."""
    path.write_text(html(evaluation), encoding="utf-8")


def html(evaluation: Evaluation) -> str:
    """The report as one HTML page: facts, tables, plots and a legend; styles and images are inside, nothing is loaded.

    The same evaluation gives the same text. All names and values are escaped.
    """
    template = page_template(TEMPLATE)
    sections = [_section(evaluation, report) for report in evaluation.reports]
    shaken = [_robustness_section(evaluation, benchmark) for benchmark in robust_benchmarks(evaluation)]
    used = {name for report in evaluation.reports for _, shown in judges_on(evaluation, report) for name in shown.metrics}
    return template.render(
        evaluation=evaluation,
        sections=sections,
        robustness=shaken,
        robustness_meanings=MEANINGS,
        summary=summary_rows(evaluation),
        interval=interval_name(evaluation),
        metric_labels=METRIC_LABELS,
        metric_meanings={label: METRIC_MEANINGS[metric] for metric, label in METRIC_LABELS.items()},
        predictor_meanings=meanings_of(used),
        baseline_meanings=BASELINE_MEANINGS,
    )


def page_template(path: Path) -> Template:
    """The template of a page, with ``page.html.jinja`` at hand; all that it shows is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(TEMPLATE.parent)
    )
    return environment.from_string(path.read_text(encoding="utf-8"))


def _robustness_section(evaluation: Evaluation, benchmark: str) -> dict[str, Any]:
    """What the template shows of the robustness on one benchmark."""
    judges = robustness_on(evaluation, benchmark)
    names = dict.fromkeys(shift.perturbation for _, found in judges for shift in found.shifts)
    return {
        "benchmark": benchmark,
        "tables": robustness_tables(evaluation, benchmark),
        "image": data_uri(shifts_png(judges, evaluation.main_predictor)),
        "perturbations": [(name, PERTURBATIONS[name].meaning) for name in names],
    }


def _section(evaluation: Evaluation, report: BenchmarkReport) -> dict[str, Any]:
    """What the template shows of one benchmark."""
    judges = judges_on(evaluation, report)
    drawn = [(name, shown) for name, shown in judges if evaluation.main_predictor in shown.scored.scores]
    return {
        "benchmark": report.scored.benchmark,
        "counts": counts(report),
        "groups": metric_rows(evaluation, report),
        "absent": absent_on(evaluation, report),
        "differences": difference_rows(evaluation, report),
        "compared_to": report.compared_to,
        "image": data_uri(benchmark_png(drawn, evaluation.main_predictor)) if drawn else None,
        "drawn": [name for name, _ in drawn],
        "not_drawn": [name for name, shown in judges if evaluation.main_predictor not in shown.scored.scores],
    }
