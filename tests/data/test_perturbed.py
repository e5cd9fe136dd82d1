"""Changed examples of a store: they pair with the unchanged ones, and a computed score moves with the response."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tract.data.perturbed import Perturbed
from tract.data.sources.rubric_check.facts import constraints_of, one_more_met, rescored, true_score
from tract.data.sources.rubric_check.generator import RubricCheck
from tract.data.store import ExampleStore, build_store
from tract.text.perturbations import Scale
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(tuple("12345"))
SCALE = Scale(GRID, " So the overall score is ")
SOURCE = RubricCheck(
    n_questions=12, responses_per_question=2, n_ood_questions=4, annotations_per_response=1, n_constraints=4, cot_noise=0.0,
    score_noise=0.0, seed=3, kinds=None, wording="varied",
)  # fmt: skip
TEMPLATE = PromptTemplate(
    "template", "", ("Grade: {cue}", "{instruction}", "R: {response}", "B: {reference_answer}"), SCALE.cue, True, True, False, True
)
EXAMPLES = list(SOURCE.examples())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ExampleStore:
    return build_store(SOURCE, GRID, "raise", False, tmp_path_factory.mktemp("cache"), cue=None)


def test_the_constraints_of_an_example_count_its_score() -> None:
    for example in EXAMPLES:
        constraints = constraints_of(example)
        assert constraints is not None
        assert len(constraints) == 4
        assert str(true_score(constraints, example.response)) == example.meta["true_score"]
    assert constraints_of(replace(EXAMPLES[0], meta={})) is None


def test_one_more_met_is_exactly_one_more() -> None:
    for example in EXAMPLES:
        constraints, found = constraints_of(example), one_more_met(example)
        assert constraints is not None
        met = [constraint.check(example.response) for constraint in constraints]
        if all(met):
            assert found is None
            continue
        assert found is not None
        now = [constraint.check(found.response) for constraint in constraints]
        assert all(after or not before for before, after in zip(met, now, strict=True))
        assert sum(now) == sum(met) + 1
        assert replace(found, response=example.response) == example
        assert one_more_met(example) == found
    assert one_more_met(replace(EXAMPLES[0], meta={})) is None


def test_a_computed_score_moves_with_the_response_and_the_annotated_one_by_as_much() -> None:
    example = next(example for example in EXAMPLES if example.meta["true_score"] == "2")
    more = one_more_met(example)
    assert more is not None
    noisy = replace(example, target_score=3.0)
    found = rescored(replace(more, target_score=3.0), noisy)
    assert (found.meta["true_score"], found.target) == ("3", 4.0)
    assert rescored(noisy, noisy) == noisy
    foreign = replace(example, meta={})
    assert rescored(replace(foreign, response="other"), foreign).target == foreign.target


@pytest.mark.parametrize("name", ["beg", "verbose", "one_more_met", "no_reference", "rubric_reversed"])
def test_ids_and_questions_stay(name: str, store: ExampleStore, tmp_path: Path) -> None:
    rows = list(range(0, len(store), 3))
    source = Perturbed(store, rows, name, SCALE, TEMPLATE)
    if name == "rubric_reversed":  # this template shows no rubric
        assert source.examples == []
        return
    made = build_store(source, GRID, "raise", False, tmp_path, cue=None)
    before = {store.example(row).id: store.example(row) for row in rows}
    found = [made.example(row) for row in range(len(made))]
    assert set(example.id for example in found) <= set(before)
    assert all(example.question_id == before[example.id].question_id for example in found)
    expected = len(rows) if name != "one_more_met" else sum(one_more_met(example) is not None for example in before.values())
    assert len(found) == expected


def test_the_fingerprint_moves_with_all_that_decides() -> None:
    class Store:
        fingerprint = "a"

    def fingerprint(rows: list[int], name: str = "beg", scale: Scale = SCALE, template: PromptTemplate = TEMPLATE) -> str:
        return Perturbed(Store(), rows, name, scale, template).fingerprint()  # type: ignore[arg-type]

    others = [
        fingerprint([0, 2]), fingerprint([0, 1], "cue"), fingerprint([0, 1], scale=Scale(GRID, " Score: ")),
        fingerprint([0, 1], template=replace(TEMPLATE, use_reference=False)),
    ]  # fmt: skip
    assert len({fingerprint([0, 1]), *others}) == 5
    assert fingerprint([0, 1]) == fingerprint([0, 1])
