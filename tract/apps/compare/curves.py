"""Variants that differ in one number alone: points of a curve. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tract.artifacts.variants import NAMES, Variant, as_text, differing_keys, is_number, labels_of


@dataclass(frozen=True)
class Line:
    """Variants that differ in nothing but the curve's key.

    Attributes:
        label: tells this line from the others of its curve; empty where it is the only one. points: (value, label of the variant).
    """

    label: str
    points: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Curve:
    """What happens along one key. ``key``: dotted. ``lines``: at least one, of at least two points, by ascending values."""

    key: str
    lines: tuple[Line, ...]


def curves_of(variants: Sequence[Variant]) -> tuple[Curve, ...]:
    """A curve for each key that is a number and differs alone between at least two variants; what runs are called does not count."""
    curves = []
    for key in differing_keys([variant.settings for variant in variants]):
        groups: dict[str, dict[float, Variant]] = {}
        for variant in variants:
            if is_number(variant.settings.get(key)):
                rest = {name: value for name, value in variant.settings.items() if name != key and name not in NAMES}
                groups.setdefault(as_text(rest), {}).setdefault(float(variant.settings[key]), variant)
        lines = [points for points in groups.values() if len(points) > 1]
        if lines:
            curves.append(Curve(key, tuple(_lines(key, lines))))
    return tuple(curves)


def _lines(key: str, groups: Sequence[dict[float, Variant]]) -> list[Line]:
    rests = [{name: value for name, value in next(iter(points.values())).settings.items() if name != key} for points in groups]
    labels = labels_of(rests) if len(groups) > 1 else [""]
    return [
        Line(label, tuple((value, points[value].label) for value in sorted(points))) for label, points in zip(labels, groups, strict=True)
    ]
