"""What the evaluate stage of a run holds: metrics of each benchmark, and the score of each item behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq

from tract.artifacts.products import Product, open_product
from tract.artifacts.runs import RecordedRun
from tract.common.errors import DataError
from tract.config.renames import upgraded_config
from tract.evaluation.predictors import PREDICTORS
from tract.evaluation.results import METRICS_FILE, PREDICTIONS_TABLE
from tract.evaluation.scored import Estimate, Scored
from tract.evaluation.scoring import SCORED_COLUMNS, failed_score_of, score_rows

# Predictors that have no column of their own: they are RAIL in the rows without a CoT.
_WITHOUT_COLUMN = tuple(name for name, predictor in PREDICTORS.items() if predictor.without_cot)
Metrics = Mapping[str, Estimate]


@dataclass(frozen=True)
class BenchmarkNumbers:
    """One benchmark of a run: predictor -> metrics, those of the constant baseline, and how much it holds."""

    predictors: Mapping[str, Metrics]
    constant: Metrics
    items: int
    questions: int


@dataclass(frozen=True)
class RunResults:
    """The evaluation of a run.

    Attributes:
        run: whose. product: of its evaluate stage, whole. main_predictor: the one that its report shows.
        confidence: of the intervals. benchmarks: name -> numbers, in the run's order.
    """

    run: RecordedRun
    product: Product
    main_predictor: str
    confidence: float
    benchmarks: Mapping[str, BenchmarkNumbers]

    @classmethod
    def of(cls, run: RecordedRun) -> RunResults:
        """Those of a run.

        Raises:
            DataError: if the product is damaged, or of another version.
        """
        product = open_product(run.product)
        try:
            content = json.loads((run.product / METRICS_FILE).read_text(encoding="utf-8"))
            benchmarks = {
                name: BenchmarkNumbers(
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
            rows = _prediction_rows(self)
            failed_score = _failed_score(rows, self)
            return {name: score_rows(name, rows[name], list(found.predictors), failed_score) for name, found in self.benchmarks.items()}
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise _unreadable(self.run, PREDICTIONS_TABLE, error) from error


def _unreadable(run: RecordedRun, file: str, error: Exception) -> DataError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return DataError(f"{run.product / file}: cannot be read ({reason}); evaluate the run anew with force=[evaluate]")


def _estimates(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {name: Estimate.from_dict(value) for name, value in metrics.items()}


def _prediction_rows(results: RunResults) -> dict[str, list[dict[str, Any]]]:
    """Benchmark -> rows of the predictions file, one for each item and CoT, without the texts."""
    predictors = {name for measured in results.benchmarks.values() for name in measured.predictors if name not in _WITHOUT_COLUMN}
    columns = ["benchmark", "probabilities", *SCORED_COLUMNS, *sorted(predictors | {"rail"})]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in results.benchmarks}
    for row in pq.ParquetFile(results.run.product / PREDICTIONS_TABLE).read(columns=columns).to_pylist():
        if row["benchmark"] in found:  # the others are perturbed copies
            found[row["benchmark"]].append(row)
    return found


def _failed_score(rows: Mapping[str, list[dict[str, Any]]], results: RunResults) -> float:
    """The points that a failed draw counts with, on the judge's own grid."""
    settings = upgraded_config(results.product.manifest["identity"]["config"])["evaluation"]
    texts = (row["probabilities"] for found in rows.values() for row in found if row["probabilities"] is not None)
    labels = next((list(json.loads(text)) for text in texts), None) or results.run.config["grid.labels"]
    return failed_score_of(labels, settings["failed_score"])
