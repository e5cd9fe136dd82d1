"""The worst items in the report: hostile and huge texts, links from the plot, and the one script that may run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from typing import Any

import numpy as np
import pytest
from example_evaluation import make_evaluation
from html_page import Page

from tract.evaluation.agreement import rater_agreement
from tract.evaluation.curves import Curves
from tract.evaluation.html_page import script_hash
from tract.evaluation.item_cards import COMMENT_CHARACTERS, MOST_COTS, MOST_RATERS, TEXT_CHARACTERS, shown_text
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.meanings import FINISH_MEANINGS
from tract.evaluation.plots import benchmark_plot, spread_out
from tract.evaluation.report import html
from tract.evaluation.results import Evaluation
from tract.evaluation.tables import judges_on
from tract.evaluation.worst_items import CotReading, WorstItem, WorstItems
from tract.inference.judgement import FINISHES

HOSTILE = '</div></script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 1 + 1 }} <!-- " \' onload="y" ]]> &amp; \u202e'


def raters(count: int) -> list[dict[str, Any]]:
    return [{"rater": f"rater-{k}", "score": 4.0, "comment": f"Comment {k}." if k % 2 else None} for k in range(count)]


def item(place: int, **texts: Any) -> BenchmarkItem:
    given = {"instruction": f"Question {place}?", "response": f"Answer {place}.", "raters": raters(2)} | texts
    return BenchmarkItem(
        texts.pop("id", f"ticket/{place}"), place, f"q{place}", 3.0, 5, "ok", {}, **{k: v for k, v in given.items() if k != "id"}
    )


def worst(place: int, prediction: float = 4.5, cots: int = 1, **texts: Any) -> WorstItem:
    readings = tuple(CotReading(f"CoT {k} of {place}", "length", 4.5) for k in range(cots))
    return WorstItem(place, item(place, **texts), prediction, 0.0, (("1", 0.25), ("5", 0.7)), readings)


def evaluation(*items: WorstItem, **changes: Any) -> Evaluation:
    made = make_evaluation(predictors=("rail",))
    group = WorstItems("vicuna", made.judge, changes.pop("total", len(items)), items)
    return dataclasses.replace(made, worst=(group,), **changes)


def test_an_item_shows_texts_raters_prediction_and_cots() -> None:
    rubric = {"criteria": "Is it kind?", "descriptions": {"1": "rude", "5": "kind"}}
    page = Page(html(evaluation(worst(7, rubric=rubric, reference_answer="The best answer."), total=60)))
    for text in (
        "#1 ticket/7", "Question 7?", "Answer 7.", "Is it kind?", "rude", "kind", "The best answer.", "rater-0", "rater-1", "Comment 1.",
        "CoT 0 of 7", "25.0%", "70.0%", "5.0%", FINISH_MEANINGS["length"].rstrip("."),
    ):  # fmt: skip
        assert text in page.texts, text
    assert "true 3.00, predicted 4.50 , error +1.50 , too high; question q7 ; vicuna, tract" in page.text
    assert "vicuna, judge tract: the worst 1 of 60 items" in page.text
    assert [attrs["style"] for tag, attrs in page.tags if attrs.get("class") == "fill"] == ["width: 25.0%", "width: 70.0%", "width: 5.0%"]
    assert sum(tag == "details" for tag, _ in page.tags) == 2


def test_hostile_texts_stay_text() -> None:
    rubric = {"criteria": HOSTILE, "descriptions": {HOSTILE: HOSTILE}}
    rating = [{"rater": HOSTILE, "score": 1.0, "comment": HOSTILE}]
    bad = worst(0, id=HOSTILE, instruction=HOSTILE, response=HOSTILE, rubric=rubric, reference_answer=HOSTILE, raters=rating)
    bad = dataclasses.replace(bad, cots=(CotReading(HOSTILE, HOSTILE, 1.0),))
    page = Page(html(evaluation(bad, run=HOSTILE, model=HOSTILE)))
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
    assert "x" not in page.values("src")
    assert sum(HOSTILE in text for text in page.texts) >= 9
    assert any(HOSTILE in text and text.startswith("tract, ") for text in page.texts)  # the title of the link


def test_long_texts_are_cut_and_what_is_cut_is_counted() -> None:
    long = worst(
        0,
        cots=MOST_COTS + 3,
        reference_answer="z" * (TEXT_CHARACTERS + 6),
        response="x" * (TEXT_CHARACTERS + 123),
        raters=raters(MOST_RATERS + 2),
    )
    long = dataclasses.replace(long, cots=(CotReading("y" * (COMMENT_CHARACTERS + 45), "cue", None), *long.cots[1:]))
    page = Page(html(evaluation(long)))
    assert "x" * TEXT_CHARACTERS in page.texts
    assert max(map(len, page.texts)) == TEXT_CHARACTERS
    for said in (
        "123 more characters are not shown",
        "45 more characters are not shown",
        "2 more ratings",
        "3 more CoTs",
        "6 more characters are not shown; items-vicuna.jsonl of the predict stage has the whole text",
    ):
        assert said in page.text, said
    assert "CoT 1, read as no score" in page.text
    assert (shown_text("abc", 3).omitted, shown_text("abcd", 3).text) == (0, "abc")


def test_a_failed_draw_and_a_dropped_prompt_are_said() -> None:
    failed = dataclasses.replace(worst(0), failed=0.5)
    dropped = dataclasses.replace(
        worst(1, prompt="All of it.", instruction="", response="", raters=[]), distribution=(), cots=(), failed=1.0
    )
    dropped = dataclasses.replace(dropped, item=dataclasses.replace(dropped.item, status="dropped_overlong_prompt"))
    page = Page(html(evaluation(failed, dropped)))
    assert "50% of the draws failed and count with the declared score." in page.texts
    assert "too long to be shown" in page.text
    assert "All of it." in page.texts
    assert "not judged" in page.texts
    assert "no scores of raters in the data" in page.texts


@pytest.mark.parametrize(
    ("sd", "said"), [(0.0, "true 3.00 (raters agree), predicted"), (0.707, "(raters differ: sd 0.71)"), (None, "true 3.00, predicted")]
)
def test_whether_raters_of_an_item_agree_is_said(sd: float | None, said: str) -> None:
    found = worst(0)
    page = Page(html(evaluation(dataclasses.replace(found, item=dataclasses.replace(found.item, rater_sd=sd)))))
    assert said in page.text


def test_the_only_script_is_the_one_that_the_policy_names() -> None:
    text = html(evaluation(worst(0)))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert script_hash(script) == digest
    (policy,) = [value for value in Page(text).values("content") if "default-src" in value]
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{digest}'"
    for word in ("innerHTML", "eval", "fetch", "import", "<!--", "document.write"):
        assert word not in script
    without = html(make_evaluation())
    assert "<script" not in without


def test_without_scripts_all_items_are_there_and_the_filter_is_not() -> None:
    page = Page(html(evaluation(worst(0), worst(1))))
    articles = [attrs for tag, attrs in page.tags if tag == "article"]
    assert len(articles) == 2
    assert all("hidden" not in attrs for attrs in articles)
    (panel,) = [attrs for _, attrs in page.tags if attrs.get("id") == "item-filter"]
    assert "hidden" in panel
    assert [attrs["data-error"] for attrs in articles] == ["1.500000", "1.500000"]
    low = Page(html(evaluation(worst(0, prediction=1.25))))
    assert low.values("data-error") == ["-1.750000"]


def test_points_of_the_plot_link_to_their_items() -> None:
    made = evaluation(worst(3), worst(0))
    plot = benchmark_plot(judges_on(made, made.reports[0]), "rail")
    page = Page(html(made))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and (attrs["href"] or "").startswith("#item-")]
    assert links == ["#item-0-1", "#item-0-0"]  # the worst is drawn last, on top
    assert {link.removeprefix("#") for link in links} <= set(page.values("id"))
    circles = [(float(attrs["cx"] or 0), float(attrs["cy"] or 0)) for tag, attrs in page.tags if tag == "circle"]
    np.testing.assert_allclose(circles, plot.points["tract"][[0, 3]], atol=0.06)


def test_points_lie_where_the_image_shows_them() -> None:
    """Half of the pixels around a lone point have its colour."""
    made = make_evaluation(predictors=("rail",), items=4)
    plot = benchmark_plot(judges_on(made, made.reports[0])[:1], "rail")
    from io import BytesIO

    from matplotlib.image import imread

    image = imread(BytesIO(plot.png))
    assert image.shape[:2] == plot.size[::-1]
    for x, y in plot.points["tract"]:
        pixel = image[round(y), round(x), :3]
        assert pixel[2] - pixel[0] > 0.2, (x, y, pixel)  # blue on white


def test_counts_of_close_bins_do_not_overlap() -> None:
    places = spread_out([2.9, 2.95, 3.0, 3.9], 0.3, 1.0, 5.0)
    assert np.diff(places).min() >= 0.3 - 1e-9
    assert places == pytest.approx([2.65, 2.95, 3.25, 3.9])  # around where they were
    assert spread_out([1.5, 2.5], 0.3, 1.0, 5.0) == [1.5, 2.5]
    at_the_edge = spread_out([4.9, 4.95, 5.0], 0.3, 1.0, 5.0)
    assert np.diff(at_the_edge).min() >= 0.3 - 1e-9
    assert at_the_edge[-1] <= 5.0
    assert np.diff(spread_out([3.0] * 40, 0.3, 1.0, 5.0)).min() > 0.09  # more than fit: as far apart as there is room
    assert spread_out([], 0.3, 1.0, 5.0) == []


def test_title_verdict_agreement_and_endings_are_shown() -> None:
    counts = {"cots_by_finish": dict.fromkeys(FINISHES, 3), "by_status": {"ok": 5, "shortened": 1}, "without_target": 2}
    made = make_evaluation(predictors=("rail",))
    agreement = rater_agreement([[("a", 1.0), ("b", 2.0)], [("a", 4.0), ("b", 4.0)]])
    report = dataclasses.replace(made.reports[0], agreement=agreement)
    made = dataclasses.replace(made, run="my run", model="org/model", counts={"vicuna": counts}, reports=(report,))
    page = Page(html(made))
    assert page.texts.count("my run: evaluation of tract (org/model)") == 2
    assert "Krippendorff's alpha" in page.text
    for finish in FINISHES:
        assert FINISH_MEANINGS[finish] in page.texts
    assert "2 prompts" in page.texts
    assert page.text.count("regression-aware inference with LLMs (RAIL)") == 1


def test_rows_of_mostly_failed_draws_are_grey_and_say_why() -> None:
    made = make_evaluation(predictors=("rail", "decode_free"))
    metrics = {**made.reports[0].metrics}
    rate = dataclasses.replace(metrics["decode_free"]["failure_rate"], value=0.75)
    metrics["decode_free"] = {**metrics["decode_free"], "failure_rate": rate}
    made = dataclasses.replace(made, reports=(dataclasses.replace(made.reports[0], metrics=metrics),))
    page = Page(html(made))
    assert sum("failed" in (attrs.get("class") or "") for tag, attrs in page.tags if tag == "tr") == 1
    assert "tract, decode_free: .750 of its draws failed (the judge wrote no score after the cue, or none of the grid)" in page.text


def test_curves_are_a_figure_or_a_reason() -> None:
    series = {"train/ce": ((1, 2.0), (2, 1.0)), "val/rmse": ((2, 0.5),)}
    shown = html(dataclasses.replace(make_evaluation(), curves=(Curves("stage1", series), Curves("stage2", {}, "no file"))))
    assert shown.count("data:image/png") == make_evaluation_images() + 1
    assert "stage2: no file." in Page(shown).texts
    none = Page(html(dataclasses.replace(make_evaluation(), curves=(Curves("stage1", {}, "no file"),))))
    assert "stage1: no file." in none.texts
    assert "How training went" not in Page(html(make_evaluation())).texts


def make_evaluation_images() -> int:
    return html(make_evaluation()).count("data:image/png")
