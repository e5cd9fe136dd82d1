"""The evaluate stage: from predictions to metrics with intervals, tables and a report. No model is loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from tract.artifacts.identity import StageIdentity
from tract.artifacts.products import Product, write_config
from tract.artifacts.run_folder import StageFolder
from tract.common.durable import json_line, write_json
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.evaluation.agreement import RaterAgreement, rater_agreement
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.report import write_report
from tract.evaluation.results import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    PREDICTIONS_TABLE,
    RUBRIC_ABSENT,
    RUBRIC_HIDDEN,
    RUBRIC_SHOWN,
    BenchmarkReport,
    Evaluation,
    Robustness,
)
from tract.evaluation.scored import Estimate, Scored
from tract.evaluation.scoring import failed_score_of, prediction_rows, score_items
from tract.evaluation.statistics import report_of
from tract.evaluation.tables import markdown_table, short_table
from tract.evaluation.worst_items import WorstItems, worst_items
from tract.pipeline.curves import curves_of_judge
from tract.pipeline.identity.keys import code_digests, key_fields, named_code
from tract.pipeline.stages.predict import Predictions
from tract.pipeline.stages.robustness import base_benchmarks, readings_of, robustness_on
from tract.pipeline.stages.stage import IGNORED_CODE
from tract.pipeline.tracking.tracker import Tracker
from tract.text.perturbations import PERTURBATIONS
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

_SECTIONS = (
    "seed", "run.name", "evaluation.predictors", "evaluation.main_predictor", "evaluation.failed_score", "evaluation.resamples",
    "evaluation.confidence", "evaluation.bins",
)  # fmt: skip
_RATERS = pa.list_(pa.struct({"rater": pa.string(), "score": pa.float64(), "comment": pa.string()}))
REPORT_FILE, TABLE_FILE = "report.html", "results.md"


@dataclass
class EvaluateStage:
    """Compares the predictions of a judge with the true scores, and with another judge's.

    Attributes:
        cfg: the typed configuration. resolved: the same as composed, for the run folder.
        predicted: product of the judge's predict stage. other: that of the judge compared to, or None.
    """

    cfg: Config
    resolved: DictConfig
    predicted: Product
    other: Product | None

    @property
    def name(self) -> str:
        """Evaluate."""
        return "evaluate"

    def identity(self) -> StageIdentity:
        """Configuration, predictions and code."""
        parents = {"predict": self.predicted.fingerprint}
        if self.other is not None:
            parents["compare_to"] = self.other.fingerprint
        config = key_fields(self.resolved, _SECTIONS, ())
        code = {**code_digests("tract.pipeline.stages.evaluate", ignored_fields=IGNORED_CODE), **named_code(config)}
        return StageIdentity(self.name, config, parents, code)

    def make(self, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
        """Writes predictions, metrics, table and report."""
        write_config(folder.working, self.resolved)
        own = Predictions.read(self.predicted)
        other = None if self.other is None else Predictions.read(self.other)
        names = self._names()
        evaluation = self._evaluation(own, other, names)
        write_data(folder.working, own, evaluation)
        (folder.working / TABLE_FILE).write_text(markdown_table(evaluation), encoding="utf-8")
        write_report(folder.working / REPORT_FILE, evaluation)
        (folder.working / "short_table.txt").write_text(short_table(evaluation) + "\n", encoding="utf-8")
        return {"parents": {"predict": str(self.predicted.path), **({"compare_to": str(self.other.path)} if self.other else {})}}

    def _names(self) -> tuple[str, str | None]:
        """Names of the two judges; told apart if they are called alike."""
        name = str(self.predicted.manifest["judge"]["name"])
        if self.other is None:
            return name, None
        other = str(self.other.manifest["judge"]["name"])
        return name, other if other != name else f"{other} ({self.other.path.name})"

    def _evaluation(self, predictions: Predictions, other: Predictions | None, names: tuple[str, str | None]) -> Evaluation:
        own, others = self._scored(predictions), {} if other is None else self._scored(other)
        grid, predictors = predictions.grid, self.cfg.evaluation.predictors
        reports = tuple(
            replace(
                self._report(own[name], grid, others.get(name), names[1]),
                agreement=agreement_of(predictions.of[name][0]),
                rubric=rubric_shown(predictions.of[name][0], self.predicted.manifest.get("shown_fields")),
            )
            for name in base_benchmarks(self.predicted)
        )
        shown: tuple[tuple[str, tuple[BenchmarkReport, ...]], ...] = ()
        if self.other is not None:
            shown = ((str(names[1]), tuple(self._report(others[name], grid, None, None) for name in base_benchmarks(self.other))),)
        readings = readings_of(predictions, own, predictors)
        their = {} if other is None else readings_of(other, others, predictors)
        robustness = {names[0]: robustness_on(readings, their, self.cfg), str(names[1]): robustness_on(their, {}, self.cfg)}
        measured = {name: parts for name, parts in robustness.items() if parts}
        judge = self.predicted.manifest["judge"]
        return Evaluation(
            names[0],
            reports,
            shown,
            self._facts(),
            self.cfg.evaluation.main_predictor,
            measured,
            run=self.cfg.run.name,
            model=str(judge["model"]),
            counts={name: self.predicted.manifest["benchmarks"][name] for name in base_benchmarks(self.predicted)},
            worst=(*self._worst(names[0], predictions, own), *(self._worst(str(names[1]), other, others) if other else ())),
            curves=curves_of_judge(judge["weights"]),
        )

    def _worst(self, judge: str, found: Predictions, scored: Mapping[str, Scored]) -> Iterator[WorstItems]:
        """The worst items of a judge on each benchmark, by the main predictor where it was read."""
        predictor = self.cfg.evaluation.main_predictor
        for name in base_benchmarks(self.predicted):
            if predictor in scored[name].scores:
                yield worst_items(judge, scored[name], *found.of[name], predictor, found.grid, found.cue)

    def _scored(self, found: Predictions) -> dict[str, Scored]:
        evaluation = self.cfg.evaluation
        failed_score = failed_score_of(found.grid.labels, evaluation.failed_score)
        return {
            name: score_items(name, items, judgements, evaluation.predictors, found.grid, found.cue, failed_score)
            for name, (items, judgements) in found.of.items()
        }

    def _report(self, scored: Scored, grid: ScoreGrid, other: Scored | None, other_name: str | None) -> BenchmarkReport:
        evaluation = self.cfg.evaluation
        return report_of(
            scored,
            evaluation.predictors,
            grid=(grid.lowest, grid.highest),
            seed=self.cfg.seed,
            resamples=evaluation.resamples,
            confidence=evaluation.confidence,
            bins=evaluation.bins,
            other=other,
            other_name=other_name if other is not None else None,
        )

    def _facts(self) -> tuple[tuple[str, Any], ...]:
        config, judge = self.predicted.manifest["identity"]["config"], self.predicted.manifest["judge"]
        generation, given = config["generation"], config["evaluation"]["cots"]
        sampling = ", ".join(f"{name} {generation[name]:g}" for name in ("temperature", "top_p", "repetition_penalty", "max_cot_tokens"))
        facts = [
            ("model", judge["model"]),
            ("run folder", judge["weights"] or "none: the base model"),
            ("CoTs", f"{config['evaluation']['n_cot']} per item, {sampling}" if given == "sampled" else given),
            ("score of a failed draw", self.cfg.evaluation.failed_score),
            ("seed", self.cfg.seed),
            ("confidence", self.cfg.evaluation.confidence),
            ("bootstrap resamples", self.cfg.evaluation.resamples),
        ]
        return tuple(facts)


def rubric_shown(items: Sequence[BenchmarkItem], fields: Collection[str] | None) -> str | None:
    """Whether prompts show what the items are judged by; None where that is not known, as in finished prompts.

    Args:
        fields: those that the judge's prompts show, as the manifest of its predict stage has them.
    """
    if fields is None:
        return None
    if not any(item.rubric and (item.rubric["criteria"] or any(item.rubric["descriptions"].values())) for item in items):
        return RUBRIC_ABSENT
    return RUBRIC_SHOWN if {"criteria", "score_descriptions", "rubric"} & set(fields) else RUBRIC_HIDDEN


def agreement_of(items: Sequence[BenchmarkItem]) -> RaterAgreement | None:
    """How well the raters of the items agree; None where no item has two scores."""
    return rater_agreement([[(rating["rater"], float(rating["score"])) for rating in item.raters] for item in items])


def write_data(folder: Path, found: Predictions, evaluation: Evaluation) -> None:
    """Writes what other programs read: every prediction, and the metrics."""
    _write_predictions(folder, found)
    write_json(folder / METRICS_FILE, _evaluation_dict(evaluation))


def _write_predictions(folder: Path, found: Predictions) -> None:
    rows = [
        row for name, (items, judgements) in found.of.items() for row in prediction_rows(name, items, judgements, found.grid, found.cue)
    ]
    with (folder / PREDICTIONS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(json_line(row, f"{PREDICTIONS_FILE}, {row['id']}") for row in rows)
    flat = [{**row, "meta": json.dumps(row["meta"]), "probabilities": _json_text(row["probabilities"])} for row in rows]
    # Said, since a column of raters or comments that are all missing has no type of its own.
    inferred = pa.Table.from_pylist(flat).schema
    schema = inferred.set(inferred.get_field_index("raters"), pa.field("raters", _RATERS))
    pq.write_table(pa.Table.from_pylist(flat, schema=schema), folder / PREDICTIONS_TABLE)


def _json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _evaluation_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation for ``metrics.json``."""
    return {
        "judge": evaluation.judge,
        "facts": dict(evaluation.facts),
        "main_predictor": evaluation.main_predictor,
        "counts": {name: dict(counts) for name, counts in evaluation.counts.items()},
        "benchmarks": {report.scored.benchmark: _report_dict(report) for report in evaluation.reports},
        "others": {name: {report.scored.benchmark: _report_dict(report) for report in reports} for name, reports in evaluation.others},
        "robustness": {
            name: {found.benchmark: _robustness_dict(found) for found in parts} for name, parts in evaluation.robustness.items()
        },
    }


def _estimate_dicts(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {name: {metric: estimate.to_dict() for metric, estimate in row.items()} for name, row in table.items()}


def _robustness_dict(found: Robustness) -> dict[str, Any]:
    return {
        "perturbations": {
            shift.perturbation: {
                "kind": PERTURBATIONS[shift.perturbation].kind,
                "pairs": shift.pairs,
                "unchanged": shift.unchanged,
                "true_change": shift.true_change.to_dict(),
                "pairs_with_a_failed_draw": dict(shift.failed),
                "predictors": _estimate_dicts(shift.metrics),
            }
            for shift in found.shifts
        },
        "consistency": _estimate_dicts(found.consistency),
        "summary": _estimate_dicts(found.summary),
        **({"differences": _estimate_dicts(found.differences)} if found.differences else {}),
    }


def _report_dict(report: BenchmarkReport) -> dict[str, Any]:
    return {
        "items": len(report.scored.ids),
        "questions": len(set(report.scored.questions)),
        "predictors": _estimate_dicts(report.metrics),
        "baselines": _estimate_dicts(report.baselines),
        "rmse_minus_baseline": _estimate_dicts(report.over_baselines),
        "agreement": None if report.agreement is None else report.agreement.to_dict(),
        "reliability": {
            name: [{"low": b.low, "high": b.high, "count": b.count, "predicted": b.predicted, "true": b.true} for b in bins]
            for name, bins in report.reliability.items()
        },
        **({"compared_to": report.compared_to, "differences": _estimate_dicts(report.differences)} if report.compared_to else {}),
    }


def read_short_table(product: Product) -> str:
    """The table for the terminal."""
    return (product.path / "short_table.txt").read_text(encoding="utf-8").rstrip()


def check_comparable(own: Product, other: Product) -> None:
    """Refuses to compare judges on different benchmarks.

    Raises:
        ConfigError: if the benchmarks differ.
    """
    if base_benchmarks(own) != base_benchmarks(other):
        raise ConfigError(f"compare_to: {other.path} holds predictions on {base_benchmarks(other)}, not on the same benchmarks")
