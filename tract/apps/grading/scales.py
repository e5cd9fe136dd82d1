"""Which scale a score is on: known from the labels of its distribution; scores on different scales are not averaged or subtracted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Ascending scores, in points.
Scale = tuple[float, ...]


def scale_of(labels: Iterable[str]) -> Scale | None:
    """The scale of a distribution's labels, in any order; None where they are no two different numbers."""
    try:
        values = {float(label) for label in labels}
    except ValueError:
        return None
    return tuple(sorted(values)) if len(values) > 1 else None


def normalized(score: float, scale: Scale) -> float:
    """A score in points as (score - lowest) / (highest - lowest)."""
    return (score - scale[0]) / (scale[-1] - scale[0])


def shown_scale(scale: Sequence[float | str]) -> str:
    """A scale for people: "1 to 10" for whole numbers without a gap, else each score."""
    values = [float(value) for value in scale]
    if len(values) > 3 and all(value.is_integer() for value in values) and values == [values[0] + k for k in range(len(values))]:
        return f"{values[0]:g} to {values[-1]:g}"
    labels = [f"{value:g}" for value in values]
    return ", ".join(labels if len(labels) <= 12 else [*labels[:6], "...", *labels[-3:]])


def shown_scales(scales: Sequence[Scale]) -> str:
    """Several scales for people, the first three of them."""
    if not scales:
        return "scale not known"
    rest = f" and {len(scales) - 3} more" if len(scales) > 3 else ""
    return "; ".join(shown_scale(scale) for scale in scales[:3]) + rest
