"""A hosted chat model as a judge: texts out, a text and perhaps log-probabilities back."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
from chat_stand_in import hosted, judge_at, said

from tract import Judge, Rubric
from tract.common.errors import ConfigError

FEEDBACK: list[tuple[str, dict[str, float]]] = [("It is fine.", {}), (" [RES", {}), ("ULT]", {})]


def test_the_distribution_is_that_of_the_token_behind_the_cue() -> None:
    tokens = [*FEEDBACK, (" 4", {" 4": 0.5, "4": 0.1, " 5": 0.3, " five": 0.1}), (".", {})]
    with hosted(lambda _: said("It is fine. [RESULT] 4.", tokens=tokens)) as (url, asked), judge_at(url) as judge:
        grade = judge.grade("Name a colour.", "Blue.", Rubric("Is it one?", {1: "no", 2: "a", 3: "b", 4: "c", 5: "yes"}), "Red.")
    assert grade.distribution == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 0.6, "5": 0.3})
    assert grade.score == pytest.approx((4 * 0.6 + 5 * 0.3) / 0.9)  # normalised over the scores
    assert (grade.status, grade.feedback) == ("ok", "It is fine.")
    (request,) = asked
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert "###Reference Answer (Score 5):\nRed.\n" in request["messages"][1]["content"]
    assert (request["model"], request["temperature"], request["top_p"], request["top_logprobs"]) == ("some-model", 1.0, 0.9, 20)
    assert "repetition_penalty" not in request


def test_a_score_may_be_written_in_another_way_than_its_label() -> None:
    tokens = [*FEEDBACK, (" 2", {" 2": 0.75, " 3": 0.25})]
    with hosted(lambda _: said("It is fine. [RESULT] 2", tokens=tokens)) as (url, _), judge_at(url, grid=["1.0", "2.0", "3.0"]) as judge:
        assert judge.grade("a", "b").distribution == pytest.approx({"1.0": 0, "2.0": 0.75, "3.0": 0.25})


def test_without_log_probabilities_it_is_the_score_that_was_written() -> None:
    with hosted(lambda _: said("Good. [RESULT] (5)")) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b", Rubric("c", {0: "no", 5: "half", 10: "yes"}))
    assert (grade.score, grade.distribution) == (5.0, {"0": 0.0, "5": 1.0, "10": 0.0})


def test_scores_that_begin_alike_are_not_read_from_one_token() -> None:
    tokens = [*FEEDBACK, (" 1", {" 1": 0.9}), ("0", {})]
    with hosted(lambda _: said("It is fine. [RESULT] 10", tokens=tokens)) as (url, _), judge_at(url, grid=range(1, 11)) as judge:
        assert judge.grade("a", "b").score == 10.0


@pytest.mark.parametrize(
    ("text", "finish", "status"),
    [
        ("It is fine.", "stop", "no_cue"),
        ("It is fi", "length", "truncated_cot"),
        ("Fine. [RESULT] good", "stop", "unreadable_score"),
        ("Fine. [RESULT] 7", "stop", "unreadable_score"),
        ("", "stop", "no_cue"),
    ],
)
def test_what_is_no_score_is_none(text: str, finish: str, status: str) -> None:
    with hosted(lambda _: said(text, finish)) as (url, _), judge_at(url, least_score_mass=0.0 if status == "no_cue" else None) as judge:
        grade = judge.grade("a", "b")
    assert (grade.status, grade.score, grade.interval) == (status, None, None)


def test_what_a_model_does_not_take_is_left_out() -> None:
    def picky(request: dict[str, Any]) -> tuple[int, Any]:
        for name, message in (("max_tokens", "use max_completion_tokens"), ("logprobs", "logprobs are not supported")):
            if name in request:
                return 400, {"error": {"message": message}}
        return said("Fine. [RESULT] 3")

    with hosted(picky) as (url, asked), judge_at(url, n_cot=2, batch_size=1) as judge:
        grades = judge.grade_batch([{"instruction": "a", "response": text} for text in "bc"], progress=False)
    assert [grade.score for grade in grades] == [3.0, 3.0]
    assert len({request["seed"] for request in asked if "logprobs" not in request}) == 4  # draws of its own for each CoT
    assert "max_completion_tokens" in asked[-1]


def test_a_server_that_refuses_is_an_error_of_each_grade() -> None:
    with hosted(lambda _: (401, {"error": {"message": "wrong key"}})) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.status, grade.score) == ("error", None)
    assert "the server refuses a chat request (401)" in str(grade.error)


def test_a_key_is_wanted_where_there_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment variable MY_KEY is not set"):
        Judge.from_pretrained("gpt", "openai", api="chat", base_url=None, api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="api: 'soap' is not one of vllm, openai, chat"):
        Judge.from_pretrained("package:tract/assets/tiny", "openai", api="soap", base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("text", "score", "status", "feedback"),
    [
        ("It is fine.\n\n**Score: 4/5**", 4.0, "ok", "It is fine."),
        ("It is fine. So the overall score is 2.", 2.0, "ok", "It is fine."),
        ("It is fine. I would rate it 3 out of 5. [RESULT] 3", 3.0, "ok", "It is fine."),
        ("It is fine. Score: 9", None, "unreadable_score", "It is fine."),
        ("It meets the criteria for a score of 5.", None, "no_cue", "It meets the criteria for a score of 5."),
    ],
)
def test_feedback_and_score_of_an_answer_in_other_words(text: str, score: float | None, status: str, feedback: str) -> None:
    with hosted(lambda _: said(text)) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.feedback) == (score, feedback)
    assert grade.status == status


def test_the_distribution_is_that_of_the_token_that_states_the_score() -> None:
    tokens = [("Fine. Rating: ", {}), ("4", {"4": 0.75, "3": 0.25}), ("/5", {})]
    with hosted(lambda _: said("Fine. Rating: 4/5", tokens=tokens)) as (url, _), judge_at(url) as judge:
        assert judge.grade("a", "b").score == pytest.approx(3.75)


def test_an_answer_that_was_cut_has_no_last_word() -> None:
    with hosted(lambda _: said("Overall score: 4 for the first part, and for the sec", "length")) as (url, _), judge_at(url) as judge:
        assert judge.grade("a", "b").status == "truncated_cot"


@pytest.mark.parametrize(
    ("behind", "score"), [("4", 4.0), ("Score: 4", 4.0), ("<4>", 4.0), ("4 [RESULT]", 4.0), ("3-4", None), ("4/10", None)]
)
@pytest.mark.parametrize("predictor", ["rail_normalized", "decode_free", "decode_forced", "argmax"])
def test_each_predictor_reads_the_score_that_was_written(behind: str, score: float | None, predictor: str) -> None:
    with hosted(lambda _: said(f"Good. [RESULT] {behind}")) as (url, _), judge_at(url, predictor=predictor) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.status) == (score, "unreadable_score" if score is None else "ok")


SCORE = ("3", {"3": 0.5, "4": 0.4, "5": 0.1})


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\u5f88\u597d [RESULT] 3", [("bytes:\\xe5\\xbe", {}), ("bytes:\\x88", {}), ("\u597d", {}), (" [RESULT] ", {}), SCORE]),
        ("\U0001f60a [RESULT] 3", [("\ufffd", {}), ("\ufffd", {}), (" [RESULT] ", {}), SCORE, ("<|im_end|>", {})]),
        ("Good. [RESULT] 3.", [("Good. [RESULT]", {}), (" 3", {" 3": 0.5, " 4": 0.4, "5": 0.1}), (".", {}), ("", {})]),
        ("<think>\n3?\n</think>\n\nGood. [RESULT] 3", [("<think>\n3?\n</think>\n\n", {}), ("Good. [RESULT] ", {}), SCORE]),
        ("Good. [RESULT] 3", [("Thoughts [RESULT] 3", {}), ("</think>", {}), ("\n\nGood. [RESULT] ", {}), SCORE, ("\n", {})]),
    ],
)
def test_the_distribution_is_read_whatever_the_text(
    text: str, tokens: list[tuple[str, dict[str, float]]], caplog: pytest.LogCaptureFixture
) -> None:
    with hosted(lambda _: said(text, tokens=tokens)) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.status) == (pytest.approx(3.6), "ok")
    assert not caplog.records


def test_a_score_of_two_tokens_has_a_distribution() -> None:
    tokens = [*FEEDBACK, (" 1", {" 1": 0.8, " 9": 0.2}), ("0", {"0": 0.75, ".": 0.25})]
    with hosted(lambda _: said("It is fine. [RESULT] 10", tokens=tokens)) as (url, _), judge_at(url, grid=range(1, 11)) as judge:
        assert judge.grade("a", "b").score == pytest.approx(10 * 0.6 + 9 * 0.2 + 1 * 0.2)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (None, "the server gave no log-probabilities"),
        ([("Another", {}), ("3", {"3": 1.0})], "the tokens of the server are not those of the text"),
        ([*FEEDBACK, (" 9", {" 9": 0.7, " 1": 0.3})], "a likely token begins several scores"),
        ([*FEEDBACK, (" 9", {" 9": 0.7, " 8": 0.7})], "the log-probabilities of the server are no distribution"),
    ],
)
def test_a_score_without_a_distribution_is_warned_of_once_and_counted(
    tokens: list[tuple[str, dict[str, float]]] | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with hosted(lambda _: said("It is fine. [RESULT] 9", tokens=tokens)) as (url, _), judge_at(url, grid=range(1, 11)) as judge:
        grades = judge.grade_batch([{"instruction": "a", "response": str(n)} for n in range(5)], progress=False)
    assert [(grade.score, grade.status, grade.distribution["9"]) for grade in grades] == [(9.0, "ok", 1.0)] * 5
    first, last = (record.message for record in caplog.records)
    assert first.startswith(f"some-model: some distributions are the written score alone: {reason}")
    assert last.startswith(f"some-model: 5 of 5 distributions are the written score alone: {reason}")


def test_a_distribution_that_excludes_what_was_written_is_none(caplog: pytest.LogCaptureFixture) -> None:
    status, answer = said("It is fine. [RESULT] 2", tokens=[*FEEDBACK, (" 2", {" 1": 0.2, " 3": 0.7})])
    answer["choices"][0]["logprobs"]["content"][-1]["logprob"] = -9999.0  # as some servers tell what was masked
    with hosted(lambda _: (status, answer)) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.status, grade.distribution["2"]) == (2.0, "ok", 1.0)
    (told,) = (record.message for record in caplog.records)
    assert told.endswith("the tokens of the server give the score that was written no probability")


def test_a_negative_score_with_a_minus_sign_has_its_distribution() -> None:
    tokens = [*FEEDBACK, (" \u22121", {" \u22121": 0.6, " 0": 0.1, " 1": 0.3})]
    with hosted(lambda _: said("It is fine. [RESULT] \u22121", tokens=tokens)) as (url, _), judge_at(url, grid=range(-2, 3)) as judge:
        grade = judge.grade("a", "b")
    assert grade.distribution == pytest.approx({"-2": 0, "-1": 0.6, "0": 0.1, "1": 0.3, "2": 0})


THOUGHT = "A first draft: Weak. [RESULT] 2"


@pytest.mark.parametrize(
    "answer",
    [
        said(f"<think>\n{THOUGHT}\n</think>\nClear. [RESULT] 4"),
        said(f"{THOUGHT}\n</think>\n\nClear. [RESULT] 4"),
        said(f"[THINK]{THOUGHT}[/THINK]Clear. [RESULT] 4"),
        said("Clear. [RESULT] 4", reasoning_content=THOUGHT),
        said("\n\nClear. [RESULT] 4", reasoning=THOUGHT),
        said([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": "Clear. [RESULT] 4"}]),  # type: ignore[arg-type]
    ],
)
def test_thoughts_are_kept_apart(answer: tuple[int, Any]) -> None:
    with hosted(lambda _: answer) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.status, grade.feedback.strip()) == (4.0, "ok", "Clear.")
    assert [cot.thoughts for cot in grade.cots] == [THOUGHT]
    assert grade.to_dict()["cots"][0]["thoughts"] == THOUGHT


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said(f"<think>\n{THOUGHT}\nBut wait", "length"), "truncated_cot"),
        (said(None, "length", reasoning_content=THOUGHT), "truncated_cot"),
        (said("", "length", reasoning_content=THOUGHT), "truncated_cot"),
        (said(f"<think>\n{THOUGHT}"), "no_cue"),
        (said(None, reasoning_content=THOUGHT), "no_cue"),
    ],
)
def test_a_thought_is_never_graded_from(answer: tuple[int, Any], status: str) -> None:
    with hosted(lambda _: answer) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.status, grade.feedback, grade.error) == (None, status, "", None)
    assert THOUGHT in grade.cots[0].thoughts


def test_further_parameters_go_into_requests_and_into_the_fingerprint() -> None:
    extra = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    with hosted(lambda _: said("Fine. [RESULT] 3")) as (url, asked):
        with judge_at(url, extra_body=extra) as judge, judge_at(url) as plain:
            assert judge.grade("a", "b").score == 3.0
            assert judge.fingerprint != plain.fingerprint
        with judge_at(url, extra_body={"reasoning_effort": "low"}, chat_template_kwargs={"enable_thinking": False}) as same:
            assert same.fingerprint == judge.fingerprint
            same.grade("a", "b")
    assert all(request.items() >= extra.items() for request in asked)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"stream": True}, r"extra_body\.stream: cannot be set \(it is part of how scores are read\); leave it out"),
        ({"temperature": 0.5}, r"extra_body\.temperature: cannot be set \(it is an option of the judge with the same name\)"),
        ("low", "extra_body: found a str; a mapping of parameters is accepted"),
        ({"a": float("nan")}, "extra_body: is not valid JSON"),
        ({"chat_template_kwargs": {}}, r"extra_body\.chat_template_kwargs: is given as chat_template_kwargs too; give it once"),
    ],
)
def test_parameters_that_cannot_be_set_are_refused(extra: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge_at("http://127.0.0.1:1/v1", extra_body=extra, chat_template_kwargs={"enable_thinking": False})


def test_further_parameters_need_a_hosted_judge() -> None:
    with pytest.raises(ConfigError, match="extra_body: has no effect but with backend='openai' and api='chat'"):
        Judge.from_pretrained("package:tract/assets/tiny", extra_body={"a": 1})


def test_a_parameter_of_the_user_that_is_refused_is_told(caplog: pytest.LogCaptureFixture) -> None:
    refusal = 400, {"error": {"message": "Unknown parameter: 'reasoning_effort'", "param": "reasoning_effort"}}
    with hosted(lambda _: refusal) as (url, asked), judge_at(url, extra_body={"reasoning_effort": "low"}) as judge:
        assert judge.grade("a", "b").error == "the server refuses a chat request (400): Unknown parameter: 'reasoning_effort'"
    assert len(asked) == 1
    assert not caplog.records


def test_a_template_that_fails_for_the_system_message_is_none_that_is_busy() -> None:
    def template(request: dict[str, Any]) -> tuple[int, Any]:
        fails = request["messages"][0]["role"] == "system"
        return (
            (500, {"error": {"code": 500, "message": "Jinja Exception: System role not supported"}}) if fails else said("Good. [RESULT] 3")
        )

    with hosted(template) as (url, asked), judge_at(url) as judge:
        assert judge.grade("a", "b").score == 3.0
    assert len(asked) == 2


@pytest.mark.parametrize("status", [400, 404, 422])
def test_each_deviation_is_adapted_to_and_told_once(status: int, caplog: pytest.LogCaptureFixture) -> None:
    def strict(request: dict[str, Any]) -> tuple[int, Any]:
        if request["messages"][0]["role"] == "system":
            return status, {"detail": "System role not supported"}
        wrong = [name for name in request if name not in ("model", "messages", "temperature", "max_tokens")]
        loc = [{"loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in wrong]
        return (status, {"message": {"detail": loc}}) if wrong else said("Fine. [RESULT] 3")

    with hosted(strict) as (url, asked), judge_at(url) as judge:
        grades = judge.grade_batch([{"instruction": "a", "response": str(n)} for n in range(40)], progress=False)
    assert [grade.score for grade in grades] == [3.0] * 40
    assert sorted(asked[-1]) == ["max_tokens", "messages", "model", "temperature"]
    assert "###The response to evaluate" in asked[-1]["messages"][0]["content"] or asked[-1]["messages"][0]["role"] == "user"
    told = [record.message for record in caplog.records]
    assert len(told) == 4
    assert told[0].startswith(
        "some-model does not accept a system message, so its text goes before the user message; the server says: System role"
    )
    assert any(line.startswith("some-model gives no log-probabilities") for line in told)
    assert all("the server says: " in line for line in told)


FINE = said("Fine. [RESULT] 3", tokens=[("Fine. [RESULT] ", {}), SCORE])
OF_A_PROMPT = 400, {"error": {"message": "Unexpected token in the text: temperature is not allowed here"}}


def holds(word: str, request: dict[str, Any]) -> bool:
    return word in request["messages"][-1]["content"]


@pytest.mark.parametrize("order", [("first", "odd one", "last"), ("odd one", "first", "last"), ("odd one", "odd one 2", "last")])
def test_a_refusal_of_one_prompt_changes_no_other_request(order: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    with (
        hosted(lambda request: OF_A_PROMPT if holds("odd one", request) else FINE) as (url, asked),
        judge_at(url) as judge,
    ):
        grades = [judge.grade("a", text) for text in order]
    assert [grade.status for grade in grades] == ["error" if "odd" in text else "ok" for text in order]
    assert all("temperature is not allowed here" in str(grade.error) for grade in grades if grade.score is None)
    assert all("temperature" in request for request in asked if not holds("odd one", request))
    assert not caplog.records


def test_what_was_accepted_is_left_out_of_single_requests_alone(caplog: pytest.LogCaptureFixture) -> None:
    def odd(request: dict[str, Any]) -> tuple[int, Any]:
        return OF_A_PROMPT if holds("odd one", request) and "temperature" in request else FINE

    with hosted(odd) as (url, asked), judge_at(url) as judge:
        grades = [judge.grade("a", text) for text in ("first", "odd one", "odd one 2", "last")]
    assert [grade.status for grade in grades] == ["ok"] * 4
    assert ["temperature" in request for request in asked] == [True, True, False, True, False, True]
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "some-model refuses temperature in a request and accepts it in others, so that one alone leaves it out",
        "some-model: 2 requests left out temperature, which others were accepted with",
    ]


def test_what_is_accepted_after_all_is_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    adapted = threading.Event()

    def slow(request: dict[str, Any]) -> tuple[int, Any]:
        if holds("odd one", request) and "temperature" in request:
            return OF_A_PROMPT
        if holds("slow one", request):
            adapted.wait(10)
        return FINE

    with hosted(slow) as (url, asked), judge_at(url) as judge:
        other = threading.Thread(target=judge.grade, args=("a", "slow one"))
        other.start()
        while not asked:
            time.sleep(0.01)
        judge.grade("a", "odd one")  # no request was accepted before: the next ones leave it out
        adapted.set()
        other.join()
        judge.grade("a", "last")
    assert "temperature" in asked[-1]
    assert caplog.records[-1].message == "some-model accepts temperature: requests send it again"


def test_many_first_requests_are_refused_once_each_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def picky(request: dict[str, Any]) -> tuple[int, Any]:
        for name in ("seed", "top_p", "logprobs"):
            if name in request:
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
        return said("Fine. [RESULT] 3")

    with hosted(picky) as (url, asked), judge_at(url, batch_size=40) as judge:
        grades = judge.grade_batch([{"instruction": "a", "response": str(n)} for n in range(40)], progress=False)
    assert [(grade.score, grade.error) for grade in grades] == [(3.0, None)] * 40
    assert len(caplog.records) == 3
    assert len(asked) <= 40 + 40 + 2  # each with all, and with what is left; one request finds out what that is


def test_as_many_alternatives_are_read_as_there_are(caplog: pytest.LogCaptureFixture) -> None:
    def five_at_most(request: dict[str, Any]) -> tuple[int, Any]:
        if request["top_logprobs"] > 5:
            return 400, {
                "error": {"message": "Invalid value for 'top_logprobs': must be less than or equal to 5.", "param": "top_logprobs"}
            }
        return said("Good. [RESULT] 3", tokens=[("Good. [RESULT] ", {}), SCORE])

    with hosted(five_at_most) as (url, asked), judge_at(url, batch_size=1) as judge:
        assert [judge.grade("a", text).score for text in "bc"] == [pytest.approx(3.6)] * 2
    assert [request["top_logprobs"] for request in asked] == [20, 5, 5]
    assert len(caplog.records) == 1


def test_a_busy_server_is_waited_for_also_where_the_answer_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tract.inference.chat.waiting._FIRST_S", 0.01)
    busy = {"retry-after-ms": "10"}
    answers = [
        (200, {"choices": None, "error": {"message": "Too Many Requests", "code": 429}}, busy),
        (429, {"error": {"message": "slow down"}}, busy),
        (503, "<html><title>503</title></html>", busy),
        said("Good. [RESULT] 3"),
    ]
    with hosted(lambda _: answers.pop(0)) as (url, asked), judge_at(url, max_retries=3) as judge:
        assert judge.grade("a", "b").score == 3.0
    assert len(asked) == 4
    assert [record.message for record in caplog.records if "wait" in record.message] == [
        "some-model: the server is not able to answer (429): Too Many Requests; requests wait as it asks and are retried"
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, {"choices": None, "error": {"message": "Too Many Requests", "code": 429}}),
         r"the server is not able to answer \(429\): Too Many Requests \(1 attempt\)"),
        ((200, {"error": {"message": "no such model", "code": "missing"}}), "the server's answer is an error: no such model"),
        ((200, {"error": "out of credits"}), "the server's answer is an error: out of credits"),
        ((200, {"choices": []}), r'the server\'s answer does not follow the chat protocol: no choices in \{"choices": \[\]\}'),
        ((200, {"choices": [{"index": 0}]}), "the server's answer does not follow the chat protocol: no choices in .*"),
        ((200, {"choices": [{"finish_reason": "error", "message": {"content": ""}, "error": {"message": "provider died", "code": 502}}]}),
         r"the server is not able to answer \(502\): provider died \(1 attempt\)"),
        ((200, "<html><body>Please log in</body></html>"), "the server's answer does not follow the chat protocol: Please log in"),
        ((200, ""), "the server's answer does not follow the chat protocol: it is empty"),
        ((200, "[1, 2"), "the server's answer does not follow the chat protocol: .*"),
        ((502, "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"),
         r"the server is not able to answer \(502\): 502 Bad Gateway \(1 attempt\)"),
        ((422, {"detail": [{"loc": ["body", "messages", 1, "content"], "msg": "String too long"}]}),
         r"the server refuses a chat request \(422\): messages.1.content: String too long"),
        (said(None, "content_filter"), "a content filter of the server stopped the answer: nothing was written"),
        (said(None, refusal="I cannot\nhelp with that."), "the model refuses to answer: I cannot help with that."),
    ],
)  # fmt: skip
def test_each_failure_is_one_line_of_the_grade_and_none_of_the_log(
    answer: tuple[int, Any], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    with hosted(lambda _: answer) as (url, _), judge_at(url) as judge:
        grades = judge.grade_batch([{"instruction": "a", "response": text} for text in "bc"], progress=False)
    for grade in grades:
        assert (grade.score, grade.status) == (None, "error")
        assert re.fullmatch(error, str(grade.error))
    assert not caplog.records


def test_a_slow_server_is_told_by_the_option_that_limits_it() -> None:
    released = threading.Event()

    def slow(_: dict[str, Any]) -> tuple[int, Any]:
        released.wait(10)
        return said("Good. [RESULT] 3")

    with hosted(slow) as (url, _), judge_at(url, timeout_s=0.2) as judge:
        grade = judge.grade("a", "b")
        released.set()
    assert grade.status == "error"
    assert re.fullmatch(r"the server at http://.*/v1 did not answer within timeout_s=0.2 s \(1 attempt\)", str(grade.error))


def test_a_server_that_is_gone_is_told() -> None:
    with judge_at("http://127.0.0.1:9/v1") as judge:
        assert str(judge.grade("a", "b").error).startswith("the server at http://127.0.0.1:9/v1 does not answer (Connection error.")
