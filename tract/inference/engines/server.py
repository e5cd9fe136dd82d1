"""A server that speaks OpenAI's completions protocol as the engine of a judge that is served already.

vLLM's server takes and gives token ids, and log-probabilities of chosen tokens (``api="vllm"``). Any other one (``api="openai"``) is
asked with what the protocol itself has: token ids go in, text comes back and is encoded anew, and the log-probability of each score
token is read where the server echoes the prompt.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tract.common.errors import ConfigError, GenerationError
from tract.common.masking import masked_text
from tract.inference.engines.engine import Ask, Reply

# A text whose tokens tell whether the server has the judge's tokenizer.
_PROBE = "So the overall score is 3. [RESULT] 3"


@dataclass(frozen=True)
class EndpointSettings:
    """Where the judge is served.

    Attributes:
        base_url: up to and including /v1. model: its name there; None for the only one. api: "vllm" or "openai".
        api_key_env: environment variable that holds the key; it may be unset where the server wants none.
        timeout_s: the longest that an answer may take. max_retries: of a request that failed on its way, or that the server put off.
        encode: text -> token ids as they stand behind a prompt. score_ids: text of each score -> its token ids behind the cue.
    """

    base_url: str
    model: str | None
    api: str
    api_key_env: str
    timeout_s: float
    max_retries: int
    encode: Callable[[str], list[int]]
    score_ids: Mapping[str, tuple[int, ...]]

    @property
    def shown_url(self) -> str:
        """The address for messages: it may hold a password or key."""
        return masked_text(self.base_url)


class ServerEngine:
    """Requests over HTTP; retries and connections are those of the ``openai`` package."""

    def __init__(self, settings: EndpointSettings, client: Any, model: str) -> None:
        self._settings = settings
        self._client = client
        self._model = model

    async def complete(self, ask: Ask) -> Reply:
        """See ``Engine``."""
        if self._settings.api == "vllm":
            return await self._by_ids(ask)
        logprobs = await asyncio.gather(*(self._echoed(ask, token) for token in ask.logprob_ids))
        return await self._by_text(ask, dict(zip(ask.logprob_ids, logprobs, strict=True)))

    async def close(self) -> None:
        """See ``Engine``."""
        await self._client.close()

    async def _by_ids(self, ask: Ask) -> Reply:
        extra: dict[str, Any] = {
            "repetition_penalty": ask.sampling.repetition_penalty,
            "ignore_eos": True,
            "stop_token_ids": list(ask.end_ids),
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
        if ask.logprob_ids:
            extra |= {"logprob_token_ids": list(ask.logprob_ids), "return_tokens_as_token_ids": True}
        answer = await self._create(
            ask, ask.max_tokens, stop=[ask.stop] if ask.stop else None, logprobs=0 if ask.logprob_ids else None, extra_body=extra
        )
        ids = _field(answer, "token_ids")
        if ids is None:
            raise GenerationError("the server gives no token ids, as vLLM's does; set generation.server.api=openai")
        ended = answer.finish_reason == "stop" and bool(ids) and ids[-1] in ask.end_ids
        found = answer.logprobs.top_logprobs[0] if ask.logprob_ids else {}
        named = {token: found.get(f"token_id:{token}") for token in ask.logprob_ids}
        return Reply(tuple(ids[:-1] if ended else ids), ended, {token: value for token, value in named.items() if value is not None})

    async def _by_text(self, ask: Ask, logprobs: dict[int, float]) -> Reply:
        penalty = ask.sampling.repetition_penalty
        # No stop text: that a text ended there, and where, could not be told from the answer.
        answer = await self._create(ask, ask.max_tokens, extra_body={"repetition_penalty": penalty} if penalty != 1 else None)
        ids = self._score_ids(answer.text) if logprobs else tuple(self._settings.encode(answer.text))
        return Reply(ids, answer.finish_reason == "stop", logprobs)

    def _score_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of the score that a text behind the cue begins with, as the layout cuts it; none where it begins with no score."""
        begun = [label for label in self._settings.score_ids if text.strip().startswith(label)]
        return self._settings.score_ids[max(begun, key=len)] if begun else ()

    async def _echoed(self, ask: Ask, token: int) -> float:
        """The log-probability of a token behind the prompt, as part of a prompt that the server says again."""
        answer = await self._create(ask, 1, then=token, echo=True, logprobs=1, greedy=True)
        place, values = len(ask.ids), getattr(answer.logprobs, "token_logprobs", None)
        if values is None or len(values) <= place or values[place] is None:
            raise GenerationError(
                "the server does not echo log-probabilities of the prompt (echo=true, logprobs=1), which the score distribution is read "
                "from; serve the judge with vLLM and set generation.server.api=vllm"
            )
        return float(values[place])

    async def _create(self, ask: Ask, max_tokens: int, *, then: int | None = None, greedy: bool = False, **more: Any) -> Any:
        """The first choice of the answer."""
        sampling = ask.sampling
        asked = self._client.completions.create(
            model=self._model,
            prompt=[*ask.ids, *([] if then is None else [then])],
            max_tokens=max_tokens,
            temperature=0.0 if greedy else sampling.temperature,
            top_p=1.0 if greedy or not sampling.temperature else sampling.top_p,
            seed=ask.seed,
            **{name: value for name, value in more.items() if value is not None},
        )
        answer = await answered(asked, f"a request of {len(ask.ids)} tokens", self._settings.shown_url)
        return answer.choices[0]


async def answered(asked: Awaitable[Any], what: str, shown_url: str) -> Any:
    """The answer to a request of the ``openai`` package.

    Args:
        asked: under way. what: the request in a few words. shown_url: the server's address, without secrets.

    Raises:
        GenerationError: if it is refused, or there is none; its cause is the package's error.
    """
    import openai

    try:
        return await asked
    except openai.APIStatusError as error:
        raise GenerationError(f"the server refuses {what} ({error.status_code}): {_said(error)}") from error
    except openai.APIConnectionError as error:
        raise GenerationError(
            f"the server at {shown_url} does not answer ({_said(error)}); "
            "run the same command again when it does: it goes on where it stopped"
        ) from error


async def connect(settings: EndpointSettings) -> ServerEngine:
    """An engine at a server that answers, serves the model and has the judge's tokenizer.

    Raises:
        ConfigError: if one of these is not so.
    """
    import openai

    client = openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=os.environ.get(settings.api_key_env) or "none",
        timeout=settings.timeout_s,
        max_retries=settings.max_retries,
    )
    try:
        served = [model.id async for model in client.models.list()]
    except openai.APIStatusError as error:
        hint = f"; put the key into the environment variable {settings.api_key_env}" if error.status_code in (401, 403) else ""
        raise ConfigError(
            f"generation.server.base_url: {settings.shown_url} answers {error.status_code} to /models: {_said(error)}{hint}; "
            "give the address up to and including /v1"
        ) from error
    except openai.APIConnectionError as error:
        raise ConfigError(f"generation.server.base_url: {settings.shown_url} does not answer ({_said(error)}); is it started?") from error
    if settings.model is None and len(served) != 1:
        raise ConfigError(f"generation.server.model: {settings.shown_url} serves {len(served)} models; give one of {', '.join(served)}")
    if settings.model is not None and settings.model not in served:
        raise ConfigError(f"generation.server.model: {settings.model!r} is not served; accepted are {', '.join(served)}")
    engine = ServerEngine(settings, client, settings.model or served[0])
    if settings.api == "vllm":
        await _check_tokenizer(engine, settings)
    return engine


async def _check_tokenizer(engine: ServerEngine, settings: EndpointSettings) -> None:
    answer = await engine._client.completions.create(
        model=engine._model,
        prompt=_PROBE,
        max_tokens=1,
        temperature=0.0,
        extra_body={"add_special_tokens": False, "return_token_ids": True},
    )
    found = _field(answer.choices[0], "prompt_token_ids")
    if found is not None and list(found) != settings.encode(_PROBE):
        raise ConfigError(
            f"generation.server.model: {engine._model!r} has another tokenizer than the judge ({_PROBE!r} is {list(found)[:8]}... there, "
            f"{settings.encode(_PROBE)[:8]}... here); give the judge that is served: judge=..., or model=... of it"
        )


def _field(choice: Any, name: str) -> Any:
    """A field that OpenAI's own protocol does not have."""
    return (choice.model_extra or {}).get(name)


def _said(error: Exception) -> str:
    cause = error.__cause__
    return masked_text(" ".join(str(error).split())[:200] + (f" {type(cause).__name__}: {cause}" if cause else ""))
