"""Tables keep their shape whatever the names are, and show what is undefined, unknown or nearly zero as such."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from example_evaluation import make_evaluation, make_report, make_scored

from tract.evaluation.cells import cell, format_number
from tract.evaluation.results import Evaluation
from tract.evaluation.scored import Estimate
from tract.evaluation.statistics import METRICS
from tract.evaluation.tables import METRIC_LABELS, counts, interval_name, markdown_table, short_table

HOSTILE = "a|b\\|c\n| x\r\n\u2028## `d *e* <script>\x1b[31m"


def columns(line: str) -> list[str]:
    """Cells of a Markdown row as GitHub splits it: a backslash escapes what follows it."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [text.strip() for text in re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])]


def rows(markdown: str) -> list[list[str]]:
    return [columns(line) for line in markdown.splitlines() if line.startswith("|")]


def test_every_metric_has_a_column() -> None:
    assert tuple(METRIC_LABELS) == METRICS


@pytest.mark.parametrize(
    ("estimate", "metric", "difference", "expected"),
    [
        (Estimate(0.9621, 0.93, 0.98), "pearson_r", False, ".962 [.930, .980]"),
        (Estimate(-0.0312, -0.14, 1.0), "pearson_r", False, "-.031 [-.140, 1.000]"),
        (Estimate(0.857, 0.79, 10.92), "rmse", False, "0.857 [0.790, 10.920]"),
        (Estimate(0.5, None, None), "rmse", False, "0.500 [undefined]"),
        (Estimate(None), "kendall_tau", False, "undefined"),
        (None, "score_mass", False, "-"),
        (Estimate(0.0002, 0.0, 0.0006), "failure_rate", False, "<.001 [.000, .001]"),
        (Estimate(0.9998, 0.9994, 1.0), "score_mass", False, ">.999 [.999, 1.000]"),
        (Estimate(0.012, -0.004, 0.031), "pearson_r", True, "+.012 [-.004, +.031]"),
        (Estimate(0.012, 0.0001, 0.031), "pearson_r", True, "+.012 [+.000, +.031] *"),
        (Estimate(-0.2, -0.3, -0.1), "rmse", True, "-0.200 [-0.300, -0.100] *"),
        (Estimate(0.0, 0.0, 0.0), "failure_rate", True, ".000 [.000, .000]"),
        (Estimate(-0.0004, -0.0005, -0.0001), "rmse", True, "0.000 [-0.001, -0.000]"),
        (Estimate(0.0004, 0.0001, 0.0005), "pearson_r", True, ".000 [+.000, +.001]"),
    ],
)
def test_cell(estimate: Estimate | None, metric: str, difference: bool, expected: str) -> None:
    assert str(cell(estimate, metric, difference=difference)) == expected


def test_a_rounded_zero_has_no_sign() -> None:
    assert format_number(-0.0001, "pearson_r") == ".000"


def test_only_differences_are_marked() -> None:
    assert not cell(Estimate(0.9, 0.8, 1.0), "pearson_r").marked


def test_markdown_of_one_benchmark() -> None:
    evaluation = make_evaluation()
    text = markdown_table(evaluation)
    assert "## vicuna (60 items, 15 questions)" in text
    assert "the 95 % interval" in text
    table = rows(text)
    assert table[0] == ["judge", "predictor", *METRIC_LABELS.values()]
    assert [row[:2] for row in table[2:8]] == [
        ["tract", "rail"], ["tract", "rail_normalized"], ["base model", "rail"], ["base model", "rail_normalized"],
        ["baseline", "constant"], ["baseline", "length"],
    ]  # fmt: skip
    r = evaluation.reports[0].metrics["rail"]["pearson_r"]
    assert table[2][2] == str(cell(r, "pearson_r"))
    assert table[6][2:5] == ["undefined"] * 3
    assert table[7][2] == "-.031 [-.140, .080]"
    assert table[7][8:] == ["-", "-"]
    assert "tract minus base model, paired" in text
    assert table[8][0] == "predictor"
    assert table[10][:2] == ["rail", "+.051 [+.010, +.090] *"]
    assert table[10][4] == "-0.020 [-0.100, +0.060]"


def test_lines_of_a_table_are_aligned() -> None:
    lengths = [[len(line) for line in block.splitlines()] for block in markdown_table(make_evaluation()).split("\n\n") if block[0] == "|"]
    assert len(lengths) == 2
    assert all(len(set(block)) == 1 for block in lengths)


def test_without_another_judge_there_is_no_difference_table() -> None:
    report = make_report(make_scored("vicuna", ("rail",), 0.5))
    text = markdown_table(Evaluation("tract", (report,), (), (), "rail"))
    assert "minus" not in text
    assert len(rows(text)) == 2 + 1 + 2


def test_no_name_breaks_a_table() -> None:
    evaluation = make_evaluation(judge=HOSTILE, other=HOSTILE + "\\", benchmarks=(HOSTILE, "\\"))
    text = markdown_table(evaluation)
    assert {len(row) for row in rows(text)} == {9, 10}
    assert sum(line.startswith("#") for line in text.splitlines()) == 2
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\\<script>" in text
    assert not re.search(r"(?<!\\)<", text.replace("<.001", ""))
    short = short_table(evaluation)
    assert len(short.splitlines()) == 3 + 4
    assert all(line.isprintable() for line in short.split("\n"))


def test_a_judge_without_a_report_on_the_benchmark_is_named() -> None:
    evaluation = make_evaluation(benchmarks=("vicuna", "mt_bench"))
    name, reports = evaluation.others[0]
    text = markdown_table(dataclasses.replace(evaluation, others=((name, reports[:1]), ("third|judge", ()))))
    first, second = text.split("## ")[1:]
    assert "Without a report on this benchmark: third\\|judge." in first
    assert "Without a report on this benchmark: base model, third\\|judge." in second


def test_short_table() -> None:
    evaluation = make_evaluation(judge="a judge with a name that is far too long for a terminal", benchmarks=("vicuna", "mt_bench"))
    title, head, _, *lines = short_table(evaluation).splitlines()
    assert title == "predictor rail; value [95 % interval]"
    assert head.split() == ["benchmark", "judge", "Pearson", "r", "RMSE", "constant", "RMSE"]
    assert [line.split()[0] for line in lines] == ["vicuna", "vicuna", "mt_bench", "mt_bench"]
    assert max(len(line) for line in (head, *lines)) <= 100
    report = evaluation.reports[0]
    for metrics, metric in ((report.metrics["rail"], "pearson_r"), (report.metrics["rail"], "rmse")):
        assert str(cell(metrics[metric], metric)) in lines[0]
    assert lines[1].endswith(f" {format_number(report.scored.targets.std(), 'rmse')}")


def test_short_table_of_a_judge_that_is_not_read_by_the_main_predictor() -> None:
    evaluation = dataclasses.replace(make_evaluation(), main_predictor="median")
    assert [line.split()[-3:-1] for line in short_table(evaluation).splitlines()[3:]] == [["-", "-"], ["-", "-"]]


def test_interval_is_named_by_the_confidence_of_the_facts() -> None:
    assert interval_name(make_evaluation(facts=(("confidence", 0.9),))) == "90 % interval"
    assert interval_name(make_evaluation(facts=())) == "interval"


def test_counts_of_one() -> None:
    report = make_report(make_scored("vicuna", ("rail",), 0.5))
    single = dataclasses.replace(report.scored, ids=("a",), questions=("q",))
    assert counts(dataclasses.replace(report, scored=single)) == "1 item, 1 question"


def test_tables_do_not_load_matplotlib() -> None:
    code = "import sys, tract.evaluation.tables; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
