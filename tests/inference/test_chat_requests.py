"""Requests to chat servers: what is sent, and what a refusal in any form leaves out of it."""

from __future__ import annotations

from typing import Any

import pytest

from tract.common.errors import ConfigError
from tract.inference.chat.requests import Shape, adapted, body_of, check_extra, refusal_of
from tract.inference.sampling import Sampling

SAMPLING = Sampling(temperature=0.3, top_p=0.9, repetition_penalty=1.1, max_cot_tokens=100)
WHOLE = Shape()


def body(shape: Shape, **extra: Any) -> dict[str, Any]:
    return body_of(shape, "Be fair.", "Grade it.", SAMPLING, 7, extra)


def refused(content: object, shape: Shape = WHOLE) -> tuple[Shape | None, tuple[str, ...]]:
    found = adapted(shape, body(shape), refusal_of(content))
    return (None, ()) if found is None else (found.shape, found.notes)


def openai_error(message: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


def forbidden(*names: str) -> dict[str, Any]:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": "logprobs seed"}
                       for name in names]}  # fmt: skip


def test_what_is_sent() -> None:
    assert body(Shape()) == {
        "messages": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Grade it."}],
        "temperature": 0.3, "top_p": 0.9, "seed": 7, "repetition_penalty": 1.1, "max_tokens": 116, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    bare = Shape(limit=None, alternatives=0, left_out=frozenset(("temperature", "top_p", "seed", "repetition_penalty")), merged=True)
    assert body(bare, reasoning_effort="low") == {
        "messages": [{"role": "user", "content": "Be fair.\n\nGrade it."}],
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (openai_error("Unsupported value: 'temperature' does not support 0.3. Only the default (1) value is supported.",
                      "temperature"), {"temperature"}),
        (openai_error("Unsupported parameter", "top_p"), {"top_p"}),
        (openai_error("Unrecognized request argument supplied: seed"), {"seed"}),
        (forbidden("seed", "repetition_penalty"), {"seed", "repetition_penalty"}),
        ({"object": "error", "message": {"detail": forbidden("seed", "top_p")["detail"]}}, {"seed", "top_p"}),
        ({"error": {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs'}]"}}, {"seed"}),
        ("Failed to deserialize: unknown field `seed`, expected one of `model`, `messages`, `temperature`, `top_p` at line 1", {"seed"}),
        ([{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}], {"seed"}),
        ({"error": "`temperature` and `top_p` cannot both be specified for this model."}, {"temperature", "top_p"}),
        ({"detail": "topP is not supported"}, {"top_p"}),
        ({"error": {"message": "The following are not supported: seed, top_p"}}, {"seed", "top_p"}),
    ],
)  # fmt: skip
def test_a_refusal_names_parameters_in_many_ways(content: object, left_out: set[str]) -> None:
    shape, notes = refused(content)
    assert shape == Shape(left_out=frozenset(left_out))
    assert len(notes) == len(left_out)
    assert all("so requests leave it out: " in note for note in notes)


@pytest.mark.parametrize(
    ("content", "asked", "alternatives"),
    [
        (openai_error("Invalid value for 'top_logprobs': must be less than or equal to 5.", "top_logprobs"), 20, 5),
        (openai_error("Requested sample logprobs of 20, which is greater than max allowed: 5"), 20, 5),
        (openai_error("top_logprobs must be in the range [0, 11]"), 20, 11),
        (openai_error("top_logprobs should be less than 8"), 20, 7),
        ({"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 3", "ctx": {"le": 3}}]}, 20, 3),
        (openai_error("max top_logprobs: 3"), 20, 3),
        (openai_error("Invalid value", "top_logprobs"), 20, 10),
        (openai_error("Invalid value", "top_logprobs"), 10, 5),
        (openai_error("Invalid value", "top_logprobs"), 1, 0),
        (openai_error("top_logprobs must be less than or equal to 0"), 20, 0),
        (openai_error("Unsupported parameter: 'logprobs' is not supported with this model.", "logprobs"), 20, 0),
        (openai_error("Logprobs is not enabled for this model"), 20, 0),
        (openai_error("This model does not support log probabilities"), 20, 0),
        (forbidden("logprobs", "top_logprobs"), 20, 0),
    ],
)
def test_fewer_alternatives_are_asked_for_before_none_are(content: object, asked: int, alternatives: int) -> None:
    shape, notes = refused(content, Shape(alternatives=asked))
    assert shape == Shape(alternatives=alternatives)
    assert ("gives no log-probabilities" in notes[0]) == (alternatives == 0)


def test_the_limit_of_tokens_has_two_names() -> None:
    use_other = openai_error("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens")
    assert refused(use_other) == (Shape(limit="max_completion_tokens"), ())
    shape, notes = refused(forbidden("max_completion_tokens"), Shape(limit="max_completion_tokens"))
    assert shape == Shape(limit=None)
    assert "as long as the server lets them be" in notes[0]


@pytest.mark.parametrize(
    "message",
    [
        "System role not supported", "Developer instruction is not enabled for models/small",
        "Only user and assistant roles are supported!",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    ],
)  # fmt: skip
def test_a_system_message_goes_before_the_users_where_it_is_refused(message: str) -> None:
    shape, notes = refused(openai_error(message))
    assert shape == Shape(merged=True)
    assert notes == ("does not accept a system message, so its text goes before the user message",)
    assert refused(openai_error(message), Shape(merged=True)) == (None, ())


@pytest.mark.parametrize(
    "content",
    [
        openai_error("This model's maximum context length is 4096 tokens; max_tokens is too large", "max_tokens"),
        openai_error("The model `m` does not exist", "model"),
        openai_error("Bad request"),
        {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "too long", "input": "temperature seed logprobs"}]},
        "<html><head><title>413</title></head><body>Request Entity Too Large</body></html>", "", None, [], {}, 7,
    ],
)  # fmt: skip
def test_other_refusals_leave_the_request_as_it_is(content: object) -> None:
    assert refused(content) == (None, ())


def test_several_deviations_in_one_refusal_are_all_heeded() -> None:
    shape, notes = refused(forbidden("seed", "logprobs", "top_logprobs", "repetition_penalty", "max_tokens"))
    assert shape == Shape(limit=None, alternatives=0, left_out=frozenset(("seed", "repetition_penalty")))
    assert len(notes) == 4


def test_a_server_that_refuses_everything_is_asked_a_bounded_number_of_times() -> None:
    shape, steps = Shape(), 0
    refusal = refusal_of(
        openai_error("Invalid: system role, logprobs, seed, top_p, temperature, repetition_penalty, max_tokens not supported")
    )
    while (found := adapted(shape, body(shape), refusal)) is not None:
        shape, steps = found.shape, steps + 1
        assert steps < 12
    assert steps >= 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (forbidden("seed"), "seed: Extra inputs are not permitted"),
        ({"error": {"message": "Too\nmany", "metadata": {"raw": "x"}}}, "Too many"),
        ("<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>", "502 Bad Gateway nginx"),
        ("<html><head><title>Busy</title></head><body></body></html>", "Busy"),
        ("", "no reason is given"),
        ({"error": "key sk-abcdefghijklmnopqrstuvwx1234567890 is wrong"}, "key *** is wrong"),
        ({"error": {"message": "x" * 1000}}, "x" * 297 + "..."),
    ],
)
def test_the_servers_own_words_are_one_line(content: object, words: str) -> None:
    assert refusal_of(content).words == words


@pytest.mark.parametrize(
    ("name", "reason"),
    [("messages", "it is part of how scores are read"), ("top_logprobs", "it is part of how"), ("seed", "an option of the judge"),
     ("max_tokens", "give max_cot_tokens"), ("tools", "a judge calls no tools")],
)  # fmt: skip
def test_reserved_parameters_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"extra_body\.{name}: cannot be set \(.*{reason}"):
        check_extra({name: 1})
