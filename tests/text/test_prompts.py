"""The wording of a prompt: what is filled in, left out, refused and shortened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tract.common.errors import ConfigError, DataError
from tract.text.prompts import GAP, PromptPart, PromptTemplate, PromptText
from tract.text.schema import JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3"))
EXAMPLE = JudgeExample(
    id="ex-7", question_id="q", instruction="Add 2 and 2.", response="It is 4.", reference_answer="4",
    rubric=Rubric("Is it right?", (("1", "Wrong."), ("3", "Right."))),
)  # fmt: skip
BLOCKS = (
    'Grade it; end with "{cue} N", N in {scores}, {highest} is best, {lowest} worst.',
    "Instruction: {instruction}",
    "Response: {response}",
    "Reference: {reference_answer}",
    "Criterion: {criteria}\n{score_descriptions}",
    "Feedback: ",
)


def template(**changes: Any) -> PromptTemplate:
    """The template of these tests, with changes."""
    arguments: dict[str, Any] = {
        "source": "template", "system": "You give {lowest} to {highest}.", "blocks": BLOCKS, "cue": " Score: ",
        "use_reference": True, "require_cue_in_prompt": True, "reword_output_format": True, "escape_headings": True,
    }  # fmt: skip
    return PromptTemplate(**{**arguments, **changes})


FULL = (
    'Grade it; end with "Score: N", N in 1, 2, 3, 3 is best, 1 worst.\n\nInstruction: Add 2 and 2.\n\nResponse: It is 4.\n\n'
    "Reference: 4\n\nCriterion: Is it right?\nScore 1: Wrong.\nScore 3: Right.\n\nFeedback: "
)


# --- the template


def test_a_template_is_filled() -> None:
    prompt = template().render(EXAMPLE, GRID)
    assert prompt.user == FULL
    assert prompt.system == "You give 1 to 3."


def test_parts_name_the_fields_that_they_show() -> None:
    parts = template().render(EXAMPLE, GRID).parts
    assert [(part.field, part.text) for part in parts if part.field] == [
        ("instruction", "Add 2 and 2."), ("response", "It is 4."), ("reference_answer", "4"),
        ("criteria", "Is it right?"), ("score_descriptions", "Score 1: Wrong.\nScore 3: Right."),
    ]  # fmt: skip
    assert all(part.text for part in parts)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_reference_takes_its_block_along(missing: str | None) -> None:
    found = template().render(replace(EXAMPLE, reference_answer=missing), GRID)
    assert found.user == FULL.replace("Reference: 4\n\n", "")


def test_the_reference_can_be_kept_from_the_judge() -> None:
    assert template(use_reference=False).render(EXAMPLE, GRID).user == FULL.replace("Reference: 4\n\n", "")


def test_a_missing_rubric_takes_its_block_along() -> None:
    expected = FULL.replace("Criterion: Is it right?\nScore 1: Wrong.\nScore 3: Right.\n\n", "")
    assert template().render(replace(EXAMPLE, rubric=None), GRID).user == expected
    assert template().render(replace(EXAMPLE, rubric=Rubric("Is it right?")), GRID).user == expected  # no descriptions
    assert template().render(replace(EXAMPLE, rubric=Rubric("Is it right?", {1: "", 3: " "})), GRID).user == expected


def test_a_first_block_that_is_left_out_leaves_no_blank_line() -> None:
    found = template(blocks=("{reference_answer}", "Score: {response}")).render(replace(EXAMPLE, reference_answer=None), GRID)
    assert found.user == "Score: It is 4."


def test_fields_are_shown_verbatim() -> None:
    text = "  two blanks, a line\n\n and a blank "
    assert f"Response: {text}\n\nReference" in template().render(replace(EXAMPLE, response=text), GRID).user


@pytest.mark.parametrize("hostile", ["{instruction}", "{cue}", "{reference_answer} {unknown}", "{{response}}", "\\1 \\g<0>", "%s {0}"])
def test_placeholders_in_the_examples_own_text_stay_text(hostile: str) -> None:
    example = replace(EXAMPLE, instruction=hostile, response=hostile, reference_answer=hostile, rubric=Rubric(hostile, (("1", hostile),)))
    found = template().render(example, GRID)
    assert [part.text for part in found.parts if part.field] == [hostile, hostile, hostile, hostile, f"Score 1: {hostile}"]


def test_a_template_needs_an_instruction() -> None:
    with pytest.raises(DataError, match="ex-7: has no separate instruction and response .*; use prompt=finished"):
        template().render(replace(EXAMPLE, instruction=""), GRID)


def test_a_response_that_would_be_left_out_with_its_block_is_refused() -> None:
    mixed = template(blocks=("Score: ", "{response} against {reference_answer}"))
    assert mixed.render(EXAMPLE, GRID).user == "Score: \n\nIt is 4. against 4"
    with pytest.raises(DataError, match=r"ex-7: the prompt would not show the response.*give \{response\} a block of its own"):
        mixed.render(replace(EXAMPLE, reference_answer=None), GRID)


# --- what a configuration may say


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "both"}, "prompt.source: 'both' is not accepted; use 'template' or 'finished'"),
        ({"cue": "  "}, "prompt.cue: '  ' is blank"),
        ({"cue": ""}, "prompt.cue: '' is blank"),
        ({"blocks": ("{response}", "{rubrik}")}, r"prompt.blocks\[1\]: unknown placeholder \{rubrik\}; accepted are instruction, response"),
        ({"blocks": ("{response}", "{orig_score1_description}")}, r"unknown placeholder \{orig_score1_description\}"),
        ({"blocks": ("{response}", "{Instruction}")}, r"unknown placeholder \{Instruction\}"),
        ({"system": "{grid}"}, r"prompt.system: unknown placeholder \{grid\}"),
        ({"system": "{response}"}, r"prompt.system: unknown placeholder \{response\}; accepted are lowest, highest, scores, cue"),
        ({"blocks": ("Score: {instruction}",)}, r"prompt.blocks: no block holds \{response\}"),
        ({"blocks": ()}, r"no block holds \{response\}"),
    ],
)
def test_a_wrong_template_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        template(**changes)


@pytest.mark.parametrize("text", ['{"score": 3}', "{ }", "{}", "{1}", "{{", "f(x) {"])
def test_other_braces_in_a_template_are_text(text: str) -> None:
    assert template(blocks=("Score: {response}", text)).render(EXAMPLE, GRID).user == f"Score: It is 4.\n\n{text}"


def test_a_prompt_that_does_not_ask_for_the_cue_is_refused() -> None:
    silent = template(blocks=("Grade {response}",))
    with pytest.raises(DataError, match="ex-7: its prompt does not ask for the answer cue 'Score:' that is trained"):
        silent.render(EXAMPLE, GRID)
    with pytest.raises(DataError, match="does not ask for the answer cue"):  # what the response says does not count
        silent.render(replace(EXAMPLE, response="Score: 3"), GRID)
    assert template(blocks=("Grade {response}",), require_cue_in_prompt=False).render(EXAMPLE, GRID).user == "Grade It is 4."
    assert template(blocks=("Grade {response}",), system='End with "{cue} N".').render(EXAMPLE, GRID).system == 'End with "Score: N".'


# --- finished prompts

FINISHED = "Do: Add 2 and 2.\nGot: It is 4.\nBest: exactly four\nEnd with Score: N. "


def finished(**changes: Any) -> PromptTemplate:
    return template(source="finished", system="", blocks=(), **changes)


def parts_of(prompt: str, **changes: Any) -> list[tuple[str, str | None]]:
    example = replace(EXAMPLE, prompt=prompt, **{"reference_answer": "exactly four", **changes})
    found = finished().render(example, GRID)
    assert found.user == prompt  # verbatim, the blank at its end included
    assert found.system == ""
    return [(part.text, part.field) for part in found.parts]


def test_a_finished_prompt_is_verbatim_and_knows_where_its_long_fields_are() -> None:
    assert parts_of(FINISHED) == [
        ("Do: Add 2 and 2.\nGot: ", None), ("It is 4.", "response"), ("\nBest: ", None), ("exactly four", "reference_answer"),
        ("\nEnd with Score: N. ", None),
    ]  # fmt: skip


def test_a_field_that_stands_twice_is_not_cut_out() -> None:
    twice = FINISHED + "It is 4."
    assert parts_of(twice) == [
        ("Do: Add 2 and 2.\nGot: It is 4.\nBest: ", None), ("exactly four", "reference_answer"), ("\nEnd with Score: N. It is 4.", None),
    ]  # fmt: skip


def test_fields_that_are_absent_or_inside_one_another_stay_text() -> None:
    assert parts_of(FINISHED, response="gone", reference_answer=None) == [(FINISHED, None)]
    inside = "Got: four\nBest: a four\nScore: "
    assert parts_of(inside, response="a four", reference_answer="four") == [
        ("Got: four\nBest: ", None),
        ("a four", "response"),
        ("\nScore: ", None),
    ]
    within = "Best: exactly four\nScore: "
    assert [field for _, field in parts_of(within, response="four")] == [None, "response", None]


def test_a_field_at_the_edge_leaves_no_empty_part() -> None:
    assert parts_of("It is 4.\nScore: ") == [("It is 4.", "response"), ("\nScore: ", None)]


def test_a_finished_prompt_must_be_there_and_ask_for_the_cue() -> None:
    with pytest.raises(DataError, match="ex-7: has no finished prompt; use prompt=rubric"):
        finished().render(EXAMPLE, GRID)
    other = replace(EXAMPLE, prompt="Got: It is 4. End with [RESULT] N.")
    with pytest.raises(DataError, match="ex-7: its prompt does not ask for the answer cue 'Score:'"):
        finished().render(other, GRID)
    assert finished(require_cue_in_prompt=False).render(other, GRID).user == other.prompt


# --- shortening


def test_shortening_keeps_head_and_tail_of_that_field_alone() -> None:
    prompt = PromptText(
        "sys",
        (
            PromptPart("wording that is long enough to cut"),
            PromptPart("abcdefghij" * 3, "response"),
            PromptPart("0123456789" * 3, "criteria"),
        ),
    )
    found = prompt.shorten("response", 7)
    assert found.parts == (prompt.parts[0], PromptPart("abcd" + GAP + "hij", "response"), prompt.parts[2])
    assert found.system == "sys"
    assert prompt.shorten("response", 0).parts[1].text == GAP
    assert prompt.shorten("response", 1).parts[1].text == "a" + GAP
    assert prompt.shorten("reference_answer", 0) == prompt


def test_shortening_never_makes_a_text_longer() -> None:
    text = "abcdefghij" * 2
    prompt = PromptText("", (PromptPart(text, "response"),))
    lengths = [len(prompt.shorten("response", keep).user) for keep in range(25)]
    assert lengths == sorted(lengths)
    assert max(lengths) == len(text)
    assert prompt.shorten("response", len(text)) == prompt


def test_an_empty_response_is_shown_as_such_and_an_empty_reference_is_none() -> None:
    template = PromptTemplate(
        "template", "", ("I: {instruction}", "R: {response}|", "A: {reference_answer}"), " cue ", True, False, False, True
    )
    example = JudgeExample(id="e", question_id="q", instruction="Say nothing.", response="", reference_answer="")
    assert template.render(example, ScoreGrid(("1", "2"))).user == "I: Say nothing.\n\nR: |"


# The wording of prometheus-eval's absolute grading around its output format, and what a response may hold.
TASK = (
    '3. The output format should look as follows: "Feedback: (write a feedback for criteria) [RESULT] (an integer number between 1 and 5)"'
)
REWORDED = TASK.replace("[RESULT]", "So the overall score is")


def finished_example(response: str) -> JudgeExample:
    prompt = f"###Task Description:\n{TASK}\n\n###Response to evaluate:\n{response}\n\n###Feedback: "
    return JudgeExample("a", "q", "Why?", response, prompt=prompt)


def finished_template(**changes: Any) -> PromptTemplate:
    options = {"use_reference": True, "require_cue_in_prompt": True, "reword_output_format": True, "escape_headings": False}
    return PromptTemplate("finished", "", (), " So the overall score is ", **{**options, **changes})


@pytest.mark.parametrize(
    "response", ["Fine.", "[RESULT] (an integer number between 1 and 5)", "Say [RESULT] (a number) twice.", "[RESULT] 5"]
)
def test_a_finished_prompt_asks_for_the_cue_and_shows_the_response_as_it_is(response: str) -> None:
    example = finished_example(response)
    shown = finished_template().render(example, GRID).user
    assert shown == example.prompt.replace(TASK, REWORDED)
    assert finished_template(reword_output_format=False, require_cue_in_prompt=False).render(example, GRID).user == example.prompt


def test_a_finished_prompt_that_asks_for_something_else_stays() -> None:
    asked = 'Answer in this form: "[RESULT] (A or B)".'
    example = JudgeExample("a", "q", "Why?", "Fine.", prompt=f"{asked}\nFine.")
    assert finished_template(require_cue_in_prompt=False).render(example, GRID).user == example.prompt
    with pytest.raises(DataError, match="does not ask for the answer cue 'So the overall score is'"):
        finished_template().render(example, GRID)
