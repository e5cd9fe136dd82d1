"""What the numbers of a judge say, in words, and what follows from it. Pure.

No sentence claims more than an interval does, and none is drawn from fewer than ``MIN_QUESTIONS`` questions, of which a bootstrap
knows too little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tract.evaluation.cells import cell, counted, format_number
from tract.evaluation.results import RUBRIC_ABSENT, RUBRIC_HIDDEN, RUBRIC_SHOWN, BenchmarkReport
from tract.evaluation.scored import Estimate

MIN_QUESTIONS = 10
MANY_FAILURES = 0.1  # share of the draws
LOW_MASS = 0.9  # of the grid, below which RAIL is noticeably pulled to zero points

# What came out, in the order in which they are looked for.
UNDECIDED = "undecided"  # too few questions, or no interval
WORSE = "worse"  # than the best constant
NOT_DISTINGUISHED = "not_distinguished"  # from the best constant
FAILURES = "failures"  # better, but many draws failed
AT_RATERS = "at_raters"  # better, and closer to the true scores than one rater is to the others
BETTER = "better"

_RAIL = ("rail", "no_cot")
_WRITTEN = ("decode_forced", "decode_free")  # fail where the judge writes no score; the others where it cannot be asked

_ABOUT_RUBRIC = {
    RUBRIC_SHOWN: "the prompt shows the rubric, which must say what raters judged by",
    RUBRIC_HIDDEN: "the prompt does not show the rubric that the data has; prompt=rubric shows it",
    RUBRIC_ABSENT: "the prompt must show what raters judge by, and the data has no rubric; give one for all rows by data.source.rubric",
    None: "the prompt must show what raters judge by",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge on one benchmark, read by one predictor.

    Attributes:
        benchmark: its name. outcome: what the advice follows from, e.g. ``BETTER``.
        sentences: against the best constant, the length of the response where that says something, the question's other responses and
            the raters. advice: what to do next.
    """

    benchmark: str
    outcome: str
    sentences: tuple[str, ...]
    advice: tuple[str, ...]


def verdict_of(report: BenchmarkReport, predictor: str) -> Verdict | None:
    """What a report says of the judge, read by a predictor; None where the predictor is not among those that were read."""
    if predictor not in report.metrics or "constant" not in report.over_baselines.get(predictor, {}):
        return None
    outcome = _outcome(report, predictor)
    sentences = [_against_baseline(report, predictor, "constant", "the best constant (the mean true score)")]
    if _length_is_informative(report, predictor):
        description = "the length of the response alone (a line fitted to these very items)"
        sentences.append(_against_baseline(report, predictor, "length", description))
    sentences += [_against_question(report, predictor), _against_raters(report, predictor)]
    return Verdict(report.scored.benchmark, outcome, tuple(sentences), tuple(_advice(report, predictor, outcome)))


def _outcome(report: BenchmarkReport, predictor: str) -> str:
    side = _side(report.over_baselines[predictor]["constant"], len(set(report.scored.questions)))
    if side != BETTER:
        return side
    if _value(report, predictor, "failure_rate") > MANY_FAILURES:
        return FAILURES
    return AT_RATERS if _side_of_raters(report, predictor) == BETTER else BETTER


def _side(difference: Estimate, questions: int) -> str:
    """Where a paired difference of RMSE lies: below 0 (better), above it (worse), on both sides, or nowhere for sure."""
    return _side_of(difference, 0.0) if questions >= MIN_QUESTIONS else UNDECIDED


def _side_of(estimate: Estimate, border: float) -> str:
    """Whether an interval lies below a border (better), above it (worse) or on both sides; undecided where there is none."""
    if estimate.interval is None:
        return UNDECIDED
    low, high = estimate.interval
    return BETTER if high < border else WORSE if low > border else NOT_DISTINGUISHED


def _value(report: BenchmarkReport, predictor: str, metric: str) -> float:
    value = report.metrics[predictor][metric].value
    return 0.0 if value is None else value


def _points(value: float | None) -> str:
    return "undefined" if value is None else format_number(value, "rmse")


def _unmarked(difference: Estimate) -> str:
    """The difference with its interval; what a mark says of it is said in words."""
    shown = cell(difference, "rmse", difference=True)
    return f"{shown.value} {shown.interval}".rstrip()


def _against_baseline(report: BenchmarkReport, predictor: str, baseline: str, description: str) -> str:
    """The sentence about a baseline that is known for all items."""
    rmse, its_rmse = report.metrics[predictor]["rmse"].value, report.baselines[baseline]["rmse"].value
    difference = report.over_baselines[predictor][baseline]
    numbers = f"RMSE {_points(rmse)} against {_points(its_rmse)}, difference {_unmarked(difference)}"
    return _conclusion(difference, numbers, len(set(report.scored.questions)), description)


def _length_is_informative(report: BenchmarkReport, predictor: str) -> bool:
    """Whether the line fitted to the words of a response is closer to the true scores than the best constant, as tables show both."""
    if "length" not in report.over_baselines[predictor]:  # a report of before this difference
        return False
    length, constant = (_points(report.baselines[name]["rmse"].value) for name in ("length", "constant"))
    return length != constant  # a fitted line is never farther than the constant


def _against_question(report: BenchmarkReport, predictor: str) -> str:
    difference = report.over_baselines[predictor].get("question_mean")
    if difference is None:
        return "The mean of a question's other responses is no baseline here: no question has two responses."
    sizes = Counter(report.scored.questions)
    several = [size for size in sizes.values() if size > 1]
    numbers = f"RMSE differs by {_unmarked(difference)} on the {sum(several)} items of {len(several)} questions"
    return _conclusion(difference, numbers, len(several), "the mean true score of the question's other responses")


def _conclusion(difference: Estimate, numbers: str, questions: int, baseline: str) -> str:
    """What a paired difference of RMSE says about a baseline, with the numbers behind it."""
    side = _side(difference, questions)
    if side == UNDECIDED:
        few = questions < MIN_QUESTIONS
        why = f"{counted(questions, 'question')}, at least {MIN_QUESTIONS} are needed" if few else "there is no interval"
        return f"Nothing can be concluded about {baseline} ({why}): {numbers}."
    verdict = {BETTER: "Better than", WORSE: "Worse than", NOT_DISTINGUISHED: "Not distinguishable from"}[side]
    return f"{verdict} {baseline}: {numbers}."


def _side_of_raters(report: BenchmarkReport, predictor: str) -> str:
    """Whether the judge is closer to the true scores than one rater is to the others: the interval of its RMSE decides."""
    rmse, agreement = report.metrics[predictor]["rmse"], report.agreement
    return UNDECIDED if agreement is None or agreement.n_items < MIN_QUESTIONS else _side_of(rmse, agreement.others_rmse)


def _against_raters(report: BenchmarkReport, predictor: str) -> str:
    agreement, metrics = report.agreement, report.metrics[predictor]
    if agreement is None:
        return "How far raters agree is not known: no item has two scores."
    r = "undefined" if agreement.others_r is None else format_number(agreement.others_r, "pearson_r")
    raters = f"r {r}, RMSE {_points(agreement.others_rmse)} ({agreement.n_items} items)"
    judge = f"r {cell(metrics['pearson_r'], 'pearson_r')}, RMSE {cell(metrics['rmse'], 'rmse')}"
    verdict = {
        BETTER: "Closer to the true scores than one rater is to the others",
        WORSE: "Farther from the true scores than one rater is from the others",
        NOT_DISTINGUISHED: "Not distinguishable from one rater against the others",
        UNDECIDED: "Beside one rater against the others nothing can be concluded",
    }[_side_of_raters(report, predictor)]
    return f"{verdict}: judge {judge}; a rater {raters}."


def _advice(report: BenchmarkReport, predictor: str, outcome: str) -> Iterator[str]:
    if outcome == UNDECIDED:
        yield (
            f"evaluate on {MIN_QUESTIONS} questions or more (data.test_fraction, evaluation.max_items, evaluation.resamples above 0) "
            "before changing anything"
        )
    failures, mass = _value(report, predictor, "failure_rate"), report.metrics[predictor]["score_mass"].value
    if failures > MANY_FAILURES:
        what = (
            "see how CoTs ended, and raise generation.max_cot_tokens" + _or_read_by(report, predictor, "rail")
            if predictor in _WRITTEN
            else "see what became of the prompts, and set data.truncation=shorten or a model with a longer context where they were dropped"
        )
        yield f"{format_number(failures, 'failure_rate')} of the draws failed and count with the declared score: {what}"
    if predictor in _RAIL and mass is not None and mass < LOW_MASS:
        share = format_number(mass, "score_mass")
        yield (
            f"the grid has {share} of the probability where the score is read, which pulls the prediction towards 0: train longer or "
            f"with a higher optimizer.lr{_or_read_by(report, predictor, 'rail_normalized')}"
        )
    r = report.metrics[predictor]["pearson_r"]
    if outcome in (WORSE, NOT_DISTINGUISHED) and r.low is not None and r.low > 0:
        yield (
            f"its order says something (r {cell(r, 'pearson_r')}), its scale does not fit: `tract calibrate` fits one, on rows that were "
            "neither trained nor tested on"
        )
    if outcome in (WORSE, NOT_DISTINGUISHED):
        yield f"read preview.txt of the fit stage: {_ABOUT_RUBRIC[report.rubric]}"
        yield "train on more rows, for longer (train.max_epochs), or with another optimizer.lr"
        yield "read the worst items: wrong scores and missing context show there"
    if outcome == NOT_DISTINGUISHED:
        yield "or evaluate on more questions: the interval has room for both"
    if outcome == AT_RATERS:
        yield "the true scores are the limit now: collect more scores for each response before training further"
    if outcome in (BETTER, FAILURES):
        yield from _advice_when_better(report, predictor)


def _or_read_by(report: BenchmarkReport, predictor: str, other: str) -> str:
    """Names another predictor where its RMSE on this benchmark is lower; "" where it is not, or was not measured."""
    rmse, others = report.metrics[predictor]["rmse"].value, report.metrics.get(other, {}).get("rmse", Estimate(None)).value
    if rmse is None or others is None or others >= rmse:
        return ""
    return f", or read by evaluation.main_predictor={other} (RMSE {_points(others)} here)"


def _advice_when_better(report: BenchmarkReport, predictor: str) -> Iterator[str]:
    over_length = report.over_baselines[predictor].get("length")
    if over_length is not None and _length_is_informative(report, predictor) and _side(over_length, MIN_QUESTIONS) != BETTER:
        yield "it may say little more than how long a response is: look for long responses with low true scores among the worst items"
    over_question = report.over_baselines[predictor].get("question_mean")
    if over_question is not None and _side(over_question, MIN_QUESTIONS) != BETTER:
        yield "it may tell questions apart more than responses: look at responses to the same question among the worst items"
    yield "to get further: more training rows, more CoTs for each item (evaluation.n_cot), and the worst items"
    if report.agreement is None:
        yield "have some responses scored by two raters: without that it is not known how close a judge can get"
