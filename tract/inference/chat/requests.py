"""What is asked of a chat server, and what is left out of it when the server refuses it. Pure.

Servers of one protocol differ in the parameters that they take, and say so in different ways: OpenAI's ``param``, pydantic's ``loc``, or in
words. What a refusal names is left out of all further requests, or asked for in less.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tract.common.errors import ConfigError
from tract.common.masking import masked_text
from tract.inference.sampling import Sampling

# The most alternatives that the protocol has.
MOST_ALTERNATIVES = 20
# For the cue and a score, behind the longest CoT.
_TAIL_TOKENS = 16
# What follows when a parameter is left out.
_MEANINGS = {
    "temperature": "sampling is at the server's own temperature; where that is another one, scores and feedback change",
    "top_p": "sampling is with the server's own top_p",
    "seed": "the same request may be answered differently another time",
    "repetition_penalty": "repeated tokens are not penalized",
}
_LOGPROBS = ("logprobs", "top_logprobs")
_LIMITS = ("max_tokens", "max_completion_tokens")
# Of the body that are not for users to set, and what to do instead.
_RESERVED = {
    **dict.fromkeys(("model", "messages", "stream", "stream_options", "n", *_LOGPROBS), "it is part of how scores are read"),
    **dict.fromkeys(("temperature", "top_p", "repetition_penalty", "seed"), "it is an option of the judge with the same name"),
    **dict.fromkeys(_LIMITS, "give max_cot_tokens, an option of the judge"),
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call"), "a judge calls no tools"),
}
_UNKNOWN = re.compile(
    r"unsupported|not (?:be )?(?:supported|support|permitted|allowed|enabled|available|implemented|recognized|accepted)|n't support|unknown"
    r"|unrecognized|unexpected|forbidden|cannot find|not a valid|extra",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:less than or equal to|at most|no more than|<=|\u2264|up to|max(?:imum)?(?: (?:allowed|value|is|of|number|supported))*:?|exceeds?"
    r"|between \d+ and|\[\s*\d+\s*,|\(\s*\d+\s*,|range \d+ ?(?:-|to))\s*(?P<most>\d+)|less than (?P<above>\d+)",
    re.IGNORECASE,
)
_OF_VALUE = re.compile(
    r"invalid (?:value|parameter|argument)|\b(?:must|should|cannot) be\b|out of range|in the range|not in range|greater than|\bmax\b"
    r"|maximum",
    re.IGNORECASE,
)
# Of one request whose prompt leaves no room for an answer, which a server says with the name of the limit too.
_OF_LENGTH = re.compile(r"context|too (?:large|long)|exceed|at most|greater than|maximum|less than", re.IGNORECASE)
# The names that a server would take, which it may list behind the one that it does not take.
_ACCEPTED = re.compile(
    r"(?<!not )(?<!n't )\b(?:accepted|allowed|valid|supported|expected|permitted)\b[^.]*?(?:\bare\b|\bis\b|:|\bone of\b).*", re.I | re.S
)
_SYSTEM = re.compile(
    r"\b(?:system|developer)\b\W+(?:\w+\W+){0,4}?(?:roles?|messages?|prompts?|instructions?)\b|\brole\W+(?:\w+\W+){0,5}?system\b",
    re.IGNORECASE,
)
_ROLES = re.compile(r"roles? must alternate|only (?:the )?user and (?:assistant|model)|\bmessages\W+0\W+role", re.IGNORECASE)
# Keys of an error whose values are for people; others may hold what was sent.
_WORDS_OF = ("message", "msg", "detail", "details", "error", "errors", "title", "reason", "raw")


@dataclass(frozen=True)
class Shape:
    """What is sent of a request.

    Attributes:
        limit: name of the limit of tokens; None to send none. alternatives: to ask for at each token; 0 to ask for no log-probabilities.
        left_out: other parameters that are not sent. merged: whether the system message is put before the user's.
    """

    limit: str | None = "max_tokens"
    alternatives: int = MOST_ALTERNATIVES
    left_out: frozenset[str] = frozenset()
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of a server.

    Attributes:
        words: its own, one line. named: parameters that its fields name. text: all that it says, to be searched.
    """

    words: str
    named: frozenset[str]
    text: str


@dataclass(frozen=True)
class Adaptation:
    """What is sent from now on, and the notes for the log: what is different, and what it means."""

    shape: Shape
    notes: tuple[str, ...] = field(default=())


def body_of(shape: Shape, system: str, user: str, sampling: Sampling, seed: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request, without the model.

    Args:
        shape: what the server takes. system, user: the turns. sampling, seed: how the answer is drawn. extra: the user's own parameters.
    """
    if system and shape.merged:
        system, user = "", f"{system}\n\n{user}"
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": user}]
    # Sent where they are the protocol's defaults too: servers have others.
    optional: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.temperature else 1.0,
        "seed": seed,
    }
    if sampling.repetition_penalty != 1:  # no part of the protocol: vLLM and its like take it
        optional["repetition_penalty"] = sampling.repetition_penalty
    body = {"messages": messages, **{name: value for name, value in optional.items() if name not in shape.left_out}}
    if shape.limit is not None:
        body[shape.limit] = sampling.max_cot_tokens + _TAIL_TOKENS
    if shape.alternatives:
        body |= {"logprobs": True, "top_logprobs": shape.alternatives}
    return {**body, **extra}


def parts_of(body: Mapping[str, Any]) -> frozenset[str]:
    """The names of what a request is sent with, as a shape can leave it out."""
    parts = {name for name in body if name not in ("messages", "top_logprobs")}
    parts |= {f"top_logprobs={body['top_logprobs']}"} if "top_logprobs" in body else set()
    return frozenset(parts | ({"system message"} if body["messages"][0]["role"] == "system" else set()))


def check_extra(extra: Mapping[str, Any]) -> None:
    """Checks a user's own parameters of requests.

    Raises:
        ConfigError: if one is not for users to set.
    """
    for name in extra:
        if name in _RESERVED:
            raise ConfigError(f"extra_body.{name}: cannot be set ({_RESERVED[name]}); leave it out")


def adapted(shape: Shape, sent: Mapping[str, Any], refusal: Refusal) -> Adaptation | None:
    """The next thing to try after a refusal; None where it names nothing that can be left out.

    Each step sends less than before, so a server that refuses everything is asked a bounded number of times.

    Args:
        shape: of the request. sent: its body. refusal: of the server.
    """
    notes: list[str] = []
    found = shape
    if not shape.merged and sent["messages"][0]["role"] == "system" and refuses_system(refusal):
        found = replace(found, merged=True)
        notes.append("does not accept a system message, so its text goes before the user message")
    named = _named(sent, refusal)
    if shape.limit == "max_tokens" and "max_completion_tokens" in refusal.text:
        found = replace(found, limit="max_completion_tokens")
    elif shape.limit in named and _UNKNOWN.search(refusal.text) and not _OF_LENGTH.search(refusal.text):
        found = replace(found, limit=None)
        notes.append(f"does not accept {shape.limit}, so requests leave it out: answers are as long as the server lets them be")
    for name in (name for name in named if name in _MEANINGS):
        found = replace(found, left_out=found.left_out | {name})
        shown = name if name == "seed" else f"{name}={sent[name]:g}"
        notes.append(f"does not accept {shown}, so requests leave it out: {_MEANINGS[name]}")
    if set(named) & set(_LOGPROBS):
        found = _fewer_alternatives(found, refusal, notes)
    return None if found == shape else Adaptation(found, tuple(notes))


def refuses_system(refusal: Refusal) -> bool:
    """Whether a refusal is of the system message."""
    text = " ".join([refusal.text, *refusal.named])
    return bool(_ROLES.search(text) or (_SYSTEM.search(text) and _UNKNOWN.search(text)))


def _named(sent: Mapping[str, Any], refusal: Refusal) -> list[str]:
    """What the refusal names of the request: by its fields, else in quotation marks, else in words."""
    by_spelling = {name.replace("_", ""): name for name in sent if name != "messages"}
    text = _ACCEPTED.sub("", refusal.text)
    text = re.sub(r"log[ -]prob(?:abilitie)?s\b", "logprobs", text, flags=re.IGNORECASE)
    quoted = re.findall(r"[\"'`\u2018\u201c]([A-Za-z_.\[\]0-9]+)[\"'`\u2019\u201d]", text)
    # A word alone may be one of the prompt that the server quotes.
    words_alone = re.findall(r"[A-Za-z_]+", text) if _UNKNOWN.search(refusal.text) or _OF_VALUE.search(refusal.text) else []
    for words in (sorted(refusal.named), quoted, words_alone):
        spelled = [part.replace("_", "").lower() for word in words for part in re.split(r"[.\[\]]", word)]
        found = [by_spelling[each] for each in dict.fromkeys(map(_alias, spelled)) if each in by_spelling]
        if found:
            return found
    return []


def _alias(spelled: str) -> str:
    return {"logprob": "logprobs", "responselogprobs": "logprobs", "toplogprob": "toplogprobs"}.get(spelled, spelled)


def _fewer_alternatives(shape: Shape, refusal: Refusal, notes: list[str]) -> Shape:
    asked = shape.alternatives
    bounds = [int(m["most"]) if m["most"] else int(m["above"]) - 1 for m in _BOUND.finditer(refusal.text)]
    named = (
        bounds
        if bounds or _UNKNOWN.search(refusal.text)
        else [int(each) for each in re.findall(r"(?<![\w.])\d+(?![\w.]*\d)", refusal.text)]
    )
    fitting = [bound for bound in named if 0 < bound < asked]
    most = max(fitting) if fitting else 0 if bounds and max(bounds) == 0 or _UNKNOWN.search(refusal.text) else asked // 2
    if most:
        notes.append(f"gives fewer than {asked} alternatives to a token, so requests ask for {most}")
    else:
        notes.append("gives no log-probabilities, so each distribution is the written score alone")
    return replace(shape, alternatives=most)


def refusal_of(body: object) -> Refusal:
    """What a server's error says.

    Args:
        body: the JSON of the answer, or its text.
    """
    if isinstance(body, str):
        words = _plain(body)
        return Refusal(_line(words) or "no reason is given", frozenset(), words)
    said = list(dict.fromkeys(_said(body)))
    words = "; ".join(said) or _plain(str(body))
    return Refusal(_line(words), frozenset(_fields(body)), " ".join([words, *sorted(_fields(body))]))


def _line(words: str) -> str:
    line = masked_text(" ".join(words.split()))
    return line if len(line) <= 300 else f"{line[:297]}..."


def _plain(text: str) -> str:
    """The text of a page without its markup."""
    if "<" not in text:
        return text.strip()
    shown = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", text)
    plain = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())
    title = re.search(r"(?is)<title>(.*?)</title>", text)
    return plain or (" ".join(title[1].split()) if title else "")


def _said(value: object, where: str = "") -> Iterator[str]:
    """The sentences of an error; where pydantic says of which field, with its name before."""
    if isinstance(value, str):
        if value.strip():
            yield f"{where}{_plain(value)}"
    elif isinstance(value, list):
        for each in value:
            yield from _said(each, where)
    elif isinstance(value, Mapping):
        loc = value.get("loc")
        place = ".".join(str(each) for each in loc if each != "body") + ": " if isinstance(loc, list) else where
        for key in _WORDS_OF:
            if key in value:
                yield from _said(value[key], place)


def _fields(value: object) -> Iterator[str]:
    """Names of parameters that fields of an error hold."""
    if isinstance(value, list):
        for each in value:
            yield from _fields(each)
    elif isinstance(value, Mapping):
        if isinstance(value.get("param"), str):
            yield value["param"]
        if isinstance(value.get("loc"), list):
            yield ".".join(str(each) for each in value["loc"])
        for key in _WORDS_OF:
            yield from _fields(value.get(key))
