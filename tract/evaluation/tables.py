"""Tables of an evaluation: Markdown for files, plain text for the terminal, and the cells that the HTML report shows too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tract.evaluation.results import BenchmarkReport, Estimate, Evaluation

# Metric -> heading, in the order of the columns.
METRIC_LABELS = {
    "pearson_r": "Pearson r",
    "spearman_rho": "Spearman rho",
    "kendall_tau": "Kendall tau-b",
    "rmse": "RMSE",
    "mae": "MAE",
    "accuracy_within_half": "within 0.5",
    "score_mass": "score mass",
    "failure_rate": "failures",
}
# In points, so they can exceed one and keep the zero before the decimal point.
IN_POINTS = frozenset({"rmse", "mae"})
SHARES = frozenset({"accuracy_within_half", "score_mass", "failure_rate"})

UNDEFINED = "undefined"  # computed, and no number came out
NOT_COMPUTED = "-"

# The terminal table stays near 100 columns: names are cut, numbers never.
_SHORT_BENCHMARK, _SHORT_JUDGE = 18, 24


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as text. ``marked``: it is a difference whose interval excludes 0."""

    value: str
    interval: str = ""
    marked: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.value, self.interval, "*" if self.marked else "")))


@dataclass(frozen=True, slots=True)
class Row:
    """One judge read by one predictor; ``cells`` in the order of ``METRIC_LABELS``. Texts are as given, not escaped."""

    judge: str
    predictor: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One judge on one benchmark, read by the main predictor, beside the RMSE of the best constant."""

    benchmark: str
    judge: str
    pearson_r: Cell
    rmse: Cell
    constant_rmse: Cell


def printable(text: object) -> str:
    """One line of printable characters: blanks, line ends and control characters become single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def format_number(value: float, metric: str, *, signed: bool = False) -> str:
    """Three decimals; correlations and shares as ``.962``, points as ``0.962``.

    A share that is near 0 or 1 without being it is shown as ``<.001`` or ``>.999``: one failure in 5000 is not none.

    Args:
        value: finite. metric: a key of ``METRIC_LABELS``. signed: write the sign of a positive value too (differences).
    """
    if metric in SHARES and not signed and 0 < value < 0.0005:
        return "<.001"
    if metric in SHARES and not signed and 0.9995 <= value < 1:
        return ">.999"
    text = f"{value:+.3f}" if signed and value != 0 else f"{value:z.3f}"
    return text if metric in IN_POINTS else re.sub(r"^([+-]?)0\.", r"\1.", text)


def cell(estimate: Estimate | None, metric: str, *, difference: bool = False) -> Cell:
    """``value [low, high]``; ``undefined`` for what has no value or no interval, ``-`` for None: not computed."""
    if estimate is None:
        return Cell(NOT_COMPUTED)
    if estimate.value is None:
        return Cell(UNDEFINED)
    value = format_number(estimate.value, metric, signed=difference)
    if estimate.low is None or estimate.high is None:
        return Cell(value, f"[{UNDEFINED}]")
    low, high = (format_number(bound, metric, signed=difference) for bound in (estimate.low, estimate.high))
    return Cell(value, f"[{low}, {high}]", difference and (estimate.low > 0 or estimate.high < 0))


def judges_on(evaluation: Evaluation, report: BenchmarkReport) -> list[tuple[str, BenchmarkReport]]:
    """This judge, then the others that have a report on the same benchmark: (name, report)."""
    benchmark = report.scored.benchmark
    others = [(name, other) for name, reports in evaluation.others for other in reports if other.scored.benchmark == benchmark]
    return [(evaluation.judge, report), *others]


def absent_on(evaluation: Evaluation, report: BenchmarkReport) -> list[str]:
    """Names of the other judges that have no report on the benchmark."""
    benchmark = report.scored.benchmark
    return [name for name, reports in evaluation.others if benchmark not in {other.scored.benchmark for other in reports}]


def metric_rows(evaluation: Evaluation, report: BenchmarkReport) -> list[list[Row]]:
    """Rows of one benchmark in groups: one for each judge, then the baselines."""
    groups = [_rows(name, judge_report.metrics) for name, judge_report in judges_on(evaluation, report)]
    return [group for group in (*groups, _rows("baseline", report.baselines)) if group]


def difference_rows(evaluation: Evaluation, report: BenchmarkReport) -> list[Row]:
    """Paired differences on one benchmark, this judge minus the other one; empty without another judge."""
    return _rows(f"{evaluation.judge} minus {report.compared_to}", report.differences, difference=True)


def _rows(judge: str, numbers: Mapping[str, Mapping[str, Estimate]], *, difference: bool = False) -> list[Row]:
    return [
        Row(judge, predictor, tuple(cell(metrics.get(metric), metric, difference=difference) for metric in METRIC_LABELS))
        for predictor, metrics in numbers.items()
    ]


def summary_rows(evaluation: Evaluation) -> list[SummaryRow]:
    """One row per benchmark and judge, for the main predictor."""
    rows = []
    for report in evaluation.reports:
        constant = cell(report.baselines.get("constant", {}).get("rmse"), "rmse")
        for judge, judge_report in judges_on(evaluation, report):
            metrics = judge_report.metrics.get(evaluation.main_predictor, {})
            pearson_r, rmse = (cell(metrics.get(metric), metric) for metric in ("pearson_r", "rmse"))
            rows.append(SummaryRow(report.scored.benchmark, judge, pearson_r, rmse, constant))
    return rows


def counts(report: BenchmarkReport) -> str:
    """How much a benchmark holds, such as ``320 items, 80 questions``."""
    items, questions = len(report.scored.ids), len(set(report.scored.questions))
    return f"{items} item{'s' * (items != 1)}, {questions} question{'s' * (questions != 1)}"


def interval_name(evaluation: Evaluation) -> str:
    """``95 % interval`` where the facts hold the confidence as a share, ``interval`` where they do not."""
    confidence = dict(evaluation.facts).get("confidence")
    return f"{100 * confidence:.4g} % interval" if isinstance(confidence, float) else "interval"


def markdown_table(evaluation: Evaluation) -> str:
    """All numbers as Markdown: for each benchmark a heading, one row per judge and predictor, and the paired differences.

    Names are escaped, so that none of them can break a table. Ends with a newline.
    """
    blocks = [f"Each cell is `value [low, high]`: the {interval_name(evaluation)}, bootstrapped over questions."]
    for report in evaluation.reports:
        blocks.append(f"## {_escaped(report.scored.benchmark)} ({counts(report)})")
        blocks.append(_markdown((row for group in metric_rows(evaluation, report) for row in group), with_judge=True))
        if absent := absent_on(evaluation, report):
            blocks.append(f"Without a report on this benchmark: {', '.join(map(_escaped, absent))}.")
        if differences := difference_rows(evaluation, report):
            title = f"{_escaped(evaluation.judge)} minus {_escaped(report.compared_to)}"
            blocks.append(f"{title}, paired; \\* marks an interval that excludes 0:")
            blocks.append(_markdown(differences, with_judge=False))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: object) -> str:
    # Backslash first of all: GitHub splits cells at a | unless an odd number of backslashes stands before it.
    return re.sub(r"([\\|`*<\[&])", r"\\\1", printable(text))


def _markdown(rows: Iterable[Row], *, with_judge: bool) -> str:
    texts = 2 if with_judge else 1
    table = [["judge", "predictor", *METRIC_LABELS.values()]]
    # An asterisk alone between blanks is no emphasis, so cells need no escape.
    table += [[_escaped(row.judge), _escaped(row.predictor), *map(str, row.cells)] for row in rows]
    head, *body = _aligned([line[2 - texts :] for line in table], texts)
    rule = ["-" * len(text) if k < texts else "-" * (len(text) - 1) + ":" for k, text in enumerate(head)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _aligned(table: Sequence[Sequence[str]], text_columns: int) -> list[list[str]]:
    """Pads every column to its longest cell: texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        [text.ljust(width) if k < text_columns else text.rjust(width) for k, (text, width) in enumerate(zip(line, widths, strict=True))]
        for line in table
    ]


def short_table(evaluation: Evaluation) -> str:
    """The main predictor's Pearson r and RMSE as plain text for the terminal, about 100 columns wide; long names are cut.

    The RMSE of the best constant stands beside: a judge that does not beat it says less than the mean does.
    """
    table = [["benchmark", "judge", "Pearson r", "RMSE", "constant RMSE"]]
    for row in summary_rows(evaluation):
        names = [_cut(row.benchmark, _SHORT_BENCHMARK), _cut(row.judge, _SHORT_JUDGE)]
        table.append([*names, str(row.pearson_r), str(row.rmse), row.constant_rmse.value])
    head, *body = ("  ".join(line) for line in _aligned(table, 2))
    title = f"predictor {printable(evaluation.main_predictor)}; value [{interval_name(evaluation)}]"
    return "\n".join([title, head, "-" * len(head), *body])


def _cut(text: str, width: int) -> str:
    line = printable(text)
    return line if len(line) <= width else line[: width - 3] + "..."
