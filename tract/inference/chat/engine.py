"""A hosted chat model as a judge, by OpenAI's chat protocol: texts go out; a text comes back, with log-probabilities where there are any.

There are no token ids, and nothing can be appended to what the model writes. So the score is the one that it wrote behind its own cue; the
distribution is that of the tokens there, among the alternatives that the server tells.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tract.common.errors import ConfigError
from tract.common.masking import masked_text
from tract.inference.chat.answers import ChatReply, ServerRefusedError, failure_of, json_or_text, no_answer, reply_of
from tract.inference.chat.requests import Shape, adapted, body_of, parts_of
from tract.inference.chat.score import Written, written_score
from tract.inference.chat.thoughts import Separated, separate_thoughts
from tract.inference.chat.tokens import MOST_UNDECIDED, place_of, spread_of
from tract.inference.chat.waiting import BusyError, with_retries
from tract.inference.judgement import END, LENGTH, Judgement, Prompt
from tract.inference.sampling import Sampling, draw_key
from tract.inference.worker import Work
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

# Of a request's seed: whole numbers that every server takes.
_SEED_BITS = 24


@dataclass(frozen=True)
class ChatSettings:
    """Where the model is served, and what it is asked beside the texts.

    Attributes:
        base_url: up to and including /v1; None for the ``openai`` package's own. model: its name there.
        api_key_env: environment variable that holds the key. timeout_s: of one answer.
        max_retries: of a request that failed on its way, or that the server put off.
        extra_body: further parameters of each request.
    """

    base_url: str | None
    model: str
    api_key_env: str
    timeout_s: float
    max_retries: int
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown_url(self) -> str:
        """The address for messages: it may hold a password or key."""
        return masked_text(self.base_url or "the server")


class ChatEngine:
    """Requests over HTTP by the ``openai`` package; retries are those of ``with_retries``, which wait longer and know of busy answers."""

    def __init__(self, settings: ChatSettings, client: Any) -> None:
        self._settings = settings
        self._client = client
        # What requests are sent with: less after one that was refused was accepted with less.
        self._shape = Shape()
        self._adapting = asyncio.Lock()
        self._accepted: frozenset[str] = frozenset()
        self._not_sent: frozenset[str] = frozenset()
        self._exceptions: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._scores = 0
        self._undistributed: Counter[str] = Counter()

    async def answer(self, system: str, user: str, sampling: Sampling, seed: int) -> ChatReply:
        """What the model writes.

        Raises:
            GenerationError: if there is no answer.
        """
        bodies = partial(body_of, system=system, user=user, sampling=sampling, seed=seed, extra=self._settings.extra_body)
        while True:
            shape = self._shape
            try:
                return await self._ask(shape, bodies(shape))
            except ServerRefusedError as error:
                refused = error
            left_out = _left_out(shape, refused, bodies)
            if not left_out and self._shape == shape:
                raise refused
            if left_out & self._accepted:  # it is of this request alone: no other one waits
                return await self._ask_with_less(shape, refused, bodies)
            async with self._adapting:  # one request finds out what the server takes, those refused with it wait for that
                if self._shape == shape:
                    return await self._ask_with_less(shape, refused, bodies)

    async def _ask(self, shape: Shape, body: dict[str, Any]) -> ChatReply:
        """The answer to a request; keeps what the server was seen to accept.

        Raises:
            RefusedError, GenerationError: see ``_send``.
        """
        reply = await with_retries(lambda: self._send(body), self._settings.max_retries, self._settings.model, self._warned)
        self._accepted |= parts_of(body)
        if self._shape != shape and parts_of(body) & self._not_sent:  # one that began before the others were sent with less
            log.warning("%s accepts %s: requests send it again", self._settings.model, ", ".join(sorted(parts_of(body) & self._not_sent)))
            self._shape, self._not_sent = shape, self._not_sent - parts_of(body)
        return reply

    async def _ask_with_less(self, shape: Shape, refused: ServerRefusedError, bodies: Callable[[Shape], dict[str, Any]]) -> ChatReply:
        """The answer without what was refused; other requests leave it out too once that was accepted, and none was with it.

        Raises:
            RefusedError, GenerationError: if there is no answer without it either.
        """
        whole, tried, notes = parts_of(bodies(shape)), shape, []
        while True:
            found = adapted(tried, bodies(tried), refused.refusal)
            if found is None:
                raise refused
            tried = found.shape
            notes += [(note, refused.refusal.words) for note in found.notes]
            try:
                reply = await self._ask(tried, bodies(tried))
                break
            except ServerRefusedError as error:
                refused = error
        left_out = whole - parts_of(bodies(tried))
        if left_out & self._accepted:
            self._count_exception(left_out & self._accepted, refused.refusal.words)
        elif self._shape == shape:
            self._shape, self._not_sent = tried, self._not_sent | left_out
            for note, words in notes:
                log.warning("%s %s; the server says: %s", self._settings.model, note, words)
        return reply

    def _count_exception(self, names: Collection[str], words: str) -> None:
        """Counts an answer to a request that left out what others are sent with."""
        shown = ", ".join(sorted(names))
        self._exceptions[shown] += 1
        if self._exceptions[shown] == 1:
            log.warning(
                "%s refuses %s in a request and accepts it in others, so that one alone leaves it out; the server says: %s",
                self._settings.model, shown, words,
            )  # fmt: skip

    def count_score(self, undistributed: str | None) -> None:
        """Counts a score; ``undistributed``: why it has no distribution but what was written, or None if it has."""
        self._scores += 1
        if undistributed is None:
            return
        self._undistributed[undistributed] += 1
        if undistributed not in self._warned:
            self._warned.add(undistributed)
            log.warning("%s: some distributions are the written score alone: %s", self._settings.model, undistributed)

    async def close(self) -> None:
        """Ends the connections; tells how many scores had no distribution, and how many requests left out what others did not."""
        for reason, count in ((reason, count) for reason, count in self._undistributed.items() if count > 1):
            log.warning("%s: %d of %d distributions are the written score alone: %s", self._settings.model, count, self._scores, reason)
        for names, count in ((names, count) for names, count in self._exceptions.items() if count > 1):
            log.warning("%s: %d requests left out %s, which others were accepted with", self._settings.model, count, names)
        self._undistributed.clear()
        self._exceptions.clear()
        await self._client.close()

    async def _send(self, body: dict[str, Any]) -> ChatReply:
        """One answer.

        Raises:
            BusyError, RefusedError, GenerationError: see ``with_retries`` and ``adapted``.
        """
        import openai

        settings = self._settings
        rest = {name: value for name, value in body.items() if name != "messages"}
        try:
            # As text: what is no answer of the protocol is told by its own words.
            async with asyncio.timeout(settings.timeout_s):  # the package's own is that of each read
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=settings.model, messages=body["messages"], extra_body=rest
                )
        except openai.APIStatusError as error:
            raise failure_of(error.status_code, json_or_text(error.response.text), error.response.headers) from error
        except (openai.APITimeoutError, TimeoutError) as error:
            raise BusyError(f"the server at {settings.shown_url} did not answer within timeout_s={settings.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            cause = f" {type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ else ""
            raise BusyError(f"the server at {settings.shown_url} does not answer ({masked_text(str(error) + cause)})") from error
        found = json_or_text(raw.text)
        if isinstance(found, Mapping) and not found.get("error") and isinstance(found.get("choices"), list) and found["choices"]:
            return reply_of(found, raw.headers, wants_tokens="logprobs" in body)
        raise no_answer(found, raw.headers)


def _left_out(shape: Shape, refused: ServerRefusedError, bodies: Callable[[Shape], dict[str, Any]]) -> frozenset[str]:
    """What the request is to leave out next; nothing where the refusal names nothing of it."""
    found = adapted(shape, bodies(shape), refused.refusal)
    return frozenset() if found is None else parts_of(bodies(shape)) - parts_of(bodies(found.shape))


async def connect_chat(settings: ChatSettings) -> ChatEngine:
    """An engine that is ready to be asked; the first request shows whether the model is there.

    Raises:
        ConfigError: if there is no key where the address wants one.
    """
    import openai

    key = os.environ.get(settings.api_key_env)
    if key is None and settings.base_url is None:
        raise ConfigError(f"api_key_env: the environment variable {settings.api_key_env} is not set; put the key of the API into it")
    client = openai.AsyncOpenAI(base_url=settings.base_url, api_key=key or "none", timeout=settings.timeout_s, max_retries=0)
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
    separated = separate_thoughts(reply.text, cut=reply.cut)
    written = _written(separated, cue, grid, cut=reply.cut)
    thoughts = "\n\n".join(filter(None, (reply.thoughts, separated.thoughts)))
    probabilities = [0.0] * len(grid.labels)
    score = None
    if written.value is not None and written.place is not None:
        score = grid.index(written.value)
        place = (separated.place_in_text(written.place[0]), separated.place_in_text(written.place[1] - 1) + 1)
        found = _distribution(reply, place, grid, score)
        engine.count_score(found if isinstance(found, str) and reply.wants_tokens else None)
        probabilities = [float(k == score) for k in range(len(grid.labels))] if isinstance(found, str) else list(found)
    cot = written.cot.strip()
    # As the local judges write it, so that decode_free reads what was read here.
    raw_output = cot if score is None else f"{cot}{cue}{grid.labels[score]}"
    return Judgement(prompt.id, prompt.row, sample, (), cot, written.finish, tuple(probabilities), score, raw_output, thoughts)


def by_text(engine: ChatEngine, seed: int) -> Callable[[Work, int], Coroutine[Any, Any, Judgement]]:
    """Judges by requests of texts, see ``tract.inference.engines.worker.EngineWorker``."""

    async def judge(work: Work, sample: int) -> Judgement:
        layout, texts = work.reading.layout, (work.text.system, work.text.user)
        return await chat_judgement(engine, work.prompt, texts, sample, layout.cue, layout.grid, work.reading.sampling, seed)

    return judge


def _written(separated: Separated, cue: str, grid: ScoreGrid, *, cut: bool) -> Written:
    """The score of an answer; none where the text ends inside a thought, whatever the thought says."""
    if separated.open:
        return Written(separated.answer.strip(), LENGTH if cut else END, None, None)
    return written_score(separated.answer, cue, grid, cut=cut)


def _distribution(reply: ChatReply, place: tuple[int, int], grid: ScoreGrid, score: int) -> tuple[float, ...] | str:
    """The probability of each score at the place of the one that was written; in words what keeps it from being read."""
    if reply.tokens is None:
        return "the server gave no log-probabilities"
    at = place_of(reply.tokens, reply.text, *place)
    if at is None:
        return "the tokens of the server are not those of the text"
    spread = spread_of(reply.tokens, at, reply.text[slice(*place)], grid)
    if spread is None:
        return "the log-probabilities of the server are no distribution over the scores"
    if spread.undecided > MOST_UNDECIDED:
        return "a likely token begins several scores (as 1 does in 1 and 10), and the server does not show the next token"
    if spread.probabilities[score] == 0:  # whatever was read then, it is not what was written
        return "the tokens of the server give the score that was written no probability"
    return spread.probabilities
