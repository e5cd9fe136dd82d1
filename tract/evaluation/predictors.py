"""Every way to read a score from a judgement: its name, how it reads, and what it means. Pure.

A predictor is one entry of ``PREDICTORS``; configuration, evaluation, report, comparison and judges read it from here. One of a user's
own is named in ``evaluation.predictors`` by its dotted path instead (docs/change_the_science.md). numpy is not imported here: the
configuration asks for the names alone.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tract.common.errors import ConfigError
from tract.common.near_names import did_you_mean
from tract.text.score_grid import ScoreGrid

if TYPE_CHECKING:
    from tract.evaluation.scored import Array

# A score mass below this cannot be normalised by: what is left is rounding.
_LEAST_MASS = 1e-30


@dataclass(frozen=True, slots=True)
class Readout:
    """What a predictor reads of one judgement.

    Attributes:
        probabilities: [Y] float64, of each score of the grid after the cue, from the softmax over the whole vocabulary. values: [Y]
            float64, the scores in points.
        forced: index of the score that was drawn after the forced cue; None where none was.
        text: what was written freely, cue and score included; None where nothing was. grid: the scores. cue: the answer cue.
    """

    probabilities: Array
    values: Array
    forced: int | None
    text: str | None
    grid: ScoreGrid
    cue: str

    @property
    def mass(self) -> float:
        """The probability of the whole grid."""
        return float(self.probabilities.sum())


@dataclass(frozen=True, slots=True)
class Predictor:
    """A way to read a score.

    Attributes:
        meaning: one sentence for people who do not know the paper.
        read: the score in points; None where it failed.
        without_cot: it reads the distribution right after the prompt; else that after a CoT.
        needs_text: it reads what was written freely, so there is nothing to read where nothing was.
    """

    meaning: str
    read: Callable[[Readout], float | None]
    without_cot: bool = False
    needs_text: bool = False


def _rail(reading: Readout) -> float:
    return float((reading.probabilities * reading.values).sum())


def _rail_normalized(reading: Readout) -> float | None:
    return _rail(reading) / reading.mass if reading.mass > _LEAST_MASS else None


def _argmax(reading: Readout) -> float | None:
    """The first of equals."""
    return float(reading.values[int(reading.probabilities.argmax())]) if reading.mass > _LEAST_MASS else None


def _median(reading: Readout) -> float | None:
    """The lowest score with at least half of the mass at or below it."""
    half = int(reading.probabilities.cumsum().searchsorted(reading.mass / 2))
    return float(reading.values[half]) if reading.mass > _LEAST_MASS else None


def _decode_forced(reading: Readout) -> float | None:
    return None if reading.forced is None else reading.grid.values[reading.forced]


def _decode_free(reading: Readout) -> float | None:
    from tract.evaluation.parsing import parse_score  # its patterns take longer to compile than the names take to import

    return None if reading.text is None else parse_score(reading.text, reading.cue, reading.grid)


PREDICTORS: dict[str, Predictor] = {
    "rail": Predictor(
        "mean of the grid's scores, each weighted with its probability after the answer cue; probability outside the grid "
        "counts as zero points (the paper's predictor).",
        _rail,
    ),
    "rail_normalized": Predictor("the same mean, divided by the probability of the whole grid.", _rail_normalized),
    "argmax": Predictor("the most probable score of the grid after the answer cue.", _argmax),
    "median": Predictor("the score at which the cumulated probability of the grid, after the answer cue, passes one half.", _median),
    "decode_forced": Predictor("the score that the model writes when the answer cue is put after its CoT.", _decode_forced),
    "decode_free": Predictor("the score parsed from what the model writes freely, cue and score included.", _decode_free, needs_text=True),
    "no_cot": Predictor("rail read right after the prompt and the answer cue, without any CoT.", _rail, without_cot=True),
}
# Those that read what follows a CoT.
OF_COTS = tuple(name for name, predictor in PREDICTORS.items() if not predictor.without_cot)


def meanings_of(names: Iterable[str]) -> dict[str, str]:
    """Name -> meaning of these predictors, in the order of ``PREDICTORS``, then those of a user's own.

    Of one that is not there any more only the name is known: reports are compared where its module may not be.
    """
    used = list(dict.fromkeys(names))
    found = {name: predictor.meaning for name, predictor in PREDICTORS.items() if name in used}
    for name in used:
        if name not in found:
            try:
                found[name] = predictor_of(name).meaning
            except ConfigError:
                found[name] = f"a predictor that is not installed here ({name})."
    return found


@cache
def predictor_of(name: str, key: str = "evaluation.predictors") -> Predictor:
    """The predictor with a name: an entry of ``PREDICTORS``, or a function by its dotted path, ``my_predictors.upper_half``.

    Such a function takes (probabilities [Y] float64, values [Y] float64), as in ``Readout`` after a CoT, and returns points, or None where
    it fails; the first line of its docstring is its meaning.

    Raises:
        ConfigError: if there is none, or if it does not return a number.
    """
    if name in PREDICTORS:
        return PREDICTORS[name]
    accepted = f"accepted are {', '.join(PREDICTORS)}, or the dotted path of a function, e.g. my_predictors.upper_half"
    if "." not in name:
        raise ConfigError(f"{key}: {name!r} is unknown{did_you_mean(name, PREDICTORS)}; {accepted}")
    try:
        function = pkgutil.resolve_name(name)
    except Exception as error:  # whatever a module of the user's raises
        raise ConfigError(f"{key}: {name!r} cannot be imported ({type(error).__name__}: {error}); {accepted}") from error
    _check_function(name, key, function)
    first = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
    return Predictor(first or f"the function {name}.", lambda reading: _finite_number(function(reading.probabilities, reading.values)))


def _check_function(name: str, key: str, function: Any) -> None:
    import numpy as np

    must = "must take (probabilities [Y], values [Y]) and return a number of points, or None where it fails"
    try:
        found = function(np.asarray([0.1, 0.2, 0.3]), np.asarray([1.0, 2.0, 3.0]))
        _finite_number(found)
    except Exception as error:  # whatever a function of the user's raises
        raise ConfigError(f"{key}: {name} {must}; on three scores it raised {type(error).__name__}: {error}") from error


def _finite_number(found: Any) -> float | None:
    """What a function of the user's returned; a number that is not finite is a failure."""
    if found is None:
        return None
    number = float(found)
    return number if number - number == 0 else None
