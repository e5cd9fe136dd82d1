"""A hosted chat model as a judge, by OpenAI's chat protocol: texts go out; a text comes back, with log-probabilities where there are any.

There are no token ids, and nothing can be appended to what the model writes. So the score is the one that it wrote behind its own cue; the
distribution is that of the token there, among the alternatives that the server tells.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tract.errors import ConfigError, GenerationError
from tract.generation.judgement import CUE, END, LENGTH, SCORE, Judgement, Prompt
from tract.generation.sampling import Sampling, draw_key
from tract.generation.server_engine import answered
from tract.masking import masked_text
from tract.score_grid import ScoreGrid
from tract.score_statement import Taken, take_cot

log = logging.getLogger(__name__)

# The most alternatives that the protocol tells.
_ALTERNATIVES = 20
# For the cue and a score, behind the longest CoT.
_TAIL_TOKENS = 16
# Of a request's seed: whole numbers that every server takes.
_SEED_BITS = 24
# What may stand between the cue and the score.
_BEFORE_SCORE = re.compile(r"[\s:(\[*_\"']*")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?![.,_]?\d)")


@dataclass(frozen=True)
class ChatSettings:
    """Where the model is served.

    Attributes:
        base_url: up to and including /v1; None for the ``openai`` package's own. model: its name there.
        api_key_env: environment variable that holds the key. timeout_s: of one answer. max_retries: of a request that failed on its way.
    """

    base_url: str | None
    model: str
    api_key_env: str
    timeout_s: float
    max_retries: int

    @property
    def shown_url(self) -> str:
        """The address for messages: it may hold a password or key."""
        return masked_text(self.base_url or "the server")


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model wrote.

    Attributes:
        text: all of it. cut: whether it ran into the limit of tokens.
        tokens: (token, token -> log-probability of the alternatives there), in order; None where the server tells none.
    """

    text: str
    cut: bool
    tokens: tuple[tuple[str, Mapping[str, float]], ...] | None


class ChatEngine:
    """Requests over HTTP; retries and connections are those of the ``openai`` package."""

    def __init__(self, settings: ChatSettings, client: Any) -> None:
        self._settings = settings
        self._client = client
        self._logprobs = True
        self._limit = "max_tokens"

    async def answer(self, system: str, user: str, sampling: Sampling, seed: int) -> ChatReply:
        """What the model writes.

        Raises:
            GenerationError: if there is no answer.
        """
        import openai

        while True:
            logprobs, limit = self._logprobs, self._limit  # another request may find out meanwhile
            try:
                asked = self._create(system, user, sampling, seed, logprobs=logprobs, limit=limit)
                found = await answered(asked, "a chat request", self._settings.shown_url)
                break
            except GenerationError as error:
                if not isinstance(error.__cause__, openai.BadRequestError) or not self._adapted(str(error.__cause__), logprobs, limit):
                    raise
        choice = found.choices[0]
        content = getattr(choice.logprobs, "content", None) if choice.logprobs else None
        tokens = tuple((each.token, {other.token: other.logprob for other in each.top_logprobs}) for each in content) if content else None
        return ChatReply(choice.message.content or "", choice.finish_reason == "length", tokens)

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.close()

    def _create(self, system: str, user: str, sampling: Sampling, seed: int, *, logprobs: bool, limit: str) -> Any:
        messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": user}]
        optional: dict[str, Any] = {limit: sampling.max_cot_tokens + _TAIL_TOKENS}
        if logprobs:
            optional |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        if sampling.repetition_penalty != 1:  # no part of the protocol: vLLM and its like take it
            optional["extra_body"] = {"repetition_penalty": sampling.repetition_penalty}
        return self._client.chat.completions.create(
            model=self._settings.model,
            messages=messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature else 1.0,
            seed=seed,
            **optional,
        )

    def _adapted(self, refusal: str, logprobs: bool, limit: str) -> bool:
        """Whether the request can be made without what was refused of it; models of one protocol differ in what they take."""
        if "max_completion_tokens" in refusal and limit == "max_tokens":
            self._limit = "max_completion_tokens"
            return True
        if "logprobs" in refusal and logprobs:
            if self._logprobs:
                log.warning("%s gives no log-probabilities, so a distribution is the score that was written", self._settings.model)
            self._logprobs = False
            return True
        return False


async def connect_chat(settings: ChatSettings) -> ChatEngine:
    """An engine that is ready to be asked; the first request shows whether the model is there.

    Raises:
        ConfigError: if there is no key where the address wants one.
    """
    import openai

    key = os.environ.get(settings.api_key_env)
    if key is None and settings.base_url is None:
        raise ConfigError(f"api_key_env: the environment variable {settings.api_key_env} is not set; put the key of the API into it")
    client = openai.AsyncOpenAI(
        base_url=settings.base_url, api_key=key or "none", timeout=settings.timeout_s, max_retries=settings.max_retries
    )
    return ChatEngine(settings, client)


async def chat_judgement(
    engine: ChatEngine, prompt: Prompt, texts: tuple[str, str], sample: int, cue: str, grid: ScoreGrid, sampling: Sampling, seed: int
) -> Judgement:
    """One CoT of a hosted model, and the score behind it.

    Args:
        prompt: for its id. texts: system and user turn. sample: number of the CoT. cue: the answer cue. grid: the scores.

    Raises:
        GenerationError: if the model does not answer.
    """
    reply = await engine.answer(*texts, sampling, draw_key(seed, prompt.id, sample, "cot", _SEED_BITS))
    taken = take_cot(reply.text, cue)
    behind, finish = _score_place(reply, cue, taken)
    score, probabilities = (None, [0.0] * len(grid.labels)) if behind is None else _read(reply, behind, grid)
    return Judgement(prompt.id, prompt.row, sample, (), taken.cot, finish, tuple(probabilities), score, reply.text)


def _score_place(reply: ChatReply, cue: str, taken: Taken) -> tuple[int | None, str]:
    """(where in the text to look for the score, or None; why the CoT ended): behind the last cue, else where it is stated otherwise."""
    place = reply.text.rfind(cue.strip())
    if place >= 0:
        return place + len(cue.strip()), CUE
    if reply.cut:  # what it states so far need not be its last word
        return None, LENGTH
    return (None, END) if taken.place is None else (taken.place[0], SCORE)


def _read(reply: ChatReply, behind: int, grid: ScoreGrid) -> tuple[int | None, list[float]]:
    """(place of the written score in the grid, the distribution) behind the cue; no score has no probability."""
    skipped = _BEFORE_SCORE.match(reply.text, behind)
    start = skipped.end() if skipped else behind
    found = _NUMBER.match(reply.text, start)
    if not found or float(found[0]) not in grid.values:
        return None, [0.0] * len(grid.labels)
    score = grid.index(float(found[0]))
    alternatives = _alternatives(reply, start, found[0])
    if alternatives is None or _ambiguous(grid.labels):
        return score, [float(k == score) for k in range(len(grid.labels))]
    probabilities = [0.0] * len(grid.labels)
    for token, logprob in alternatives.items():
        number = _NUMBER.fullmatch(token.strip())  # "2" is the score of the label "2.0" too
        if number and float(number[0]) in grid.values:
            probabilities[grid.index(float(number[0]))] += math.exp(logprob)
    return score, probabilities


def _alternatives(reply: ChatReply, start: int, written: str) -> Mapping[str, float] | None:
    """What could have stood in place of the score; None where it is not one token, or the tokens are not those of the text."""
    if reply.tokens is None or "".join(token for token, _ in reply.tokens) != reply.text:
        return None
    end = 0
    for token, others in reply.tokens:
        end += len(token)
        if end > start:
            return others if token.strip() == written else None
    return None


def _ambiguous(labels: Sequence[str]) -> bool:
    """Whether a score begins like another ("1", "10"): the probability of its token may then be that of both."""
    return any(a != b and b.startswith(a) for a in labels for b in labels)
