"""Rows of one response by several raters: which are votes, which are copies, and what contradicts itself."""

from __future__ import annotations

import pytest

from tract.data.grouping import AnnotationGrouper
from tract.text.schema import Annotation, JudgeExample, Rating


def row(
    score: float, cot: str | None = None, rater: str | None = None, response: str = "r", target: float | None = None, own_id: str = ""
) -> JudgeExample:
    annotations = () if cot is None else (Annotation(cot, score, rater=rater),)
    ratings = (Rating(score, rater),) if cot is None else ()
    return JudgeExample(own_id or f"q-{response}", "q", "in", response, annotations=annotations, ratings=ratings, target_score=target)


def counts(gatherer: AnnotationGrouper) -> tuple[int, int, int, int]:
    return gatherer.n_annotations, gatherer.n_ratings, gatherer.n_equal_votes, gatherer.n_duplicates


@pytest.mark.parametrize("cot", ["Good.", None])
def test_equal_rows_without_a_rater_are_votes_where_the_source_says_so(cot: str | None) -> None:
    gatherer = AnnotationGrouper(True, equal_rows_are_votes=True)
    found = [gatherer.admit(row(score, cot)) for score in (5, 5, 2, 5)]
    assert [one.scores for one in found if one] == [(5,), (5,), (2,), (5,)]
    assert list(gatherer.groups) == [0, 0, 0, 0]
    assert counts(gatherer) == ((4, 0, 2, 0) if cot else (0, 4, 2, 0))


@pytest.mark.parametrize("cot", ["Good.", None])
def test_elsewhere_they_are_copies(cot: str | None) -> None:
    gatherer = AnnotationGrouper(True)
    assert [gatherer.admit(row(score, cot)) is not None for score in (5, 5, 2, 5)] == [True, False, True, False]
    assert counts(gatherer) == ((2, 0, 0, 2) if cot else (0, 2, 0, 2))


@pytest.mark.parametrize("cot", ["Good.", None])
def test_a_rater_judges_a_response_once(cot: str | None) -> None:
    gatherer = AnnotationGrouper(True, equal_rows_are_votes=True)
    raters = ["anna", "ben", "anna", None, None, "ben"]
    kept = [gatherer.admit(row(5, cot, rater)) is not None for rater in raters]
    assert kept == [True, True, False, True, True, False]
    assert gatherer.admit(row(2, cot, "anna", response="another")) is not None
    assert counts(gatherer)[2:] == (1, 2)  # the second row without a rater; the second ones of anna and ben


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (
            row(4, "Good.", "anna"),
            r"^rater: 'anna' gave 4 here, but 5 in an earlier row .*; keep one of them, or map data\.source\.columns\.id",
        ),
        (row(4, None, "anna"), r"^rater: 'anna' gave 4 here, but 5 in"),
        (row(5, "Fine.", "anna"), r"^rater: 'anna' gave 5 here, but the same score with other feedback in an earlier row"),
        (row(5, None, "anna"), r"^rater: 'anna' gave 5 here, but the same score with other feedback in"),
    ],
)
def test_a_rater_who_says_two_things_is_refused(again: JudgeExample, message: str) -> None:
    gatherer = AnnotationGrouper(True, equal_rows_are_votes=True)
    gatherer.admit(row(5, "Good.", "anna"))
    with pytest.raises(ValueError, match=message):
        gatherer.admit(again)
    assert counts(gatherer) == (1, 0, 0, 0)
    assert gatherer.admit(row(4, "Good.", "ben")) is not None


def test_rows_that_stay_apart_have_ids_of_their_own() -> None:
    gatherer = AnnotationGrouper(False, equal_rows_are_votes=True)
    found = [gatherer.admit(each) for each in (row(5), row(5), row(5), row(4), row(5, rater="a"), row(5, rater="b"))]
    assert len({one.id for one in found if one}) == 6
    assert list(gatherer.groups) == list(range(6))


def gathered(rows: list[tuple[str, str | None, float]], **how: bool) -> tuple[list[int], int]:
    """(final group of each row that was kept, duplicates) of (id, rater, score) with the same text."""
    gatherer = AnnotationGrouper(
        how.get("group", True), equal_rows_are_votes=True, ids_tell_apart=how.get("ids", True), rows_are_ratings=how.get("long", True)
    )
    for own_id, rater, score in rows:
        gatherer.admit(row(score, rater=rater, own_id=own_id))
    return list(gatherer.final_groups()), gatherer.n_duplicates


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([("t1", "ben", 2), ("t2", "ben", 3)], [0, 1]),  # a rater scored the same reply to two tickets
        ([("t1", "ben", 2), ("t2", "ben", 2)], [0, 1]),
        ([("t1", "ben", 2), ("t2", "anna", 2), ("t1", "anna", 3), ("t2", "ben", 1)], [0, 1, 0, 1]),
        ([("t1", "ben", 2), ("t1", "anna", 2), ("t2", "cleo", 3)], [0, 0, 1]),  # an id of several ratings is an item's
        ([("r1", "ben", 2), ("r2", "anna", 2), ("r3", "cleo", 3)], [0, 0, 0]),  # an id for each rating
        ([("r1", "ben", 2), ("r2", None, 2)], [0, 0]),
        ([("t1", None, 2), ("t2", None, 2), ("t3", None, 4)], [0, 1, 2]),  # nobody speaks of raters
    ],
)
def test_ids_tell_items_with_the_same_text_apart_unless_they_are_of_ratings(
    rows: list[tuple[str, str | None, float]], groups: list[int]
) -> None:
    assert gathered(rows) == (groups, 0)
    first, *rest = rows
    assert gathered([first, first, *rest]) == ((groups, 1) if first[1] else ([0, *groups], 0))


def test_where_a_row_is_an_item_ids_always_tell_apart() -> None:
    assert gathered([("t1", "ben_score", 2), ("t2", "ann_score", 2)], long=False) == ([0, 1], 0)


def test_other_targets_and_rows_without_scores_stay_apart_by_their_ids() -> None:
    gatherer = AnnotationGrouper(True, True, ids_tell_apart=True, rows_are_ratings=True)
    for own_id, target in (("a", 3.0), ("b", 4.0), ("c", None), ("a", 3.0)):
        gatherer.admit(JudgeExample(own_id, "q", "in", "r", target_score=target))
    assert (list(gatherer.final_groups()), gatherer.n_duplicates) == ([0, 1, 2], 1)
    with pytest.raises(ValueError, match=r"^split: test contradicts None of an earlier row with the same prompt"):
        gatherer.admit(JudgeExample("d", "q", "in", "r", split="test"))


def test_rows_that_stay_apart_have_raters_of_their_own() -> None:
    rows: list[tuple[str, str | None, float]] = [("q", "ben", 2), ("q", "ben", 3), ("q", "ben", 2), ("q", None, 2), ("q", None, 2)]
    assert gathered(rows, group=False, ids=False) == ([0, 1, 2, 3, 4], 0)
    assert gathered(rows, group=False) == ([0, 1, 2], 2)  # the same id, rater and score again


def test_a_target_of_its_own_is_no_vote() -> None:
    gatherer = AnnotationGrouper(True, equal_rows_are_votes=True)
    bare = JudgeExample("q-r", "q", "in", "r", target_score=4.5)
    assert [gatherer.admit(bare) is not None for _ in range(2)] == [True, False]
    assert counts(gatherer) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match=r"target_score: 3\.0 contradicts 4\.5"):
        gatherer.admit(JudgeExample("q-r", "q", "in", "r", target_score=3.0))


def test_number_spread_and_mean_of_raters() -> None:
    both = JudgeExample("i", "q", "in", "r", annotations=(Annotation("Good.", 5.0), Annotation("Good.", 5.0)), ratings=(Rating(2.0),))
    assert (both.n_raters, both.scores, both.target) == (3, (5.0, 5.0, 2.0), 4.0)
    assert both.rater_sd == pytest.approx(3**0.5)
    one = row(4)
    assert (one.n_raters, one.target, one.rater_sd) == (1, 4.0, None)
    none = JudgeExample("i", "q", "in", "r")
    assert (none.n_raters, none.target, none.rater_sd) == (0, None, None)
    assert row(4, target=3.5).target == 3.5
