"""Judging with a Hugging Face model: CoTs are sampled and scores read from one live KV cache, in one pass.

A prompt runs through the model once. Its cache is repeated for its CoTs; where a CoT ends, the cue's token ids are appended
and the distribution over the grid is read (RAIL; TRACT section 3.1). No text is encoded a second time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tract.data.batches import visible_tokens
from tract.errors import GenerationError
from tract.generation.judgement import CUE, END, GIVEN, LENGTH, NO_COT, NONE, Judgement, Prompt
from tract.generation.live import LiveCache
from tract.generation.sampling import Sampling, draw_tokens, uniforms
from tract.generation.stopping import CueFinder
from tract.layout import SequenceLayout
from tract.predictors import log_normalizer, score_probabilities

# Tokens that a judge may write freely behind its own cue, beyond those of a score: blanks, brackets, the end of turn.
_FREE_MARGIN = 4


@dataclass(slots=True)
class _Sequence:
    """A CoT that is being sampled."""

    prompt: Prompt
    sample: int
    uniforms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # one for each token to sample
    ids: list[int] = field(default_factory=list)
    cot_length: int | None = None  # known when the CoT has ended
    finish: str = ""
    last: int = 0  # number of tokens at which sampling ends, at the latest
    done: bool = False


class HFJudge:
    """A judge on one device.

    Args:
        model: a causal LM, with or without an adapter, in evaluation mode on its device.
        layout: cue, grid and end of turn; what the judge was trained with.
        pad_id: fills short prompts; its value moves no number.
        sampling: how CoTs are drawn.
        seed: of the run; with example and sample it fixes every draw.
        autocast: dtype of the arithmetic where it is not the model's own, e.g. torch.bfloat16; None for the model's.
    """

    def __init__(
        self, model: nn.Module, layout: SequenceLayout, pad_id: int, sampling: Sampling, seed: int, autocast: torch.dtype | None
    ) -> None:
        self.model = model
        self.layout = layout
        self.pad_id = pad_id
        self.sampling = sampling
        self.seed = seed
        self.device = next(model.parameters()).device
        self._autocast = autocast
        self._finder = CueFinder(layout)
        self._block = _ScoreBlock(layout, self.device)
        self._free_tokens = max(len(ids) for ids in layout.score_ids) + _FREE_MARGIN

    def judge(self, prompts: Sequence[Prompt], n_cot: int, *, without_cot: bool, free: bool) -> list[Judgement]:
        """Samples ``n_cot`` CoTs for each prompt of a batch and reads the score behind each.

        Args:
            prompts: one batch; about equally long ones waste least.
            n_cot: CoTs of each prompt; 0 for none.
            without_cot: whether to read the score right behind the prompt too (sample ``NO_COT``).
            free: whether to let the judge write its own score after its own cue.

        Raises:
            GenerationError: if logits are not finite.
        """
        with self._inference():
            live, logits = LiveCache.prefill(self.model, [prompt.prompt_ids for prompt in prompts], self.pad_id, self.device)
            empty = [_Sequence(prompt, NO_COT, cot_length=0, finish=NONE) for prompt in prompts]
            judgements = self._read(live, empty) if without_cot else []
            if n_cot:
                owners = [number for number in range(len(prompts)) for _ in range(n_cot)]
                sequences = [self._sequence(prompts[owner], k % n_cot) for k, owner in enumerate(owners)]
                live = live.take(owners) if n_cot > 1 else live
                judgements += self._sample(live, logits[owners], sequences, free)
            return sorted(judgements, key=lambda judgement: (judgement.row, judgement.sample))

    def read(self, prompts: Sequence[Prompt], cots: Sequence[Sequence[int]], samples: Sequence[int]) -> list[Judgement]:
        """Reads the score behind given CoTs, one of each prompt of a batch.

        Args:
            prompts: one for each CoT. cots: their token ids; none for the reading without a CoT. samples: their numbers.
        """
        with self._inference():
            whole = [[*prompt.prompt_ids, *cot] for prompt, cot in zip(prompts, cots, strict=True)]
            live, _ = LiveCache.prefill(self.model, whole, self.pad_id, self.device)
            sequences = [
                _Sequence(prompt, sample, ids=list(cot), cot_length=len(cot), finish=NONE if sample == NO_COT else GIVEN)
                for prompt, cot, sample in zip(prompts, cots, samples, strict=True)
            ]
            return self._read(live, sequences)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        autocast = torch.autocast(self.device.type, self._autocast) if self._autocast else contextlib.nullcontext()
        with torch.inference_mode(), autocast:
            yield

    def _sequence(self, prompt: Prompt, sample: int) -> _Sequence:
        most = self.sampling.max_cot_tokens + self._free_tokens + len(self.layout.cue_ids)
        return _Sequence(prompt, sample, uniforms(self.seed, prompt.id, sample, "cot", most), last=most)

    def _sample(self, live: LiveCache, logits: Tensor, sequences: list[_Sequence], free: bool) -> list[Judgement]:
        """Samples until every CoT has ended; sequences that are done leave the batch when half of it is."""
        judgements: list[Judgement] = []
        seen = _seen(sequences, logits.shape[-1], self.device)
        step = 0
        one, itself = torch.zeros(1, dtype=torch.long, device=self.device), torch.ones(1, 1, dtype=torch.bool, device=self.device)
        while sequences:
            self._check_finite(logits, sequences)
            uniform = torch.tensor([s.uniforms[step] for s in sequences], dtype=torch.float64, device=self.device)
            tokens = draw_tokens(logits, seen, uniform, self.sampling)
            seen.scatter_(1, tokens[:, None], True)
            for sequence, token in zip(sequences, tokens.tolist(), strict=True):
                self._advance(sequence, token, free)
            step += 1
            # The newest token goes into the cache before any sequence leaves: it may be the last one of a CoT.
            logits = live.append(tokens[:, None], one, itself, one).squeeze(1)
            going = [k for k, sequence in enumerate(sequences) if not sequence.done]
            if 2 * len(going) > len(sequences):
                continue
            done = [k for k, sequence in enumerate(sequences) if sequence.done]
            judgements += self._finish(live.take(done), [sequences[k] for k in done])
            if going:
                live, logits, seen = live.take(going), logits[going], seen[going]
            sequences = [sequences[k] for k in going]
        return judgements

    def _advance(self, sequence: _Sequence, token: int, free: bool) -> None:
        """Takes a sampled token in: does the CoT end with it, or the sampling?"""
        if sequence.done:
            return
        ended = token in self._finder.end_ids
        if not ended:
            sequence.ids.append(token)
        if sequence.cot_length is None:
            if ended and len(sequence.ids) <= self.sampling.max_cot_tokens:
                sequence.cot_length, sequence.finish = len(sequence.ids), END
            elif (length := self._finder.cot_length(sequence.ids)) is not None and length <= self.sampling.max_cot_tokens:
                sequence.cot_length, sequence.finish = length, CUE
                sequence.last = len(sequence.ids) + (self._free_tokens if free else 0)
            elif len(sequence.ids) >= self.sampling.max_cot_tokens:
                # The limit holds for the CoT alone: a cue that has begun may be completed.
                sequence.last = min(sequence.last, self.sampling.max_cot_tokens + len(self.layout.cue_ids))
        if ended or len(sequence.ids) >= sequence.last:
            sequence.done = True
            if sequence.cot_length is None:
                sequence.cot_length, sequence.finish = min(len(sequence.ids), self.sampling.max_cot_tokens), LENGTH

    def _finish(self, live: LiveCache, sequences: list[_Sequence]) -> list[Judgement]:
        """Cuts what was written behind the CoTs and reads the scores."""
        lengths = torch.tensor([len(s.prompt.prompt_ids) for s in sequences], device=self.device)
        cots = torch.tensor([s.cot_length for s in sequences], device=self.device)
        # Sampled tokens stand in the slots behind the longest prompt of the batch, the same ones for every sequence.
        live.disown(live.sampled_from + cots, lengths + cots)
        return self._read(live, sequences)

    def _read(self, live: LiveCache, sequences: list[_Sequence]) -> list[Judgement]:
        """Appends the cue where each CoT ends and reads the distribution over the grid."""
        block = self._block
        logits = live.peek(block.ids.expand(len(sequences), -1), block.depths, block.within, block.reads)  # [B, K, V]
        self._check_finite(logits.flatten(0, 1), sequences)
        flat = logits.flatten(0, 1)
        rows = torch.arange(len(flat), device=flat.device).view(len(sequences), -1)
        probabilities = score_probabilities(flat, log_normalizer(flat), rows, self.layout.trie).tolist()
        forced = self._draw_scores(logits, sequences)
        return [self._judgement(sequence, probabilities[k], forced[k]) for k, sequence in enumerate(sequences)]

    def _judgement(self, sequence: _Sequence, probabilities: list[float], forced: int | None) -> Judgement:
        cot = sequence.ids[: sequence.cot_length]
        free = self._finder.text(sequence.ids) if sequence.finish in (CUE, END, LENGTH) else None
        return Judgement(
            id=sequence.prompt.id,
            row=sequence.prompt.row,
            sample=sequence.sample,
            cot_ids=tuple(cot),
            cot=self._finder.text(cot),
            finish=sequence.finish,
            probabilities=tuple(probabilities),
            forced=forced,
            free_text=free,
        )

    def _draw_scores(self, logits: Tensor, sequences: list[_Sequence]) -> list[int | None]:
        """Draws a score behind the forced cue, token by token, with the sampling settings; None for what is no score.

        Args:
            logits: [B, K, V] at the nodes of the score trie.
        """
        trie = self.layout.trie
        seen = _seen(sequences, logits.shape[-1], self.device)
        seen[:, self._block.ids] = True
        depth = max(len(path) for path in trie.paths) + 1
        draws = [uniforms(self.seed, s.prompt.id, s.sample, "score", depth) for s in sequences]
        paths: list[tuple[int, ...]] = [()] * len(sequences)
        for level in range(depth):
            walking = [k for k, path in enumerate(paths) if len(path) == level and path in trie.paths]
            if not walking:
                break
            nodes = [trie.paths.index(paths[k]) for k in walking]
            uniform = torch.tensor([draws[k][level] for k in walking], dtype=torch.float64, device=self.device)
            tokens = draw_tokens(logits[walking, nodes], seen[walking], uniform, self.sampling).tolist()
            for k, token in zip(walking, tokens, strict=True):
                paths[k] = (*paths[k], token)
        return [_score_of(path, self.layout) for path in paths]

    def _check_finite(self, logits: Tensor, sequences: Sequence[_Sequence]) -> None:
        if not torch.isfinite(logits.sum()):
            ids = ", ".join(dict.fromkeys(s.prompt.id for s in sequences))
            raise GenerationError(
                f"generation: the judge's logits are not finite in the batch of {ids}; set trainer.precision=32-true and "
                "model.dtype=float32, or look at the judge's weights"
            )


class _ScoreBlock:
    """The layout's score block as tensors."""

    def __init__(self, layout: SequenceLayout, device: torch.device) -> None:
        tree = layout.score_block
        self.ids = torch.tensor(tree.input_ids, device=device)
        self.depths = torch.tensor(tree.position_ids, device=device)
        self.reads = torch.tensor(tree.score_reads[0], device=device)
        self.within = visible_tokens(tree).to(device)


def _seen(sequences: Sequence[_Sequence], vocabulary: int, device: torch.device) -> Tensor:
    """[B, V] bool: tokens of each sequence's prompt and CoT."""
    seen = torch.zeros(len(sequences), vocabulary, dtype=torch.bool, device=device)
    for row, sequence in enumerate(sequences):
        seen[row, torch.tensor([*sequence.prompt.prompt_ids, *sequence.ids[: sequence.cot_length]], device=device)] = True
    return seen


def _score_of(path: tuple[int, ...], layout: SequenceLayout) -> int | None:
    """The score that drawn tokens stand for, None if they stand for none.

    They end where the score is decided, so a score is known by what it begins with; one on which another goes on ("1" beside
    "10") is meant where the other does not go on.
    """
    begun = [k for k, ids in enumerate(layout.score_ids) if ids[: len(path)] == path]
    if len(begun) == 1:
        return begun[0]
    ended = [k for k, ids in enumerate(layout.score_ids) if ids == path[:-1]]
    return ended[0] if ended and path[:-1] in layout.trie.paths else None
