"""What a chat server answers: a text with tokens and thoughts, or an error in one of many forms. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tract.common.errors import GenerationError
from tract.common.masking import masked_text
from tract.inference.chat.requests import Refusal, refusal_of, refuses_system
from tract.inference.chat.tokens import Token, tokens_of
from tract.inference.chat.waiting import BusyError, asked_wait

# Of an HTTP status: asked again later; never a refusal of a parameter.
_LATER = (408, 409, 425, 429)
_NO_PARAMETER = (401, 402, 403, 407, *_LATER)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model wrote.

    Attributes:
        text: all of it. cut: whether it ran into the limit of tokens. thoughts: what a server with a reasoning parser tells apart.
        tokens: of the text, thoughts perhaps before them; None where the server tells none.
        wants_tokens: whether they were asked for.
    """

    text: str
    cut: bool
    thoughts: str
    tokens: tuple[Token, ...] | None
    wants_tokens: bool


class ServerRefusedError(GenerationError):
    """A request that the server does not take as it is."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


def json_or_text(text: str) -> Any:
    """The value of a body; its text where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def failure_of(status: int, body: Any, headers: Mapping[str, str]) -> GenerationError:
    """The error of an answer with an HTTP status that says so."""
    refusal = refusal_of(body)
    message = f"the server refuses a chat request ({status}): {refusal.words}"
    again = headers.get("x-should-retry")
    names_a_parameter = status < 500 and status not in _NO_PARAMETER
    if status == 500 and refuses_system(refusal):  # llama.cpp tells so what a chat template does not take
        return ServerRefusedError(message, refusal)
    if again != "false" and (again == "true" or status in _LATER or (status >= 500 and status != 501)):
        return BusyError(f"the server is not able to answer ({status}): {refusal.words}", asked_wait(headers))
    return ServerRefusedError(message, refusal) if names_a_parameter or status == 501 else GenerationError(message)


def no_answer(body: Any, headers: Mapping[str, str]) -> GenerationError:
    """The error of an answer that holds none, though its HTTP status is that of one."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not error:
        shown = (
            (refusal_of(body).words if body.strip() else "it is empty")
            if isinstance(body, str)
            else "no choices in " + json.dumps(body, ensure_ascii=False)
        )
        return GenerationError(f"the server's answer does not follow the chat protocol: {masked_text(' '.join(shown.split()))[:200]}")
    code = error.get("code") if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int | str) and str(code).isdecimal() else 0
    if 400 <= status < 600:
        return failure_of(status, error, headers)
    return GenerationError(f"the server's answer is an error: {refusal_of(error).words}")


def reply_of(found: Mapping[str, Any], headers: Mapping[str, str], *, wants_tokens: bool) -> ChatReply:
    """What an answer of the protocol says.

    Raises:
        GenerationError: if the model, or a filter behind it, refuses to answer.
    """
    choice = found["choices"][0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise no_answer(choice if isinstance(choice, Mapping) and choice.get("error") else found, headers)
    finish = choice.get("finish_reason")
    text, thoughts = _content(message.get("content"))
    told = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    apart = next((each for each in told if isinstance(each, str) and each.strip()), "")
    if finish == "content_filter":
        raise GenerationError(
            f"a content filter of the server stopped the answer: {_refused(message) or text or 'nothing was written'}"[:300]
        )
    if not text and _refused(message):
        raise GenerationError(f"the model refuses to answer: {_refused(message)}"[:300])
    if not text and choice.get("error"):
        raise no_answer(choice, headers)
    logprobs = choice.get("logprobs")
    tokens = tokens_of(logprobs.get("content")) if isinstance(logprobs, Mapping) else None
    return ChatReply(text, finish == "length", "\n\n".join(filter(None, (apart.strip(), thoughts))), tokens, wants_tokens)


def _refused(message: Mapping[str, Any]) -> str:
    refusal = message.get("refusal")
    return " ".join(refusal.split()) if isinstance(refusal, str) else ""


def _content(content: object) -> tuple[str, str]:
    """(text, thoughts) of a message: a text, or a list of parts."""
    if not isinstance(content, list):
        return (content if isinstance(content, str) else ""), ""
    parts = [part for part in content if isinstance(part, Mapping)]
    texts = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    thoughts = [_content(part["thinking"])[0] for part in parts if "thinking" in part]
    return texts, "\n\n".join(filter(None, (each.strip() for each in thoughts)))
