"""Tables, CSV, plots and page show every number, run nothing, and are the same for the same runs."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import matplotlib as mpl
import pytest
from html_page import Page
from made_runs import HOSTILE, make_run

from tract.apps.compare.comparison import RunComparison, compare
from tract.apps.compare.csv_table import COLUMNS, csv_text
from tract.apps.compare.files import files_of
from tract.apps.compare.tables import difference_cell, markdown, marked_label, mean_cell, order_of, short_metrics, tables_of, terminal
from tract.artifacts.runs import find_runs
from tract.evaluation.cells import printable
from tract.evaluation.scored import Estimate
from tract.evaluation.seed_intervals import QUESTIONS, SEEDS, Difference, SeedMean

VARIANTS = [
    "ce_only",
    "tract objective.lambda=0",
    "tract objective.lambda=0.1",
    "tract",
    "tract objective.lambda=10",
    "tract evaluation.n_cot=5",
]


@pytest.fixture(scope="module")
def files(study: Path, comparison: RunComparison) -> dict[str, str | bytes]:
    return dict(files_of(with_metrics(comparison, "rmse"), [HOSTILE], study / "out"))


def with_metrics(comparison: RunComparison, *metrics: str) -> RunComparison:
    """The comparison with fewer metrics, since each panel of a figure takes time."""
    return replace(comparison, options=replace(comparison.options, metrics=metrics))


def test_the_study_is_what_the_tests_think(comparison: RunComparison) -> None:
    assert sorted(variant.label for variant in comparison.variants) == sorted(VARIANTS)
    assert [len(variant.runs) for variant in comparison.variants if variant.label == "tract"] == [3]
    assert comparison.baseline == "tract"


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (SeedMean(Estimate(0.7961, 0.66, 0.88), SEEDS, 3, 3), ".796 [.660, .880]"),
        (SeedMean(Estimate(0.7961, 0.66, 0.88), QUESTIONS, 1, 1), ".796 [.660, .880]q"),
        (SeedMean(Estimate(0.7961, 0.66, 0.88), SEEDS, 3, 4), ".796 [.660, .880] 3/4 seeds"),
        (SeedMean(Estimate(0.7961), "", 1, 1), ".796"),
        (SeedMean(Estimate(0.7961), "", 2, 2), ".796 no interval"),
        (SeedMean(Estimate(0.7961), "", 2, 3), ".796 2/3 seeds: no interval"),
        (SeedMean(Estimate(None), "", 0, 3), "undefined"),
    ],
)
def test_cells_say_what_an_interval_covers_and_how_many_seeds_there_are(mean: SeedMean, expected: str) -> None:
    assert str(mean_cell(mean, "pearson_r")) == expected


def test_the_terminal_shows_variants_differences_and_what_is_left_out(comparison: RunComparison) -> None:
    shown = terminal(comparison)
    for variant in VARIANTS:
        assert re.search(rf"^{re.escape(variant)}(?: \(best\))? +rail +\d ", shown, re.MULTILINE), variant
    assert "1 run left out:" in shown
    assert "failed: out of memory" in shown
    assert "difference: paired, minus tract (rail)" in shown
    assert "constant baseline" in shown
    assert re.search(r"[+-]\.\d+ \[.*\]q 2/3 seeds", shown)
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert max(len(line) for line in shown.splitlines() if "rail" in line and "minus" not in line) <= 116


def test_the_terminal_lists_some_of_many_runs_that_are_left_out(comparison: RunComparison) -> None:
    many = terminal(replace(comparison, left_out=comparison.left_out * 13))
    assert "13 runs left out:" in many
    assert many.count("out of memory") == 10
    assert many.endswith("  and 3 more, see the files")


def test_a_table_that_is_narrow_has_its_metrics_beside_each_other(study: Path, comparison: RunComparison) -> None:
    options = replace(comparison.options, predictors=None, resamples=0)
    shown = terminal(compare(find_runs([study / "tract" / "seed1"]), options))
    assert re.search(r"^variant +seeds +Pearson r +difference +RMSE +difference$", shown, re.MULTILINE)
    assert "predictor" not in shown.splitlines()[1]


def test_the_terminal_prefers_pearson_and_rmse() -> None:
    assert short_metrics(("kendall_tau", "rmse", "pearson_r")) == ("pearson_r", "rmse")
    assert short_metrics(("mae", "kendall_tau", "rmse")) == ("rmse", "mae")
    assert short_metrics(("mae",)) == ("mae",)


def test_markdown_has_every_metric_and_both_kinds_of_differences(comparison: RunComparison) -> None:
    text = markdown(comparison)
    numbers, left_out = text.split("## Left out: 1 run\n")
    rows = [line for line in numbers.splitlines() if line.startswith("| ")]
    assert sum(line.startswith("| variant ") for line in rows) == 2 * 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {8}
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in left_out.splitlines() if line.startswith("| ")} == {3}
    assert "interval over seeds: the randomness of training and sampling:" in text
    assert "interval over questions: the choice of test items:" in text
    assert "<script" not in text.replace("\\<script", "")


def test_differences_are_marked_where_their_interval_excludes_zero(comparison: RunComparison) -> None:
    table = comparison.tables[0]
    by_title = {part.title: part for part in tables_of(comparison, table)}
    marked = 0
    for title, part in by_title.items():
        for row in part.rows:
            for cell in row.cells:
                low, high = re.findall(r"[+-]?[\d.]+", cell.interval)[:2] if cell.interval.startswith("[") else ("0", "0")
                if "difference" in title and abs(float(low)) > 0.001 < abs(float(high)):
                    assert cell.marked == (float(low) * float(high) > 0)
                    marked += cell.marked
    assert marked > 3


def test_the_csv_has_a_line_for_each_number(comparison: RunComparison) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert len(lines) == sum(len(table.rows) for table in comparison.tables) * len(comparison.options.metrics)
    assert tuple(lines[0])[: len(COLUMNS)] == COLUMNS
    assert {"objective.lambda", "evaluation.n_cot", "run.name"} <= set(lines[0])
    for table in comparison.tables:
        for row in table.rows:
            for metric in comparison.options.metrics:
                (line,) = [
                    found for found in lines
                    if (found["benchmark"], found["predictor"], found["metric"]) == (table.benchmark, row.predictor, metric)
                    and found["variant"] == (row.variant or "constant baseline")
                ]  # fmt: skip
                mean = row.means[metric]
                numbers = [None if line[name] == "" else float(line[name]) for name in ("mean", "low", "high")]
                assert numbers == [mean.estimate.value, mean.estimate.low, mean.estimate.high]  # in full precision
                assert (line["interval"], int(line["seeds"]), int(line["runs"])) == (mean.kind, mean.seeds, mean.runs)
                difference = row.differences.get(metric)
                assert line["difference"] == (
                    "" if difference is None or difference.over_seeds.value is None else repr(difference.over_seeds.value)
                )


def test_no_text_of_the_csv_is_a_formula(comparison: RunComparison) -> None:
    tables = tuple(replace(table, benchmark=text) for table, text in zip(comparison.tables, ("=1+1", "@x"), strict=True))
    lines = list(csv.reader(io.StringIO(csv_text(replace(comparison, tables=tables)))))
    assert {line[0] for line in lines} == {"benchmark", "'=1+1", "'@x"}
    assert all(float(cell) < 0 for line in lines for cell in line if cell.startswith("-"))


def test_files_have_the_names_that_are_promised(files: dict[str, str | bytes], comparison: RunComparison, study: Path) -> None:
    assert {"comparison.md", "comparison.csv", "index.html", "bars_test.png", "lambda_test.png", "n_cot_test.png"} < set(files)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in files)
    alike = tuple(replace(comparison.tables[0], benchmark=name) for name in ("a b", "A/b", "a_b"))
    short = replace(with_metrics(comparison, "rmse"), tables=alike, variants=comparison.variants[:1])
    assert {"bars_a_b.png", "bars_A_b_2.png", "bars_a_b_3.png"} < set(files_of(short, [], study / "out"))


def test_plots_are_images_of_some_size(files: dict[str, str | bytes]) -> None:
    images = [content for name, content in files.items() if name.endswith(".png")]
    assert len(images) == 4
    for content in images:
        assert isinstance(content, bytes)
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert (width > 1000, height > 400, len(content) > 10_000) == (True, True, True)


@pytest.mark.parametrize("metrics", [("rmse",), ("score_mass", "mae", "failure_rate")])
def test_any_number_of_metrics_is_drawn(metrics: tuple[str, ...], comparison: RunComparison, study: Path) -> None:
    options = replace(comparison.options, metrics=metrics, resamples=0, predictors=None)
    found = files_of(compare(find_runs([study / "swept"]), options), [], study)
    assert {"bars_test.png", "lambda_test.png"} < set(found)


def test_a_benchmark_that_nobody_was_judged_on_so_has_a_table_and_no_plot(comparison: RunComparison) -> None:
    empty = replace(comparison.tables[0], rows=comparison.tables[0].rows[-1:], reference=None, notes=("not read: x",))
    found = files_of(with_metrics(replace(comparison, tables=(empty,)), "rmse"), [], Path("out"))
    assert set(found) == {"comparison.md", "comparison.csv", "index.html"}
    assert "constant baseline" in found["comparison.md"]


def test_the_page_is_whole_and_loads_nothing(files: dict[str, str | bytes], comparison: RunComparison) -> None:
    html = str(files["index.html"])
    page = Page(html)
    for variant in VARIANTS:
        assert variant in page.text
    assert "failed: out of memory" in page.text
    assert Page(html).text.count("Comparison of runs: tract, swept") == 2  # title and heading
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 4
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r'"data:[^"]*"', "", html).replace("http-equiv", "")
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link.lstrip("#") for link in page.values("href") if link.startswith("#")} <= targets
    assert "Over seeds: mean over the runs of a variant" in page.text
    assert len([tag for tag, attrs in page.tags if "marked" in (attrs.get("class") or "")]) > 3


def test_links_lead_from_the_page_to_each_run(study: Path, comparison: RunComparison, tmp_path: Path) -> None:
    """Also from a folder whose name an address has to quote, and from one behind a link."""
    report = make_run(tmp_path, 0.5, run__name="odd # name?").product / "report.html"
    report.write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    own = with_metrics(compare(find_runs([tmp_path / "runs"]), replace(comparison.options, predictors=None)), "rmse")
    for place in (tmp_path / "runs" / "odd # name?" / "comparison", tmp_path / "link" / "my out"):
        links = [link for link in Page(str(files_of(own, [], place)["index.html"])).values("href") if not link.startswith("#")]
        assert [(Path(os.path.realpath(place)) / unquote(link)).resolve() for link in links] == [
            report.resolve(), report.parent.resolve(), (tmp_path / "runs" / "odd # name?" / "seed0").resolve(),
        ]  # fmt: skip
        assert not any(link.startswith("/") for link in links)
    runs = sum(len(variant.runs) for variant in comparison.variants)
    whole = Page(str(files_of(with_metrics(comparison, "rmse"), [], study / "out")["index.html"])).values("href")
    assert sum("/evaluate-" in link for link in whole) == runs
    assert sum(bool(re.search("/seed[0-9]/$", link)) for link in whole) == runs


def test_the_best_and_what_nobody_trained_are_marked_in_every_table(tmp_path: Path, comparison: RunComparison) -> None:
    make_run(tmp_path, 0.5)
    make_run(tmp_path, 0.9, run__name="plain", pipeline=["predict", "evaluate"])
    make_run(tmp_path, 0.7, run__name="given", judge="base")
    options = replace(comparison.options, predictors=None, metrics=("rmse",), resamples=0)
    own = compare(find_runs([tmp_path / "runs"]), options)
    page = str(files_of(own, [], tmp_path)["index.html"])
    assert "<title>Comparison of runs: given, plain, tract</title>" in page
    assert Page(page).values("class").count("main best") == 1
    for text in (terminal(own), markdown(own), Page(page).text):
        assert "tract (best)" in text
        assert "plain (not trained)" in text
        assert "given (not trained)" in text
    assert "best first, by RMSE" in terminal(own)
    assert markdown(own).startswith("# Comparison of runs: given, plain, tract\n")


def test_the_best_of_one_metric_is_not_marked_in_the_table_of_another(tmp_path: Path, comparison: RunComparison) -> None:
    make_run(tmp_path, 0.5, run__name="good " + "x" * 30)
    make_run(tmp_path, 0.9, run__name="bad " + "x" * 30)
    own = compare(find_runs([tmp_path / "runs"]), replace(comparison.options, predictors=None, resamples=0))
    (table,) = own.tables
    assert marked_label(own, table, 0, ["pearson_r"]).endswith(" (best)")
    assert marked_label(own, table, 0, ["pearson_r", "rmse"]).endswith(" (best Pearson r)")
    assert "best" not in marked_label(own, table, 0, ["rmse"])
    assert '"best Pearson r" is the best mean on these items' in order_of(own)


def test_no_two_variants_look_the_same_in_the_terminal(tmp_path: Path, comparison: RunComparison) -> None:
    for name in (
        "start of it, then a middle A that differs, and the end of it",
        "start of it, then a middle B that differs, and the end of it",
    ):
        make_run(tmp_path, 0.5, run__name=name)
    own = compare(find_runs([tmp_path / "runs"]), replace(comparison.options, predictors=None, resamples=0))
    lines = [line for line in terminal(own).splitlines() if line.startswith("start")]
    shown = [re.split(r" \(best|  ", line)[0] for line in lines]
    assert len(set(shown)) == 2
    assert "middle A" in terminal(own)


def test_the_figure_s_caption_tells_whether_there_are_intervals(tmp_path: Path, comparison: RunComparison) -> None:
    options = replace(comparison.options, predictors=None, metrics=("rmse",), resamples=0)
    for seed in (0, 1):
        make_run(tmp_path, 0.5, seed=seed)
    few = str(files_of(compare(find_runs([tmp_path / "runs"]), options), [], tmp_path)["index.html"])
    assert "All variants on test: means, of too few seeds for intervals." in few
    make_run(tmp_path, 0.5, seed=2)
    enough = str(files_of(compare(find_runs([tmp_path / "runs"]), options), [], tmp_path)["index.html"])
    assert "All variants on test: means with their intervals." in enough


def test_a_difference_that_is_zero_as_it_is_printed_is_not_marked() -> None:
    def shown(*numbers: float) -> str:
        estimate = Estimate(*numbers)
        return str(difference_cell(estimate, Difference(estimate, estimate, 3, 3), "rmse", SEEDS))

    assert shown(-0.0003, -0.0004, -0.0002) == "0.000 [-0.000, -0.000]"
    assert shown(0.0004, 0.0003, 0.0005) == "0.000 [+0.000, +0.001]"
    assert shown(-0.0006, -0.0007, -0.0005) == "-0.001 [-0.001, -0.001] *"


def test_hostile_names_stay_text(files: dict[str, str | bytes]) -> None:
    page = Page(str(files["index.html"]))
    assert "script" not in {tag for tag, _ in page.tags}
    assert " ".join(printable(HOSTILE).split()) in page.text


def test_the_same_runs_give_the_same_bytes(study: Path, comparison: RunComparison, files: dict[str, str | bytes]) -> None:
    before = dict(mpl.rcParams)
    again = compare(find_runs([study]), comparison.options)
    assert (terminal(again), markdown(again), csv_text(again)) == (terminal(comparison), markdown(comparison), csv_text(comparison))
    assert dict(files_of(with_metrics(again, "rmse"), [HOSTILE], study / "out")) == files
    assert dict(mpl.rcParams) == before
