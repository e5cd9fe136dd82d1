"""Losses of the score: the squared error of RAFT, and functions of the user's that ``objective.score_loss`` names."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tract.common.errors import ConfigError
from tract.common.near_names import did_you_mean
from tract.method.predictors import expected_score

# (probabilities, grid_values, scores) -> loss of each example, as ``squared_error`` documents them.
ScoreLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared_error(probabilities: Tensor, grid_values: Tensor, scores: Tensor) -> Tensor:
    """Squared error of the expected score, (y* - y_hat)^2 (RAFT; the score term of TRACT). Every score loss has this signature.

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
        return _checked(score_loss_label(given), _instantiated(given))
    if not isinstance(given, str):
        raise ConfigError(f"objective.score_loss: found {given!r}; {_ACCEPTED}")
    if given in SCORE_LOSSES:
        return SCORE_LOSSES[given]
    if "." not in given:
        raise ConfigError(f"objective.score_loss: {given!r} is unknown{did_you_mean(given, SCORE_LOSSES)}; {_ACCEPTED}")
    return _checked(given, _imported(given))


def score_loss_label(given: Any) -> str:
    """The readable name of a score's loss: "squared error", "my_losses.huber", "my_losses.Pinball(q=0.3)"."""
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


def _instantiated(given: Mapping[str, Any]) -> Any:
    """The function or object of a mapping with ``_target_``, as ``hydra.utils.instantiate`` makes it; only the pipeline knows Hydra."""
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


def _checked(name: str, function: ScoreLoss) -> ScoreLoss:
    """The function, after a trial on three examples.

    Raises:
        ConfigError: if it does not return one finite loss with a gradient for each of them.
    """
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
