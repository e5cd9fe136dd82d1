"""A hosted chat model as a judge: texts out, a text and perhaps log-probabilities back."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tract import Judge, Rubric
from tract.errors import ConfigError

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def hosted(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, requests) of a server on this machine that knows chats alone."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:  # noqa: N802
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = (404, {"error": {"message": self.path}}) if self.path != "/v1/chat/completions" else answer(request)
            asked.append(request)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def said(text: str, finish: str = "stop", tokens: list[tuple[str, dict[str, float]]] | None = None) -> tuple[int, Any]:
    content = None
    if tokens is not None:
        content = [
            {"token": token, "logprob": 0.0, "bytes": None,
             "top_logprobs": [{"token": other, "logprob": math.log(p), "bytes": None} for other, p in others.items()]}
            for token, others in tokens
        ]  # fmt: skip
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": content and {"content": content}}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def judge_at(url: str, **options: Any) -> Judge:
    return Judge.from_pretrained("some-model", "openai", api="chat", base_url=url, max_retries=0, **options)


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
        ("Fine. [RESULT] good", "stop", "low_score_mass"),
        ("Fine. [RESULT] 7", "stop", "low_score_mass"),
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
        ("It is fine. Score: 9", None, "low_score_mass", "It is fine."),
        ("It meets the criteria for a score of 5.", None, "low_score_mass", "It meets the criteria for a score of 5."),
    ],
)
def test_feedback_and_score_of_an_answer_in_other_words(text: str, score: float | None, status: str, feedback: str) -> None:
    with hosted(lambda _: said(text)) as (url, _), judge_at(url) as judge:
        grade = judge.grade("a", "b")
    assert (grade.score, grade.feedback) == (score, feedback)
    assert grade.status == (status if score is not None or "9" in text else "no_cue")


def test_the_distribution_is_that_of_the_token_that_states_the_score() -> None:
    tokens = [("Fine. Rating: ", {}), ("4", {"4": 0.75, "3": 0.25}), ("/5", {})]
    with hosted(lambda _: said("Fine. Rating: 4/5", tokens=tokens)) as (url, _), judge_at(url) as judge:
        assert judge.grade("a", "b").score == pytest.approx(3.75)


def test_an_answer_that_was_cut_has_no_last_word() -> None:
    with hosted(lambda _: said("Overall score: 4 for the first part, and for the sec", "length")) as (url, _), judge_at(url) as judge:
        assert judge.grade("a", "b").status == "truncated_cot"
