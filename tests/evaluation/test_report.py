"""The report is one well-formed page that loads nothing, shows everything and runs nothing."""

from __future__ import annotations

import base64
import dataclasses
import re
import struct
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from example_evaluation import PREDICTORS, make_evaluation, make_report, make_scored
from html_page import Page

from tract.evaluation.cells import cell
from tract.evaluation.html_page import data_uri
from tract.evaluation.meanings import METRIC_MEANINGS
from tract.evaluation.plots import benchmark_plot
from tract.evaluation.predictors import meanings_of
from tract.evaluation.report import html, write_report
from tract.evaluation.results import Bin, Evaluation, Robustness, Shift
from tract.evaluation.robustness import CONSISTENCY_METRICS, SUMMARY_METRICS
from tract.evaluation.scored import Estimate
from tract.evaluation.tables import METRIC_LABELS, judges_on, markdown_table
from tract.text.perturbations import PERTURBATIONS

HOSTILE = '<script>alert(\'x\')</script> " onload="y" {{ 1 + 1 }} $\\frac{$ _|'


PREDICTOR_MEANINGS = meanings_of(PREDICTORS)


def test_the_page_shows_everything() -> None:
    evaluation = make_evaluation(benchmarks=("vicuna", "mt_bench"), predictors=PREDICTORS, facts=(("seed", 3), ("fallback", None)))
    page = Page(html(evaluation))
    assert page.texts.count("Evaluation of tract") == 2  # title and heading
    assert "seed 3" in page.text
    assert "fallback none" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    for name, report in judges_on(evaluation, evaluation.reports[0]):
        assert name in page.texts
        for metrics in report.metrics.values():
            for metric, estimate in metrics.items():
                shown = cell(estimate, metric)
                assert shown.value in page.texts
                assert shown.interval in page.texts
    assert "+.051 *" in page.texts
    assert "undefined" in page.texts
    assert page.texts.count("Paired difference, tract minus base model, on the same items; * marks an interval that excludes 0.") == 2


def test_the_legend_explains_every_metric_and_the_predictors_that_are_shown() -> None:
    page = Page(html(make_evaluation(predictors=PREDICTORS)))
    assert tuple(METRIC_MEANINGS) == tuple(METRIC_LABELS)
    assert tuple(PREDICTOR_MEANINGS) == PREDICTORS
    for meaning in (*METRIC_MEANINGS.values(), *PREDICTOR_MEANINGS.values()):
        assert meaning in page.texts
    assert "[low, high] is the 95 % interval: percentiles of a bootstrap that draws whole questions" in page.text
    few = Page(html(make_evaluation(predictors=("rail",))))
    assert PREDICTOR_MEANINGS["rail"] in few.texts
    assert PREDICTOR_MEANINGS["argmax"] not in few.texts


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = html(make_evaluation(facts=(("model", "https://example.org/model"),)))
    page = Page(text)
    assert all(value.startswith("#") for value in page.values("href"))
    assert all(value.startswith("data:image/png;base64,") for value in page.values("src"))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("http") == 2  # the fact, and http-equiv
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.values("content")


def test_links_lead_to_places_of_the_page() -> None:
    page = Page(html(make_evaluation(benchmarks=("vicuna", "mt_bench"))))
    assert {value.removeprefix("#") for value in page.values("href")} == set(page.values("id"))


def test_hostile_names_stay_text() -> None:
    evaluation = make_evaluation(HOSTILE, HOSTILE + "2", (HOSTILE,), facts=((HOSTILE, HOSTILE),))
    page = Page(html(evaluation))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.values("onload") == []
    assert page.texts.count(HOSTILE) >= 4
    assert f"Evaluation of {HOSTILE}" in page.texts
    assert any(HOSTILE in value for value in page.values("alt"))


def test_a_judge_that_the_main_predictor_does_not_read_is_named() -> None:
    mine, theirs = make_report(make_scored("vicuna", ("rail",), 0.5)), make_report(make_scored("vicuna", ("decode_free",), 0.5))
    page = Page(html(Evaluation("tract", (mine,), (("base model", (theirs,)), ("third", ())), (), "rail")))
    assert "Not drawn, since predictor rail was not read: base model." in page.texts
    assert "Without a report on this benchmark: third." in page.texts
    none_drawn = Page(html(Evaluation("tract", (mine,), (), (), "median")))
    assert none_drawn.values("src") == []
    assert "Not drawn, since predictor median was not read: tract." in none_drawn.texts


def test_robustness_has_a_section_with_a_figure_and_tables() -> None:
    estimate = Estimate(0.25, 0.1, 0.4)
    numbers = {"rail": dict.fromkeys(("undue_shift", "undue_size", "raised", "lowered"), estimate)}
    summary, consistency = ({"rail": dict.fromkeys(names, estimate)} for names in (SUMMARY_METRICS, CONSISTENCY_METRICS))
    shifts = tuple(Shift(name, 58, 2, Estimate(0.0), {"rail": 1}, numbers) for name in ("beg", "verbose"))
    unread = Shift("cue", 0, 60, Estimate(None), {"rail": 0}, {"rail": dict.fromkeys(numbers["rail"], Estimate(None))})
    found = Robustness(HOSTILE, (*shifts, unread), consistency, summary, {"rail": dict.fromkeys(SUMMARY_METRICS, estimate)})
    evaluation = make_evaluation(HOSTILE, "seed", (HOSTILE,), predictors=("rail",))
    evaluation = dataclasses.replace(evaluation, robustness={HOSTILE: (found,), "seed": (dataclasses.replace(found, shifts=shifts[:1]),)})
    page = Page(html(evaluation))
    assert {value.removeprefix("#") for value in page.values("href")} == set(page.values("id"))
    assert "robustness-1" in page.values("id")
    assert "+0.250 *" in page.texts
    assert PERTURBATIONS["beg"].meaning in page.texts
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    table = markdown_table(evaluation)
    assert "| verbose" in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("| ") and "verbose" in line}) == 2
    assert "robustness" not in html(make_evaluation())


def test_same_evaluation_same_file(tmp_path: Path) -> None:
    evaluation = make_evaluation(judge="Richter für Bewertungen")
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, evaluation)
    written = (tmp_path / "a.html").read_bytes()
    assert written == (tmp_path / "b.html").read_bytes()
    assert written.decode("utf-8") == html(evaluation)
    assert "Richter für Bewertungen" in written.decode("utf-8")


def png_size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_figure_leaves_matplotlib_as_it_was_and_ignores_its_settings() -> None:
    judges = judges_on(*(lambda e: (e, e.reports[0]))(make_evaluation()))
    plain = benchmark_plot(judges, "rail").png
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        assert benchmark_plot(judges, "rail").png == plain
        assert dict(matplotlib.rcParams) == before
    assert min(png_size(plain)) > 1000
    assert b"Software" not in plain
    assert benchmark_plot(judges, "rail_normalized").png != plain
    assert benchmark_plot(judges[:1], "rail").png != plain


def test_data_uri_holds_the_image() -> None:
    assert base64.b64decode(re.fullmatch(r"data:image/png;base64,(.+)", data_uri(b"\x00png"))[1]) == b"\x00png"


@pytest.mark.parametrize("items", [1, 60])
def test_figure_of_constant_scores_and_empty_responses(items: int) -> None:
    scored = make_scored("$x_", ("rail",), 0.5, items=60)
    same = dataclasses.replace(
        scored, ids=scored.ids[:items], questions=scored.questions[:items], targets=np.full(items, 3.0), response_words=np.zeros(items),
        scores={"rail": np.full(items, 3.0)},
    )  # fmt: skip
    report = dataclasses.replace(make_report(scored), scored=same, reliability={"rail": (Bin(3.0, 3.5, items, 3.0, 3.0),)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = benchmark_plot([(name, report) for name in ("_hidden", "$\\frac{$", "名前", *"defgh")], "rail").png
    assert png_size(png)[0] > 1000
