"""What the evaluate stage of a run holds: metrics of each benchmark, and the score of each item behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tract.artifacts.products import Product, open_product
from tract.artifacts.runs import RecordedRun
from tract.common.errors import DataError
from tract.evaluation.results import METRICS_FILE, PREDICTIONS_TABLE
from tract.evaluation.scored import Array, Estimate, Scored
from tract.evaluation.scoring import WITH_COT, WITHOUT_COT

DIRECT = "no_cot"  # the predictor that reads the rows without a CoT, by RAIL
Metrics = Mapping[str, Estimate]


@dataclass(frozen=True)
class Measured:
    """One benchmark of a run: predictor -> metrics, those of the constant baseline, and how much it holds."""

    predictors: Mapping[str, Metrics]
    constant: Metrics
    items: int
    questions: int


@dataclass(frozen=True)
class Results:
    """The evaluation of a run.

    Attributes:
        run: whose. product: of its evaluate stage, whole. main_predictor: the one that its report shows.
        confidence: of the intervals. benchmarks: name -> numbers, in the run's order.
    """

    run: RecordedRun
    product: Product
    main_predictor: str
    confidence: float
    benchmarks: Mapping[str, Measured]

    @classmethod
    def of(cls, run: RecordedRun) -> Results:
        """Those of a run.

        Raises:
            DataError: if the product is damaged, or of another version.
        """
        product = open_product(run.product)
        try:
            content = json.loads((run.product / METRICS_FILE).read_text(encoding="utf-8"))
            benchmarks = {
                name: Measured(
                    {predictor: _estimates(metrics) for predictor, metrics in numbers["predictors"].items()},
                    _estimates(numbers["baselines"]["constant"]), int(numbers["items"]), int(numbers["questions"]),
                )
                for name, numbers in content["benchmarks"].items()
            }  # fmt: skip
            confidence = float(product.manifest["identity"]["config"]["evaluation"]["confidence"])
            return cls(run, product, str(content["main_predictor"]), confidence, benchmarks)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise _unreadable(run, METRICS_FILE, error) from error

    @cached_property
    def scored(self) -> Mapping[str, Scored]:
        """Benchmark -> scores of its items, as the metrics were computed from; words of the responses are not kept (zeros).

        Raises:
            DataError: if the predictions cannot be read.
        """
        try:
            rows = _rows(self)
            fallback = _fallback(rows, self)
            return {name: _scored(name, rows[name], list(measured.predictors), fallback) for name, measured in self.benchmarks.items()}
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise _unreadable(self.run, PREDICTIONS_TABLE, error) from error


def _unreadable(run: RecordedRun, file: str, error: Exception) -> DataError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return DataError(f"{run.product / file}: cannot be read ({reason}); evaluate the run anew with force=[evaluate]")


def _estimates(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {name: Estimate(value["value"], value["low"], value["high"]) for name, value in metrics.items()}


Rows = list[dict[str, Any]]


def _rows(results: Results) -> dict[str, Rows]:
    """Benchmark -> rows of the predictions file, one for each item and CoT, without the texts."""
    predictors = {name for measured in results.benchmarks.values() for name in measured.predictors if name != DIRECT}
    columns = ["benchmark", "id", "question_id", "target", "reading", "probabilities", "score_mass", *sorted(predictors | {"rail"})]
    found: dict[str, Rows] = {name: [] for name in results.benchmarks}
    for row in pq.ParquetFile(results.run.product / PREDICTIONS_TABLE).read(columns=columns).to_pylist():
        if row["benchmark"] in found:  # the others are perturbed copies
            found[row["benchmark"]].append(row)
    return found


def _fallback(rows: Mapping[str, Rows], results: Results) -> float:
    """The points that a failed draw counts with, on the judge's own grid."""
    name = results.product.manifest["identity"]["config"]["evaluation"]["fallback"]
    texts = (row["probabilities"] for found in rows.values() for row in found if row["probabilities"] is not None)
    labels = next((list(json.loads(text)) for text in texts), None) or results.run.config["grid.labels"]
    low, high = float(labels[0]), float(labels[-1])
    return {"lowest": low, "middle": (low + high) / 2, "highest": high}[name]


def _scored(benchmark: str, rows: Rows, predictors: Sequence[str], fallback: float) -> Scored:
    """The scores of all items, each the mean over its draws; see ``tract.evaluation.scoring.score_items``."""
    by_item: dict[str, Rows] = {}
    for row in rows:
        by_item.setdefault(row["id"], []).append(row)
    first = [found[0] for found in by_item.values()]
    table = {name: np.asarray([_cell(found, name, fallback) for found in by_item.values()]).T for name in predictors}
    return Scored(
        benchmark=benchmark,
        ids=tuple(by_item),
        questions=tuple(row["question_id"] for row in first),
        targets=np.asarray([row["target"] for row in first], dtype=np.float64),
        response_words=np.zeros(len(first)),
        scores=_column(table, 0),
        failures=_column(table, 1),
        score_mass=_column(table, 2),
    )


def _column(table: Mapping[str, Array], number: int) -> dict[str, Array]:
    return {name: columns[number] for name, columns in table.items()}


def _cell(rows: Rows, predictor: str, fallback: float) -> tuple[float, float, float]:
    """(score in points, share of failed draws, score mass) of one item under one predictor."""
    chosen = [row for row in rows if row["reading"] == (WITHOUT_COT if predictor == DIRECT else WITH_COT)]
    if not chosen:
        return fallback, 1.0, 0.0
    draws = [row["rail" if predictor == DIRECT else predictor] for row in chosen]
    failed = sum(draw is None for draw in draws)
    mass = float(np.mean([row["score_mass"] or 0.0 for row in chosen]))
    return float(np.mean([fallback if draw is None else draw for draw in draws])), failed / len(draws), mass
