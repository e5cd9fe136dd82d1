"""How a model's sequences go through it: packed and from a live cache where that is exact, else each as a row of its own.

Found on a small copy of the architecture in float32 before weights or data are read (``examine``), and looked at again on the weights
when they are loaded (``check_loaded``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tract.common.errors import ConfigError
from tract.inference.hf.exactness import generate_difference, live_difference
from tract.inference.hf.rows import without_cache
from tract.models.exactness import SMALL_TOLERANCE, alone_logits, looks_ahead, packing_difference
from tract.models.packed_forward import exact_attention, use_rows
from tract.models.small_model import NoSmallCopyError, small_copy
from tract.models.tree_attention import TREE

log = logging.getLogger(__name__)

# In nats: what rounding makes where a cut at a quantile decides (Gemma 3n) is 20 times less, what later tokens make 4 times more.
_AHEAD = 5e-3
_DRAWS = 4
# Standard deviation of the logits of a small copy that tells something.
_LEAST_SPREAD = 0.3

# A difference in nats, and what went wrong while it was measured.
Measured = tuple[float, str]


@dataclass(frozen=True)
class SequencePath:
    """How the sequences of an architecture go through it.

    Attributes:
        kind: the model's class.
        packed: whether trees of sequences are packed into one row, in training and where scores are read.
        live: whether a live cache that shares prompts is exact; CoTs are sampled from it where packed rows are exact too.
        cached: elsewhere, whether ``generate`` may use the model's own cache.
        because: what differs elsewhere; empty where nothing does.
    """

    kind: str
    packed: bool
    live: bool
    cached: bool = True
    because: str = ""

    @property
    def judges_packed(self) -> bool:
        """Whether a judge samples from the live cache and reads packed rows; it does both or neither."""
        return self.packed and self.live

    def __str__(self) -> str:
        if self.judges_packed:
            return f"{self.kind}: packed rows, CoTs from a live cache (exact)"
        training = "packed rows" if self.packed else "each sequence is a row of its own"
        sampling = f"transformers' generate{'' if self.cached else ', without its cache'}"
        return f"{self.kind}: {training}, CoTs from {sampling} ({self.because})"


def examine(config: Any, attention: str | None = None, *, trust_remote_code: bool = False) -> SequencePath | None:
    """The path of an architecture, found on a small copy; None where none can be made, so that only the weights can tell.

    Args:
        config: of transformers. attention: ``attn_implementation`` that is asked for; None for the tree's.
        trust_remote_code: whether code may run that comes with the configuration.

    Raises:
        ConfigError: if the model cannot be trained or sampled from as a judge.
    """

    def copied(name: str | None) -> nn.Module:
        return small_copy(config, name, trust_remote_code=trust_remote_code)

    try:
        reference = copied(exact_attention(config))
    except NoSmallCopyError as error:
        log.debug("no small copy of %s: %s", getattr(config, "model_type", "?"), error)
        return None
    kind = type(reference).__name__
    ahead = measured(lambda: looks_ahead(reference))
    if ahead[0] > _AHEAD:
        raise not_causal(kind, *ahead)
    alone = alone_logits(reference)
    if torch.cat(alone).std() < _LEAST_SPREAD:
        log.debug("the small copy of %s says nothing: its logits hardly differ", kind)
        return None
    (packed, why), (live, why_live) = _tree(copied, alone)
    if attention not in (None, TREE):
        try:
            masked = copied(attention)
        except NoSmallCopyError as error:
            raise ConfigError(f"model.attn_implementation: {attention} cannot be used with {kind} ({error}); set it to tree") from error
        packed, why = measured(lambda: packing_difference(masked, alone))
    if max(packed, live) <= SMALL_TOLERANCE:
        return SequencePath(kind, packed=True, live=True)
    reason = because(packed, why) if packed > SMALL_TOLERANCE else because(live, why_live, "in the live cache")
    use_rows(reference)
    # Several draws: where keys are chosen by rank (sparse attention), only some have equals that fall otherwise in a longer row.
    rows, trouble = measured(lambda: max(packing_difference(reference, draw=draw) for draw in range(_DRAWS)))
    if rows > SMALL_TOLERANCE:
        raise not_by_rows(kind, rows, trouble)
    cached = generates(reference, alone, SMALL_TOLERANCE)
    return SequencePath(kind, packed <= SMALL_TOLERANCE, live <= SMALL_TOLERANCE, cached, reason)


def generates(model: nn.Module, alone: list[Tensor], most: float) -> bool:
    """Whether transformers' ``generate`` gives what each sequence gives alone with the model's own cache; if not, it is left out.

    Args:
        model: that takes rows. alone: ``alone_logits`` of it. most: the largest difference that is rounding.

    Raises:
        ConfigError: if neither way does.
    """
    cached, trouble = measured(lambda: generate_difference(model, alone))
    if cached <= most:
        return True
    log.debug("generate with the model's own cache: %g, %s", cached, trouble)
    without_cache(model)
    plain, trouble = measured(lambda: generate_difference(model, alone))
    if plain > most:
        found = trouble or f"log-probabilities differ by {plain:.2g} nats"
        raise ConfigError(
            f"model.name_or_path: {type(model).__name__} cannot be sampled from by generate of transformers ({found}); choose another model"
        )
    return False


def _tree(copied: Callable[[str | None], nn.Module], alone: list[Tensor]) -> tuple[Measured, Measured]:
    """What packed rows and the live cache differ by, with the attention of ``tract.models.tree_attention``."""
    try:
        model = copied(TREE)
    except NoSmallCopyError as error:
        return (torch.inf, str(error)), (torch.inf, str(error))
    return measured(lambda: packing_difference(model, alone)), measured(lambda: live_difference(model, alone))


def not_causal(kind: str, difference: float, trouble: str) -> ConfigError:
    """What to say of a model that cannot write: it cannot be called with text alone, or its tokens see later ones."""
    found = f"{kind} cannot be called with text alone ({trouble})"
    if not trouble:
        found = f"in {kind} tokens see later ones, which moves log-probabilities by {difference:.2g} nats"
    return ConfigError(f"model.name_or_path: {found}; choose a causal language model")


def not_by_rows(kind: str, difference: float, trouble: str) -> ConfigError:
    """What to say of a model in which the others of a batch change a sequence."""
    found = trouble or f"by {difference:.2g} nats"
    return ConfigError(
        f"model.name_or_path: {kind} gives a sequence other log-probabilities beside longer ones than alone ({found}), so neither training "
        "nor scores would be exact; choose another model"
    )


def measured(difference: Callable[[], float]) -> Measured:
    """A difference, or why it cannot be measured; then it is infinite."""
    try:
        return difference(), ""
    except torch.OutOfMemoryError:
        raise
    except NoSmallCopyError as error:
        return torch.inf, str(error)
    except Exception as error:  # whatever a class makes of a call that it was not written for
        return torch.inf, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def because(difference: float, trouble: str, where: str = "packed") -> str:
    """Why sequences are not packed, or not sampled together."""
    if trouble:
        log.debug("packed rows: %s", trouble)
        return "its layers do not take packed rows"
    return f"{where}, log-probabilities differ by {difference:.2g} nats from those of each sequence alone"
