"""The verdict follows the intervals: a case for each outcome, and no claim beyond what an interval says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from example_evaluation import make_evaluation

from tract.evaluation.agreement import rater_agreement
from tract.evaluation.results import BenchmarkReport, Evaluation
from tract.evaluation.scored import Estimate, Scored
from tract.evaluation.statistics import report_of
from tract.evaluation.tables import markdown_table, short_table
from tract.evaluation.verdict import (
    AT_RATERS,
    BETTER,
    FAILURES,
    MIN_QUESTIONS,
    NOT_DISTINGUISHED,
    UNDECIDED,
    WORSE,
    Verdict,
    verdict_of,
)


def made(
    noise: float, questions: int = 40, per_question: int = 3, failed: float = 0.0, mass: float = 1.0, **changes: Any
) -> BenchmarkReport:
    """A report on items whose true score varies within a question; ``noise`` is the judge's, in points."""
    rng = np.random.default_rng(7)
    n = questions * per_question
    targets = rng.integers(1, 6, n).astype(np.float64)
    scored = Scored(
        benchmark="tickets",
        ids=tuple(f"i{k}" for k in range(n)),
        questions=tuple(f"q{k // per_question}" for k in range(n)),
        targets=targets,
        response_words=np.ones(n),
        scores={"rail": targets + rng.normal(0, noise, n)},
        failures={"rail": np.full(n, failed)},
        score_mass={"rail": np.full(n, mass)},
    )
    settings: dict[str, Any] = {"seed": 0, "resamples": 200, "confidence": 0.95, "bins": 4} | changes
    return report_of(scored, ["rail"], grid=(1, 5), other=None, other_name=None, **settings)


def with_raters(report: BenchmarkReport, spread: float) -> BenchmarkReport:
    """Two scores of each item, so far apart on average."""
    rng = np.random.default_rng(1)
    items = [[("a", target), ("b", target + rng.normal(0, spread))] for target in report.scored.targets.tolist()]
    return dataclasses.replace(report, agreement=rater_agreement(items))


def verdict(report: BenchmarkReport) -> Verdict:
    found = verdict_of(report, "rail")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("report", "outcome", "said", "advice"),
    [
        (made(0.5), BETTER, "Better than the best constant (the mean true score): RMSE ", "two raters"),
        (made(4.0), WORSE, "Worse than the best constant", "preview.txt"),
        (made(1.42), NOT_DISTINGUISHED, "Not distinguishable from the best constant", "the interval has room for both"),
        (made(0.5, failed=0.4), FAILURES, "Better than the best constant", ".400 of the draws failed"),
        (with_raters(made(0.5), 2.0), AT_RATERS, "Better than the best constant", "collect more scores for each response"),
        (with_raters(made(0.8), 0.3), BETTER, "Better than the best constant", "evaluation.n_cot"),
        (made(0.5, questions=4), UNDECIDED, "Nothing can be concluded about the best constant", "10 questions or more"),
        (made(0.5, resamples=0), UNDECIDED, "there is no interval", "evaluation.resamples above 0"),
        (made(0.5, questions=1, per_question=30), UNDECIDED, "1 question, at least 10 are needed", "10 questions or more"),
    ],
    ids=["better", "worse", "not distinguished", "failures", "at raters", "below raters", "few", "no resamples", "one question"],
)
def test_outcome_sentence_and_advice(report: BenchmarkReport, outcome: str, said: str, advice: str) -> None:
    found = verdict(report)
    assert found.outcome == outcome
    assert any(said in sentence for sentence in found.sentences)
    assert any(advice in text for text in found.advice)


def test_no_verdict_goes_beyond_the_paired_interval() -> None:
    """Two intervals that overlap do not make two things equal: the paired difference decides."""
    scored = made(0.5).scored
    near_the_mean = {"rail": 3.0 + 0.1 * (scored.targets - 3.0)}
    report = report_of(
        dataclasses.replace(scored, scores=near_the_mean), ["rail"], grid=(1, 5), seed=0, resamples=200, confidence=0.95, bins=4,
        other=None, other_name=None,
    )  # fmt: skip
    judge, constant = report.metrics["rail"]["rmse"], report.baselines["constant"]["rmse"]
    assert judge.high > constant.low  # type: ignore[operator]
    difference = report.over_baselines["rail"]["constant"]
    assert difference.high < 0  # type: ignore[operator]
    assert verdict(report).outcome == BETTER
    for low, high, outcome in ((-0.5, 0.0, NOT_DISTINGUISHED), (0.0, 0.5, NOT_DISTINGUISHED), (-0.5, -0.01, BETTER), (0.01, 0.5, WORSE)):
        moved = dataclasses.replace(report, over_baselines={"rail": {"constant": Estimate(0.0, low, high)}})
        assert verdict(moved).outcome == outcome


def test_a_judge_that_knows_the_question_alone_is_told_so() -> None:
    """Its scores are those of the question's other responses: better than the constant, no better than those."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(3, 1.5, 40), 3)
    targets = level + rng.normal(0, 0.3, 120)
    scored = dataclasses.replace(made(0.5).scored, targets=targets, scores={"rail": level + rng.normal(0, 0.2, 120)})
    report = report_of(scored, ["rail"], grid=(1, 5), seed=0, resamples=200, confidence=0.95, bins=4, other=None, other_name=None)
    moved = dataclasses.replace(report.over_baselines["rail"]["question_mean"], low=-0.1, high=0.1)
    report = dataclasses.replace(report, over_baselines={"rail": {**report.over_baselines["rail"], "question_mean": moved}})
    found = verdict(report)
    assert found.outcome == BETTER
    assert "Not distinguishable from the mean true score of the question's other responses" in found.sentences[1]
    assert any("tell questions apart more than responses" in text for text in found.advice)


def test_what_is_not_known_is_said() -> None:
    alone = verdict(made(0.5, questions=60, per_question=1))
    assert "no question has two responses" in alone.sentences[1]
    assert alone.sentences[2] == "How far raters agree is not known: no item has two scores."
    few = with_raters(made(0.5, questions=40), 0.5)
    assert few.agreement is not None
    few = dataclasses.replace(few, agreement=dataclasses.replace(few.agreement, n_items=MIN_QUESTIONS - 1))
    assert "nothing can be concluded" in verdict(few).sentences[2]


def test_a_scale_that_does_not_fit_is_told_from_an_order_that_says_nothing() -> None:
    scored = made(0.5).scored
    settings: dict[str, Any] = {
        "grid": (1, 5),
        "seed": 0,
        "resamples": 200,
        "confidence": 0.95,
        "bins": 4,
        "other": None,
        "other_name": None,
    }
    low = report_of(dataclasses.replace(scored, scores={"rail": scored.targets - 3.0}), ["rail"], **settings)
    assert verdict(low).outcome == WORSE
    assert any("tract calibrate" in text for text in verdict(low).advice)
    turned = report_of(dataclasses.replace(scored, scores={"rail": 3.0 - scored.targets}), ["rail"], **settings)
    assert verdict(turned).outcome == WORSE
    assert not any("tract calibrate" in text for text in verdict(turned).advice)


def test_probability_outside_the_grid_is_named() -> None:
    assert any("with a higher optimizer.lr" in text and ".300" in text for text in verdict(made(4.0, mass=0.3)).advice)
    assert not any("optimizer.lr" in text and "grid" in text for text in verdict(made(4.0)).advice)


@pytest.mark.parametrize(("rmse", "named"), [(0.4, True), (4.5, False), (None, False)])
def test_another_predictor_is_named_only_where_its_error_is_lower(rmse: float | None, named: bool) -> None:
    report = made(4.0, mass=0.3)
    other = {**report.metrics["rail"], "rmse": Estimate(rmse)}
    found = verdict(dataclasses.replace(report, metrics={**report.metrics, "rail_normalized": other}))
    assert any("evaluation.main_predictor=rail_normalized (RMSE 0.400 here)" in text for text in found.advice) is named
    assert any("rail_normalized" in text for text in found.advice) is named
    assert not any("rail_normalized" in text for text in verdict(report).advice)  # it was not read at all


@pytest.mark.parametrize(
    ("rubric", "said", "unsaid"),
    [
        ("shown", "the prompt shows the rubric, which must say what raters judged by", ("prompt=rubric", "data.source.rubric")),
        ("hidden", "prompt=rubric shows it", ("data.source.rubric",)),
        ("absent", "give one for all rows by data.source.rubric", ("prompt=rubric",)),
        (None, "the prompt must show what raters judge by", ("prompt=rubric", "data.source.rubric")),
    ],
)
def test_advice_about_the_rubric_follows_what_prompts_show(rubric: str | None, said: str, unsaid: tuple[str, ...]) -> None:
    advice = " ".join(verdict(dataclasses.replace(made(4.0), rubric=rubric)).advice)
    assert said in advice
    assert not [text for text in unsaid if text in advice]


def of_words(noise_of_words: float, noise: float) -> BenchmarkReport:
    """True scores follow the words of the response, up to some noise; ``noise`` is the judge's."""
    rng = np.random.default_rng(3)
    scored = made(noise).scored
    words = np.exp(scored.targets + rng.normal(0, noise_of_words, len(scored.targets)))
    return report_of(
        dataclasses.replace(scored, response_words=words), ["rail"], grid=(1, 5), seed=0, resamples=200, confidence=0.95, bins=4,
        other=None, other_name=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "said", "advised"),
    [
        (of_words(0.3, 0.1), "Better than the length of the response alone (a line fitted to these very items): RMSE ", False),
        (of_words(0.5, 0.58), "Not distinguishable from the length of the response alone", True),
        (of_words(0.2, 1.0), "Worse than the length of the response alone", True),
    ],
)
def test_a_length_that_beats_the_constant_is_compared_with(report: BenchmarkReport, said: str, advised: bool) -> None:
    found = verdict(report)
    assert found.outcome == BETTER
    assert found.sentences[1].startswith(said)
    assert len(found.sentences) == 4
    assert any("how long a response is" in text for text in found.advice) is advised


def test_a_length_that_says_nothing_is_not_spoken_of() -> None:
    assert not any("length" in sentence for sentence in verdict(made(0.5)).sentences)


def test_a_predictor_that_was_not_read_has_no_verdict() -> None:
    assert verdict_of(made(0.5), "median") is None
    assert verdict_of(make_evaluation().reports[0], "rail") is None  # a report of before these differences


def test_terminal_and_markdown_say_it_without_long_lines() -> None:
    evaluation = Evaluation("tract", (with_raters(made(0.5), 1.0),), (), (("confidence", 0.95),), "rail")
    table = short_table(evaluation)
    assert "tickets in words:\n  - Better than the best constant" in table
    assert max(map(len, table.splitlines())) <= 100
    markdown = markdown_table(evaluation)
    assert markdown.startswith("## In words: tickets, predictor rail\n\n- Better than the best constant")
    assert "Krippendorff's alpha" in markdown
