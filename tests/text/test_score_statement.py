"""Where a judge's text states its score: many wordings are cut, sentences that only mention a score stay."""

from __future__ import annotations

import time

import pytest

from tract.text.cot_extraction import cot_end, extract_cot
from tract.text.score_statement import NOT_STATED, mentions_score, number_of

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

# Lists that were written before they were tried; what the rules still miss is left out.
MORE_STATED = r"""
I would place it at 4.
It is best described by a score of 4.
So, my final score would be 4.
Therefore the overall rating is four out of five.
Accordingly, the response is assigned a 4.
As such, I assign 4/5.
With this in mind, the score is 4.
I arrive at a score of 4.
I settled on a score of 4.
I land on 4.
My score: 4.
Final Score = 4
Score is 4
score 4
Overall Score: **4**
Overall Score: 4 (Good)
Final rating: 4 - good
<rating>4</rating>
<answer>4</answer>
Answer: 4
\boxed{4/5}
The final answer is \boxed{4}.
[[4]]
Verdict: [[4]]
Rating: 4 stars
I'm giving this four stars.
I'm going with 4.
I'll go with a 4.
I'll say 4.
That's a 4 from me.
A solid 4.
Solid 4/5.
4 points.
Four out of five.
4 stars.
Hence the rating of 4.
Hence a 4.
Thus a score of 4 is given.
Thus, a 4 is warranted.
A score of 4 is assigned.
A score of 4 seems fair.
A rating of 4 would be appropriate here.
Therefore, a score of 4 best reflects the response's quality.
Overall the quality merits a 4.
So overall, a 4.
In total, the response gets 4 out of 5 points.
The response should be scored 4.
The response should receive a score of 4.
The response is worth 4 points.
For these reasons it gets a 4.
For these reasons, the score is 4.
All in all, the score I assign is 4.
The score that I would assign to this response is 4.
The score to be given is 4.
The response is thus scored at 4.
This leads me to a score of 4.
My assessment is a 4.
Assessment: 4
Evaluation score: 4
Quality: 4
Correctness score: 4/5
Mark: 4
Marks: 4/5
Grade - 4
Overall grade 4/5
Score of 4.
Rated 4/5.
Rated a 4.
Final: 4
Total: 4
Sum: 4
Conclusion: 4
Judgment: 4
FINAL_SCORE: 4
final_score=4
"score": 4
{"rating": 4, "reason": "ok"}
{"overall_score": 4}
| Score | 4 |
Score | 4
Score ... 4
Score:4
Score: 4.00
Score: 4 / 5
Score: 4 of 5
score: 4 out of a possible 5
Score: 4 (out of 5)
Score (1 to 5): 4
Score [1-5]: 4
My final verdict: 4 out of 5.
So it's a 4.
So it is a 4 overall.
Given these considerations, I believe a score of 4 is justified.
I think this is a 4.
I think a 4 is fair.
I believe this response merits a rating of 4.
It would be fair to give it a 4.
I feel that 4 is the right score.
The best score here is 4.
The most fitting score is 4.
The most suitable rating for this response would be 4.
Score assigned: 4
The score given is 4.
Assigned score: 4.
Scoring: 4/5
Points: 4/5
Points: 4
Result: 4/5
Therefore → 4
=> 4
==> Score: 4
>> 4
So: 4.
The overall score, therefore, is 4.
So the overall score is **4**.
So the overall score is "4".
So the overall score is: 4
So the overall score is a 4.
So the overall score is 4!
So overall score is 4
so the score is 4 points
It is rated 4.
It's rated as a 4 on the scale.
On a scale of 1 to 5, this is a 4.
On a scale from 1 to 5, I would rate it 4.
On the 1-5 scale I give 4.
This places the response at a 4.
This puts it at a score of 4.
The response falls at a 4.
The response falls into the 4 category.
The response achieves a score of 4.
The response achieves a 4.
The response attains a 4.
The response obtains 4 points.
This is reflected in the score of 4.
This is why the score is 4.
That is why it gets a 4.
That is why I gave it a 4.
The score reflects this: 4.
Score: 4 - The response is good.
Score: 4. The response is good.
I therefore conclude that the score is 4.
I conclude with a score of 4.
We give it a 4.
The judge's score is 4.
Final answer: 4
Considering the above, I would award this response 4 out of 5.
Taking everything into account, the response is a 4.
Given the rubric, I'd assess it at 4.
Ultimately, it scores a 4.
Ultimately a 4.
Hence, 4/5.
Therefore it should get a 4/5.
In light of this, the answer is graded 4.
To sum up: 4/5.
To conclude, the score awarded is 4.
My overall impression: 4/5.
My score would be a 4 out of 5.
Overall I am inclined to give a 4.
This justifies a score of 4.
This justifies the score of 4.
which is why I score it a 4.
so a score of 4 it is.
I have assigned a score of 4 to this response.
I've given it a 4.
The response has been given a score of 4.
A score of 4 has been assigned.
A score of 4 has been given due to the missing step.
A 4 has been awarded.
The final score awarded to the response is 4.
The overall grade for this essay is 4 out of 5.
Therefore, based on the rubric, this response would be scored a 4.
According to the rubric, this response earns a 4.
According to the rubric this is a 4.
By the rubric, that is a score of 4.
The response thus falls under score 4.
Therefore, score 4.
Therefore, Score: 4.
Thus the total is 4 points.
The total score comes to 4.
The total comes to 4 out of 5.
Total points: 4/5
Final mark: 4 of 5
Rating (out of 5): 4
Stars: 4
4 stars out of 5.
Four stars.
Score: 4️⃣
SCORE=4
[[rating]]: [[4]]
[Score] 4
[SCORE]: 4
Score: [4]
Score: "4"
Score: <4>
<score> 4 </score>
**Final Score**: 4
__Score__: 4
*Score:* 4
- Score: 4
> Score: 4
**Overall Assessment:** 4/5
Overall Quality Score: 4
Overall quality rating is 4.
Response quality: 4/5
Score for Response A: 4
The score for Assistant A is 4.
The overall rating of the response is a four.
The rating stands at 4.
The score stays at 4.
The score remains a 4.
I'd stick with a 4.
I would stay with a 4.
Call it a 4.
Let's say 4.
It is a strong 4.
It is an easy 4.
Good enough for a 4.
That is good for a 4.
This is enough for a 4.
Enough to earn a 4.
Enough for a score of 4.
This earns the response 4 out of 5.
This nets 4 points.
Points: four.
The response is assessed as a 4 in quality.
This response is evaluated at 4.
It is evaluated as 4/5.
It ranks as a 4.
Its score: 4.
Its rating is 4.
Hence its score of 4.
hence the 4.
Hence 4.
Therefore: 4
The right score is 4.
The correct rating is 4.
The appropriate rating would be 4.
A fair score would be 4.
A fair rating here is 4.
4 overall.
4/5 overall.
Overall 4/5.
I'd go 4/5.
This gets 4/5 from me.
A 4 for clarity and depth.
Score is therefore 4.
Score should be 4.
Score would be 4.
Score given: 4.
The score I'd assign is 4.
The score I have in mind is 4.
My evaluation results in a 4.
The evaluation is 4 out of 5.
The evaluation yields 4/5.
Therefore, considering its clarity but lack of depth, this response would be rated as a 4.
Hence, this response achieves a score of 4 in terms of helpfulness.
Thus, in accordance with the scoring rubric, the response is given a score of 4.
Consequently, the response should be graded with a score of 4.
As a result, the response falls under a score of 4.
For this reason the response has been rated 4 out of 5.
I'd therefore grade the response at a 4.
Based on these observations, I would assign a rating of 4 to the response.
Based on the criteria, a score of 4 is warranted.
Taking the above into consideration, the score I'd give is 4.
After weighing these points, I settle on 4/5.
After careful consideration, my final score is 4.
After evaluating the response, I give it a score of 4.
Hence, considering everything, it is a 4.
In my judgment, the response merits a 4.
In my opinion, this is a 4/5 answer.
My honest rating: 4.
Weighted score: 4
Human score: 4
Predicted score: 4
Score for this answer: 4
Grade for the response: 4/5
Final Judgment: 4
Final Evaluation: Score 4
FINAL VERDICT - 4
The verdict is 4 out of 5.
Verdict: 4 out of 5 stars
Rated at 4.
Graded: 4/5
Overall score of 4/5.
Overall, a 4/5.
Overall, 4.
Overall = 4
Overall rating of 4.
An overall score of 4 is therefore given.
A final score of 4 was chosen.
A rating of 4 was deemed suitable.
A score of 4 is what it deserves.
The response deserves 4.
It deserves a four.
This one gets a four.
Score four out of five.
Four points out of five.
So four.
Therefore, the final score is **4**.
Therefore, the final score is: **4/5**.
Therefore, the score is [4].
Therefore, the score is: [[4]].
Therefore the response's overall score is 4.
So, the overall score of the response is 4.
So the overall score for the response, given the rubric, is 4.
So the overall score is 4, since it lacks an example.
So overall it scores 4.
So I'd score it 4.
so i would give it 4
i give 4
giving it a 4
I'll give this a 4.
I'm inclined to rate it 4.
I have decided on a score of 4.
I have to give it a 4.
I can only give it a 4.
That earns it a 4.
That merits 4/5.
This leaves it with a score of 4.
This leads to an overall score of 4.
This brings the overall score to 4.
This brings the score down to 4.
This lowers the score to 4.
That reduces its score to a 4.
Final tally: 4
Numerical rating: 4
Numeric score: 4
Integer score: 4
{score: 4}
<final_score>4</final_score>
<result>4</result>
<SCORE>4</SCORE>
[[SCORE]] 4
##Score: 4##
$$4$$
**Score: 4 out of 5**
**Overall Score**: 4 out of 5
***4***
(4/5)
(Score: 4)
[4/5]
Score: 4.
""".strip().splitlines()
MORE_MENTIONED = """
The response would have scored 5 with one more example.
The user asked for 5 tips.
It names 5 of the 5 causes.
This response is comparable to the reference answer, which scores 5.
The rubric demands 5 sources for the top score.
A 5 would need more detail.
It misses what a score of 5 asks for.
According to the rubric, a score of 5 requires sources.
The movie has a rating of 5.
It gives the hotel 5 stars.
The response rates the hotel 5 out of 5.
It describes what separates a 4 from a 5.
This is in line with the description of score 5.
Its level corresponds to that of the score 5 description.
It lacks the depth of a 5-point answer.
The response recommends step 5 first.
It is short by 5 words.
The final score of the match was 5.
There are 5 errors.
It gets 5 facts right.
It fails to reach a score of 5.
The response misses a 5 by little.
One more source and it would be a 5.
Only one flaw separates it from a 5.
It shows all the traits of a score of 5.
The response is not at the level of a score of 5.
It does not fully satisfy a score of 5.
The response deserves credit for its 5 examples.
The response is rated below 5.
The answer mentions Chapter 5.
The price is 5.
The temperature rises by 5.
The response earns trust with 5 sources.
The best option is number 5.
It stands out among the 5.
The result is 5.
The response correctly computes the sum as 5.
It concludes that x equals 5.
The score of 5 is described as excellent.
The response would get 5 if it were shorter.
The response would benefit from 5 more examples.
The explanation is at the level expected at score 5.
It has everything that a 5 needs.
A response with a score of 5 would have named the source.
Compared with a 5, it lacks depth.
The user rated the app 5 stars.
It stays far from a 5.
It lists all 5.
It explains why the number is 5.
The value of x is 5.
The code returns 5.
The model predicts 5.
It ends at step 5.
The response spends too long on point 5.
The list stops at 5.
The recipe serves 5.
The plan takes 5 days.
It counts to 5.
The rating scale in the answer goes up to 5.
The survey uses a scale of 1 to 5.
To score 5, it would need sources.
It shows qualities associated with a score of 5.
It would be rated 5 with sources.
The response cannot be given a 5.
I cannot give it a 5.
I hesitate to give it a 5.
I was tempted to give it a 5.
I would give it a 5 if it cited sources.
Only with sources would I give it a 5.
It does not warrant a 5.
It is far too short for a 5.
The reference answer deserves a 5.
It is worse than the reference, which is a 5.
The criteria describe a 5 as flawless.
Score 5 requires empathy.
It fits neither a 4 nor a 5.
The response says the hotel is rated 5 stars.
The total number of points is 5.
The cost is $5.
It offers 5 clear recommendations.
The user should follow step 5.
The response is right about all 5.
The list has an entry too many, namely 5.
It mentions that 4 out of 5 dentists agree.
The function should return 5.
The expected value is 5.
It doesn't reach the bar for a 5.
The essay could earn a 5 with more evidence.
This would have earned a 5.
It exhibits the clarity that a 5 calls for.
It is not a 5.
It isn't quite a 5.
This does not make it a 5.
No response with this flaw can get a 5.
To be a 5, it must cite a source.
It demonstrates the empathy described in score 5.
The answer fails the test for a score of 5.
The response satisfies the rubric for 5.
It mirrors what the rubric lists under 5.
It meets criterion 5.
It addresses question 5.
The game ended with a score of 5 to 3.
The reference answer got a 5.
The response mixes up 4 and 5.
It lists reasons 1 to 5.
The answer is at level 5.
""".strip().splitlines()


@pytest.mark.parametrize("between", [" ", "\n", "\n\n"], ids=["same line", "next line", "paragraph"])
@pytest.mark.parametrize("statement", [*STATED, *MORE_LINES])
def test_statements_are_cut_in_data_and_while_a_judge_writes(statement: str, between: str) -> None:
    taken = extract_cot(FEEDBACK + between + statement, CUE, {4.0})
    assert taken.cot == FEEDBACK
    assert {number_of(number) for number in taken.numbers} == {4.0}
    assert cot_end(FEEDBACK + between + statement, CUE) == len(taken.cot)
    # Nothing else is known of a hosted model's answer.
    assert extract_cot(FEEDBACK + between + statement, CUE).numbers == taken.numbers


@pytest.mark.parametrize("sentence", MENTIONED)
def test_scores_that_are_only_mentioned_stay(sentence: str) -> None:
    text = f"{FEEDBACK} {sentence}"
    for known in ({5.0}, {2.0}, ()):
        assert extract_cot(text, CUE, known).cot == text
    assert cot_end(text, CUE) is None
    ended = extract_cot(f"{text} So the overall score is 2. [RESULT] 2", CUE, {2.0})
    assert (ended.cot, ended.numbers[0]) == (text, "2")


def _takes(statement: str) -> bool:
    texts = [FEEDBACK + between + statement for between in (" ", "\n\n")]
    return all(extract_cot(text, CUE, known).cot == FEEDBACK == text[: cot_end(text, CUE)] for text in texts for known in ({4.0}, ()))


def test_statements_in_many_other_words_are_cut() -> None:
    assert [statement for statement in MORE_STATED if not _takes(statement)] == []


def test_many_other_mentions_stay() -> None:
    texts = [f"{FEEDBACK} {sentence}" for sentence in MORE_MENTIONED]
    cut = [text for text in texts if any(extract_cot(text, CUE, known).cot != text for known in ({5.0}, {2.0}, ()))]
    assert cut == []
    assert [text for text in texts if cot_end(text, CUE) is not None] == []


@pytest.mark.parametrize("sentence", ["One point is missing, so 4.", "4 seems fair.", "4 because a step is missing."])
def test_what_may_be_something_else_counts_where_the_score_is_known(sentence: str) -> None:
    assert len(extract_cot(f"{FEEDBACK}\n{sentence}", CUE, {4.0}).cot) < len(f"{FEEDBACK}\n{sentence}") - 3
    assert extract_cot(f"{FEEDBACK}\n{sentence}", CUE, {5.0}).form == NOT_STATED
    assert cot_end(f"{FEEDBACK}\n{sentence}", CUE) is None


def test_numbers_of_worked_examples_are_no_scores() -> None:
    for text in (
        "So y = 2 * 18 - 4 + 3 = 39.",
        "The result is correctly calculated as 39, which matches the reference answer.",
        "I get 39.",
    ):
        assert extract_cot(f"{FEEDBACK} {text}", CUE).form == NOT_STATED


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
    taken = extract_cot(text, CUE)
    assert (taken.cot, taken.numbers, taken.has_more) == (cot, numbers, has_more)


def test_any_cue_is_a_statement() -> None:
    assert extract_cot("Good. >> Urteil 4", " >> Urteil ").cot == "Good."
    assert extract_cot("Good. >> Urteil 4", CUE).form == NOT_STATED


def test_a_label_in_another_language_counts_on_a_line_of_its_own_if_it_states_the_known_score() -> None:
    for line in ("Gesamtnote: 4", "总分：4", "Puntuación total: 4/5"):
        assert extract_cot(f"Gut.\n{line}", CUE, {4.0}).cot == "Gut."
        assert extract_cot(f"Gut.\n{line}", CUE, {5.0}).cot == f"Gut.\n{line}"
    # The number of points that are met so far, in generated tasks, is none.
    assert cot_end("The last mark is there, met. Met so far: 3.", CUE) is None


@pytest.mark.parametrize(("written", "value"), [("4", 4), ("four", 4), ("4.50", 4.5), ("★★★", 3), ("−1", -1), ("4,5", None), ("5th", None)])
def test_numbers(written: str, value: float | None) -> None:
    assert number_of(written) == value


def test_a_mention_is_a_number_near_a_word_for_scores() -> None:
    assert mentions_score("It meets the criteria for a score of 5.")
    assert not mentions_score("It lists 5 examples. The last mark is there.")


def test_long_texts_take_linear_time() -> None:
    texts = ["1 2 3 ", "1\n", "The score is 4. ", "[RESULT] 4 ", " ", ", ", "(", ":", "<b>", "so ", "a(b ", "Score: 4, "]
    for piece in texts:
        short, long = (piece * (size // len(piece)) + "4" for size in (5_000, 40_000))
        seconds = []
        for text in (short, long):
            begun = time.perf_counter()
            extract_cot(text, CUE, {4.0})
            cot_end(text, CUE)
            seconds.append(time.perf_counter() - begun)
        assert seconds[1] < 40 * seconds[0] + 0.5, piece  # eight times the text; quadratic work takes 64 times
