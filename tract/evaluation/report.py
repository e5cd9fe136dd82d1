"""The HTML report of an evaluation: one file that needs nothing else, and that is whole with scripts switched off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tract.evaluation.cells import format_number
from tract.evaluation.curves import curves_png
from tract.evaluation.html_page import data_uri, page_template, script_hash
from tract.evaluation.item_cards import cards_of, links_of
from tract.evaluation.meanings import (
    BASELINE_MEANINGS,
    FAILURE_REASONS,
    FINISH_MEANINGS,
    LEFT_OUT_MEANINGS,
    METRIC_MEANINGS,
    PROMPT_MEANINGS,
)
from tract.evaluation.plots import benchmark_plot, shifts_png
from tract.evaluation.predictors import meanings_of
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
    mostly_failed,
    summary_rows,
    verdicts,
)
from tract.text.perturbations import PERTURBATIONS

TEMPLATE = Path(__file__).with_name("report.html.jinja")
FILTER_SCRIPT = Path(__file__).with_name("item_filter.js")
_READ_BY_RAIL = {"rail", "rail_normalized", "no_cot"}


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Writes ``html(evaluation)`` as UTF-8."""
    path.write_text(html(evaluation), encoding="utf-8")


def html(evaluation: Evaluation) -> str:
    """The report as one HTML page: verdict, facts, tables, plots, the worst items and a legend; nothing is loaded.

    The same evaluation gives the same text. All names, values and texts are escaped; the one script that may run is the page's own filter
    of items, which the page's policy knows by its SHA-256.
    """
    template, script = page_template(TEMPLATE), FILTER_SCRIPT.read_text(encoding="utf-8")
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
        baseline_meanings={name: BASELINE_MEANINGS[name] for name in BASELINE_MEANINGS if name in _baselines(evaluation)},
        title=_title(evaluation),
        verdicts=verdicts(evaluation),
        agreements=[(r.scored.benchmark, r.agreement.sentence()) for r in evaluation.reports if r.agreement is not None],
        read_by_rail=bool(used & _READ_BY_RAIL),
        endings=[_endings(benchmark, counts) for benchmark, counts in evaluation.counts.items()],
        groups=cards_of(evaluation),
        curves=data_uri(curves_png(evaluation.curves)) if any(found.series for found in evaluation.curves) else None,
        curve_notes=[f"{found.stage}: {found.missing}." for found in evaluation.curves if found.missing],
        script=Markup(script),
        script_hash=script_hash(script) if evaluation.worst else None,
    )


def _title(evaluation: Evaluation) -> str:
    """Run, judge and model, as far as they are known."""
    run = f"{evaluation.run}: evaluation" if evaluation.run else "Evaluation"
    model = f" ({evaluation.model})" if evaluation.model else ""
    return f"{run} of {evaluation.judge}{model}"


def _baselines(evaluation: Evaluation) -> set[str]:
    return {name for report in evaluation.reports for name in report.baselines}


def _endings(benchmark: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    """What became of the prompts and CoTs of a benchmark: tables of (name, count, meaning)."""
    left_out = [(name, counts.get(name, 0), meaning) for name, meaning in LEFT_OUT_MEANINGS.items() if counts.get(name, 0)]
    prompts = [(name, number, PROMPT_MEANINGS.get(name, "")) for name, number in counts.get("by_status", {}).items()]
    cots = [(name, number, FINISH_MEANINGS.get(name, "")) for name, number in counts.get("cots_by_finish", {}).items()]
    return {"benchmark": benchmark, "prompts": [*prompts, *left_out], "cots": cots}


def _failures(evaluation: Evaluation, report: BenchmarkReport) -> Iterator[str]:
    """Why rows of the metric table are grey."""
    for judge, shown in judges_on(evaluation, report):
        for predictor, metrics in shown.metrics.items():
            rate = metrics["failure_rate"].value
            if rate is not None and mostly_failed(metrics):
                reason = FAILURE_REASONS.get(predictor, "the prompt could not be shown, or no probability is on the grid")
                yield f"{judge}, {predictor}: {format_number(rate, 'failure_rate')} of its draws failed ({reason})"


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
    plot = benchmark_plot(drawn, evaluation.main_predictor) if drawn else None
    return {
        "benchmark": report.scored.benchmark,
        "counts": counts(report),
        "failures": list(_failures(evaluation, report)),
        "groups": metric_rows(evaluation, report),
        "absent": absent_on(evaluation, report),
        "differences": difference_rows(report),
        "compared_to": report.compared_to,
        "image": data_uri(plot.png) if plot else None,
        "size": plot.size if plot else None,
        "links": links_of(evaluation, report.scored.benchmark, plot) if plot else [],
        "drawn": [name for name, _ in drawn],
        "not_drawn": [name for name, shown in judges if evaluation.main_predictor not in shown.scored.scores],
    }
