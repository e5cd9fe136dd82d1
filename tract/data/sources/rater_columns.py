"""Scores and CoTs of the raters of a row: one rater in each row (long), or one score column for each rater (wide)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tract.data.readers import fields
from tract.text.schema import Annotation, Rating
from tract.text.score_grid import ScoreGrid

KEY = "data.source.columns"
LISTS = ("score", "cot")  # the fields of a mapping that may be a list, with one column for each rater


@dataclass(frozen=True)
class RaterColumns:
    """Where the judgements of a row are.

    Attributes:
        pairs: (score column, CoT column or None) of each rater; in the long shape there is one pair, or none.
        wide: whether each pair belongs to another rater, whose id is the name of the score column.
        rater: the column with the rater's id, in the long shape alone.
    """

    pairs: tuple[tuple[str, str | None], ...]
    wide: bool
    rater: str | None

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> RaterColumns:
        """From a mapping without problems (``rater_problems``)."""
        score, cot = columns.get("score"), columns.get("cot")
        if score is None or isinstance(score, str):
            return cls(() if score is None else ((score, cot),), False, columns.get("rater"))
        return cls(tuple(zip(score, cot or [None] * len(score), strict=True)), True, None)

    def mapped(self) -> dict[str, str]:
        """Key below ``data.source.columns`` -> column, for each column that is mapped."""
        places = [f"[{number}]" if self.wide else "" for number in range(len(self.pairs))]
        found = {f"score{place}": score for place, (score, _) in zip(places, self.pairs, strict=True)}
        found |= {f"cot{place}": cot for place, (_, cot) in zip(places, self.pairs, strict=True) if cot is not None}
        return found if self.rater is None else {**found, "rater": self.rater}

    def judgements(self, columns: Mapping[str, object], grid: ScoreGrid) -> tuple[tuple[Annotation, ...], tuple[Rating, ...]]:
        """The scores of a row that have a CoT, and those that have none. A blank score means that its rater gave none.

        Raises:
            ValueError: if a score is not on the grid, or a CoT has no score.
        """
        annotations: list[Annotation] = []
        ratings: list[Rating] = []
        scored: set[str | None] = set()  # CoT columns with a score
        unscored: dict[str, str] = {}  # CoT column that holds a text -> score column that holds none
        for score_column, cot_column in self.pairs:
            score = fields.optional_number(fields.optional_value(columns, score_column), score_column)
            cot = fields.optional_value(columns, cot_column)
            if score is None:
                if cot_column is not None and cot is not None:
                    unscored.setdefault(cot_column, score_column)
                continue
            scored.add(cot_column)
            score, rater = fields.on_grid(score, score_column, grid), self._rater(columns, score_column)
            if cot_column is None or cot is None:
                ratings.append(Rating(score, rater))
            else:
                annotations.append(Annotation(fields.filled_text(cot, cot_column), score, rater=rater))
        for cot_column, score_column in unscored.items():
            if cot_column not in scored:  # several raters may share the text of one column
                fields.value_of(columns, score_column)  # raises if there is no such column
                raise ValueError(f"{score_column}: missing beside the CoT in {cot_column!r}; a row with a CoT needs its score")
        return tuple(annotations), tuple(ratings)

    def _rater(self, columns: Mapping[str, object], score_column: str) -> str | None:
        if self.wide:
            return score_column
        found = fields.optional_value(columns, self.rater)
        return None if found is None or self.rater is None else fields.identifier(found, self.rater).strip()


def rater_problems(columns: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the columns of scores, CoTs and raters in a mapping, one line each."""
    score, cot, rater = (columns.get(field) for field in ("score", "cot", "rater"))
    lists = [field for field in LISTS if isinstance(columns.get(field), (list, tuple))]
    if cot is not None and score is None:
        yield f"{KEY}.cot: is mapped without {KEY}.score; a CoT is trained on with its score, map both"
    if rater is not None and score is None:
        yield f"{KEY}.rater: is mapped without {KEY}.score; raters give scores, map both"
    for field in lists:
        yield from _list_problems(field, columns[field], or_null=field == "cot")
    if "score" in lists:
        yield from _wide_problems(score, cot, rater)
    elif "cot" in lists and score is not None:
        yield f"{KEY}.cot: found a list beside one score column, {fields.shown(score)}; write lists for both, or one column for each"


def _list_problems(field: str, names: Any, *, or_null: bool) -> Iterator[str]:
    accepted = "the name of a column, or null, is accepted" if or_null else "the name of a column is accepted"
    if not names:
        yield f"{KEY}.{field}: the list is empty; give one column for each rater, or null"
    for number, name in enumerate(names):
        if not isinstance(name, str) and not (or_null and name is None):
            yield f"{KEY}.{field}[{number}]: found {fields.shown(name)}; {accepted}"
        elif field == "score" and name in names[:number]:
            yield f"{KEY}.score[{number}]: {name!r} is listed twice; list each rater's score column once"


def _wide_problems(score: Any, cot: Any, rater: Any) -> Iterator[str]:
    """What does not go with a list of score columns."""
    if rater is not None:
        yield (
            f"{KEY}.rater: {fields.shown(rater)} is given beside a list of score columns, whose names are the raters' ids; set it to null, "
            "or map one score column where each row is one rating"
        )
    if isinstance(cot, str):
        others = ["null"] * (len(score) - 1)
        yield (
            f"{KEY}.cot: {cot!r} is one column beside {len(score)} score columns, which does not say whose CoT it is; write a list: "
            f"[{', '.join([cot, *others])}] for the first rater's, [{', '.join([cot] * len(score))}] for a text that holds for each score"
        )
    elif isinstance(cot, (list, tuple)) and len(cot) != len(score):
        yield (
            f"{KEY}.cot: found {len(cot)} columns for {len(score)} score columns; give one for each, in the order of "
            f"[{', '.join(map(str, score))}], null for a rater without CoTs"
        )
