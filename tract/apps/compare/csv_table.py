"""The comparison as a tidy CSV: one line for each benchmark, variant, predictor and metric."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from tract.apps.compare.comparison import BenchmarkTable, RunComparison, VariantRow
from tract.apps.compare.tables import row_label
from tract.artifacts.variants import differing_keys
from tract.evaluation.scored import Estimate

COLUMNS = (
    "benchmark", "variant", "predictor", "metric", "runs", "seeds", "mean", "low", "high", "interval",
    "baseline", "difference", "difference_seeds", "difference_low", "difference_high",
    "difference_questions_low", "difference_questions_high", "constant_rmse",
)  # fmt: skip
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(comparison: RunComparison) -> str:
    """The numbers of all tables, in full precision; what is not defined or not computed is empty.

    ``runs`` counts a variant's runs, ``seeds`` those where the metric is defined, ``interval`` is what low and high cover: seeds or
    questions. ``baseline`` is the variant and predictor that differences are to. Behind the columns of numbers there is one for each
    key that differs between the variants. A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    keys = differing_keys([variant.settings for variant in comparison.variants])
    settings = {variant.label: variant.settings for variant in comparison.variants}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_csv_field, [*COLUMNS, *keys]))
    for table in comparison.tables:
        for row in table.rows:
            own = settings.get(row.variant, {})
            for metric in comparison.options.metrics:
                writer.writerow(map(_csv_field, [*_numbers(table, row, metric), *(_setting_value(own, key) for key in keys)]))
    return buffer.getvalue()


def _numbers(table: BenchmarkTable, row: VariantRow, metric: str) -> list[Any]:
    mean, difference = row.means[metric], row.differences.get(metric)
    reference = None if table.reference is None else table.rows[table.reference]
    nothing = Estimate(None)
    over_seeds, over_questions = (difference.over_seeds, difference.over_questions) if difference else (nothing, nothing)
    return [
        table.benchmark, row_label(row), row.predictor, metric, mean.runs, mean.seeds,
        mean.estimate.value, mean.estimate.low, mean.estimate.high, mean.kind,
        None if reference is None else f"{reference.variant} ({reference.predictor})",
        over_seeds.value, difference.seeds if difference else None, over_seeds.low, over_seeds.high,
        over_questions.low, over_questions.high, row.constant_rmse,
    ]  # fmt: skip


def _setting_value(settings: Mapping[str, Any], key: str) -> Any:
    """A value of the configuration: texts and numbers as they are, others as JSON; None where there is no such key."""
    value = settings.get(key)
    return value if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None if value is None else json.dumps(value)


def _csv_field(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else repr(value) if isinstance(value, float) else value
