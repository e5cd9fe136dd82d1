"""What each perturbation does to an example, and that nothing else of it moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tract.text.perturbations import ALL, ATTACK, FACT, LENGTH, PERTURBATIONS, Scale, perturbation_names, with_response
from tract.text.schema import JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid

SCALE = Scale(ScoreGrid(("1", "2", "3", "4.5")), " Verdict: ")
EXAMPLE = JudgeExample(
    "e", "q", "Do it.", "Done {best} {cue}.", "Done well.", Rubric("Is it done?", (("1", "No."), ("4.5", "Yes."))), target_score=2.0
)


def changed(name: str, example: JudgeExample = EXAMPLE) -> JudgeExample | None:
    change = PERTURBATIONS[name].change
    return change(example, SCALE) if change else None


@pytest.mark.parametrize("name", [name for name, found in PERTURBATIONS.items() if found.kind in (ATTACK, LENGTH)])
def test_attacks_and_padding_follow_the_response_and_change_nothing_else(name: str) -> None:
    found = changed(name)
    assert found is not None
    assert found.response.startswith(f"{EXAMPLE.response}\n\n")
    assert replace(found, response=EXAMPLE.response) == EXAMPLE
    added = found.response.removeprefix(EXAMPLE.response)
    if PERTURBATIONS[name].kind == ATTACK:
        assert "4.5" in added  # the highest score of this grid


@pytest.mark.parametrize("name", ["override", "cue", "forged_parts", "control_tokens"])
def test_attacks_use_the_cue_of_the_judge(name: str) -> None:
    found = changed(name)
    assert found is not None
    assert " Verdict: 4.5" in found.response


def test_braces_of_the_response_stay() -> None:
    found = changed("forged_parts")
    assert found is not None
    assert found.response.count("Done {best} {cue}.") == 2


def test_the_rubric_is_worded_or_ordered_otherwise() -> None:
    worded, turned = changed("rubric_paraphrase"), changed("rubric_reversed")
    assert worded is not None
    assert turned is not None
    assert worded.rubric is not None
    assert "Is it done?" in worded.rubric.criteria != "Is it done?"
    assert [label for label, _ in worded.rubric.descriptions] == ["1", "4.5"]
    assert turned.rubric == Rubric("Is it done?", (("4.5", "Yes."), ("1", "No.")))
    bare = changed("rubric_paraphrase", replace(EXAMPLE, rubric=Rubric("Is it done?", {1: "", 2: ""})))
    assert bare is not None
    assert bare.rubric == Rubric("Answer this question: Is it done?", {1: "", 2: ""})
    for found in (worded, turned):
        assert replace(found, rubric=EXAMPLE.rubric) == EXAMPLE


def test_what_is_not_there_cannot_be_changed() -> None:
    bare = replace(EXAMPLE, rubric=None, reference_answer=None, response=" ")
    names = ("rubric_paraphrase", "rubric_reversed", "no_reference", "repeated")
    assert [changed(name, bare) for name in names] == [None] * 4
    assert changed("rubric_reversed", replace(EXAMPLE, rubric=Rubric("Is it done?", (("1", "No."),)))) is None
    without = changed("no_reference")
    assert without is not None
    assert without.reference_answer is None


def test_a_finished_prompt_shows_the_changed_response_or_is_dropped() -> None:
    once = replace(EXAMPLE, prompt="Response: Done {best} {cue}. Grade it.")
    assert with_response(once, "New").prompt == "Response: New Grade it."
    for prompt in ("nothing", EXAMPLE.response * 2):
        assert with_response(replace(EXAMPLE, prompt=prompt), "New").prompt is None
    assert with_response(replace(once, response=""), "New").prompt is None


def test_names_are_taken_in_the_order_of_the_table() -> None:
    assert perturbation_names(["verbose", "beg"]) == ["beg", "verbose"]
    assert perturbation_names([ALL]) == list(PERTURBATIONS)
    assert perturbation_names([]) == []


def test_each_says_what_it_means_and_only_facts_are_left_to_a_source() -> None:
    assert all(found.meaning.endswith(".") for found in PERTURBATIONS.values())
    assert [name for name, found in PERTURBATIONS.items() if found.change is None] == ["one_more_met"]
    assert PERTURBATIONS["one_more_met"].kind == FACT
