"""Floating-point operations of training, and how long a device takes for them: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from tract.pipeline.dry_run.facts import ModelFacts

# Of what a device could do at most, the share that a training reaches. CPU: measured, docs/performance.md (training: 57-61 % of the
# matmul peak). GPU: assumed, what well-tuned trainings of 7B models report on A100 and H100.
SHARE = {"cpu": 0.6, "gpu": 0.4}
# A fused attention backward makes five products where the forward makes two.
_BACKWARD_OF_ATTENTION = 2.5


@dataclass(frozen=True, slots=True)
class Amount:
    """What goes through the model.

    Attributes:
        tokens: in all. pairs: of tokens that see each other. reads: positions that the LM head looks at.
    """

    tokens: float
    pairs: float
    reads: float

    def times(self, factor: float) -> Amount:
        """So many times as much."""
        return Amount(self.tokens * factor, self.pairs * factor, self.reads * factor)


def forward_flops(facts: ModelFacts, amount: Amount) -> float:
    """A forward pass: 2 for each weight of a matrix and token, 4 for each head dimension and pair of tokens."""
    matrices = 2 * facts.layers * facts.layer.matrices
    return amount.tokens * matrices + amount.pairs * _per_pair(facts) + amount.reads * 2 * facts.head


def training_flops(facts: ModelFacts, amount: Amount, *, checkpointing: bool) -> float:
    """Forward and backward: 4 for each weight and token of a frozen matrix, whose own gradient nobody needs, 6 of a trained one.

    With gradient checkpointing the layers' forward pass is computed once more.
    """
    layer, again = facts.layer, 1 if checkpointing else 0
    matrices = facts.layers * ((4 + 2 * again) * layer.frozen_linear + (6 + 2 * again) * layer.trained_linear)
    attention = (1 + _BACKWARD_OF_ATTENTION + again) * _per_pair(facts)
    head = (6 if facts.head_trained else 4) * facts.head
    return amount.tokens * matrices + amount.pairs * attention + amount.reads * head


def _per_pair(facts: ModelFacts) -> float:
    return 4.0 * facts.layer.query * facts.layers


def hours(flops: float, peak: float, share: float, devices: int) -> float:
    """How long so many devices take at a share of their peak, in FLOP/s each."""
    return flops / (peak * share * devices) / 3600
