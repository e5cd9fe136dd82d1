"""The training objective: CoT cross-entropy plus weighted loss of the score, in the paper the squared error. Pure; float32.

    L = ce_weight * CE(c, cue, end | x) + lambda * (y* - y_hat(x, c))^2          (TRACT Eq. for CoT-RAFT, both stages)

Normalisation: the cross-entropy is the mean over supervised tokens of the whole optimizer step, the score loss the
mean over its examples, whatever the micro-batches and ranks that the step is cut into. So every function here returns
sums, and ``objective_loss`` divides by the totals of the step, which every micro-batch knows.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tract.common.errors import ConfigError
from tract.common.near_names import did_you_mean
from tract.data.steps import StepTotals
from tract.method.predictors import expected_score, normalized, probabilities_of_pairs
from tract.text.score_grid import ScoreTrie
from tract.text.token_tree import TokenKind

SCORE_LOSS_SCALINGS = ("step", "micro_batch")

# (probabilities, grid_values, scores) -> loss of each example, as ``squared_error`` documents them.
ScoreLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared_error(probabilities: Tensor, grid_values: Tensor, scores: Tensor) -> Tensor:
    """Squared error of the expected score (RAFT; the score term of TRACT). The signature is that of every score loss.

    Args:
        probabilities: [M, Y] float32, of each score of the grid after the cue of each of M examples, from the softmax over the whole
            vocabulary: a row sums to the score mass, at most one. With ``objective.normalize`` it is divided by that mass.
        grid_values: [Y] float32, the scores of the grid in points, ascending.
        scores: [M] float32, the true scores in points; a mean over raters need not be on the grid.

    Returns:
        [M] float32, the loss of each example (here points squared). Gradients flow to ``probabilities``.
    """
    return torch.square(scores - expected_score(probabilities, grid_values, normalize=False))


# objective.score_loss -> the loss of the score. What is elsewhere is named by its dotted path instead (docs/change_the_science.md).
SCORE_LOSSES: dict[str, ScoreLoss] = {"squared_error": squared_error}


_ACCEPTED = (
    f"{', '.join(SCORE_LOSSES)} or the dotted path of a function, e.g. my_losses.huber, are accepted, or, with arguments, a mapping, e.g. "
    "{_target_: my_losses.Pinball, q: 0.3}"
)
_HYDRA_NAME = re.compile(r"_\w+_")
_HYDRA_NAMES = ("_target_", "_partial_")


def score_loss_of(given: Any) -> ScoreLoss:
    """The function that ``objective.score_loss`` names.

    Args:
        given: an entry of ``SCORE_LOSSES``, a dotted path as ``my_losses.huber``, or a mapping with ``_target_`` and arguments: of a class
            whose objects are called, or, with ``_partial_: true``, of a function that takes them beside those of ``squared_error``.

    Raises:
        ConfigError: if there is none, or if it does not return one finite loss with a gradient for each example.
    """
    if isinstance(given, Mapping):
        return _tried(score_loss_label(given), _made(given))
    if not isinstance(given, str):
        raise ConfigError(f"objective.score_loss: found {given!r}; {_ACCEPTED}")
    if given in SCORE_LOSSES:
        return SCORE_LOSSES[given]
    if "." not in given:
        raise ConfigError(f"objective.score_loss: {given!r} is unknown{did_you_mean(given, SCORE_LOSSES)}; {_ACCEPTED}")
    return _tried(given, _imported(given))


def score_loss_label(given: Any) -> str:
    """What people read of a score's loss: "squared error", "my_losses.huber", "my_losses.Pinball(q=0.3)"."""
    if isinstance(given, Mapping):
        return f"{given.get('_target_')}({', '.join(f'{name}={value}' for name, value in _arguments(given).items())})"
    return str(given) if "." in str(given) else str(given).replace("_", " ")


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in given.items() if name not in _HYDRA_NAMES}


def _imported(name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except Exception as error:  # whatever a module of the user's raises
        raise ConfigError(f"objective.score_loss: {name!r} cannot be imported ({type(error).__name__}: {error}); {_ACCEPTED}") from error


def _made(given: Mapping[str, Any]) -> Any:
    """What a mapping with ``_target_`` makes, as ``hydra.utils.instantiate`` does; Hydra itself is for stages and entry alone."""
    target, is_partial, arguments = given.get("_target_"), given.get("_partial_", False), _arguments(given)
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"objective.score_loss._target_: found {target!r}; the dotted path of a class or function is accepted")
    if not isinstance(is_partial, bool):
        raise ConfigError(f"objective.score_loss._partial_: found {is_partial!r}; true or false is accepted")
    if other := [name for name in arguments if _HYDRA_NAME.fullmatch(name)]:
        raise ConfigError(
            f"objective.score_loss.{other[0]}: is not accepted; accepted are {', '.join(_HYDRA_NAMES)} and arguments of {target}"
        )
    found = _imported(target)
    try:
        return partial(found, **arguments) if is_partial else found(**arguments)
    except Exception as error:  # whatever a class of the user's raises
        hint = "" if isinstance(found, type) else "; for a function that is the loss itself, set _partial_: true"
        shown = f"{score_loss_label(given)} cannot be made ({type(error).__name__}: {error})"
        raise ConfigError(f"objective.score_loss: {shown}{hint}") from error


def _tried(name: str, function: ScoreLoss) -> ScoreLoss:
    """The function, which returns what is expected on three examples."""
    probabilities = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.2, 0.6], [0.05, 0.9, 0.05]], requires_grad=True)
    must = "must take (probabilities [M, Y], grid_values [Y], scores [M]) and return the loss of each example, [M]"
    try:
        losses = function(probabilities, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 1.5, 2.0]))
    except Exception as error:  # whatever a function of the user's raises
        raise ConfigError(f"objective.score_loss: {name} {must}; on 3 examples it raised {type(error).__name__}: {error}") from error
    if not isinstance(losses, Tensor) or losses.shape != (3,):
        found = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ConfigError(f"objective.score_loss: {name} {must}; on 3 examples it returned {found}")
    if not losses.requires_grad or not bool(torch.isfinite(losses).all()):
        raise ConfigError(
            f"objective.score_loss: {name} returned {losses.tolist()} on 3 examples; finite losses with a gradient are accepted"
        )
    return function


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


def objective_loss(parts: ObjectiveParts, totals: StepTotals, objective: Objective) -> Tensor:
    """The micro-batch's share of the step's loss; the shares of a step's micro-batches and ranks add up to the loss.

    Returns:
        [] float32: ce_weight * sum(CE) / step tokens + lambda * sum(score loss) / step examples.
    """
    ce_loss, score_loss = loss_shares(parts, totals, objective)
    return ce_loss + score_loss


def loss_shares(parts: ObjectiveParts, totals: StepTotals, objective: Objective) -> tuple[Tensor, Tensor]:
    """The two weighted terms of ``objective_loss``: (cross-entropy, score loss), each [] float32."""
    weight = objective.score_loss_weight
    if objective.score_loss_scaling == "micro_batch":
        weight /= parts.score_loss.numel()
    ce_loss = objective.ce_weight * parts.ce_sum / max(totals.ce_tokens, 1)
    return ce_loss, weight * parts.score_loss.sum() / totals.examples
