"""The training objective: CoT cross-entropy plus weighted loss of the score, in the paper the squared error. Pure; float32.

    L = ce_weight * CE(c, cue, end | x) + lambda * (y* - y_hat(x, c))^2          (TRACT, arXiv 2503.04381: CoT-RAFT, both stages)

Normalization: the cross-entropy is the mean over supervised tokens of the whole optimizer step, the score loss the mean over its examples,
independent of how the step is split into micro-batches and ranks. So ``objective_parts`` returns sums, and ``step_shares`` divides them
by the totals of the step, which every micro-batch carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tract.common.errors import ConfigError
from tract.data.steps import StepTotals
from tract.method.predictors import expected_score, normalized, probabilities_of_pairs
from tract.method.score_losses import ScoreLoss, score_loss_label
from tract.text.score_grid import ScoreTrie
from tract.text.token_tree import TokenKind

SCORE_LOSS_SCALINGS = ("step", "micro_batch")
# What ``step_shares`` returns, in this order.
STEP_VALUES = ("loss", "ce_loss", "score_loss", "ce", "squared_error", "score_mass")


@dataclass(frozen=True)
class Objective:
    """Which terms are trained, and how they are weighted.

    Attributes:
        ce_weight: weight of the cross-entropy; 0 leaves it out.
        score_loss: the loss of the score, a name or a mapping, see ``score_loss_of``. score_loss_weight: lambda, its weight.
        ce_on_score: whether the score's own tokens are trained by cross-entropy (standard fine-tuning).
        use_cot: whether the CoT stands between prompt and cue; without it the cue follows the prompt (RAFT).
        train_on_ratings: whether a score without a CoT is trained on where CoTs are learned: by the squared error alone, with the
            cue right after the prompt.
        normalize: whether the expected score is divided by the score mass; the paper does not.
        score_loss_scaling: "step": lambda as it is; "micro_batch": lambda divided by the examples of the micro-batch, the
            effective weight of the official code.
    """

    ce_weight: float
    score_loss: Any
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
    def score_loss_label(self) -> str:
        """What people read of the score's loss."""
        return score_loss_label(self.score_loss)

    @property
    def supervised_kinds(self) -> frozenset[TokenKind]:
        """The kinds of token that the cross-entropy covers."""
        if self.ce_weight == 0:
            return frozenset()
        kinds = {TokenKind.COT, TokenKind.CUE, TokenKind.END}
        return frozenset(kinds | {TokenKind.SCORE} if self.ce_on_score else kinds)


@dataclass(frozen=True, slots=True)
class ObjectiveParts:
    """The parts of the objective for one micro-batch of M examples, not yet divided by any count.

    Attributes:
        ce_sum: [] float32, nats, summed over supervised tokens. ce_tokens: their number.
        score_loss: [M] float32, the loss of the score that is trained, without lambda.
        squared_error: [M] float32, points squared; the metric, whatever is trained.
        expected_score: [M] float32, points (RAIL).
        score_mass: [M] float32, the probability that the model gives to the whole grid.
    """

    ce_sum: Tensor
    ce_tokens: int
    score_loss: Tensor
    squared_error: Tensor
    expected_score: Tensor
    score_mass: Tensor


def objective_parts(
    target_log_probs: Tensor,
    score_log_probs: Tensor,
    scores: Tensor,
    trie: ScoreTrie,
    grid_values: Tensor,
    *,
    score_loss: ScoreLoss,
    normalize: bool,
) -> ObjectiveParts:
    """The parts of the objective from the log-probabilities of the tokens that it looks at.

    Args:
        target_log_probs: [N] float32, of the supervised tokens.
        score_log_probs: [M, P] float32, of ``score_pairs(trie)`` behind each example's cue.
        scores: [M] float32; true scores in points.
        trie: the decisions between the scores.
        grid_values: [Y] float32; the scores of the grid in points.
        score_loss: of the score. normalize: whether the probabilities of the grid are divided by the score mass.

    Returns:
        Sums and per-example values; gradients flow through ``ce_sum`` and ``score_loss``.
    """
    probabilities = probabilities_of_pairs(score_log_probs, trie)
    mass = probabilities.sum(dim=-1)
    if normalize:
        probabilities = normalized(probabilities)
    predicted = expected_score(probabilities, grid_values, normalize=False)
    return ObjectiveParts(
        ce_sum=-target_log_probs.sum(),
        ce_tokens=target_log_probs.numel(),
        score_loss=score_loss(probabilities, grid_values, scores.float()),
        squared_error=torch.square(scores.float() - predicted),
        expected_score=predicted,
        score_mass=mass,
    )


def step_shares(parts: ObjectiveParts, totals: StepTotals, objective: Objective) -> dict[str, Tensor]:
    """A micro-batch's shares of the values of its optimizer step; over the step's micro-batches and ranks they add up to these.

    Args:
        parts: of the micro-batch. totals: supervised tokens and examples of the whole step. objective: the weights.

    Returns:
        Under ``STEP_VALUES``, each [] float32: ``loss``, the sum of ``ce_loss`` = ce_weight * mean CE and ``score_loss`` = lambda * mean
        loss of the score; and unweighted ``ce`` (nats a token), ``squared_error`` (points squared) and ``score_mass``.
    """
    weight = objective.score_loss_weight
    if objective.score_loss_scaling == "micro_batch":
        weight /= parts.score_loss.numel()
    ce_loss = objective.ce_weight * parts.ce_sum / max(totals.ce_tokens, 1)
    score_loss = weight * parts.score_loss.sum() / totals.examples
    return {
        "loss": ce_loss + score_loss,
        "ce_loss": ce_loss,
        "score_loss": score_loss,
        "ce": parts.ce_sum / max(totals.ce_tokens, 1),
        "squared_error": parts.squared_error.sum() / totals.examples,
        "score_mass": parts.score_mass.sum() / totals.examples,
    }
