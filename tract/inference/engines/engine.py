"""Judging with an engine that serves many requests at once (vLLM, a server): one coroutine for each CoT, as many as fit at a time.

A CoT is one request, which ends at the answer cue. The layout's own cue is appended to the CoT's token ids and the distribution over
the grid is read from the log-probabilities behind it, which an engine with a prefix cache does without running the CoT again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tract.common.errors import GenerationError
from tract.inference.judgement import CUE, DIRECT, END, GIVEN, LENGTH, MOST_MASS, NONE, Judgement, Prompt, no_distribution
from tract.inference.sampling import Sampling, draw_key
from tract.inference.stopping import CueFinder, free_tokens, score_of_path
from tract.method.predictors import probabilities_of_pairs, score_pairs
from tract.text.layout import SequenceLayout

# Of a request's seed: whole bytes, and few enough for a server that reads numbers as doubles.
_SEED_BITS = 48
_LOOK = "set trainer.precision=32-true where this run starts the engine, and look at the judge's weights and at what serves it"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        ids: token ids of the prompt. max_tokens: the most tokens to draw behind it.
        sampling: how they are drawn. seed: fixes every draw.
        end_ids: tokens that end the drawing. stop: text that does so too, where the engine can tell; None for none.
        logprob_ids: tokens whose log-probabilities behind the prompt, from the full softmax, are wanted.
    """

    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    seed: int
    end_ids: tuple[int, ...] = ()
    stop: str | None = None
    logprob_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine answers.

    Attributes:
        ids: the tokens that were drawn, without one that ended the drawing. ended: whether one of ``end_ids`` was drawn.
        logprobs: token -> log-probability, for each of ``logprob_ids``.
    """

    ids: tuple[int, ...]
    ended: bool
    logprobs: dict[int, float]


class Engine(Protocol):
    """Whoever runs the model."""

    async def complete(self, ask: Ask) -> Reply:
        """The answer to a request.

        Raises:
            GenerationError: if there is none.
        """

    async def close(self) -> None:
        """Ends what was started; nothing is asked afterwards."""


class EngineRequests:
    """What a judge asks of an engine: each judgement is a coroutine of a few requests.

    Args:
        engine: at work. layout: cue, grid and end of turn. sampling: how CoTs are drawn. seed: with example and sample it fixes every draw.
    """

    def __init__(self, engine: Engine, layout: SequenceLayout, sampling: Sampling, seed: int) -> None:
        self.layout = layout
        self.sampling = sampling
        self.seed = seed
        self._engine = engine
        self._finder = CueFinder(layout)
        self._end_ids = tuple(sorted(self._finder.end_ids))
        self._free_tokens = free_tokens(layout)
        nodes, tokens = score_pairs(layout.trie, torch.device("cpu"))
        self._pairs = list(zip(nodes.tolist(), tokens.tolist(), strict=True))

    async def sampled(self, prompt: Prompt, sample: int, free: bool) -> Judgement:
        """Samples one CoT and reads the score behind it; with ``free`` the judge goes on to write its own score.

        Raises:
            GenerationError: if the engine fails, or what it gives is no distribution.
        """
        limit = self.sampling.max_cot_tokens
        # The limit holds for the CoT alone: a cue that has begun may be completed.
        most = limit + len(self.layout.cue_ids)
        ids: list[int] = []
        ended, found = False, None
        while not ended and found is None and len(ids) < most:
            reply = await self._drawn(prompt, ids, most - len(ids), draw_key(self.seed, prompt.id, sample, "cot", _SEED_BITS) + len(ids))
            ids, ended = [*ids, *reply.ids], reply.ended or not reply.ids
            found = self._finder.first_cue(ids)
        if found is not None and found[0] <= limit:
            length, finish = found[0], CUE
            ids = await self._freely(prompt, sample, ids, ended, found[1] + self._free_tokens) if free else ids[: found[1]]
        elif ended and len(ids) <= limit:
            length, finish = len(ids), END
        else:
            length, finish = min(len(ids), limit), LENGTH
        length, finish = self._finder.closed(ids[:length], finish)
        return await self._judged(prompt, sample, ids[:length], finish, self._finder.text(ids))

    async def _freely(self, prompt: Prompt, sample: int, ids: list[int], ended: bool, most: int) -> list[int]:
        """The tokens, gone on with behind the judge's own cue to its end of turn, or to ``most`` tokens."""
        if not ended and len(ids) < most:
            reply = await self._drawn(prompt, ids, most - len(ids), draw_key(self.seed, prompt.id, sample, "free", _SEED_BITS), cue=False)
            ids = [*ids, *reply.ids]
        return ids[:most]

    async def _drawn(self, prompt: Prompt, ids: Sequence[int], most: int, seed: int, *, cue: bool = True) -> Reply:
        stop = self.layout.cue.strip() if cue else None
        return await self._ask(prompt, Ask((*prompt.prompt_ids, *ids), most, self.sampling, seed, self._end_ids, stop))

    async def given(self, prompt: Prompt, sample: int, ids: Sequence[int]) -> Judgement:
        """Reads the score behind a CoT that is given, or right behind the prompt (``DIRECT``); errors as in ``sampled``."""
        return await self._judged(prompt, sample, ids, NONE if sample == DIRECT else GIVEN, None)

    async def _judged(self, prompt: Prompt, sample: int, cot: Sequence[int], finish: str, text: str | None) -> Judgement:
        """Appends the cue and reads the score, at every node of the score trie."""
        trie = self.layout.trie
        behind = (*prompt.prompt_ids, *cot, *self.layout.cue_ids)
        wanted = [tuple(token for at, token in self._pairs if at == node) for node in range(len(trie.paths))]
        greedy = Sampling(0.0, 1.0, 1.0, 1)
        # The first node's request draws the score too: log-probabilities are those before temperature and penalty.
        depth = max(map(len, trie.paths)) + 1
        seed = draw_key(self.seed, prompt.id, sample, "score", _SEED_BITS)
        asks = [Ask(behind, depth, self.sampling, seed, logprob_ids=wanted[0])]
        asks += [Ask((*behind, *path), 1, greedy, 0, logprob_ids=wanted[node]) for node, path in enumerate(trie.paths) if node]
        replies = await asyncio.gather(*(self._ask(prompt, ask) for ask in asks))
        log_probs = torch.tensor([[replies[node].logprobs[token] for node, token in self._pairs]], dtype=torch.float32)
        probabilities = tuple(probabilities_of_pairs(log_probs, trie)[0].tolist())
        if problem := no_distribution(probabilities):
            raise GenerationError(f"generation: {prompt.id}: the engine's score probabilities are none: {problem}; {_LOOK}")
        return Judgement(
            id=prompt.id,
            row=prompt.row,
            sample=sample,
            cot_ids=tuple(cot),
            cot=self._finder.text(cot),
            finish=finish,
            probabilities=probabilities,
            forced_decode=self._forced_decode(replies[0].ids),
            raw_output=text,
        )

    def _forced_decode(self, drawn: Sequence[int]) -> int | None:
        """The score that the drawn tokens begin with."""
        for length in range(1, len(drawn) + 1):
            if tuple(drawn[:length]) not in self.layout.trie.paths:
                return score_of_path(tuple(drawn[:length]), self.layout)
        return None

    async def _ask(self, prompt: Prompt, ask: Ask) -> Reply:
        try:
            reply = await self._engine.complete(ask)
        except GenerationError as error:
            raise GenerationError(f"generation: {prompt.id}: {error}") from error.__cause__
        given = [reply.logprobs.get(token) for token in ask.logprob_ids]
        found = [value for value in given if value is not None]
        if len(found) < len(given):
            missing = [token for token, value in zip(ask.logprob_ids, given, strict=True) if value is None]
            raise GenerationError(f"generation: {prompt.id}: the engine gave no log-probability of the score tokens {missing}")
        if not all(map(math.isfinite, found)):
            raise GenerationError(f"generation: {prompt.id}: the judge's log-probabilities are not finite, {found}; {_LOOK}")
        # Of one node: no two of its tokens can both be drawn.
        if max(found, default=0.0) > math.log(MOST_MASS) or math.fsum(map(math.exp, found)) > MOST_MASS:
            raise GenerationError(f"generation: {prompt.id}: the engine's log-probabilities {found} are those of more than 1; {_LOOK}")
        return reply
