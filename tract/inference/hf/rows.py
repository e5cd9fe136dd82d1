"""Judging with a Hugging Face model in which a packed row, or a live cache, is not exact: state-space layers, biases by position.

CoTs are sampled by transformers' ``generate``, which knows each model's own cache; every sequence is a row of its own, and those of a
batch have prompts of one length, so that nothing is filled up. Scores are read behind the finished CoTs by one more forward pass.
The draws are those of ``HFJudge``: a sequence's random numbers belong to run, example and sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from tract.inference.hf.cots import seen_tokens
from tract.inference.hf.judge import Begin, HFJudge
from tract.inference.hf.live import PREFILL_TOKENS
from tract.inference.judgement import DIRECT, Judgement, Prompt
from tract.inference.sampling import draw_tokens, uniforms
from tract.models.packed_forward import takes_rows

# Marks a model whose cache does not give what it gives without one.
_NO_CACHE = "_tract_without_cache"


class RowsJudge(HFJudge):
    """A judge on one device, each of whose sequences is a row; arguments as those of ``HFJudge``."""

    def flow(self, begin: Callable[[int], Begin | None], *, free: bool) -> Iterator[list[Judgement]]:
        """See ``HFJudge``; what begins is judged to its end before more begins."""
        while (new := begin(0)) is not None:
            made: list[Judgement] = []
            if new.without_cot:
                made += self.read(new.prompts, [[(DIRECT, ())] for _ in new.prompts])
            if new.n_cot:
                for _, alike in groupby(sorted(new.prompts, key=_length), key=_length):
                    made += self._sample(list(alike), new.n_cot, free)
            yield made

    def _sample(self, prompts: Sequence[Prompt], n_cot: int, free: bool) -> list[Judgement]:
        """The judgements of prompts of one length."""
        sequences = [self._sequence(prompt, sample) for prompt in prompts for sample in range(n_cot)]
        drawn_from = np.stack([uniforms(self.seed, s.prompt.id, s.sample, "cot", self._most) for s in sequences])
        numbers = iter(torch.from_numpy(drawn_from).to(self.device).T)
        seen: Tensor | None = None

        def choose(logits: Tensor) -> Tensor:
            nonlocal seen
            if seen is None:
                seen = seen_tokens(sequences, logits.shape[-1], self.device)
            self._reader.check_finite(logits, sequences)
            tokens = draw_tokens(logits, seen, next(numbers), self.sampling)
            seen.scatter_(1, tokens[:, None], True)
            for sequence, token in zip(sequences, tokens.tolist(), strict=True):
                self._advance(sequence, token, free)
            return tokens

        ids = torch.tensor([sequence.prompt.prompt_ids for sequence in sequences], device=self.device)
        with self._inference():
            generate_steps(self.model, ids, choose, lambda: [sequence.done for sequence in sequences], self._most)
            logits = self._logits_behind([(s.prompt, [s.ids[: s.cot_length]]) for s in sequences])
            return self._reader.read(logits, sequences)

    def _logits_behind(self, cots: Sequence[tuple[Prompt, Sequence[Sequence[int]]]]) -> Tensor:
        """See ``HFJudge``; so many rows at a time as hold the tokens of a prefill, those that fill them up counted."""
        alone = [(prompt, [ids]) for prompt, given in cots for ids in given]
        lengths = [len(prompt.prompt_ids) + len(ids) + self.layout.max_tail_tokens for prompt, (ids,) in alone]
        rows = 1 + self.layout.branches
        groups: list[list[int]] = []
        for number, length in enumerate(lengths):
            longest = max([length, *(lengths[k] for k in groups[-1])]) if groups else length
            if groups and (len(groups[-1]) + 1) * rows * longest <= PREFILL_TOKENS:
                groups[-1].append(number)
            else:
                groups.append([number])
        return torch.cat([super(RowsJudge, self)._logits_behind([alone[k] for k in group]) for group in groups])


def hf_judge_of(model: nn.Module) -> type[HFJudge]:
    """The class of judge that fits how sequences go through a model."""
    return RowsJudge if takes_rows(model) else HFJudge


def _length(prompt: Prompt) -> int:
    return len(prompt.prompt_ids)


def generate_steps(
    model: nn.Module, ids: Tensor, choose: Callable[[Tensor], Tensor], done: Callable[[], Sequence[bool]], most: int
) -> None:
    """Lets transformers' ``generate`` go on from rows of token ids, with tokens that somebody else chooses.

    Args:
        model: a causal LM, with or without an adapter. ids: [B, P] int64.
        choose: from logits [B, V] to the next tokens, [B] int64. done: of each row, whether nothing more is wanted.
        most: tokens of a row at most.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=most, use_cache=not getattr(model, _NO_CACHE, False), pad_token_id=0
    )
    with _only(base, config):
        base.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            logits_processor=LogitsProcessorList([_Chosen(choose)]),
            stopping_criteria=StoppingCriteriaList([_Ended(done)]),
        )


def without_cache(model: nn.Module) -> None:
    """Lets the whole of each sequence go through a model for each token: where its cache is not exact."""
    setattr(model, _NO_CACHE, True)


@contextmanager
def _only(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Generation by these settings alone; what a model brings along (tokens to suppress, an end) would be filled in."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


class _Chosen(LogitsProcessor):
    """Leaves one token of each row."""

    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        self._choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.full_like(scores, -torch.inf).scatter_(1, self._choose(scores)[:, None], 0.0)


class _Ended(StoppingCriteria):
    def __init__(self, done: Callable[[], Sequence[bool]]) -> None:
        self._done = done

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.tensor(self._done(), device=input_ids.device)
