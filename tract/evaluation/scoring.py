"""From judgements to scores: every predictor on every item, with failures counted and never dropped. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tract.common.errors import DataError
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.predictors import OF_COTS, PREDICTORS, Readout, predictor_of
from tract.evaluation.scored import Array, Scored
from tract.inference.judgement import DIRECT, Judgement, no_distribution
from tract.text.score_grid import ScoreGrid

# What a row of the predictions files is a reading of: the score behind a CoT, or right behind the prompt.
WITH_COT, WITHOUT_COT = "cot", "no_cot"
# Columns of these files that scores are made of, beside those of the predictors.
SCORED_COLUMNS = ("id", "question_id", "target", "reading", "score_mass")

Draw = tuple[float | None, float]  # (score in points, or None where it failed; score mass) of one reading


def predictions(judgement: Judgement, grid: ScoreGrid, cue: str) -> dict[str, float | None]:
    """The score in points of each predictor of ``OF_COTS`` on one judgement; None where it failed.

    One that reads freely written text is left out where nothing was written.
    """
    readout = _readout(judgement, grid, cue)
    read = {name: PREDICTORS[name] for name in OF_COTS if readout.text is not None or not PREDICTORS[name].needs_text}
    return {name: predictor.read(readout) for name, predictor in read.items()}


def score_of(judgement: Judgement, predictor: str, grid: ScoreGrid, cue: str) -> float | None:
    """The score in points that one predictor reads from a judgement; None where it failed."""
    return predictor_of(predictor).read(_readout(judgement, grid, cue))


def _readout(judgement: Judgement, grid: ScoreGrid, cue: str) -> Readout:
    probabilities = np.asarray(judgement.probabilities, dtype=np.float64)
    return Readout(probabilities, np.asarray(grid.values), judgement.forced_decode, judgement.raw_output, grid, cue)


def score_items(
    benchmark: str,
    items: Sequence[BenchmarkItem],
    judgements: Iterable[Judgement],
    predictors: Sequence[str],
    grid: ScoreGrid,
    cue: str,
    failed_score: float,
) -> Scored:
    """The scores of all items under all predictors.

    Args:
        benchmark: its name. items: all of them, judged or not. judgements: in any order.
        predictors: names, see ``predictor_of``; those that read CoTs are means over the item's CoTs.
        grid: the scores. cue: the answer cue.
        failed_score: points that a failed draw counts with; an item that could not be judged is one failed draw.

    Raises:
        DataError: if the probabilities of a judgement are none; what is not finite is no failed draw.
    """
    by_row = _by_row(benchmark, judgements)
    draws = {predictor: [list(_draws(by_row.get(item.row, []), predictor, grid, cue)) for item in items] for predictor in predictors}
    words = np.asarray([item.words for item in items], dtype=np.float64)
    return _scored(benchmark, [(item.id, item.question_id, item.target) for item in items], words, draws, failed_score)


def score_rows(benchmark: str, rows: Iterable[Mapping[str, Any]], predictors: Sequence[str], failed_score: float) -> Scored:
    """The same scores from the rows that ``prediction_rows`` made; they lack the words of the responses, which are zeros here.

    Args:
        benchmark: its name. rows: of that benchmark, with the columns ``SCORED_COLUMNS`` and those of the predictors.
        predictors, failed_score: as in ``score_items``.
    """
    by_item: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_item.setdefault(row["id"], []).append(row)
    draws = {predictor: [list(_draws_in_rows(own, predictor)) for own in by_item.values()] for predictor in predictors}
    about = [(own[0]["id"], own[0]["question_id"], own[0]["target"]) for own in by_item.values()]
    return _scored(benchmark, about, np.zeros(len(about)), draws, failed_score)


def _scored(
    benchmark: str,
    about: Sequence[tuple[str, str, float]],
    words: Array,
    draws: Mapping[str, Sequence[Sequence[Draw]]],
    failed_score: float,
) -> Scored:
    """Scores of items from their draws.

    Args:
        about: (id, question, target) of each item. words: [n] of each response. draws: predictor -> of each item.
    """
    pooled = {
        name: np.ascontiguousarray(np.reshape([_pooled(own, failed_score) for own in of_items], (-1, 3)).T, dtype=np.float64)
        for name, of_items in draws.items()
    }  # predictor -> [3, n]
    return Scored(
        benchmark=benchmark,
        ids=tuple(item for item, _, _ in about),
        questions=tuple(question for _, question, _ in about),
        targets=np.asarray([target for _, _, target in about], dtype=np.float64),
        response_words=words,
        scores={name: columns[0] for name, columns in pooled.items()},
        failures={name: columns[1] for name, columns in pooled.items()},
        score_mass={name: columns[2] for name, columns in pooled.items()},
    )


def _pooled(draws: Sequence[Draw], failed_score: float) -> tuple[float, float, float]:
    """(mean score in points, share of failed draws, mean score mass) of an item; one that was not judged is a failed draw."""
    if not draws:
        return failed_score, 1.0, 0.0
    scores = [failed_score if score is None else score for score, _ in draws]
    failed = sum(score is None for score, _ in draws)
    return float(np.mean(scores)), failed / len(draws), float(np.mean([mass for _, mass in draws]))


def _draws(judgements: Sequence[Judgement], predictor: str, grid: ScoreGrid, cue: str) -> Iterator[Draw]:
    """The draws of an item that a predictor reads."""
    read = predictor_of(predictor)
    for judgement in judgements:
        if (judgement.sample == DIRECT) == read.without_cot:
            yield read.read(_readout(judgement, grid, cue)), sum(judgement.probabilities)


def _draws_in_rows(rows: Sequence[Mapping[str, Any]], predictor: str) -> Iterator[Draw]:
    """The same from the rows of an item: what is read without a CoT is RAIL's column of the row without one."""
    known = PREDICTORS.get(predictor)  # a user's own may not be installed here, and reads CoTs
    column, reading = ("rail", WITHOUT_COT) if known is not None and known.without_cot else (predictor, WITH_COT)
    for row in rows:
        if row["reading"] == reading:
            yield row[column], row["score_mass"] or 0.0


def failed_score_of(labels: Sequence[str], name: str) -> float:
    """The declared score of a failed draw, in points.

    Args:
        labels: of the judge's grid, ascending. name: "lowest", "middle" or "highest".
    """
    low, high = float(labels[0]), float(labels[-1])
    return {"lowest": low, "middle": (low + high) / 2, "highest": high}[name]


def _by_row(benchmark: str, judgements: Iterable[Judgement]) -> dict[int, list[Judgement]]:
    found: dict[int, list[Judgement]] = {}
    for judgement in judgements:
        if problem := no_distribution(judgement.probabilities):
            about = "without a CoT" if judgement.sample == DIRECT else f"CoT {judgement.sample}"
            raise DataError(f"benchmark {benchmark}, item {judgement.id}, {about}: the probabilities are none: {problem}; judge it again")
        found.setdefault(judgement.row, []).append(judgement)
    return found


def draws_of(items: Sequence[BenchmarkItem], judgements: Iterable[Judgement], predictor: str, grid: ScoreGrid, cue: str) -> Array:
    """[n, S] points: the score of each item's CoTs by themselves; NaN where a draw failed or there is no such CoT.

    Args:
        items, judgements, grid, cue: as in ``score_items``. predictor: any that reads CoTs.
    """
    by_row: dict[int, list[Judgement]] = {item.row: [] for item in items}
    for judgement in judgements:
        if judgement.sample != DIRECT and judgement.row in by_row:
            by_row[judgement.row].append(judgement)
    ordered = (sorted(by_row[item.row], key=lambda judgement: judgement.sample) for item in items)
    scores = [[score for score, _ in _draws(own, predictor, grid, cue)] for own in ordered]
    samples = max(map(len, scores), default=0)
    padded = [[*own, *[None] * (samples - len(own))] for own in scores]
    return np.asarray(padded, dtype=np.float64).reshape(len(items), samples)  # None becomes NaN


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
