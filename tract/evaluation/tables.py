"""Tables of an evaluation: Markdown for files, plain text for the terminal, and the cells that the HTML report shows too."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tract.evaluation.cells import Cell, Table, TextRow, cell, counted, escaped, markdown_of, percent, printable, shortened, text_table
from tract.evaluation.metrics import METRIC_TABLE
from tract.evaluation.results import BenchmarkReport, Evaluation
from tract.evaluation.robustness_tables import robust_benchmarks, robustness_on, robustness_tables
from tract.evaluation.scored import Estimate
from tract.evaluation.verdict import Verdict, verdict_of

# Metric -> heading, in the order of the columns.
METRIC_LABELS = {name: metric.label for name, metric in METRIC_TABLE.items()}
# The terminal table stays near 100 columns: names are cut, numbers never.
_SHORT_BENCHMARK, _SHORT_JUDGE = 18, 24
_TERMINAL_COLUMNS = 96
# From this failure rate on, most of a predictor's numbers are those of the declared score.
MOSTLY_FAILED = 0.5


def judges_on(evaluation: Evaluation, report: BenchmarkReport) -> list[tuple[str, BenchmarkReport]]:
    """This judge, then the others that have a report on the same benchmark: (name, report)."""
    benchmark = report.scored.benchmark
    others = [(name, other) for name, reports in evaluation.others for other in reports if other.scored.benchmark == benchmark]
    return [(evaluation.judge, report), *others]


def absent_on(evaluation: Evaluation, report: BenchmarkReport) -> list[str]:
    """Names of the other judges that have no report on the benchmark."""
    benchmark = report.scored.benchmark
    return [name for name, reports in evaluation.others if benchmark not in {other.scored.benchmark for other in reports}]


def metric_rows(evaluation: Evaluation, report: BenchmarkReport) -> list[list[TextRow]]:
    """Rows (judge, predictor, ``METRIC_LABELS``) of one benchmark in groups: one for each judge, then the baselines."""
    numbers = [(name, judge_report.metrics) for name, judge_report in judges_on(evaluation, report)]
    groups = [
        [TextRow((judge, predictor), _metric_cells(metrics), mostly_failed(metrics)) for predictor, metrics in of_predictors.items()]
        for judge, of_predictors in [*numbers, ("baseline", report.baselines)]
    ]
    return [group for group in groups if group]


def difference_rows(report: BenchmarkReport) -> list[TextRow]:
    """Rows (predictor, ``METRIC_LABELS``) of the paired differences, this judge minus the other one; empty without another judge."""
    return [TextRow((predictor,), _metric_cells(metrics, difference=True)) for predictor, metrics in report.differences.items()]


def _metric_cells(metrics: Mapping[str, Estimate], *, difference: bool = False) -> tuple[Cell, ...]:
    return tuple(cell(metrics.get(metric), metric, difference=difference) for metric in METRIC_LABELS)


def mostly_failed(metrics: Mapping[str, Estimate]) -> bool:
    """Whether more than half of the draws failed."""
    rate = metrics.get("failure_rate", Estimate(None)).value
    return rate is not None and rate > MOSTLY_FAILED


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """What the judge's numbers say on each benchmark, by the main predictor; empty where that was not read."""
    found = (verdict_of(report, evaluation.main_predictor) for report in evaluation.reports)
    return [verdict for verdict in found if verdict is not None]


def summary_rows(evaluation: Evaluation) -> list[TextRow]:
    """Rows (benchmark, judge, Pearson r, RMSE, RMSE of the best constant) for the main predictor."""
    rows = []
    for report in evaluation.reports:
        constant = cell(report.baselines.get("constant", {}).get("rmse"), "rmse")
        for judge, judge_report in judges_on(evaluation, report):
            metrics = judge_report.metrics.get(evaluation.main_predictor, {})
            own = [cell(metrics.get(metric), metric) for metric in ("pearson_r", "rmse")]
            rows.append(TextRow((report.scored.benchmark, judge), (*own, constant)))
    return rows


def counts(report: BenchmarkReport) -> str:
    """How much a benchmark holds, such as ``320 items, 80 questions``."""
    return f"{counted(len(report.scored.ids), 'item')}, {counted(len(set(report.scored.questions)), 'question')}"


def interval_name(evaluation: Evaluation) -> str:
    """``95 % interval`` where the facts hold the confidence as a share, ``interval`` where they do not."""
    confidence = dict(evaluation.facts).get("confidence")
    return f"{percent(confidence)} interval" if isinstance(confidence, float) else "interval"


def markdown_table(evaluation: Evaluation) -> str:
    """All numbers as Markdown: for each benchmark a heading, one row per judge and predictor, and the paired differences.

    Names are escaped, so that none of them can break a table. Ends with a newline.
    """
    blocks = [block for verdict in verdicts(evaluation) for block in _verdict_blocks(verdict, evaluation.main_predictor)]
    blocks.append(f"Each cell is `value [low, high]`: the {interval_name(evaluation)}, bootstrapped over questions.")
    for report in evaluation.reports:
        blocks.append(f"## {escaped(report.scored.benchmark)} ({counts(report)})")
        rows = tuple(row for group in metric_rows(evaluation, report) for row in group)
        blocks.append(markdown_of(Table("", ("judge", "predictor", *METRIC_LABELS.values()), rows)))
        if report.agreement is not None:
            blocks.append(f"Raters: {escaped(report.agreement.sentence())}.")
        if absent := absent_on(evaluation, report):
            blocks.append(f"Without a report on this benchmark: {', '.join(map(escaped, absent))}.")
        if differences := difference_rows(report):
            title = f"{escaped(evaluation.judge)} minus {escaped(report.compared_to)}"
            blocks.append(f"{title}, paired; \\* marks an interval that excludes 0:")
            blocks.append(markdown_of(Table("", ("predictor", *METRIC_LABELS.values()), tuple(differences))))
    blocks += robustness_blocks(evaluation)
    return "\n\n".join(blocks) + "\n"


def _verdict_blocks(verdict: Verdict, predictor: str) -> list[str]:
    sentences = [f"- {escaped(sentence)}" for sentence in verdict.sentences]
    advice = [f"- {escaped(text)}" for text in verdict.advice]
    title = f"## In words: {escaped(verdict.benchmark)}, predictor {escaped(predictor)}"
    return [title, "\n".join(sentences), *(["What to do next:", "\n".join(advice)] if advice else [])]


def robustness_blocks(evaluation: Evaluation) -> list[str]:
    """Headings and tables of the robustness report; empty where there is none."""
    blocks = []
    for benchmark in robust_benchmarks(evaluation):
        blocks.append(f"## Robustness on {escaped(benchmark)}")
        for table in robustness_tables(evaluation, benchmark):
            blocks += [f"{table.title}:", markdown_of(table)]
    return blocks


def short_table(evaluation: Evaluation) -> str:
    """The main predictor's Pearson r and RMSE as plain text for the terminal, about 100 columns wide; long names are cut.

    The RMSE of the best constant stands beside: a judge that does not beat it says less than the mean does.
    """
    table = [["benchmark", "judge", "Pearson r", "RMSE", "constant RMSE"]]
    for row in summary_rows(evaluation):
        (benchmark, judge), (pearson_r, rmse, constant) = row.texts, row.cells
        names = [shortened(benchmark, _SHORT_BENCHMARK), shortened(judge, _SHORT_JUDGE)]
        table.append([*names, str(pearson_r), str(rmse), constant.value])
    lines = [f"predictor {printable(evaluation.main_predictor)}; value [{interval_name(evaluation)}]", *text_table(table, 2)]
    for benchmark in robust_benchmarks(evaluation):
        for name, found in robustness_on(evaluation, benchmark):
            shift = cell(found.summary[evaluation.main_predictor]["attack_shift"], "attack_shift", difference=True)
            lines.append(
                f"{shortened(benchmark, _SHORT_BENCHMARK)}: attacks move {shortened(name, _SHORT_JUDGE)} by {shift} points more than is due"
            )
    for verdict in verdicts(evaluation):
        lines += ["", f"{shortened(verdict.benchmark, _SHORT_BENCHMARK)} in words:"]
        lines += [line for sentence in verdict.sentences for line in _wrapped(sentence, "- ")]
        lines += [line for text in verdict.advice for line in _wrapped(text, "-> ")]
    return "\n".join(lines)


def _wrapped(text: str, mark: str) -> list[str]:
    indent = " " * (2 + len(mark))
    return textwrap.wrap(printable(text), _TERMINAL_COLUMNS, initial_indent=f"  {mark}", subsequent_indent=indent, break_on_hyphens=False)
