"""Judging with a Hugging Face model: CoTs are sampled and scores read from one live KV cache, in one pass.

A prompt runs through the model once and serves all of its CoTs. Where a CoT ends, the cue's token ids are appended and the
distribution over the grid is read (RAIL; TRACT section 3.1); its place is taken by a CoT of the next prompt. No text is encoded a
second time.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from tract.inference.backend import BatchJudge
from tract.inference.hf.cots import CotRows, CotSequence, seen_tokens
from tract.inference.hf.live import LiveCache, prefill
from tract.inference.hf.readout import ScoreReader, rows_are_finite
from tract.inference.judgement import CUE, DIRECT, END, GIVEN, LENGTH, NONE, GivenCots, Judgement, Prompt
from tract.inference.sampling import Sampling, draw_tokens, uniforms
from tract.inference.stopping import CueFinder, free_tokens
from tract.models.packed_forward import logits_at, takes_rows, use_tree_attention
from tract.models.tree_attention import PackedSegments
from tract.text.layout import SequenceLayout

# Scores are read, and places taken by others, when this share of the CoTs has ended: each reading runs the whole model.
_ENDED_SHARE = 8


@dataclass(frozen=True, slots=True)
class Begin:
    """Prompts that begin together: ``n_cot`` CoTs of each, and with ``without_cot`` the score right behind it."""

    prompts: Sequence[Prompt]
    n_cot: int
    without_cot: bool


class HFJudge(BatchJudge):
    """A judge on one device.

    Args:
        model: a causal LM, with or without an adapter, in evaluation mode on its device; its attention is set to "tree".
        layout: cue, grid and end of turn; what the judge was trained with.
        sampling: how CoTs are drawn.
        seed: of the run; with example and sample it fixes every draw.
        autocast: dtype of the arithmetic where it is not the model's own, e.g. torch.bfloat16; None for the model's.
        padded: as of ``LiveCache``; where it is true, a sampled token waits for the device once, whatever is drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: SequenceLayout,
        sampling: Sampling,
        seed: int,
        autocast: torch.dtype | None,
        padded: bool | None = None,
    ) -> None:
        if not takes_rows(model):
            use_tree_attention(model)
        self.model = model
        self.layout = layout
        self.sampling = sampling
        self.seed = seed
        self.device = next(model.parameters()).device
        self._autocast = autocast
        self._padded = self.device.type != "cpu" if padded is None else padded
        self._finder = CueFinder(layout)
        self._reader = ScoreReader(layout, sampling, seed, self.device, self._finder)
        self._free_tokens = free_tokens(layout)
        self._cue_margin = len(layout.cue_ids)  # tokens past the limit in which a cue that has begun may be completed

    def judge(
        self,
        prompts: Sequence[Prompt],
        n_cot: int,
        *,
        rows: int,
        without_cot: bool,
        free: bool,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Judgement]:
        """Samples ``n_cot`` CoTs for each prompt and reads the score behind each.

        Args:
            prompts: what to judge, in the order in which it is begun; the longest first leaves the shortest wait at the end.
            n_cot: CoTs of each prompt; 0 for none.
            rows: the most CoTs that are sampled at a time; those of a prompt always begin together.
            without_cot: whether to read the score right behind the prompt too (sample ``DIRECT``).
            free: whether to let the judge write its own score after its own cue.
            progress: told how many judgements were made, whenever some were.

        Returns:
            By row of the prompt and sample.

        Raises:
            GenerationError: if logits or probabilities are not finite.
        """
        waiting = deque(prompts)
        width = max(n_cot, 1)

        def begin(going: int) -> Begin | None:
            room = rows - going
            if not waiting or (going and room < width):
                return None
            return Begin([waiting.popleft() for _ in range(min(len(waiting), max(1, room // width)))], n_cot, without_cot)

        judgements: list[Judgement] = []
        for made in self.flow(begin, free=free):
            judgements += made
            progress(len(made))
        return sorted(judgements, key=lambda judgement: (judgement.row, judgement.sample))

    def flow(self, begin: Callable[[int], Begin | None], *, free: bool) -> Iterator[list[Judgement]]:
        """Judges what keeps coming in: new prompts join the CoTs that are being sampled, whenever there is room for them.

        Args:
            begin: asked before each token, with the number of CoTs that are being sampled, for what is to begin now, or None; the end
                is where it has none and nothing is being sampled. free: as in ``judge``.

        Yields:
            Judgements, as soon as they are made.

        Raises:
            GenerationError: if logits or probabilities are not finite.
        """
        going: CotRows | None = None
        while True:
            made: list[Judgement] = []
            with self._inference():
                if (new := begin(len(going.sequences) if going else 0)) is not None:
                    going = self._begin(new.prompts, new.n_cot, new.without_cot, going, made)
                elif going is None:
                    return
                if going is not None:
                    going = self._step(going, free, made)
            if made:
                yield made

    def read(self, prompts: Sequence[Prompt], cots: Sequence[GivenCots]) -> list[Judgement]:
        """Reads the score behind given CoTs; all of a prompt share it.

        Args:
            prompts: one batch. cots: for each prompt (number, token ids) of its CoTs; none for the reading without a CoT.
        """
        pairs = list(zip(prompts, cots, strict=True))
        sequences = [
            CotSequence(prompt, sample, ids=list(ids), cot_length=len(ids), finish=NONE if sample == DIRECT else GIVEN)
            for prompt, given in pairs
            for sample, ids in given
        ]
        if not sequences:
            return []
        with self._inference():
            return self._reader.read(self._logits_behind([(prompt, [ids for _, ids in given]) for prompt, given in pairs]), sequences)

    def _logits_behind(self, cots: Sequence[tuple[Prompt, Sequence[Sequence[int]]]]) -> Tensor:
        """Logits at the nodes of the score trie behind CoTs, [B, K, V]; all CoTs of a prompt share it."""
        trees = [self.layout.tree(prompt.prompt_ids, [(ids, 0) for ids in given]) for prompt, given in cots]
        offsets = list(accumulate((len(tree.input_ids) for tree in trees), initial=0))
        reads = [[offset + place for place in nodes] for tree, offset in zip(trees, offsets, strict=False) for nodes in tree.score_reads]
        logits = logits_at(
            self.model,
            torch.tensor([[token for tree in trees for token in tree.input_ids]], device=self.device),
            torch.tensor([[position for tree in trees for position in tree.position_ids]], device=self.device),
            torch.tensor(reads, device=self.device).flatten(),
            runs=PackedSegments([run.shifted(offset) for tree, offset in zip(trees, offsets, strict=False) for run in tree.runs]),
        )
        return logits.view(len(reads), len(reads[0]), -1)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        autocast = torch.autocast(self.device.type, self._autocast) if self._autocast else contextlib.nullcontext()
        with torch.inference_mode(), autocast:
            yield

    @property
    def _most(self) -> int:
        """Tokens that are drawn for a CoT, at the most."""
        return self.sampling.max_cot_tokens + self._free_tokens + self._cue_margin

    def _sequence(self, prompt: Prompt, sample: int) -> CotSequence:
        return CotSequence(prompt, sample, last=self._most)

    def _begin(
        self, prompts: Sequence[Prompt], n_cot: int, without_cot: bool, going: CotRows | None, judgements: list[Judgement]
    ) -> CotRows | None:
        """Runs prompts through the model and adds their CoTs to those that are being sampled."""
        keys, logits = prefill(self.model, [prompt.prompt_ids for prompt in prompts], self.device)
        if without_cot:
            reading = LiveCache(self.model, self.device, self._padded)
            reading.admit(keys)
            judgements += self._read_scores(reading, [CotSequence(prompt, DIRECT, cot_length=0, finish=NONE) for prompt in prompts])
        if not n_cot:
            return going
        owners = [number for number in range(len(prompts)) for _ in range(n_cot)]
        sequences = [self._sequence(prompts[owner], k % n_cot) for k, owner in enumerate(owners)]
        live = going.live if going else LiveCache(self.model, self.device, self._padded)
        live.admit([keys[owner] for owner in owners])
        # Those of all tokens at once: what is sent to the device token by token is waited for.
        drawn_from = np.stack([uniforms(self.seed, s.prompt.id, s.sample, "cot", self._most) for s in sequences])
        new = CotRows(
            live,
            sequences,
            logits[torch.tensor(owners, device=self.device)],
            seen_tokens(sequences, logits.shape[-1], self.device),
            torch.from_numpy(drawn_from).to(self.device),
            torch.zeros(len(sequences), dtype=torch.long, device=self.device),
        )
        return going.joined(new) if going else new

    def _step(self, going: CotRows, free: bool, judgements: list[Judgement]) -> CotRows | None:
        """Draws a token for every sequence; where enough have ended, their scores are read and they leave."""
        sequences = going.sequences
        number = going.drawn.clamp(max=self._most - 1)  # one that has ended goes on until others have, and nobody reads it
        uniform = going.uniforms.gather(1, number[:, None]).squeeze(1)
        tokens = draw_tokens(going.logits, going.seen, uniform, self.sampling, guess=not self._padded)
        going.drawn = going.drawn + 1
        going.seen.scatter_(1, tokens[:, None], True)
        # The one time that a token waits for the device.
        drawn, finite = torch.stack([tokens, rows_are_finite(going.logits).long()]).tolist()
        if not all(finite):
            self._reader.check_finite(going.logits, sequences)
        for sequence, token in zip(sequences, drawn, strict=True):
            self._advance(sequence, token, free)
        # The newest token goes into the cache before any sequence leaves: it may be the last one of a CoT.
        going.logits = going.live.append(tokens)
        done = [k for k, sequence in enumerate(sequences) if sequence.done]
        if len(done) * _ENDED_SHARE < len(sequences):
            return going
        staying = [k for k, sequence in enumerate(sequences) if not sequence.done]
        ended = going.take(done) if staying else going
        # What was written behind the CoTs is forgotten.
        ended.live.forget([sequence.cot_length or 0 for sequence in ended.sequences])
        judgements += self._read_scores(ended.live, ended.sequences)
        return going.keep(staying) if staying else None

    def _advance(self, sequence: CotSequence, token: int, free: bool) -> None:
        """Takes a sampled token in: does the CoT end with it, or the sampling?"""
        if sequence.done:
            return
        ended = token in self._finder.end_ids
        if not ended:
            sequence.ids.append(token)
        if sequence.cot_length is None:
            if ended and len(sequence.ids) <= self.sampling.max_cot_tokens:
                sequence.cot_length, sequence.finish = self._finder.closed(sequence.ids, END)
            elif (length := self._finder.cot_length(sequence.ids)) is not None and length <= self.sampling.max_cot_tokens:
                sequence.cot_length, sequence.finish = self._finder.closed(sequence.ids[:length], CUE)
                sequence.last = len(sequence.ids) + (self._free_tokens if free else 0)
            elif len(sequence.ids) >= self.sampling.max_cot_tokens:
                # The limit holds for the CoT alone: a cue that has begun may be completed.
                sequence.last = min(sequence.last, self.sampling.max_cot_tokens + self._cue_margin)
        if ended or len(sequence.ids) >= sequence.last:
            sequence.done = True
            if sequence.cot_length is None:
                sequence.cot_length, sequence.finish = self._finder.closed(sequence.ids[: self.sampling.max_cot_tokens], LENGTH)

    def _read_scores(self, live: LiveCache, sequences: list[CotSequence]) -> list[Judgement]:
        """Appends the cue where each CoT ends and reads the score."""
        block = self._reader.block
        return self._reader.read(live.score_without_append(block.ids, block.depths, block.within, block.reads), sequences)
