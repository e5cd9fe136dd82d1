"""Scores from logits behind the answer cue: the distribution over the grid (RAIL; TRACT section 3.1), and one score that is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tract.common.errors import GenerationError
from tract.common.finite import listed
from tract.inference.hf.cots import CotSequence, seen_tokens
from tract.inference.judgement import CUE, END, LENGTH, SCORE, Judgement, no_distribution
from tract.inference.sampling import Sampling, draw_tokens, uniforms
from tract.inference.stopping import CueFinder, score_of_path
from tract.method.predictors import log_normalizer, score_probabilities
from tract.models.tree_attention import visible_in
from tract.text.layout import SequenceLayout


class ScoreReader:
    """Reads scores.

    Args:
        layout: cue, grid and end of turn. sampling: how the score is drawn. seed: of the run. device: of the logits.
        finder: gives the text of token ids.

    Attributes:
        block: the layout's score block on the device.
    """

    def __init__(self, layout: SequenceLayout, sampling: Sampling, seed: int, device: torch.device, finder: CueFinder) -> None:
        self.block = ScoreBlock(layout, device)
        self._layout = layout
        self._sampling = sampling
        self._seed = seed
        self._device = device
        self._finder = finder

    def read(self, logits: Tensor, sequences: list[CotSequence]) -> list[Judgement]:
        """The judgements of B CoTs.

        Args:
            logits: [B, K, V], any float dtype, at the K nodes of the score trie. sequences: the CoTs.

        Raises:
            GenerationError: if logits are not finite, or what is read is no distribution.
        """
        flat = logits.flatten(0, 1)
        self.check_finite(logits, sequences)
        rows = torch.arange(len(flat), device=flat.device).view(len(sequences), -1)
        probabilities = score_probabilities(flat, log_normalizer(flat), rows, self._layout.trie).tolist()
        for sequence, found in zip(sequences, probabilities, strict=True):
            if problem := no_distribution(found):
                raise GenerationError(
                    f"generation: {sequence.prompt.id}: the score probabilities are none, {problem}; set trainer.precision=32-true"
                )
        drawn = self._draw_scores(logits, sequences)
        return [self._judgement(sequence, probabilities[k], drawn[k]) for k, sequence in enumerate(sequences)]

    def _judgement(self, sequence: CotSequence, probabilities: list[float], drawn: int | None) -> Judgement:
        cot = sequence.ids[: sequence.cot_length]
        raw_output = self._finder.text(sequence.ids) if sequence.finish in (CUE, SCORE, END, LENGTH) else None
        return Judgement(
            id=sequence.prompt.id,
            row=sequence.prompt.row,
            sample=sequence.sample,
            cot_ids=tuple(cot),
            cot=self._finder.text(cot),
            finish=sequence.finish,
            probabilities=tuple(probabilities),
            forced_decode=drawn,
            raw_output=raw_output,
        )

    def _draw_scores(self, logits: Tensor, sequences: list[CotSequence]) -> list[int | None]:
        """Draws a score behind the forced cue, token by token, with the sampling settings; None for what is no score.

        Args:
            logits: [B, K, V] at the nodes of the score trie.
        """
        trie = self._layout.trie
        seen = seen_tokens(sequences, logits.shape[-1], self._device)
        seen[:, self.block.ids] = True
        depth = max(len(path) for path in trie.paths) + 1
        draws = [uniforms(self._seed, s.prompt.id, s.sample, "score", depth) for s in sequences]
        paths: list[tuple[int, ...]] = [()] * len(sequences)
        for level in range(depth):
            walking = [k for k, path in enumerate(paths) if len(path) == level and path in trie.paths]
            if not walking:
                break
            nodes = [trie.paths.index(paths[k]) for k in walking]
            uniform = torch.tensor([draws[k][level] for k in walking], dtype=torch.float64, device=self._device)
            tokens = draw_tokens(logits[walking, nodes], seen[walking], uniform, self._sampling).tolist()
            for k, token in zip(walking, tokens, strict=True):
                paths[k] = (*paths[k], token)
        return [score_of_path(path, self._layout) for path in paths]

    def check_finite(self, logits: Tensor, sequences: Sequence[CotSequence]) -> None:
        """Refuses logits, [B, ..., V], of which one is NaN or infinite; waits for the device once."""
        if all(rows_are_finite(logits.flatten(1)).tolist()):
            return
        bad = [not finite for finite in torch.isfinite(logits).flatten(1).all(dim=1).tolist()]
        if not any(bad):
            return  # a sum alone
        ids = listed(dict.fromkeys(s.prompt.id for s, is_bad in zip(sequences, bad, strict=True) if is_bad))
        raise GenerationError(
            f"generation: the judge's logits are not finite for {ids}; set trainer.precision=32-true and model.dtype=float32, or look at "
            "the judge's weights"
        )


class ScoreBlock:
    """The layout's score block (cue and score trie) as tensors: ids and depths [Q], reads [K], within [Q, Q] bool."""

    def __init__(self, layout: SequenceLayout, device: torch.device) -> None:
        tree = layout.score_block
        self.ids = torch.tensor(tree.input_ids, device=device)
        self.depths = torch.tensor(tree.position_ids, device=device)
        self.reads = torch.tensor(tree.score_reads[0], device=device)
        self.within = visible_in(tree.runs, len(tree.input_ids), device)


def rows_are_finite(logits: Tensor) -> Tensor:
    """[B] bool: whether each row's sum is finite, without a tensor of the size of [B, N]; if so, each logit is."""
    # In float32: a sum of many float16 is infinite where none of them is.
    return torch.isfinite(logits.sum(dim=1, dtype=torch.float32))
