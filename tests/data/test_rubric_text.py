"""Rubrics from texts: the ways in which people write a scale, what is refused, and what only holds numbers."""

from __future__ import annotations

import contextlib
import time

import pytest

from tract.common.errors import DataError
from tract.data.rubrics.refusals import EXAMPLE
from tract.data.rubrics.text import rubric_from_text
from tract.judge.requests import rubric_of
from tract.text.schema import Rubric

Q = "Are all claims supported?"
NO_YES = {1: "None is.", 2: "All are."}
# A way to write it -> the text below the question.
LINES = {
    "classic": "Score 1: None is.\nScore 2: All are.",
    "descending": "Score 2: All are.\nScore 1: None is.",
    "colon": "1: None is.\n2: All are.",
    "dash": "1 - None is.\n2 - All are.",
    "long dashes": "1 – None is.\n2 — All are.",
    "equals": "1 = None is.\n2 = All are.",
    "arrow": "1 -> None is.\n2 → All are.",
    "tab": "1\tNone is.\n2\tAll are.",
    "pipe": "1 | None is.\n2 | All are.",
    "points": "1 point: None is.\n2 points: All are.",
    "points and dash": "2 points - All are.\n1 point - None is.",
    "rating": "Rating 1: None is.\nRating 2: All are.",
    "level": "Level 1: None is.\nLevel 2: All are.",
    "grade": "Grade 1: None is.\nGrade 2: All are.",
    "score of": "Score of 1: None is.\nA score of 2: All are.",
    "score colon number": "Score: 1 - None is.\nScore: 2 - All are.",
    "hyphen": "Score-1: None is.\nScore-2: All are.",
    "hash": "#1: None is.\n#2: All are.",
    "tight dash": "Score 1—None is.\nScore 2—All are.",
    "no separator": "Score 1 None is.\nScore 2 All are.",
    "out of": "1/2: None is.\n2/2: All are.",
    "bullets": "- 1: None is.\n- 2: All are.",
    "bold": "**Score 1**: None is.\n**Score 2**: All are.",
    "bold inside": "**Score 1:** None is.\n**Score 2:** All are.",
    "bold bullet": "* **1** - None is.\n* **2** - All are.",
    "bold line": "**Score 1: None is.**\n**Score 2: All are.**",
    "quotes": '"1": "None is.",\n"2": "All are."',
    "headings": "### Score 1\nNone is.\n\n### Score 2\n\nAll are.",
    "text below": "Score 1:\n  None is.\nScore 2:\n  All are.",
    "underscores": "score1_description: None is.\nscore2_description: All are.",
    "numbered lines": "1. Score 1: None is.\n2. Score 2: All are.",
    "HTML": "<b>Score 1</b>: None is.<br><b>Score 2</b>: All are.",
    "HTML list": "<ul><li>1: None is.</li><li>2: All are.</li></ul>",
    "table": "| 1 | None is. |\n| 2 | All are. |",
    "table with heading": "| Score | Meaning |\n|:--|--|\n| 1 | None is. |\n| 2 | All are. |",
    "scores last": "| None is. | 1 |\n| All are. | 2 |",
    "table across": "| Score | 1 | 2 |\n|---|---|---|\n| Meaning | None is. | All are. |",
    "full width": "１：None is.\n２：All are.",
    "keycaps": "1️⃣: None is.\n2️⃣: All are.",
    "heading above": "Scale:\n1. None is.\n2. All are.",
    "rubric heading": "### Score Rubric\n1: None is.\n2: All are.",
    "2. before 1.": "2. All are.\n1. None is.",
    "means": "1 means None is.\n2 means All are.",
    "one line": "1: None is.; 2: All are.",
    "one line, equals": "1=None is. 2=All are.",
    "in parentheses": "(1 = None is., 2 = All are.)",
    "in brackets": "[1: None is. | 2: All are.]",
    "one line, named": "Score 1: None is. Score 2: All are.",
    "blank lines": "1 - None is.\n\n2 - All are.",
    "in braces": "{1: 'None is.', 2: 'All are.'}",
    "one line, wrapped": "1: None is.;\n2: All are.",
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("form", LINES)
def test_the_scale_is_found(form: str, end: str) -> None:
    for question in (Q, f"[{Q}]")[: 1 if form == "text below" else 2]:  # with brackets it is of the classic form, which stays verbatim
        assert rubric_from_text(f"{question}\n{LINES[form]}\n".replace("\n", end)) == Rubric(Q, NO_YES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{Q}\nScore 1 (poor): no\nScore 2 (good): yes", {1: "poor: no", 2: "good: yes"}),
        (f"{Q}\n1 (Poor)\n2 (Good)", {1: "Poor", 2: "Good"}),
        (f"{Q}\n0: a\n25: b\n100: c", {0: "a", 25: "b", 100: "c"}),
        (f"{Q}\n−1: a\n0: b\n+1: c", {-1: "a", 0: "b", 1: "c"}),
        (f"{Q}\n1: a\n1.5: b\n2: c", {1: "a", 1.5: "b", 2: "c"}),
        (f"{Q}\n1-2: weak\n3–4: strong", {1: "weak", 2: "weak", 3: "strong", 4: "strong"}),
        (f"{Q}\nScore 1: a\n\nb\n\nScore 2: c", {1: "a\n\nb", 2: "c"}),
        (f"{Q}\nScore 1: see\n1. a\n2. b\nScore 2: c", {1: "see\n1. a\n2. b", 2: "c"}),
        (f"{Q}\n| Score | Name | Meaning |\n|-|-|-|\n| 1 | Bad | no |\n| 3 | Good | yes |", {1: "Bad: no", 3: "Good: yes"}),
        (f"{Q}\nScore 1: a\n| 4 | x |\n| 5 | y |\nScore 2: b", {1: "a\n| 4 | x |\n| 5 | y |", 2: "b"}),
        (f"{Q}\nScore 1:\nScore 2:\nScore 3:", {1: "", 2: "", 3: ""}),
        (f"{Q}\n" + "\n".join(f"{n}: l{n}" for n in range(11)), {n: f"l{n}" for n in range(11)}),
        (f'{{"criteria": "{Q}", "descriptions": {{"0": "no", "1": "yes"}}}}', {0: "no", 1: "yes"}),
        (f'```json\n{{"criteria": "{Q}", "score1_description": "no", "score5_description": "yes"}}\n```', {1: "no", 5: "yes"}),
        (f'score1_description: "no"\nscore5_description: "yes"\ncriteria: {Q}', {1: "no", 5: "yes"}),
        (f"criteria: {Q}\ndescriptions:\n  0: n\n  1: y", {0: "n", 1: "y"}),
        (f"{{'criteria': '{Q}', 'descriptions': {{0: 'n', 1: 'y'}}}}", {0: "n", 1: "y"}),
    ],
)
def test_titles_gaps_ranges_and_long_descriptions(text: str, expected: dict[float, str]) -> None:
    assert rubric_from_text(text) == Rubric(Q, expected)


def test_text_around_the_scores_is_the_criterion() -> None:
    assert rubric_from_text(f"1: no\n2: yes\n\n{Q}") == Rubric(Q, {1: "no", 2: "yes"})
    assert rubric_from_text(f"{Q}\n1: no\n2: yes\n\nBe strict.") == Rubric(f"{Q}\n\nBe strict.", {1: "no", 2: "yes"})
    assert rubric_from_text(f"{Q} (0 = no, 1 = yes) Be strict.") == Rubric(f"{Q} Be strict.", {0: "no", 1: "yes"})


def test_the_classic_form_stays_verbatim() -> None:
    text = "[ Is it\nright? ]\nScore 1:  none \n\n1: not this\nScore 10: all\n"
    assert rubric_from_text(text) == Rubric(" Is it\nright? ", {1: " none \n\n1: not this", 10: "all"})


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Rate the helpfulness from 1 to 10.", range(1, 11)),
        ("On a scale of 0-3, how kind is it?", range(4)),
        ("Is it kind? Please rate it on a scale from 1 (worst) to 5 (best).", range(1, 6)),
        ("Is it kind? Score: 1-7", range(1, 8)),
        ("Is it kind? (scale 1-4)", range(1, 5)),
        ("Scores range from 0 to 100, where 100 is best.", range(101)),
        ("Rate the reply from 1 to 5 by these:\n1. No lies.\n2. No insults.", range(1, 6)),
    ],
)
def test_a_range_gives_scores_without_descriptions(text: str, scores: range) -> None:
    assert rubric_from_text(text) == Rubric(text, dict.fromkeys(scores, ""))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{Q}\n1. no lies\n2. no insults", "cannot tell whether '1. no lies' and '2. no insults' are scores or a numbered list"),
        (f"{Q} 1. No lies. 2. No insults.", "are scores or a numbered list"),
        ("Rate the reply from 1 to 2 by these:\n1. No lies.\n2. No insults.", "are scores or a numbered list"),
        (f"{Q}\n| Item | Price |\n|--|--|\n| A | 5 |\n| B | 10 |", "cannot tell whether the numbers of 'Price' in a table are scores"),
        (f"{Q}\n| Score | Name |\n|--|--|\n| 2 | A |\n| 1 | B |\n| 3 | C |", "the numbers '2, 1, 3' are in no order"),
        (f"{Q}\n(1) a\n(2) b", "are scores or a numbered list"),
        (f"{Q}\n[1] a\n[2] b", "are scores or a numbered list"),
        (f"{Q}\n1️⃣ a\n2️⃣ b", "are scores or a numbered list"),
        (f"{Q}\n① a\n② b", "are scores or a numbered list"),
        (f"{Q}\n1: a\n2: b\n2: c", "the score 2 is described twice"),
        (f"{Q}\n1-3: a\n3-5: b", "the score 3 is described twice"),
        (f"{Q}\n1: a\n2:\n3: c", "the score 2 has no description, others have one"),
        (f"{Q}\nScore 1: a", "found one score, 'Score 1: a'; two or more are a scale"),
        (f"{Q}\n2: b\n1: a\n3: c", "the numbers '2, 1, 3' are in no order"),
        (f"{Q}\n1: a\n2: b\n3+: c", "cannot tell whether '3\\+: c' is a score"),
        (f"{Q}\n1: a\n1,5: b\n2: c", "cannot tell whether '1,5: b' is a score"),
        (f"{Q}\nScore 1: a\nScore 2: b\n3: c", "writes scores in several ways, as 'Score 1: a' and '3: c'"),
        ("Scale: 1: a\n2: b\n3: c", "the score 1 does not begin its line, others do"),
        ("1: a\n2: b", "describes the scores '1, 2', but not what is judged"),
        (f"{Q}\n3-1: a\n4: b", "the range 3-1 is not one of up to 101 whole numbers"),
        ("It happened. 1990: born; 2000: died", "found 1990 where a score is expected"),
        (f"{Q}\n" + "\n".join(f"{n}: a" for n in range(102)), "found 102 marks of scores; up to 101 are accepted"),
        ('{"criteria": "a", "descriptions": {"1": "b"', "looks like JSON or YAML .* but cannot be read"),
        ('{"criteria": "a", "criteria": "b", "descriptions": {}}', "the key criteria stands twice"),
        (f"{Q}\nPass: all are.\nFail: some are not.", "names scores by words"),
        (f"{Q} Answer yes or no.", "names scores by words"),
        (f"{Q} (good/fair/bad)", "names scores by words"),
        (f"{Q}\nA: all\nB: some\nC: none", "names scores by words"),
        (f"{Q}\none: none\ntwo: all", "names scores by words"),
        (f"{Q}\nExcellent - all\nPoor - none", "names scores by words"),
        (f"{Q}\n★: none\n★★: all", "names scores by words"),
        (f"{Q} Give a 1 if none is and a 5 if all are.", "speaks of scores"),
        (f"{Q} Use 1 for none, 2 for some, and 3 for all.", "speaks of scores"),
        ("How kind is it, 5 being best?", "speaks of scores"),
        ("Add 1 point if it is kind. Add 1 point if it is right.", "speaks of points"),
        (f"{Q}\nall (2 points)\nnone (0 points)", "speaks of points"),
        (f"Score it out of 10. {Q}", "names the highest score, not the lowest"),
        ("Kindness (1-5)", "speaks of a scale without describing its scores"),
        ("Does it rate the movie from 1 to 10?", "speaks of a scale without describing its scores"),
        (f"{Q} (0/1)", "may name a scale"),
        (f"{Q}\n1 or 2: none\n3 or 4: all", "may name a scale"),
        (f"{Q}\n1, 2: none\n3, 4: all", "may name a scale"),
        (f"{Q} Disagree (1), agree (2)", "may name a scale"),
        (f"{Q} Binary: 1/0", "may name a scale"),
        (f"{Q} Score between 0.0 and 1.0.", "may name a scale"),
        (f"{Q} Rate from one to five.", "names scores by words"),
        (f"{Q}\nLevel one: none\nLevel two: all", "names scores by words"),
        (f"{Q} [1-5]", "speaks of a scale without describing"),
        (f"Support [0-10]: {Q}", "speaks of a scale without describing"),
        (f"{Q} Respond with a number 1-5.", "speaks of a scale without describing"),
        (f"{Q} Answer with 0 or 1.", "asks for one of several numbers"),
        (f"{Q} Output 1 if so, otherwise 0.", "asks for one of several numbers"),
        (f"{Q} Max score: 5", "names the highest score, not the lowest"),
        (f"{Q} Use a five-point scale.", "says how many scores there are, not which"),
        (f"{Q}\nLikert 1: none; Likert 5: all", "has several numbered parts"),
        ("Rate it 1, 2 or 3.", "may name a scale"),
        (f"{Q}\nHigh (3): all\nLow (1): none", "may name a scale"),
        (f"{Q}\n<3: none\n>=3: all", "may name a scale"),
        (f"{Q}\n1 none\n2 all", "has several lines that begin with a number"),
        (f"{Q}\n1st: none\n2nd: all", "has several lines that begin with a number"),
        (f"{Q}\nif none, 1\nif all, 2", "has several lines that end with a number"),
        (f"{Q}\nNote 1: gut\nNote 2: schlecht", "has several numbered lines"),
        ("<score1>none</score1><score2>all</score2>", "names several scores"),
    ],
)
def test_what_leaves_doubt_is_refused_with_an_example(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as error:
        rubric_from_text(text)
    assert "\n" not in str(error.value)
    assert EXAMPLE in str(error.value) or '{"criteria": ' in str(error.value) or "stands twice" in str(error.value)


SOME = "1: no\n2: some\n3: all"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Check these:\n{SOME}\nRate from 1 to 10.", "describes the scores '1, 2, 3', but 'Rate from 1 to 10' names others"),
        (f"Check these:\n{SOME}\n\nScore from 1 to 5.", "but 'Score from 1 to 5' names others"),
        (f"Rate it from one to five.\n{SOME}", "but 'Rate it from one to five' names others"),
        (f"Rate it from 10 to 1.\n{SOME}", "but 'Rate it from 10 to 1' names others"),
        (f"Rate 1 to 5.\n{SOME}", "but 'Rate 1 to 5' names others"),
        (f"Use a 1-10 scale.\n{SOME}", "but '1-10 scale' names others"),
        (f"Score it out of 10.\n{SOME}", "but 'Score it out of 10' names others"),
        (f"Use a five-point scale.\n{SOME}", "but 'five-point scale' names others"),
        (f"Support (1-10)\n{SOME}", "but '1-10\\)' names others"),
        (f"Max score: 5\n{SOME}", "but 'Max score: 5' names others"),
        ("Aspects: 1: grammar; 2: style. Rate from 1 to 10.", "but 'Rate from 1 to 10' names others"),
        (f"{Q}\n| 1 | no |\n| 2 | yes |\n\nRate it from 1 to 5.", "but 'Rate it from 1 to 5' names others"),
        (f"[{Q}]\nScore 1: no\nScore 2: yes\nRate from 1 to 10.", "but 'Rate from 1 to 10' names others"),
        (f"{Q}\nScale:\n1. no\n2. some\n3. all\nRate from 1 to 10.", "but 'Rate from 1 to 10' names others"),
        ("Rate from 1 to 5.\n1: no\n2.5: some\n5: all", "but 'Rate from 1 to 5' names 2 as well"),
        ("Rate from 1 to 5, with 0.5 steps.", "'0.5 steps' names steps between the scores '1, 2, 3, 4, 5'"),
        ("Rate from 1 to 5 in half-point increments.", "'half-point' names steps"),
        ("Rate from 1 to 5; half points are allowed.", "'half points' names steps"),
        ("Rate from 1 to 5 (decimals allowed).", "'decimals allowed' names steps"),
        ("Rate from 0 to 10 in steps of 2.", "'steps of 2' names steps"),
        ("Score from 0 to 100 in 10-point increments.", "'10-point increments' names steps"),
        (f"Half points are fine.\n{SOME}", "'Half points' names steps"),
        ("Rate from 1 to 5, or 0 if it is empty.", "'or 0 if' names a score beside '1, 2, 3, 4, 5'"),
        ("Rate from 1 to 5. If it is empty, give 0.", "'If it is empty, give 0' names a score beside"),
        ("How kind is it, from 1 to 10?\n1: no\n2: yes", "but 'How kind is it, from 1 to 10' names others"),
        (f"{Q}\n1: no\n2: yes\nThe score must be between 0 and 100.", "but 'score must be between 0 and 100' names others"),
        ("Rate from 1 to 5 or N/A.", "'or N/A' names a score beside"),
        (f"[{Q}]\nScore 1: a\n\nScore 2: b Score 3: c", "the score 3 does not begin its line, others do"),
        (f"{Q}\nScore 1: a\nScore 2: b Score 3: c", "the score 3 does not begin its line, others do"),
        (f"{Q}\n1: a\n2: b; 3: c", "the score 3 does not begin its line, others do"),
        (f"{Q}\n1 - a\n2 - b 3 - c", "the score 3 does not begin its line, others do"),
    ],
)
def test_scores_that_a_sentence_contradicts_are_refused(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as error:
        rubric_from_text(text)
    assert EXAMPLE in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "On a scale from 1 to 5, is it kind? 1 = rude, 5 = kind",
        "Rate from 1 to 5.\n1: rude\n3: neutral\n5: kind",
        "[Rate from 1 to 5: is it kind?]\nScore 1: rude\nScore 5: kind",
        "Is it kind? Use a five-point scale. 1 = rude, 5 = kind",
        "Rate kindness out of 5 (1 = rude, 5 = kind).",
        "Rate from 1 to 5 in steps of 1. No half points.",
    ],
)
def test_anchors_of_a_range_leave_all_its_scores_and_the_text_as_criterion(text: str) -> None:
    assert rubric_from_text(text) == Rubric(text, dict.fromkeys(range(1, 6), ""))


@pytest.mark.parametrize(
    "sentence",
    [
        "Rate from 1 to 3.",
        "Rate from three to one.",
        "Score it out of 3.",
        "Use a three-point scale.",
        "Does it rate the film from 1 to 10?",
        "Does it use a 1-10 scale?",
        "Does it give 1 to 2 reasons?",
        "It covers pages 10-12.",
        "Use whole numbers from 1 to 3, no decimals.",
    ],
)
def test_a_sentence_that_agrees_or_speaks_of_the_response_leaves_the_scores(sentence: str) -> None:
    assert rubric_from_text(f"{sentence}\n{SOME}") == Rubric(sentence, {1: "no", 2: "some", 3: "all"})


@pytest.mark.parametrize(
    "text",
    [
        f"{Q}\npoor (1)\ngood (5)",
        f"{Q}\npoor 1\ngood 5",
        f"{Q}\n- none [0]\n- all [1]",
        "Not kind [1] very kind [5]",
        "How helpful? 1 (not at all) 2 3 4 5 (very)",
        "Rate accuracy: 1 2 3 4 5",
        "Kind? 1 | 2 | 3 | 4 | 5",
        "Kind? rude 1 2 3 4 5 kind",
        f"{Q}\n[ ] 1 [ ] 2 [ ] 3",
        f"{Q} [1] bad [2] good",
        f"{Q} {{0}} no {{1}} yes",
        "Pass/Fail: is it right?",
        "Yes/No - is it right?",
        "Is it right - yes/no",
        "True or false: it is right.",
        "Grade A-F",
        "Rate it from A to E.",
        "Give a letter grade.",
        "Rate it out of five",
        "five-point scale",
        "Rate it on a scale of ten.",
        "Likert scale: is it kind?",
        "Give between one and five stars.",
        "Rate 1 through 5 for kindness",
        "Rate kindness in percent.",
        "Kindness 1 to 5",
        "Kindness, 0 or 1",
        "Rate from A (best) to F (worst)",
        "Kind? [Y/N]",
        "met / not met",
        "Ten is best, one is worst.",
        "0-to-10 scale of kindness",
        "Use the numbers 1, 2 and 3.",
        "Is it kind? \u2b50 to \u2b50\u2b50\u2b50",
    ],
)
def test_no_text_that_names_a_scale_is_a_criterion_alone(text: str) -> None:
    with pytest.raises(DataError, match=r"^rubric: .*; write each score on a line of its own"):
        rubric_from_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Does it list 3 reasons?",
        "The answer cites sources [1], [2] and [3].",
        "Does it cite Smith (3) and Jones (4)?",
        "Does it print 1 2 3 4 5?",
        "Does it explain pass/fail grading and Likert scales?",
        "Does it explain the grade A-F system?",
        "Vitamin A, B and C are named.",
        "Covers chapters 1 to 5",
        "Assess whether the summary covers pages 10-12.",
        "It gives the score of the game, 3 to 1.",
        "The plan covers\nChapter 1\nChapter 2",
        "Is it good for children aged 3 to 5?",
        "Does it say that the film got 4 out of 5 stars?",
        "Is the number of steps between 3 and 7?",
        "The recipe needs 2 eggs, 100 g of flour and 1 cup of milk.",
        "The code passes 3 tests and fails 1.",
        "Rate how well the 3 steps are explained.",
        "Is 2+2=4 stated?",
        "The response cites section 4: Taxes",
        "It cites section 4: Taxes and section 5: Fees",
        "Is the meeting at 10:30 mentioned, and 11:45?",
        "Is the ratio 3:1 given?",
        "Does it give 1 to 3 reasons?",
        "It must answer in 1-2 sentences.",
        "Does it summarize pages 3-5?",
        "Does it answer yes/no questions?",
        "Does it say yes or no clearly?",
        "Is it good or bad?",
        "Does the code return 0 or 1?",
        "Does it return 1 if the list is empty, otherwise 0?",
        "Is the list sorted: 1, 2, 3?",
        "Does it cite Article 5(1)?",
        "Are the dates 2020-01-01 to 2020-12-31 covered?",
        "Is the score of the match 3-1 given?",
        "Is it written for grade 5 pupils?",
        "Does it use Python 3.11 or 3.12?",
        "Do 9 out of 10 doctors appear?",
        "Accuracy: is it right?\nTone: is it polite?",
        "Does it follow?\nStep 1: mix\nStep 2: bake",
        "Check these:\n- no lies\n- no insults",
        "Does the code return 0 on success and 1 on failure?",
        "Does the poem have 3 stanzas?\nDoes each have 4 lines?",
        'Is the JSON {"a": 1} valid?',
        "1. Is it right?",
        "Rate the helpfulness of the response.",
        "Score",
        "",
    ],
)
def test_numbers_alone_are_no_scale(text: str) -> None:
    assert rubric_from_text(text) == Rubric(text)


def test_a_criterion_that_holds_a_list_can_be_given_as_such() -> None:
    text = "Does it keep these rules?\n1. No lies.\n2. No insults."
    with pytest.raises(DataError, match="numbered list"):
        rubric_of(text)
    assert rubric_of({"criteria": text}) == Rubric(text)


@pytest.mark.parametrize("piece", ["*", "1", "1. a\n", "| 1 | a |\n", "score ", "1: ", "<b>", "{", "> ", "yes/", "score 1 ", "\n"])
def test_no_text_takes_long(piece: str) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(DataError):
        rubric_from_text(piece * (20_000 // len(piece)))
    assert time.perf_counter() - begun < 5
