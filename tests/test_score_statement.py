"""Where a judge's text states its score: many wordings are cut, sentences that only mention a score stay."""

from __future__ import annotations

import time

import pytest

from tract.score_statement import NOT_STATED, first_statement, mentions_score, number_of, take_cot

CUE = " So the overall score is "
FEEDBACK = "The response is clear and names three causes, but it misses the second step."

STATED = r"""
So the overall score is 4.
Therefore, the overall score is 4.
Thus, the overall score is 4
Hence the score is 4.
Overall score: 4
So the overall score is 4 out of 5.
Score: 4
Score: 4/5
**Rating: 4**
**Score:** 4
[RESULT] 4
[Result]4
Final grade 4
Final grade: 4.0
My rating is 4.
I would rate this response a 4.
I'd give it a 4 out of 5.
I would give this response a score of 4.
Hence, I give it a 4.
4/5
4 out of 5
**4**
Rating: [[4]]
\boxed{4}
<score>4</score>
{"score": 4}
Score - 4
TOTAL SCORE: 4
score: four
The overall score is four.
Final verdict: 4/5
Result: 4
The response therefore earns a 4.
This merits 4 points.
It deserves 4 stars.
This response earns a score of 4 because it omits a step.
In conclusion, the response deserves a score of 4.
Consequently, a score of 4 is appropriate.
A 4 is appropriate.
This results in a score of 4.
Given this, the final rating would be 4.
Based on the rubric, I'd score this response as a 4.
In summary, 4/5.
Overall: 4
Therefore 4.
★★★★☆
Overall rating: ⭐⭐⭐⭐
### Final Score: 4
Score (1-5): 4
Score (out of 5): 4
Overall, this is a solid 4.
It's a 4/5 response.
The response scores 4.
Points awarded: 4
Score→4
Score：4
so overall I'd say 4 out of 5.
This corresponds to a score of 4.
The score for this response would therefore be a 4.
4 is the score I would assign.
I rate it as 4.
Rating - 4 out of 5 stars
On balance this is worth a 4.
So the overall score is 4. However, more examples would help.
I would give it a 4. Good effort overall!
Score: 4 [RESULT] 4
I give it a 4. So the overall score is 4. [RESULT] 4
(RESULT) 4
Rated: 4
score: 4/5 ⭐
This yields a score of 4.
This makes it a 4.
My grade for this answer is 4 out of 5.
""".strip().splitlines()
MORE_LINES = ("### Score\n4", "Score:\n\n4", "```json\n{'score': 4}\n```")
MENTIONED = """
It meets the criteria for a score of 5.
Therefore, the response aligns closely with the criteria for a score of 5.
It falls short of a score of 5.
This prevents it from receiving a 5.
It is not enough for a 5.
A score of 5 would require more examples.
To get a 5, the response should cite sources.
The response aligns with a level 5 score on the given rubric.
It matches the score 5 reference answer in terms of depth.
The response satisfies the requirements of a score of 5.
It covers 3 of the 5 steps.
It lists 5 examples.
It covers 4 out of 5 points.
It misses step 5.
The answer gives 5 reasons for this.
It does not deserve a 5.
It could be improved to a 5.
This is close to a 5.
It is better than a 5.
The criteria for getting a 5 are met.
A 5 is reserved for flawless answers.
Score 5: The response is detailed.
The team scored 5 goals.
The response completes 4/5 of the tasks.
It would need sources to earn a 5.
This puts it between a 4 and a 5.
Had it cited sources, it would have been a 5.
The response would be a 5 if it cited sources.
The final result of the calculation is 5.
So x = 5.
The answer 5 is short and right.
The response gives the answer 5.
It is 5.
This is 5.
The response says it is 5.
The answer to the equation is x = 5.
The score in the game was 5-3.
""".strip().splitlines()


@pytest.mark.parametrize("between", [" ", "\n", "\n\n"], ids=["same line", "next line", "paragraph"])
@pytest.mark.parametrize("statement", [*STATED, *MORE_LINES])
def test_statements_are_cut_in_data_and_while_a_judge_writes(statement: str, between: str) -> None:
    taken = take_cot(FEEDBACK + between + statement, CUE, {4.0})
    assert taken.cot == FEEDBACK
    assert {number_of(number) for number in taken.numbers} == {4.0}
    assert first_statement(FEEDBACK + between + statement, CUE) == len(taken.cot)
    # Nothing else is known of a hosted model's answer.
    assert take_cot(FEEDBACK + between + statement, CUE).numbers == taken.numbers


@pytest.mark.parametrize("sentence", MENTIONED)
def test_scores_that_are_only_mentioned_stay(sentence: str) -> None:
    text = f"{FEEDBACK} {sentence}"
    for known in ({5.0}, {2.0}, ()):
        assert take_cot(text, CUE, known).cot == text
    assert first_statement(text, CUE) is None
    ended = take_cot(f"{text} So the overall score is 2. [RESULT] 2", CUE, {2.0})
    assert (ended.cot, ended.numbers[0]) == (text, "2")


@pytest.mark.parametrize(
    ("text", "cot", "numbers", "has_more"),
    [
        ("He says 'So the overall score is 2'. No. So the overall score is 4.", "He says 'So the overall score is 2'. No.", ("4",), False),
        ("[RESULT] 1 is wrong.\n [RESULT] 3", "[RESULT] 1 is wrong.", ("3",), False),
        ("Good. So the overall score is: 4.5", "Good.", ("4.5",), False),
        ("Good. So the overall score is open.", "Good.", (), False),
        ("Good. So the overall score is 4.Thanks", "Good.", ("4",), False),
        ("Good. [RESULT] 4, not 5", "Good.", ("4",), False),
        ("Good. [RESULT] 4 [RESULT] 3", "Good.", ("3", "4"), False),
        ("Good. So the overall score is 4. [RESULT] 5", "Good.", ("5", "4"), False),
        ("It is mostly right, so it gets a 4.", "It is mostly right", ("4",), False),
        ("Fine. So the overall score is 4. It is short. It is clear.", "Fine.", ("4",), True),
        ("Score: 4. The answer is right. It is short.", "The answer is right. It is short.", ("4",), False),
        ("Clear: 4/5, deep: 3/5, overall: 4/5", "Clear: 4/5, deep: 3/5", ("4",), False),
        ("Good. ", "Good. ", (), False),
        ("", "", (), False),
    ],
)
def test_the_last_statement_is_cut_with_those_that_lead_up_to_it(text: str, cot: str, numbers: tuple[str, ...], has_more: bool) -> None:
    taken = take_cot(text, CUE)
    assert (taken.cot, taken.numbers, taken.has_more) == (cot, numbers, has_more)


def test_any_cue_is_a_statement() -> None:
    assert take_cot("Good. >> Urteil 4", " >> Urteil ").cot == "Good."
    assert take_cot("Good. >> Urteil 4", CUE).form == NOT_STATED


def test_a_label_in_another_language_counts_on_a_line_of_its_own_if_it_states_the_known_score() -> None:
    for line in ("Gesamtnote: 4", "总分：4", "Puntuación total: 4/5"):
        assert take_cot(f"Gut.\n{line}", CUE, {4.0}).cot == "Gut."
        assert take_cot(f"Gut.\n{line}", CUE, {5.0}).cot == f"Gut.\n{line}"
    # The number of points that are met so far, in generated tasks, is none.
    assert first_statement("The last mark is there, met. Met so far: 3.", CUE) is None


@pytest.mark.parametrize(("written", "value"), [("4", 4), ("four", 4), ("4.50", 4.5), ("★★★", 3), ("−1", -1), ("4,5", None), ("5th", None)])
def test_numbers(written: str, value: float | None) -> None:
    assert number_of(written) == value


def test_a_mention_is_a_number_near_a_word_for_scores() -> None:
    assert mentions_score("It meets the criteria for a score of 5.")
    assert not mentions_score("It lists 5 examples. The last mark is there.")


def test_long_texts_take_linear_time() -> None:
    texts = ["1 2 3 ", "1\n", "The score is 4. ", "[RESULT] 4 ", " ", ", ", "(", ":", "<b>", "so ", "a(b ", "Score: 4, "]
    for piece in texts:
        short, long = (piece * (size // len(piece)) + "4" for size in (20_000, 160_000))
        seconds = []
        for text in (short, long):
            begun = time.perf_counter()
            take_cot(text, CUE, {4.0})
            first_statement(text, CUE)
            seconds.append(time.perf_counter() - begun)
        assert seconds[1] < 40 * seconds[0] + 0.5, piece  # eight times the text; quadratic work takes 64 times
