"""From judgements to scores: every predictor on every item, with failures counted and never dropped. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tract.common.errors import DataError
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.predictors import OF_COTS, PREDICTORS, Readout, predictor_of
from tract.evaluation.results import Array, Scored
from tract.inference.judgement import DIRECT, Judgement, no_distribution
from tract.text.score_grid import ScoreGrid

# What a row of the predictions files is a reading of: the score behind a CoT, or right behind the prompt.
WITH_COT, WITHOUT_COT = "cot", "no_cot"


def predictions(judgement: Judgement, grid: ScoreGrid, cue: str) -> dict[str, float | None]:
    """The score in points of each predictor of ``OF_COTS`` on one judgement; None where it failed.

    One that reads freely written text is left out where nothing was written.
    """
    reading = _reading(judgement, grid, cue)
    read = {name: PREDICTORS[name] for name in OF_COTS if reading.text is not None or not PREDICTORS[name].needs_text}
    return {name: predictor.read(reading) for name, predictor in read.items()}


def score_of(judgement: Judgement, predictor: str, grid: ScoreGrid, cue: str) -> float | None:
    """The score in points that one predictor reads from a judgement; None where it failed."""
    return predictor_of(predictor).read(_reading(judgement, grid, cue))


def _reading(judgement: Judgement, grid: ScoreGrid, cue: str) -> Readout:
    probabilities = np.asarray(judgement.probabilities, dtype=np.float64)
    return Readout(probabilities, np.asarray(grid.values), judgement.forced_decode, judgement.raw_output, grid, cue)


def score_items(
    benchmark: str,
    items: Sequence[BenchmarkItem],
    judgements: Iterable[Judgement],
    predictors: Sequence[str],
    grid: ScoreGrid,
    cue: str,
    fallback: float,
) -> Scored:
    """The scores of all items under all predictors.

    Args:
        benchmark: its name. items: all of them, judged or not. judgements: in any order.
        predictors: names, see ``predictor_of``; those that read CoTs are means over the item's CoTs.
        grid: the scores. cue: the answer cue.
        fallback: points that a failed draw counts with; an item that could not be judged is one failed draw.

    Raises:
        DataError: if the probabilities of a judgement are none; what is not finite is no failed draw.
    """
    by_row = _by_row(benchmark, judgements)
    columns: dict[str, dict[str, Array]] = {kind: {} for kind in ("scores", "failures", "mass")}
    for predictor in predictors:
        cells = [_cell(by_row.get(item.row, []), predictor, grid, cue, fallback) for item in items]
        for place, kind in enumerate(columns):
            columns[kind][predictor] = np.asarray([cell[place] for cell in cells], dtype=np.float64)
    return Scored(
        benchmark=benchmark,
        ids=tuple(item.id for item in items),
        questions=tuple(item.question_id for item in items),
        targets=np.asarray([item.target for item in items], dtype=np.float64),
        response_words=np.asarray([item.words for item in items], dtype=np.float64),
        scores=columns["scores"],
        failures=columns["failures"],
        score_mass=columns["mass"],
    )


def _by_row(benchmark: str, judgements: Iterable[Judgement]) -> dict[int, list[Judgement]]:
    found: dict[int, list[Judgement]] = {}
    for judgement in judgements:
        if problem := no_distribution(judgement.probabilities):
            about = "without a CoT" if judgement.sample == DIRECT else f"CoT {judgement.sample}"
            raise DataError(f"benchmark {benchmark}, item {judgement.id}, {about}: the probabilities are none: {problem}; judge it again")
        found.setdefault(judgement.row, []).append(judgement)
    return found


def _cell(judgements: Sequence[Judgement], predictor: str, grid: ScoreGrid, cue: str, fallback: float) -> tuple[float, float, float]:
    """(score in points, share of failed draws, score mass) of one item under one predictor."""
    read = predictor_of(predictor)
    chosen = [judgement for judgement in judgements if (judgement.sample == DIRECT) == read.without_cot]
    if not chosen:
        return fallback, 1.0, 0.0
    draws = [read.read(_reading(judgement, grid, cue)) for judgement in chosen]
    mass = float(np.mean([sum(judgement.probabilities) for judgement in chosen]))
    failed = sum(draw is None for draw in draws)
    return float(np.mean([fallback if draw is None else draw for draw in draws])), failed / len(draws), mass


def draws_of(items: Sequence[BenchmarkItem], judgements: Iterable[Judgement], predictor: str, grid: ScoreGrid, cue: str) -> Array:
    """[n, S] points: the score of each item's CoTs by themselves; NaN where a draw failed or there is no such CoT.

    Args:
        items, judgements, grid, cue: as in ``score_items``. predictor: any that reads CoTs.
    """
    by_row: dict[int, list[Judgement]] = {item.row: [] for item in items}
    for judgement in judgements:
        if judgement.sample != DIRECT and judgement.row in by_row:
            by_row[judgement.row].append(judgement)
    samples = max((len(found) for found in by_row.values()), default=0)
    draws, read = np.full((len(items), samples), np.nan), predictor_of(predictor)
    for place, item in enumerate(items):
        for number, judgement in enumerate(sorted(by_row[item.row], key=lambda judgement: judgement.sample)):
            score = read.read(_reading(judgement, grid, cue))
            draws[place, number] = np.nan if score is None else score
    return draws


def prediction_rows(
    benchmark: str, items: Sequence[BenchmarkItem], judgements: Iterable[Judgement], grid: ScoreGrid, cue: str
) -> list[dict[str, Any]]:
    """One row per item and reading: texts, raters, distribution, scores, why the CoT ended.

    ``reading`` is "cot" behind a CoT, whose number is ``cot_index`` (from 0), and "no_cot" right behind the prompt, where ``cot_index``
    is null. An item that could not be judged has one row, with its status and nulls.

    Raises:
        DataError: as ``score_items``.
    """
    by_row = _by_row(benchmark, judgements)
    rows = []
    for item in items:
        about = {
            "benchmark": benchmark,
            "id": item.id,
            "question_id": item.question_id,
            "instruction": item.instruction,
            "response": item.response,
            "target": item.target,
            "n_raters": item.n_raters,
            "rater_sd": item.rater_sd,
            "raters": [dict(rating) for rating in item.raters],
            "status": item.status,
            "meta": dict(item.meta),
        }
        for judgement in by_row.get(item.row, []):
            rows.append({**about, **_judgement_columns(judgement, grid, cue)})
        if item.row not in by_row:
            rows.append({**about, **dict.fromkeys(_COLUMNS)})
    return rows


_COLUMNS = (
    "reading", "cot_index", "cot", "cot_tokens", "finish", "probabilities", "score_mass", *OF_COTS, "free_text",
)  # fmt: skip


def _judgement_columns(judgement: Judgement, grid: ScoreGrid, cue: str) -> dict[str, Any]:
    return {
        "reading": WITHOUT_COT if judgement.sample == DIRECT else WITH_COT,
        "cot_index": None if judgement.sample == DIRECT else judgement.sample,
        "cot": judgement.cot,
        "cot_tokens": len(judgement.cot_ids),
        "finish": judgement.finish,
        "probabilities": dict(zip(grid.labels, judgement.probabilities, strict=True)),
        "score_mass": sum(judgement.probabilities),
        **{**dict.fromkeys(OF_COTS), **predictions(judgement, grid, cue)},
        "free_text": judgement.raw_output,
    }
