"""The training objective: CoT cross-entropy plus weighted squared error of the expected score. Pure; float32.

    L = ce_weight * CE(c, cue, end | x) + lambda * (y* - y_hat(x, c))^2          (TRACT Eq. for CoT-RAFT, both stages)

Normalisation: the cross-entropy is the mean over supervised tokens of the whole optimizer step, the squared error the
mean over its examples, whatever the micro-batches and ranks that the step is cut into. So every function here returns
sums, and ``objective_loss`` divides by the totals of the step, which every micro-batch knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tract.errors import ConfigError
from tract.layout import TokenKind
from tract.predictors import expected_score, probabilities_of_pairs
from tract.score_grid import ScoreTrie

SCORE_LOSS_SCALINGS = ("step", "micro_batch")


@dataclass(frozen=True)
class Objective:
    """Which terms are trained, and how they are weighted.

    Attributes:
        ce_weight: weight of the cross-entropy; 0 leaves it out.
        score_loss_weight: lambda, the weight of the squared error.
        ce_on_score: whether the score's own tokens are trained by cross-entropy (standard fine-tuning).
        use_cot: whether the CoT stands between prompt and cue; without it the cue follows the prompt (RAFT).
        train_on_ratings: whether a score without a CoT is trained on where CoTs are learned: by the squared error alone, with the
            cue right after the prompt.
        normalize: whether the expected score is divided by the score mass; the paper does not.
        score_loss_scaling: "step": lambda as it is; "micro_batch": lambda divided by the examples of the micro-batch, the
            effective weight of the official code.
    """

    ce_weight: float
    score_loss_weight: float
    ce_on_score: bool
    use_cot: bool
    train_on_ratings: bool
    normalize: bool
    score_loss_scaling: str

    def __post_init__(self) -> None:
        if self.score_loss_scaling not in SCORE_LOSS_SCALINGS:
            raise ConfigError(f"objective.score_loss_scaling: {self.score_loss_scaling!r} is not one of {', '.join(SCORE_LOSS_SCALINGS)}")
        for key, weight in (("ce_weight", self.ce_weight), ("lambda", self.score_loss_weight)):
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"objective.{key}: {weight} is not a finite weight >= 0")
        if self.ce_weight == 0 and self.score_loss_weight == 0:
            raise ConfigError("objective: ce_weight and lambda are both 0, so nothing is trained; set one above 0")

    @property
    def trains_ratings(self) -> bool:
        """Whether scores without a CoT are sequences of their own beside those with one; only the squared error can train them."""
        return self.train_on_ratings and self.use_cot and self.score_loss_weight > 0

    @property
    def supervised_kinds(self) -> frozenset[TokenKind]:
        """The kinds of token that the cross-entropy covers."""
        if self.ce_weight == 0:
            return frozenset()
        kinds = {TokenKind.COT, TokenKind.CUE, TokenKind.END}
        return frozenset(kinds | {TokenKind.SCORE} if self.ce_on_score else kinds)


@dataclass(frozen=True, slots=True)
class StepTotals:
    """What a whole optimizer step holds, over all its micro-batches and ranks."""

    ce_tokens: int
    examples: int


@dataclass(frozen=True, slots=True)
class ObjectiveParts:
    """The parts of the objective for one micro-batch of M examples, not yet divided by any count.

    Attributes:
        ce_sum: [] float32, nats, summed over supervised tokens. ce_tokens: their number.
        squared_error: [M] float32, points squared.
        expected_score: [M] float32, points (RAIL).
        score_mass: [M] float32, the probability that the model gives to the whole grid.
    """

    ce_sum: Tensor
    ce_tokens: int
    squared_error: Tensor
    expected_score: Tensor
    score_mass: Tensor


def objective_parts(
    target_log_probs: Tensor, score_log_probs: Tensor, scores: Tensor, trie: ScoreTrie, grid_values: Tensor, *, normalize: bool
) -> ObjectiveParts:
    """The parts of the objective from the log-probabilities of the tokens that it looks at.

    Args:
        target_log_probs: [N] float32, of the supervised tokens.
        score_log_probs: [M, P] float32, of ``score_pairs(trie)`` behind each example's cue.
        scores: [M] float32; true scores in points.
        trie: the decisions between the scores.
        grid_values: [Y] float32; the scores of the grid in points.
        normalize: whether the expected score is divided by the score mass.

    Returns:
        Sums and per-example values; gradients flow through ``ce_sum`` and ``squared_error``.
    """
    probabilities = probabilities_of_pairs(score_log_probs, trie)
    predicted = expected_score(probabilities, grid_values, normalize=normalize)
    return ObjectiveParts(
        ce_sum=-target_log_probs.sum(),
        ce_tokens=target_log_probs.numel(),
        squared_error=torch.square(scores.float() - predicted),
        expected_score=predicted,
        score_mass=probabilities.sum(dim=-1),
    )


def objective_loss(parts: ObjectiveParts, totals: StepTotals, objective: Objective) -> Tensor:
    """The micro-batch's share of the step's loss; the shares of a step's micro-batches and ranks add up to the loss.

    Returns:
        [] float32: ce_weight * sum(CE) / step tokens + lambda * sum(squared error) / step examples.
    """
    ce_loss, score_loss = loss_shares(parts, totals, objective)
    return ce_loss + score_loss


def loss_shares(parts: ObjectiveParts, totals: StepTotals, objective: Objective) -> tuple[Tensor, Tensor]:
    """The two weighted terms of ``objective_loss``: (cross-entropy, squared error), each [] float32."""
    weight = objective.score_loss_weight
    if objective.score_loss_scaling == "micro_batch":
        weight /= parts.squared_error.numel()
    ce_loss = objective.ce_weight * parts.ce_sum / max(totals.ce_tokens, 1)
    return ce_loss, weight * parts.squared_error.sum() / totals.examples
