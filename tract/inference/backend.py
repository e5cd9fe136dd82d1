"""What a judge backend is to the stages: prompts go in, judgements come out. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tract.inference.judgement import GivenCots, Judgement, Prompt


class JudgeBackend(Protocol):
    """A judge at work, whoever runs its model.

    Attributes:
        independent: whether prompts are judged each by itself, in whatever order an engine likes; else those of a part are judged
            together, and a part of which something is missing is made anew as a whole.
        ranks_per_judge: how many of the stage's processes stand behind one judge; the first of them is given all of their work.
    """

    independent: bool
    ranks_per_judge: int

    def judge_parts(
        self,
        parts: Sequence[Sequence[Prompt]],
        n_cot: int,
        *,
        rows: int,
        without_cot: bool,
        free: bool,
        progress: Callable[[int], None],
    ) -> Iterator[list[Judgement]]:
        """Samples ``n_cot`` CoTs for each prompt and reads the score behind each.

        Args:
            parts: prompts in the order in which they are begun. n_cot: CoTs of each prompt; 0 for none.
            rows: the most CoTs that are sampled at a time. without_cot: whether to read the score right behind the prompt too.
            free: whether to let the judge write its own score after its own cue.
            progress: told how many judgements were made, whenever some were.

        Yields:
            Judgements that are to be kept now; all of a part at once, unless the backend is ``independent``.
        """

    def read_parts(
        self, parts: Sequence[Sequence[tuple[Prompt, GivenCots]]], *, rows: int, progress: Callable[[int], None]
    ) -> Iterator[list[Judgement]]:
        """Reads the score behind given CoTs; arguments as in ``judge_parts``, with the CoTs of each prompt."""

    def close(self) -> None:
        """Frees what was started; nothing is asked afterwards."""


class BatchJudge(ABC):
    """A backend that works off one part after the other."""

    independent = False
    ranks_per_judge = 1

    @abstractmethod
    def judge(
        self, prompts: Sequence[Prompt], n_cot: int, *, rows: int, without_cot: bool, free: bool, progress: Callable[[int], None]
    ) -> list[Judgement]:
        """The judgements of one part, see ``judge_parts``."""

    @abstractmethod
    def read(self, prompts: Sequence[Prompt], cots: Sequence[GivenCots]) -> list[Judgement]:
        """The judgements of one batch with given CoTs."""

    def judge_parts(
        self,
        parts: Sequence[Sequence[Prompt]],
        n_cot: int,
        *,
        rows: int,
        without_cot: bool,
        free: bool,
        progress: Callable[[int], None],
    ) -> Iterator[list[Judgement]]:
        """See ``JudgeBackend``."""
        for part in parts:
            yield self.judge(part, n_cot, rows=rows, without_cot=without_cot, free=free, progress=progress)

    def read_parts(
        self, parts: Sequence[Sequence[tuple[Prompt, GivenCots]]], *, rows: int, progress: Callable[[int], None]
    ) -> Iterator[list[Judgement]]:
        """See ``JudgeBackend``; a part is one batch."""
        for part in parts:
            judgements = self.read([prompt for prompt, _ in part], [given for _, given in part])
            progress(len(judgements))
            yield judgements

    def close(self) -> None:
        """See ``JudgeBackend``; the model goes with its last user."""
        return
