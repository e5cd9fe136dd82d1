"""A live model behind a queue: whatever threads ask for is judged together, and new requests join those that are being sampled.

A worker knows token ids and judgements; requests and grades are ``tract.judge.judge``'s. ``hf.worker`` runs a model of this process,
``engines.worker`` asks an engine (vLLM, a server). Pure.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Protocol

from tract.common.errors import GenerationError
from tract.inference.judgement import Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptText

# Readings that a judge keeps at a time.
MOST_READINGS = 64
# Longest wait for a worker's thread when it is closed, in seconds.
CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ReadoutConfig:
    """How scores are read; works that share one are judged together. What is kept for one goes with its last user.

    Attributes:
        layout: cue, grid and end of turn. sampling: how CoTs are drawn. free: whether the judge writes its own score too.
    """

    layout: SequenceLayout
    sampling: Sampling
    free: bool


@dataclass(frozen=True, slots=True)
class Work:
    """A prompt to judge: ``n_cot`` CoTs, or with 0 the score right behind the prompt; its text is for who takes no token ids."""

    prompt: Prompt
    text: PromptText
    n_cot: int
    reading: ReadoutConfig

    @property
    def expected(self) -> int:
        """How many judgements it makes."""
        return max(self.n_cot, 1)


class Worker(Protocol):
    """Judges what it is given, in threads of its own."""

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """The judgements, when they are made; an error of this work alone is the future's.

        Raises:
            ClosedError: if it was closed.
        """

    def close(self) -> None:
        """Ends: what waits is cancelled, what is being made as well."""


class ClosedError(GenerationError):
    """The worker takes nothing any more."""

    def __init__(self) -> None:
        super().__init__("the judge is closed; load it again with Judge.from_pretrained")


def set_result_unless_cancelled(future: Future[Any], result: Any) -> None:
    """Gives a future its result, unless whoever wanted it has cancelled it meanwhile."""
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(result)
    except InvalidStateError:
        return
