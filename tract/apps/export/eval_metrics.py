"""What was measured of a run's judge: the metrics of the evaluate stage that read its judgements."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tract.artifacts.identity import StageIdentity
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_settings import JudgeSettings
from tract.artifacts.products import open_product, read_manifest
from tract.common.errors import DataError
from tract.evaluation.results import METRICS_FILE

log = logging.getLogger(__name__)

# Not a predictor: the baseline that always gives the mean true score.
CONSTANT = "constant"


def metrics_of(run: JudgeFiles) -> dict[str, Any]:
    """Benchmark -> predictor -> metric -> {value, low, high}, with facts of the benchmark beside; empty if nothing was measured.

    The evaluation is found by what it was made from, so it is this very judge's. Of several, one with CoTs as the judge draws them
    is taken before others, then the newest. The facts: "n" items, "questions", "n_cot" and "confidence" of the intervals.

    Raises:
        DataError: if the evaluation is damaged.
    """
    predicted = {
        str(manifest["fingerprint"]): (path, identity)
        for path, manifest, identity in _readable_products(run, "predict")
        if identity.parents.get("judge") == run.fingerprint
    }
    found = [
        (path, manifest, predicted[identity.parents["predict"]][1])
        for path, manifest, identity in _readable_products(run, "evaluate")
        if identity.parents.get("predict") in predicted
    ]
    if not found:
        return {}
    path, manifest, prediction = max(
        found, key=lambda entry: (_sampled_as_the_judge_does(entry[2], run.settings), str(entry[1].get("finished")))
    )
    log.info("metrics: those of %s", path.name)
    return _benchmarks_in(path, prediction, manifest["identity"]["config"]["evaluation"]["confidence"])


def _readable_products(run: JudgeFiles, stage: str) -> Iterator[tuple[Path, dict[str, Any], StageIdentity]]:
    for path in run.stage.beside(stage):
        try:
            manifest, identity = read_manifest(path)
        except DataError as error:
            log.warning("metrics: left out: %s", error)
            continue
        yield path, manifest, identity


def _sampled_as_the_judge_does(prediction: StageIdentity, settings: JudgeSettings) -> bool:
    """Whether the judgements are of so many CoTs as the judge writes, drawn as it draws them."""
    evaluation, generation = prediction.config["evaluation"], prediction.config["generation"]
    equal = all(float(generation[name]) == float(value) for name, value in vars(settings.sampling).items())
    return evaluation["cots"] == "sampled" and evaluation["n_cot"] == settings.n_cot and equal


def _benchmarks_in(path: Path, prediction: StageIdentity, confidence: float) -> dict[str, Any]:
    open_product(path)
    try:
        benchmarks = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))["benchmarks"]
        evaluation = prediction.config["evaluation"]
        facts = {"n_cot": evaluation["n_cot"], "cots": evaluation["cots"], "confidence": confidence}
        return {name: _benchmark(content, facts) for name, content in benchmarks.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path / METRICS_FILE}: no metrics ({' '.join(str(error).split())}); evaluate it anew: force=[evaluate]"
        ) from error


def _benchmark(content: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    # A constant's error is what a score has to beat.
    baseline = {name: row for name, row in content.get("baselines", {}).items() if name == CONSTANT}
    return {"n": content["items"], "questions": content["questions"], **facts, **content["predictors"], **baseline}
