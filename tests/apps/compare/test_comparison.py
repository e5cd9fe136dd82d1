"""The numbers of a comparison are those of the runs: means, differences of the same seed, resamples of the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import PREDICTORS, Made, items_of, make_run
from scipy import stats

from tract.apps.compare.comparison import BenchmarkTable, RunComparison, VariantRow, compare
from tract.apps.compare.differences import BOOTSTRAP_SEED
from tract.apps.compare.options import DEFAULT_METRICS, CompareOptions
from tract.apps.compare.readings import CONSTANT
from tract.apps.compare.results import RunResults
from tract.artifacts.runs import find_runs
from tract.common.errors import ConfigError, DataError
from tract.evaluation.bootstrap import resample_weights
from tract.evaluation.scored import Scored
from tract.evaluation.seed_intervals import NONE, QUESTIONS, SEEDS
from tract.evaluation.statistics import METRICS, metrics_of

OPTIONS = CompareOptions(None, None, DEFAULT_METRICS, 0.95, 40)


def compared(*folders: Path, **changes: object) -> RunComparison:
    return compare(find_runs(folders), replace(OPTIONS, **changes))  # type: ignore[arg-type]


def row(table: BenchmarkTable, variant: str, predictor: str = "rail") -> VariantRow:
    (found,) = [row for row in table.rows if (row.variant, row.predictor) == (variant, predictor)]
    return found


def values(made: Sequence[Made], metric: str, predictor: str = "rail") -> list[float]:
    found = [metrics_of(run.scored["test"], predictor)[metric] for run in made]
    return [value for value in found if value is not None]


Pair = tuple[Path, list[Made], list[Made]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(folder, runs of "tract", runs of "other"), three seeds of each."""
    root = tmp_path_factory.mktemp("pair")
    own = [make_run(root, 0.5, seed=seed) for seed in range(3)]
    return root / "runs", own, [make_run(root, 0.8, seed=seed, run__name="other", objective__lambda=0.0) for seed in range(3)]


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_scores_are_those_that_the_metrics_were_computed_from(predictor: str, tmp_path: Path) -> None:
    """Failed draws, an item without a judgement and several CoTs included."""
    made = make_run(tmp_path, 0.5)
    results = RunResults.of(find_runs([tmp_path]).runs[0])
    found, expected = results.scored["test"], made.scored["test"]
    assert (found.ids, found.questions) == (expected.ids, expected.questions)
    np.testing.assert_array_equal(found.targets, expected.targets)
    for column in ("scores", "failures", "score_mass"):
        np.testing.assert_allclose(getattr(found, column)[predictor], getattr(expected, column)[predictor], rtol=1e-12)
    assert expected.failures["decode_free"].any()
    assert expected.failures["rail"][-1] == 1.0
    for metric in METRICS:
        assert results.benchmarks["test"].predictors[predictor][metric].value == pytest.approx(metrics_of(found, predictor)[metric])


def test_means_and_differences_are_those_of_scipy(pair: Pair) -> None:
    folder, own, other = pair
    (table,) = compared(folder, baseline="tract").tables
    for metric in DEFAULT_METRICS:
        mean = row(table, "other").means[metric]
        expected = stats.ttest_1samp(values(other, metric), 0).confidence_interval(0.95)
        assert mean.estimate.value == pytest.approx(np.mean(values(other, metric)))
        assert (mean.estimate.low, mean.estimate.high) == pytest.approx((expected.low, expected.high))
        assert (mean.kind, mean.seeds, mean.runs) == (SEEDS, 3, 3)
        difference = row(table, "other").differences[metric]
        paired = stats.ttest_rel(values(other, metric), values(own, metric)).confidence_interval(0.95)
        assert difference.over_seeds.value == pytest.approx(np.mean(values(other, metric)) - np.mean(values(own, metric)))
        assert (difference.over_seeds.low, difference.over_seeds.high) == pytest.approx((paired.low, paired.high))
    assert row(table, "tract").differences == {}


def test_differences_over_questions_resample_the_same_questions_for_all_runs(pair: Pair) -> None:
    """Against items that are repeated as often as they were drawn."""
    folder, own, other = pair
    (table,) = compared(folder, metrics=("pearson_r", "rmse")).tables
    questions = own[0].scored["test"].questions
    weights = np.concatenate(list(resample_weights(questions, seed=BOOTSTRAP_SEED, resamples=40)))
    for metric in ("pearson_r", "rmse"):
        resampled = [
            np.mean(
                [
                    drawn(that.scored["test"], w, metric) - drawn(this.scored["test"], w, metric)
                    for this, that in zip(own, other, strict=True)
                ]
            )
            for w in weights
        ]
        found = row(table, "other").differences[metric].over_questions
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
        assert found.value == pytest.approx(row(table, "other").differences[metric].over_seeds.value)


def drawn(scored: Scored, weights: np.ndarray, metric: str) -> float:
    """The metric on items that stand there as often as their weights say."""
    places = np.repeat(np.arange(len(weights)), weights.astype(int))
    scores, targets = scored.scores["rail"][places], scored.targets[places]
    return float(np.corrcoef(scores, targets)[0, 1] if metric == "pearson_r" else np.sqrt(np.mean((scores - targets) ** 2)))


def test_one_seed_has_the_interval_of_its_own_report(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    make_run(tmp_path, 0.8, run__name="other")
    found = find_runs([tmp_path / "runs"])
    (table,) = compare(found, OPTIONS).tables
    mean = row(table, "tract").means["rmse"]
    assert mean.kind == QUESTIONS
    results = next(RunResults.of(run) for run in found.runs if run.name == "tract")
    assert mean.estimate == results.benchmarks["test"].predictors["rail"]["rmse"]
    difference = row(table, "other").differences["rmse"]
    assert difference.over_seeds.low is None
    assert difference.over_questions.low is not None
    # Another confidence is computed anew, and is narrower.
    (narrow,) = compare(found, replace(OPTIONS, confidence=0.5)).tables
    inner = row(narrow, "tract").means["rmse"].estimate
    assert mean.estimate.low < inner.low < inner.value < inner.high < mean.estimate.high  # type: ignore[operator]


def test_seeds_that_only_one_of_both_has_are_left_out_and_told(tmp_path: Path) -> None:
    own = [make_run(tmp_path, 0.5, seed=seed) for seed in (0, 1, 2)]
    other = [make_run(tmp_path, 0.8, seed=seed, run__name="other") for seed in (1, 2, 7)]
    (table,) = compared(tmp_path / "runs").tables
    difference = row(table, "other").differences["rmse"]
    assert (difference.seeds, difference.pairs) == (2, 2)
    assert difference.over_seeds.value == pytest.approx(np.mean(values(other[:2], "rmse")) - np.mean(values(own[1:], "rmse")))
    assert table.notes == ("other: differences leave out seeds 0, 7, which only it or only the baseline has",)
    assert row(table, "other").means["rmse"].seeds == 3


def test_an_undefined_metric_stays_undefined_and_is_counted(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, 0.5, seed=seed)
        make_run(tmp_path, 0.5, seed=seed, run__name="some", flat=seed == 1)
        make_run(tmp_path, 0.5, seed=seed, run__name="never", flat=True)
    (table,) = compared(tmp_path / "runs").tables
    some, never = row(table, "some"), row(table, "never")
    assert some.values["pearson_r"][1] is None
    assert (some.means["pearson_r"].seeds, some.means["pearson_r"].runs, some.means["rmse"].seeds) == (2, 3, 3)
    assert (some.differences["pearson_r"].seeds, some.differences["pearson_r"].pairs) == (2, 3)
    assert some.differences["pearson_r"].over_seeds.value == pytest.approx(0, abs=1e-12)
    assert never.means["pearson_r"].estimate.value is None
    assert never.differences["pearson_r"].over_seeds.value is never.differences["pearson_r"].over_questions.value is None


def test_the_constant_baseline_is_a_row_with_the_interval_of_the_items(pair: Pair) -> None:
    folder, own, _ = pair
    (table,) = compared(folder).tables
    constant = table.rows[-1]
    spread = float(own[0].scored["test"].targets.std())
    assert (constant.variant, constant.predictor) == ("", CONSTANT)
    assert constant.means["rmse"].estimate.value == pytest.approx(spread)
    assert constant.means["rmse"].kind == QUESTIONS
    assert constant.means["pearson_r"].estimate.value is None
    assert constant.differences["rmse"].over_seeds.value == pytest.approx(spread - np.mean(values(own, "rmse")))
    assert constant.differences["rmse"].over_questions.low is not None
    assert [line.constant_rmse for line in table.rows] == [pytest.approx(spread)] * 3


def test_predictors_are_rows_and_compared_with_the_baselines_main_one(pair: Pair) -> None:
    folder, own, _ = pair
    (table,) = compared(folder, baseline="tract", predictors=("decode_free", "rail")).tables
    assert sorted((line.variant, line.predictor) for line in table.rows[:-1]) == [
        ("other", "decode_free"), ("other", "rail"), ("tract", "decode_free"), ("tract", "rail"),
    ]  # fmt: skip
    assert table.reference is not None
    assert (table.rows[table.reference].variant, table.rows[table.reference].predictor) == ("tract", "rail")
    found = row(table, "tract", "decode_free").differences["rmse"].over_seeds.value
    assert found == pytest.approx(np.mean(values(own, "rmse", "decode_free")) - np.mean(values(own, "rmse")))
    (every,) = compared(folder, predictors=()).tables
    assert len(every.rows) == 2 * len(PREDICTORS) + 1
    # Where the main one is not shown, the first of those that are takes its place.
    (alone,) = compared(folder, baseline="tract", predictors=("no_cot",)).tables
    assert alone.reference is not None
    assert (alone.rows[alone.reference].variant, alone.rows[alone.reference].predictor) == ("tract", "no_cot")


@pytest.mark.parametrize(("metric", "least_first"), [("pearson_r", False), ("rmse", True), ("failure_rate", True)])
def test_rows_are_sorted_by_the_first_metric_and_the_best_is_marked(metric: str, least_first: bool, pair: Pair) -> None:
    (table,) = compared(pair[0], metrics=(metric, "mae"), predictors=()).tables
    *judges, constant = table.rows
    means = [line.means[metric].estimate.value for line in judges]
    known = [mean for mean in means if mean is not None]
    assert known == sorted(known, reverse=not least_first)
    assert means == [*known, *[None] * (len(means) - len(known))]
    assert constant.predictor == CONSTANT
    assert table.best == tuple(k for k, mean in enumerate(means) if mean == known[0])


def test_without_a_value_or_another_row_nothing_is_the_best(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, flat=True)
    assert compared(tmp_path).tables[0].best == ()
    make_run(tmp_path, 0.5, run__name="other")
    (table,) = compared(tmp_path).tables  # one of two has a correlation
    assert ([line.variant for line in table.rows], table.best) == (["other", "tract", ""], ())


def test_two_seeds_have_no_interval_over_seeds_and_that_is_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, 0.5, seed=seed)
        make_run(tmp_path, 0.8, seed=seed, run__name="other")
    (table,) = compared(tmp_path).tables
    assert table.notes == ("tract, other: 2 seeds, no interval over seeds; give at least 3",)
    assert row(table, "other").means["rmse"].kind == NONE
    difference = row(table, "other").differences["rmse"]
    assert difference.over_seeds.low is None
    assert difference.shown == (difference.over_questions, QUESTIONS)  # paired by items, whatever the number of seeds


def test_the_baseline_is_tract_else_the_first_or_the_one_that_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, run__name="a")
    make_run(tmp_path, 0.6, run__name="b", run__ablation="ce_only")
    runs = tmp_path / "runs"
    assert compared(runs / "b", runs / "a").baseline == "ce_only"
    assert compared(runs).baseline == "a"
    assert compared(runs, baseline="b").baseline == "ce_only"
    make_run(tmp_path, 0.7, run__name="c", run__ablation="tract")
    assert compared(runs).baseline == "tract"
    with pytest.raises(ConfigError, match=r"--baseline: there is no variant 'd'; there are 'a', 'ce_only', 'tract'"):
        compared(runs, baseline="d")
    make_run(tmp_path, 0.7, run__name="c", run__ablation="tract", objective__lambda=0.3)
    with pytest.raises(ConfigError, match=r"--baseline: 2 variants are called 'c'; there are "):
        compared(runs, baseline="c")


def test_unknown_metrics_and_predictors_are_told_with_those_that_exist(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    with pytest.raises(ConfigError, match=r"--metrics: there is no 'r'; there are pearson_r, spearman_rho"):
        compared(tmp_path, metrics=("r",))
    with pytest.raises(ConfigError, match=r"--predictor: no run was read by 'decode'; there are rail, decode_free, no_cot, and all"):
        compared(tmp_path, predictors=("decode",))


def test_other_items_are_not_compared_and_that_is_told(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    make_run(tmp_path, 0.5, run__name="other", items={"test": items_of("test", 21)})
    moved = [replace(item, target=item.target % 5 + 1) if item.row == 4 else item for item in items_of("test")]
    make_run(tmp_path, 0.5, run__name="moved", items={"test": moved})
    (table,) = compared(tmp_path / "runs").tables
    assert row(table, "other").differences == row(table, "moved").differences == {}
    assert "other: no paired differences where the items are not those of the baseline (benchmark test: " in " ".join(table.notes)
    assert "24 items here" in table.notes[1] or "24 for the other judge" in table.notes[1]
    assert "moved: no paired differences" in table.notes[0]
    assert "item test-4: target" in table.notes[0]
    assert row(table, "other").means["rmse"].estimate.value is not None


def test_items_that_change_with_the_seed_are_paired_by_seed_alone(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        items = {"test": items_of("test", 24 - 3 * seed)}
        make_run(tmp_path, 0.5, seed=seed, items=items)
        make_run(tmp_path, 0.8, seed=seed, run__name="other", items=items)
    (table,) = compared(tmp_path / "runs").tables
    difference = row(table, "other").differences["rmse"]
    assert difference.over_seeds.low is not None
    assert difference.over_questions.low is None
    assert table.notes == ("other: no intervals over questions, since the items change with the seed",)
    assert table.rows[-1].means["rmse"].kind == SEEDS


def test_benchmarks_that_only_some_have_are_told_and_none_in_common_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, items={"a": items_of("a")})
    make_run(tmp_path, 0.5, run__name="other", items={"b": items_of("b")})
    with pytest.raises(DataError, match=r"no two of the 2 runs share a benchmark \(other: b; tract: a\)"):
        compared(tmp_path / "runs")
    make_run(tmp_path, 0.5, run__name="third", items={"b": items_of("b")})
    tables = {table.benchmark: table for table in compared(tmp_path / "runs").tables}
    assert tables["a"].notes == ("not evaluated on this benchmark: other, third",)
    assert tables["b"].notes[0] == "not evaluated on this benchmark: tract"
    assert tables["b"].notes[1].startswith("tract, the baseline, is not among these")
    assert tables["b"].reference is None


def test_variants_that_no_chosen_predictor_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, 0.5)
    monkeypatch.setattr("made_runs.PREDICTORS", ("no_cot",))
    make_run(tmp_path, 0.5, run__name="other", items={"test": items_of("test"), "more": items_of("more")})
    by_name = {table.benchmark: table for table in compared(tmp_path / "runs", predictors=("rail",)).tables}
    assert by_name["test"].notes == ("not read by the predictors that are shown: other",)
    assert [line.predictor for line in by_name["more"].rows] == [CONSTANT]
    own = row(compared(tmp_path / "runs", baseline="other").tables[0], "tract")
    assert own.differences["rmse"].over_seeds.value is not None


def test_a_single_run_has_a_table(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    (table,) = compared(tmp_path).tables
    assert [line.variant for line in table.rows] == ["tract", ""]


def test_without_resamples_there_are_no_intervals_over_questions(pair: Pair) -> None:
    (table,) = compared(pair[0], resamples=0).tables
    difference = row(table, "other").differences["rmse"]
    assert difference.over_questions.low is None
    assert difference.over_seeds.low is not None


def test_a_damaged_product_is_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5)
    with (made.product / "metrics.json").open("a") as file:
        file.write(" ")
    with pytest.raises(DataError, match=r"metrics\.json: the file has .* the product is damaged: rebuild it with force=evaluate"):
        compared(tmp_path)


def test_runs_that_all_failed_are_told(tmp_path: Path) -> None:
    made = make_run(tmp_path, 0.5, link=False)
    (made.product / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"no run to compare: tract seed=0: its evaluation is gone"):
        compared(tmp_path)


@pytest.mark.parametrize("key", ["failed_score", "fallback"])
def test_the_score_of_failed_draws_is_known_by_its_name_of_now_and_of_before(key: str, tmp_path: Path) -> None:
    make_run(tmp_path, 0.5)
    results = RunResults.of(find_runs([tmp_path]).runs[0])
    config = results.product.manifest["identity"]["config"]
    del config["evaluation"]["failed_score"]
    config["evaluation"][key] = "lowest"
    assert results.scored["test"].scores["rail"][-1] == 1.0  # the last item was not judged
