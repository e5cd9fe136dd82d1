"""What the report shows of each of the worst items: texts cut to a size that a page can hold, with what was cut counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tract.evaluation.items import BenchmarkItem
from tract.evaluation.meanings import FINISH_MEANINGS, PROMPT_MEANINGS
from tract.evaluation.plots import BenchmarkPlot
from tract.evaluation.results import Evaluation
from tract.evaluation.scored import Array
from tract.evaluation.worst_items import WorstItem, WorstItems

TEXT_CHARACTERS = 3000  # of an instruction, a response, a reference or a prompt
COMMENT_CHARACTERS = 1500  # of a rater's comment, a CoT or a rubric's description
MOST_RATERS, MOST_COTS = 12, 4
_LEAST_OUTSIDE = 0.005  # probability outside the grid from which on it has a bar


@dataclass(frozen=True, slots=True)
class ShownText:
    """The beginning of a text, and how many characters more it has."""

    text: str
    omitted: int


def shown_text(text: str, most: int) -> ShownText:
    """At most ``most`` characters of a text."""
    return ShownText(text[:most], max(0, len(text) - most))


def cards_of(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What the template shows of the worst items: one group for each judge and benchmark."""
    return [
        {
            "number": number,
            "benchmark": group.benchmark,
            "judge": group.judge,
            "count": len(group.items),
            "total": group.total,
            "cards": [_card(item, _anchor(number, rank), rank + 1, group.benchmark) for rank, item in enumerate(group.items)],
        }
        for number, group in enumerate(evaluation.worst)
    ]


def _anchor(group: int, rank: int) -> str:
    return f"item-{group}-{rank}"


def links_of(evaluation: Evaluation, benchmark: str, plot: BenchmarkPlot) -> list[dict[str, Any]]:
    """Where the plot of a benchmark shows the worst items, in pixels, and where the page describes them; the worst lie on top."""
    links: list[dict[str, Any]] = []
    for number, group in enumerate(evaluation.worst):
        if group.benchmark == benchmark and group.judge in plot.points:
            links += _links(number, group, plot.points[group.judge])
    return links[::-1]


def _links(number: int, group: WorstItems, points: Array) -> Iterator[dict[str, Any]]:
    for rank, item in enumerate(group.items):
        x, y = points[item.place]
        title = f"{group.judge}, {item.item.id}: true {_two_decimals(item.item.target)}, predicted {_two_decimals(item.prediction)}"
        yield {"anchor": _anchor(number, rank), "x": f"{x:.1f}", "y": f"{y:.1f}", "title": title}


def _card(found: WorstItem, anchor: str, rank: int, benchmark: str) -> dict[str, Any]:
    item = found.item
    return {
        "anchor": anchor,
        "rank": rank,
        "items_file": f"items-{benchmark}.jsonl of the predict stage",  # holds what the predictions files do not
        "id": item.id,
        "question_id": item.question_id,
        "target": _two_decimals(item.target),
        "prediction": _two_decimals(found.prediction),
        "error": f"{found.error:+z.2f}",
        "size": f"{abs(found.error):.6f}",
        "side": "too high" if found.error > 0 else "too low" if found.error < 0 else "exact",
        "notes": list(_notes(found)),
        "texts": [(title, shown_text(text, TEXT_CHARACTERS)) for title, text in _texts(item)],
        "rubric": _rubric(item),
        "reference": None if item.reference_answer is None else shown_text(item.reference_answer, TEXT_CHARACTERS),
        "bars": list(_bars(found)),
        "raters": [_rater(rating) for rating in item.raters[:MOST_RATERS]],
        "more_raters": max(0, len(item.raters) - MOST_RATERS),
        "agreement": _agreement(item.rater_sd),
        "cots": [
            {
                "text": shown_text(cot.text, COMMENT_CHARACTERS),
                "score": "no score" if cot.score is None else _two_decimals(cot.score),
                "finish": FINISH_MEANINGS.get(cot.finish, cot.finish).rstrip("."),
            }
            for cot in found.cots[:MOST_COTS]
        ],
        "more_cots": max(0, len(found.cots) - MOST_COTS),
    }


def _two_decimals(value: float) -> str:
    return f"{value:z.2f}"


def _agreement(rater_sd: float | None) -> str | None:
    """What raters of an item say of each other; None where there are not two."""
    if rater_sd is None:
        return None
    return f"raters differ: sd {_two_decimals(rater_sd)}" if rater_sd > 0 else "raters agree"


def _texts(item: BenchmarkItem) -> Iterator[tuple[str, str]]:
    if item.instruction or item.response:
        yield "Instruction", item.instruction
        yield "Response", item.response
    elif item.prompt:
        yield "Prompt", item.prompt


def _notes(found: WorstItem) -> Iterator[str]:
    if found.item.status != "ok":
        yield f"Prompt: {PROMPT_MEANINGS.get(found.item.status, found.item.status)}"
    if found.failed > 0:
        yield f"{found.failed:.0%} of the draws failed and count with the declared score."


def _rubric(item: BenchmarkItem) -> dict[str, Any] | None:
    rubric = item.rubric
    if rubric is None or not (rubric["criteria"] or any(rubric["descriptions"].values())):
        return None
    descriptions = [(label, shown_text(text, COMMENT_CHARACTERS)) for label, text in rubric["descriptions"].items()]
    return {"criteria": shown_text(rubric["criteria"], COMMENT_CHARACTERS), "descriptions": descriptions}


def _rater(rating: Any) -> dict[str, Any]:
    comment = rating["comment"]
    return {
        "name": rating["rater"] or "rater without a name",
        "score": f"{rating['score']:g}",
        "comment": None if not comment else shown_text(comment, COMMENT_CHARACTERS),
    }


def _bars(found: WorstItem) -> Iterator[dict[str, str]]:
    """A bar for each score, and one for what lies outside the grid where that is more than rounding."""
    bars = list(found.distribution)
    outside = 1.0 - sum(p for _, p in bars)
    if bars and outside > _LEAST_OUTSIDE:
        bars.append(("none", outside))
    for label, p in bars:
        yield {"label": label, "share": f"{p:.1%}", "width": f"{100 * min(1.0, max(0.0, p)):.1f}"}
