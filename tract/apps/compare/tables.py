"""Tables of a comparison: Markdown for files, plain text for the terminal, and the cells that the page shows too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tract.apps.compare.comparison import BenchmarkTable, RunComparison, VariantRow
from tract.apps.compare.readings import CONSTANT
from tract.evaluation.cells import (
    NOT_COMPUTED,
    Cell,
    Table,
    TextRow,
    cell,
    counted,
    escaped,
    markdown_lines,
    markdown_of,
    percent,
    printable,
    text_table,
)  # fmt: skip
from tract.evaluation.scored import Estimate
from tract.evaluation.seed_intervals import MIN_SEEDS, QUESTIONS, SEEDS, Difference, SeedMean
from tract.evaluation.tables import METRIC_LABELS

CONSTANT_LABEL = "constant baseline"
BASELINE_CELL = Cell("baseline")
# The terminal table shows these of the metrics, where they are among those that were chosen, else the first two.
_SHORT_METRICS = ("pearson_r", "rmse")
_SHORT_LABEL, _SHORT_NAME, _SHORT_WIDTH, _SHORT_LEFT_OUT = 46, 16, 112, 10
_TITLE_NAMES = 3


def confidence_text(comparison: RunComparison) -> str:
    """The confidence, such as ``95 %``."""
    return percent(comparison.options.confidence)


def row_label(row: VariantRow) -> str:
    """What a row's variant is called."""
    return CONSTANT_LABEL if row.predictor == CONSTANT else row.variant


def marked_label(comparison: RunComparison, table: BenchmarkTable, place: int, metrics: Sequence[str]) -> str:
    """What a row's variant is called, what it is the best by, and whether it is a base model that nobody trained.

    Args:
        place: of the row. metrics: that are shown with it; the best of another is not marked beside these.
    """
    row, main = table.rows[place], comparison.options.metrics[0]
    marks = [best_mark(comparison, metrics)] * (place in table.best and (bool(comparison.chosen_by) or main in metrics))
    marks += ["not trained"] * (row.predictor != CONSTANT and row.variant in untrained_labels(comparison))
    return f"{row_label(row)} ({', '.join(marks)})" if marks else row_label(row)


def best_mark(comparison: RunComparison, metrics: Sequence[str]) -> str:
    """How the best variant is marked: with what validation chose it by, else with the main metric, where others stand beside it."""
    if comparison.chosen_by:
        return f"best {comparison.chosen_by}"
    return "best" if len(metrics) == 1 else f"best {METRIC_LABELS[comparison.options.metrics[0]]}"


def untrained_labels(comparison: RunComparison) -> frozenset[str]:
    """Labels of the variants that are base models."""
    return frozenset(variant.label for variant in comparison.variants if variant.is_untrained)


def order_of(comparison: RunComparison) -> str:
    """How rows are sorted, and what marks of the best mean, in a few sentences."""
    metric = METRIC_LABELS[comparison.options.metrics[0]]
    parts = [f"Rows are sorted by {metric}, the best first"]
    if any(table.best for table in comparison.tables):
        meaning = (
            "is what the end of a sweep chooses: the best variant by that metric, not by those of the tables"
            if comparison.chosen_by
            else "is the best mean on these items: no choice that would hold on others"
        )
        parts.append(f'"{best_mark(comparison, comparison.options.metrics)}" {meaning}')
    return ". ".join([*parts, "Only a difference marked * is told from the baseline"])


def reference_label(table: BenchmarkTable) -> str:
    """What differences are to, such as ``tract (rail)``."""
    assert table.reference is not None
    row = table.rows[table.reference]
    return f"{row.variant} ({row.predictor})"


def size(table: BenchmarkTable) -> str:
    """How much a benchmark holds, such as ``320 items, 80 questions``."""
    return f"{counted(table.items, 'item')}, {counted(table.questions, 'question')}"


def mean_cell(mean: SeedMean, metric: str) -> Cell:
    """``.796 [.664, .885]``; a q behind the interval says that it covers questions, not seeds."""
    return _cell_over_seeds(mean.estimate, metric, mean.kind, mean.seeds, mean.runs)


def difference_cell(estimate: Estimate, difference: Difference, metric: str, kind: str) -> Cell:
    """``+.051 [+.010, +.092] *``; marked if the interval excludes 0."""
    return _cell_over_seeds(estimate, metric, kind, difference.seeds, difference.pairs, difference=True)


def _cell_over_seeds(estimate: Estimate, metric: str, kind: str, seeds: int, runs: int, *, difference: bool = False) -> Cell:
    """The cell of a mean over ``seeds`` of ``runs``; says how many if not all have a number, and if they are too few for an interval."""
    shown = cell(estimate, metric, difference=difference)
    if estimate.value is not None and estimate.low is None:
        shown = Cell(shown.value)
    some = f"{seeds}/{runs} seeds" if 0 < seeds < runs else ""
    none = "no interval" if 1 < seeds < MIN_SEEDS and estimate.low is None else ""
    notes = ": ".join(filter(None, (some, none)))
    return replace(shown, interval=" ".join(filter(None, (shown.interval + "q" * (kind == QUESTIONS), notes))))


def tables_of(comparison: RunComparison, table: BenchmarkTable) -> list[Table]:
    """The tables of one benchmark: means, differences with intervals over seeds, and the same with intervals over questions."""
    metrics = comparison.options.metrics
    head = ("variant", "predictor", "seeds", *(METRIC_LABELS[metric] for metric in metrics))
    labels = [marked_label(comparison, table, place, metrics) for place in range(len(table.rows))]
    means = [_text_row(row, label, [_mean_cell(row, metric) for metric in metrics]) for row, label in zip(table.rows, labels, strict=True)]
    shown = [Table(f"Mean over seeds, with its {confidence_text(comparison)} interval", head, tuple(means))]
    differences = [difference for row in table.rows for difference in row.differences.values()]
    if table.reference is None or not differences:
        return shown
    title = f"Paired difference to {reference_label(table)}, {confidence_text(comparison)} interval over"
    if any(difference.over_seeds.low is not None for difference in differences):
        shown.append(
            Table(f"{title} seeds: the randomness of training and sampling", head, _difference_rows(table, labels, metrics, SEEDS))
        )
    if any(difference.over_questions.low is not None for difference in differences):
        shown.append(Table(f"{title} questions: the choice of test items", head, _difference_rows(table, labels, metrics, QUESTIONS)))
    return shown


def _mean_cell(row: VariantRow, metric: str) -> Cell:
    mean = row.means[metric]
    return Cell(NOT_COMPUTED) if row.predictor == CONSTANT and mean.estimate.value is None else mean_cell(mean, metric)


def _difference_rows(table: BenchmarkTable, labels: Sequence[str], metrics: Sequence[str], kind: str) -> tuple[TextRow, ...]:
    rows = []
    for place, row in enumerate(table.rows):
        if place == table.reference or not row.differences:
            continue
        cells = []
        for metric in metrics:
            difference = row.differences[metric]
            estimate = difference.over_seeds if kind == SEEDS else difference.over_questions
            undefined = row.predictor == CONSTANT and estimate.value is None
            cells.append(Cell(NOT_COMPUTED) if undefined else difference_cell(estimate, difference, metric, ""))
        rows.append(_text_row(row, labels[place], cells, next(iter(row.differences.values())).pairs))
    return tuple(rows)


def _text_row(row: VariantRow, label: str, cells: Sequence[Cell], seeds: int | None = None) -> TextRow:
    if row.predictor == CONSTANT:
        return TextRow((label, "", ""), tuple(cells))
    return TextRow((label, row.predictor, str(len(row.seeds) if seeds is None else seeds)), tuple(cells))


def meanings(comparison: RunComparison) -> list[str]:
    """What intervals, marks and names say, one sentence or two each."""
    share = confidence_text(comparison)
    return [
        f"Over seeds: mean over the runs of a variant, which differ in their seed alone, with Student's t-interval ({share}, seeds - 1 "
        f"degrees of freedom). It covers the randomness of training and sampling, on these very test items. It needs {MIN_SEEDS} seeds: "
        "with two it would be 12.7 standard errors wide to each side (at 95 %), and say nothing.",
        f"Over questions (marked q where it stands in place of one over seeds): {share} percentiles of a bootstrap that draws whole "
        "questions with replacement. It covers the choice of test items, for these very runs, and is the same with one seed or several.",
        "A difference is a variant minus the baseline, seed by seed, averaged over the seeds that both have; its interval over questions "
        "draws the same questions for both, so it is paired by items within each seed. * marks an interval that excludes 0, of a "
        "difference that is not 0 in three decimals; nothing is corrected for the number of comparisons.",
        "The constant baseline is the mean of the true scores: its RMSE is what a judge has to beat.",
    ]


def title_of(comparison: RunComparison) -> str:
    """What was compared, by the names of the runs."""
    names = list(dict.fromkeys(variant.name for variant in comparison.variants if variant.name))
    more = f" and {len(names) - _TITLE_NAMES} more" if len(names) > _TITLE_NAMES else ""
    return f"Comparison of runs: {printable(', '.join(names[:_TITLE_NAMES]))}{more}" if names else "Comparison of runs"


def markdown(comparison: RunComparison) -> str:
    """All tables as Markdown, names escaped. Ends with a newline."""
    blocks = [f"# {escaped(title_of(comparison))}", f"Baseline: {escaped(comparison.baseline)}. {order_of(comparison)}."]
    for table in comparison.tables:
        blocks.append(f"## {escaped(table.benchmark)} ({size(table)})")
        for part in tables_of(comparison, table):
            if part.rows:
                blocks += [f"{escaped(part.title)}:", markdown_of(part)]
        blocks += [f"Note: {escaped(note)}." for note in table.notes]
    if comparison.left_out:
        lines = [["run", "why"], *([escaped(out.what), escaped(out.why)] for out in comparison.left_out)]
        blocks += [f"## Left out: {counted(len(comparison.left_out), 'run')}", markdown_lines(lines, 2)]
    blocks += ["## What the intervals mean", "\n".join(f"- {escaped(line)}" for line in meanings(comparison))]
    return "\n\n".join(blocks) + "\n"


def terminal(comparison: RunComparison) -> str:
    """Tables of two metrics for each benchmark, about 100 columns wide, and what was left out."""
    blocks = [_short_table(comparison, table, short_metrics(comparison.options.metrics)) for table in comparison.tables]
    blocks.append(_legend(comparison))
    if comparison.left_out:
        runs = [f"  {printable(out.what)}: {printable(out.why)}" for out in comparison.left_out]
        more = [f"  and {len(runs) - _SHORT_LEFT_OUT} more, see the files"] if len(runs) > _SHORT_LEFT_OUT else []
        blocks.append("\n".join([f"{counted(len(runs), 'run')} left out:", *runs[:_SHORT_LEFT_OUT], *more]))
    return "\n\n".join(blocks)


def _short_table(comparison: RunComparison, table: BenchmarkTable, metrics: Sequence[str]) -> str:
    """The metrics beside each other, or below each other where that would be too wide."""
    parts = [_text_lines(comparison, table, metrics)]
    if len(parts[0][1]) > _SHORT_WIDTH:
        parts = [_text_lines(comparison, table, [metric]) for metric in metrics]
    head, notes = f"{printable(table.benchmark)}: {size(table)}", [f"  {printable(note)}" for note in table.notes]
    return "\n".join([head, "\n\n".join("\n".join(part) for part in parts), *notes])


def _text_lines(comparison: RunComparison, table: BenchmarkTable, metrics: Sequence[str]) -> list[str]:
    lines = _short_lines(comparison, table, metrics)
    return text_table(lines, lines[0].index("seeds"))


def short_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics of the terminal table."""
    usual = [metric for metric in _SHORT_METRICS if metric in metrics]
    return tuple([*usual, *(metric for metric in metrics if metric not in usual)][:2])


def _short_lines(comparison: RunComparison, table: BenchmarkTable, metrics: Sequence[str]) -> list[list[str]]:
    several = len({row.predictor for row in table.rows if row.predictor != CONSTANT}) > 1
    lines = [["variant", "predictor", "seeds"]]
    for metric in metrics:
        lines[0] += [METRIC_LABELS[metric], "difference"][: 1 if table.reference is None else 2]
    for place, (row, label) in enumerate(zip(table.rows, _short_labels(comparison, table, metrics), strict=True)):
        line = [label, *(["", ""] if row.predictor == CONSTANT else [row.predictor, str(len(row.seeds))])]
        for metric in metrics:
            line.append(str(_mean_cell(row, metric)))
            if table.reference is not None:
                line.append(str(BASELINE_CELL if place == table.reference else _shown_difference(row, metric)))
        lines.append(line)
    return lines if several else [[label, *numbers] for label, _, *numbers in lines]


def _short_labels(comparison: RunComparison, table: BenchmarkTable, metrics: Sequence[str]) -> list[str]:
    """Labels with their marks, long ones cut; as much longer as is needed for no two variants to look the same."""
    names = [row_label(row) for row in table.rows]
    marks = [marked_label(comparison, table, place, metrics).removeprefix(name) for place, name in enumerate(names)]
    cuts = names
    for more in range(max(map(len, names))):
        cuts = [_cut(name, max(_SHORT_NAME, _SHORT_LABEL - len(mark)) + more) for name, mark in zip(names, marks, strict=True)]
        if len(set(zip(cuts, names, strict=True))) == len(set(cuts)):
            break
    return [cut + mark for cut, mark in zip(cuts, marks, strict=True)]


def _shown_difference(row: VariantRow, metric: str) -> Cell:
    difference = row.differences.get(metric)
    if difference is None or (row.predictor == CONSTANT and difference.over_seeds.value is None):
        return Cell(NOT_COMPUTED)
    estimate, kind = difference.shown
    return difference_cell(estimate, difference, metric, kind)


def _cut(label: str, width: int) -> str:
    """The label with its middle cut out if it is long: settings that tell variants apart stand at the end."""
    half = (width - 3) // 2
    return label if len(label) <= width else f"{label[:half]}...{label[-half:]}"


def _legend(comparison: RunComparison) -> str:
    kinds = {mean.kind for table in comparison.tables for row in table.rows for mean in row.means.values()}
    kinds |= {difference.shown[1] for table in comparison.tables for row in table.rows for difference in row.differences.values()}
    parts = [f"best first, by {METRIC_LABELS[comparison.options.metrics[0]]}"]
    parts += [f"best {comparison.chosen_by}: chosen by that, as at the end of the sweep"] if comparison.chosen_by else []
    parts += [f"[{confidence_text(comparison)} interval over seeds]"] if SEEDS in kinds else []
    parts += [f"[{confidence_text(comparison)} interval over questions]q"] if QUESTIONS in kinds else []
    if references := dict.fromkeys(reference_label(table) for table in comparison.tables if table.reference is not None):
        parts.append(f"difference: paired, minus {' or '.join(map(printable, references))}; * its interval excludes 0")
    if more := [METRIC_LABELS[name] for name in comparison.options.metrics if name not in short_metrics(comparison.options.metrics)]:
        parts.append(f"{', '.join(more)}: see the files")
    return "; ".join(parts)
